//! What a certificate is asked for, how patiently, and what is held meanwhile.

use crate::signer::Purpose;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A signer that takes longer has nothing more of this driver's to wait for.
const MAKES_ROOM: Duration = Duration::from_secs(5);

/// One asking.
pub(super) struct Errand {
    pub(super) purpose: Purpose,
    /// How long the signer gets; none: as long as it takes.
    pub(super) patience: Option<Duration>,
    /// The place among the renewals that are under way. A publish has none.
    pub(super) place: Option<Place>,
}

/// A place among the renewals that are under way, or among those that wait beside them.
pub(super) struct Place {
    turn: OwnedSemaphorePermit,
    aside: Arc<Semaphore>,
}

impl Place {
    /// A turn, and where the seats are for those that wait.
    pub(super) fn new(turn: OwnedSemaphorePermit, aside: Arc<Semaphore>) -> Self {
        Self { turn, aside }
    }

    /// Takes a seat aside after a while, where one is free, and gives the turn to another.
    async fn step_aside(&mut self) {
        tokio::time::sleep(MAKES_ROOM).await;
        if let Ok(seat) = Arc::clone(&self.aside).acquire_owned().await {
            self.turn = seat;
        }
    }
}

impl Errand {
    /// Waits for the signer, and gives the turn up while that goes on for longer: what waits for one signer shall not keep
    /// the renewals of others waiting.
    pub(super) async fn wait_for<T>(&mut self, signer: impl Future<Output = T>) -> T {
        let mut signer = pin!(signer);
        if let Some(place) = &mut self.place {
            tokio::select! {
                answer = &mut signer => return answer,
                () = place.step_aside() => {}
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn renewals_that_wait_make_room_for_others_while_there_are_seats_aside() {
        let (turns, aside) = (Arc::new(Semaphore::new(2)), Arc::new(Semaphore::new(1)));
        let free = || (turns.available_permits(), aside.available_permits());
        let waiting = [(); 2].map(|()| {
            let place = Place::new(Arc::clone(&turns).try_acquire_owned().unwrap(), Arc::clone(&aside));
            let mut errand = Errand { purpose: Purpose::Renewal, patience: None, place: Some(place) };
            tokio::spawn(async move { errand.wait_for(std::future::pending::<()>()).await })
        });
        tokio::time::sleep(MAKES_ROOM / 2).await;
        assert_eq!(free(), (0, 1));
        tokio::time::sleep(2 * MAKES_ROOM).await;
        assert_eq!(free(), (1, 0));
        for errand in waiting {
            errand.abort();
            assert!(errand.await.unwrap_err().is_cancelled());
        }
        assert_eq!(free(), (2, 1));
    }
}
