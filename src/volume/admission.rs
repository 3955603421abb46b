//! Admits new volumes: a limited number of publishes at a time, and only while the store has space for them.

use crate::model::{Failure, FailureKind};
use crate::store::{Store, StoreError};
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Bytes of a usual volume: its files and a small record, each rounded up to whole pages.
const USUAL_VOLUME: usize = 40 * 1024;

/// Admission of publishes.
pub(super) struct Admission {
    limit: usize,
    slots: Semaphore,
    store: Arc<Store>,
    arrivals: Mutex<Arrivals>,
}

/// New volumes that are admitted and not written yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Arrivals {
    count: u64,
    bytes: u64,
}

/// A new volume, until it is written or has failed.
pub(super) struct Arrival<'a> {
    arrivals: &'a Mutex<Arrivals>,
    bytes: u64,
}

impl Admission {
    /// At most `limit` publishes at a time (`--max-volumes-in-flight`).
    pub(super) fn new(limit: usize, store: Arc<Store>) -> Self {
        Self { limit, slots: Semaphore::new(limit), store, arrivals: Mutex::default() }
    }

    /// A slot for one publish.
    pub(super) fn slot(&self) -> Result<SemaphorePermit<'_>, Failure> {
        self.slots.try_acquire().map_err(|_| {
            let message = format!(
                "{} publishes are under way on this node, as many as --max-volumes-in-flight allows; try again",
                self.limit
            );
            Failure::new(FailureKind::Full, message)
        })
    }

    /// Admits a new volume if the store has space for it and for all admitted volumes that are not written yet.
    /// `record_bytes` is the size of its record, which holds the author's attributes. It counts twice, because the signing
    /// request can hold them too.
    pub(super) fn admit(&self, record_bytes: usize) -> Result<Arrival<'_>, StoreError> {
        let bytes = u64::try_from(USUAL_VOLUME + 2 * record_bytes).unwrap_or(u64::MAX / 2);
        let arrival = Arrival::new(&self.arrivals, bytes);
        let Arrivals { count, bytes } = *self.arrivals.lock();
        self.store.admit(count, bytes)?;
        Ok(arrival)
    }
}

impl<'a> Arrival<'a> {
    fn new(arrivals: &'a Mutex<Arrivals>, bytes: u64) -> Self {
        let mut all = arrivals.lock();
        (all.count, all.bytes) = (all.count + 1, all.bytes.saturating_add(bytes));
        Self { arrivals, bytes }
    }
}

impl Drop for Arrival<'_> {
    fn drop(&mut self) {
        let mut all = self.arrivals.lock();
        (all.count, all.bytes) = (all.count.saturating_sub(1), all.bytes.saturating_sub(self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arrival_counts_until_it_is_written_or_has_failed() {
        let arrivals = Mutex::default();
        let first = Arrival::new(&arrivals, 10);
        let second = Arrival::new(&arrivals, 20);
        assert_eq!(*arrivals.lock(), Arrivals { count: 2, bytes: 30 });
        drop(first);
        assert_eq!(*arrivals.lock(), Arrivals { count: 1, bytes: 20 });
        drop(second);
        assert_eq!(*arrivals.lock(), Arrivals::default());
    }
}
