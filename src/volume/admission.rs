//! Admits issuances: a limited number of publishes at a time, and only while the store has space for them.

use super::volume::Volume;
use crate::model::{Failure, FailureKind};
use crate::store::{Promise, Record, Size, Store, StoreError, VOLUME_INODES, Want};
use std::sync::Arc;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Size of a usual new volume: its files and a small record, each rounded up to whole pages.
const USUAL_VOLUME: Size = Size { bytes: 40 * 1024, inodes: VOLUME_INODES };

/// What a renewal keeps at most of a signing that is under way, twice while it is replaced: key, signing request and checkpoint.
const CHECKPOINT: Size = Size { bytes: 16 * 1024, inodes: 2 };

/// Admission of issuances.
pub(super) struct Admission {
    limit: usize,
    slots: Semaphore,
    store: Arc<Store>,
}

impl Admission {
    /// At most `limit` publishes at a time (`--max-volumes-in-flight`).
    pub(super) fn new(limit: usize, store: Arc<Store>) -> Self {
        Self { limit, slots: Semaphore::new(limit), store }
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

    /// Admits an issuance where the store has space for it and for all that were admitted before it: before the signer is
    /// asked, and so before the size of its answer is known. A renewal counts as one of the same size as before.
    pub(super) fn admit<'a>(&self, volume: &'a Volume, record: &Record) -> Result<Promise<'a>, StoreError> {
        // The record holds what the pod's author wrote; the request holds it once more.
        let written = Size { bytes: 2 * record.encoded_len() as u64, inodes: 0 };
        let held = volume.account.held();
        let want = if record.issued.is_none() {
            let new = USUAL_VOLUME.plus(written);
            Want { is_renewal: false, after: new, extra: new }
        } else {
            Want { is_renewal: true, after: held, extra: held.plus(CHECKPOINT).plus(written) }
        };
        volume.account.promise(&self.store.capacity()?, &want)
    }
}
