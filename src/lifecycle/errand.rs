//! What a certificate is asked for, how patiently, and what is held meanwhile.

use crate::signer::Purpose;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
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

/// A new volume that has been let into the store, until it is written or has failed.
pub(super) struct Admitted<'a> {
    all: &'a AtomicUsize,
    /// How many there are, this one included.
    pub(super) count: usize,
}

impl<'a> Admitted<'a> {
    pub(super) fn one_more(all: &'a AtomicUsize) -> Self {
        Self { all, count: all.fetch_add(1, Ordering::Relaxed) + 1 }
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        self.all.fetch_sub(1, Ordering::Relaxed);
    }
}
