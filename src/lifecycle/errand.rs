//! What a certificate is asked for, how patiently, and what is held meanwhile.

use crate::signer::Purpose;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

/// A signer that takes longer has nothing more of this driver's to wait for.
const MAKES_ROOM: Duration = Duration::from_secs(5);

/// One asking.
pub(super) struct Errand {
    pub(super) purpose: Purpose,
    /// How long the signer gets; none: as long as it takes.
    pub(super) patience: Option<Duration>,
    /// The place among the renewals that are under way. A publish has none.
    pub(super) place: Option<OwnedSemaphorePermit>,
}

impl Errand {
    /// Waits for the signer, and gives the place up while that goes on for longer: what waits for one signer shall not keep
    /// the renewals of others waiting.
    pub(super) async fn wait_for<T>(&mut self, signer: impl Future<Output = T>) -> T {
        let mut signer = pin!(signer);
        tokio::select! {
            answer = &mut signer => return answer,
            () = tokio::time::sleep(MAKES_ROOM) => self.place = None,
        }
        signer.await
    }
}

/// New volumes that are on their way into the store.
#[derive(Default)]
pub(super) struct Arrivals {
    count: AtomicU64,
    bytes: AtomicU64,
}

impl Arrivals {
    /// One more, of at most so many bytes. It is one of them until what is returned goes; with that, how many there are, and
    /// of how many bytes.
    pub(super) fn one_more(&self, bytes: u64) -> (Arrival<'_>, u64, u64) {
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let all = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        (Arrival { all: self, bytes }, count, all)
    }
}

/// A new volume, until it is written or has failed.
pub(super) struct Arrival<'a> {
    all: &'a Arrivals,
    bytes: u64,
}

impl Drop for Arrival<'_> {
    fn drop(&mut self) {
        self.all.count.fetch_sub(1, Ordering::Relaxed);
        self.all.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
