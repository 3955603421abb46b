//! How many renewals run at a time, and how many of them wait for a slow signer.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// After this a renewal gives up its active slot, so that a slow signer cannot block others.
const SLOW_AFTER: Duration = Duration::from_secs(5);

/// Active slots, and four times as many waiting slots. Waiting renewals have a limit too, because they make calls to the
/// API server or AWS.
#[derive(Clone, Debug)]
pub(crate) struct RenewalSlots {
    active: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

/// A slot, released when dropped.
#[derive(Debug)]
pub(crate) struct RenewalSlot {
    permit: OwnedSemaphorePermit,
    waiting: Arc<Semaphore>,
}

impl RenewalSlots {
    /// Slots, `active` of them active.
    pub(crate) fn new(active: usize) -> Self {
        Self { active: Arc::new(Semaphore::new(active)), waiting: Arc::new(Semaphore::new(4 * active)) }
    }

    /// Waits for an active slot. Cancel-safe.
    pub(crate) async fn acquire(&self) -> RenewalSlot {
        loop {
            // The semaphore is never closed.
            if let Ok(permit) = Arc::clone(&self.active).acquire_owned().await {
                return RenewalSlot { permit, waiting: Arc::clone(&self.waiting) };
            }
        }
    }
}

impl RenewalSlot {
    /// Runs `work` in the slot. After [`SLOW_AFTER`] it moves from the active slot to a waiting slot, as soon as one is
    /// free.
    pub(crate) async fn run<T>(mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        let moved = async {
            tokio::time::sleep(SLOW_AFTER).await;
            Arc::clone(&self.waiting).acquire_owned().await
        };
        tokio::select! {
            done = &mut work => return done,
            moved = moved => if let Ok(moved) = moved { self.permit = moved },
        }
        let done = work.await;
        drop(self.permit);
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn slow_renewals_free_their_active_slots_while_there_are_waiting_slots() {
        let slots =
            RenewalSlots { active: Arc::new(Semaphore::new(2)), waiting: Arc::new(Semaphore::new(1)) };
        let free = || (slots.active.available_permits(), slots.waiting.available_permits());
        let mut running = Vec::new();
        for _ in 0..2 {
            let slot = slots.acquire().await;
            running.push(tokio::spawn(slot.run(std::future::pending::<()>())));
        }
        tokio::time::sleep(SLOW_AFTER / 2).await;
        assert_eq!(free(), (0, 1));
        tokio::time::sleep(2 * SLOW_AFTER).await;
        assert_eq!(free(), (1, 0));
        for task in running {
            task.abort();
            assert!(task.await.unwrap_err().is_cancelled());
        }
        assert_eq!(free(), (2, 1));
    }
}
