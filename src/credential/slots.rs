//! How many renewals run at a time, and how many of them wait for a slow signer.

use crate::platform::{FairPermit, FairSemaphore};
use jiff::Timestamp;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// After this a renewal gives up its active slot, so that a slow signer cannot block others.
const SLOW_AFTER: Duration = Duration::from_secs(5);

/// Active slots, and four times as many waiting slots. Waiting renewals have a limit too, because they make calls to the
/// API server or AWS. A quarter of both is not for a namespace that has the rest: its issuer may never answer.
#[derive(Clone, Debug)]
pub(crate) struct RenewalSlots {
    active: Arc<FairSemaphore>,
    waiting: Arc<FairSemaphore>,
    freed: Arc<Notify>,
}

/// A slot, released when dropped.
#[derive(Debug)]
pub(crate) struct RenewalSlot {
    active: Active,
    waiting: Arc<FairSemaphore>,
    namespace: Arc<str>,
}

/// An active slot. The fields are dropped in this order: the permit is free when the queue is told.
#[derive(Debug)]
struct Active {
    _permit: FairPermit,
    _freed: NotifyOnDrop,
}

#[derive(Debug)]
struct NotifyOnDrop(Arc<Notify>);

impl Drop for NotifyOnDrop {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

impl RenewalSlots {
    /// Slots, `active` of them active.
    pub(crate) fn new(active: usize) -> Self {
        Self::with(active, 4 * active)
    }

    fn with(active: usize, waiting: usize) -> Self {
        let [active, waiting] = [active, waiting]
            .map(|permits| FairSemaphore::with_limit_per_namespace(permits, permits - permits / 4));
        Self { active, waiting, freed: Arc::default() }
    }

    /// An active slot for this namespace, if there is one now.
    pub(super) fn try_acquire(&self, namespace: &str) -> Option<RenewalSlot> {
        let permit = self.active.try_acquire(namespace)?;
        let active = Active { _permit: permit, _freed: NotifyOnDrop(Arc::clone(&self.freed)) };
        Some(RenewalSlot { active, waiting: Arc::clone(&self.waiting), namespace: namespace.into() })
    }

    /// Returns when an active slot was released since the last call returned. One caller at a time. Cancel-safe.
    pub(super) async fn freed(&self) {
        self.freed.notified().await;
    }
}

impl RenewalSlot {
    /// Runs `work` in the slot. After [`SLOW_AFTER`] it moves from the active slot to a waiting slot, as soon as one is
    /// free.
    pub(crate) async fn run<T>(self, work: impl Future<Output = T>) -> T {
        let Self { active, waiting, namespace } = self;
        let mut work = pin!(work);
        let moved = async {
            tokio::time::sleep(SLOW_AFTER).await;
            waiting.acquire(&namespace, Timestamp::MIN).await
        };
        let _waiting = tokio::select! {
            done = &mut work => return done,
            moved = moved => moved,
        };
        drop(active);
        work.await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::task::JoinSet;

    fn run_for_ever(slots: &RenewalSlots, running: &mut JoinSet<()>, namespace: &str) -> bool {
        let Some(slot) = slots.try_acquire(namespace) else { return false };
        running.spawn(slot.run(std::future::pending()));
        true
    }

    #[tokio::test(start_paused = true)]
    async fn slow_renewals_free_their_active_slots_while_there_are_waiting_slots() {
        let slots = RenewalSlots::with(2, 1);
        let free = || (slots.active.free(), slots.waiting.free());
        let mut running = JoinSet::new();
        assert!(run_for_ever(&slots, &mut running, "shop") && run_for_ever(&slots, &mut running, "shop"));
        assert!(slots.try_acquire("shop").is_none());
        tokio::time::sleep(SLOW_AFTER / 2).await;
        assert_eq!(free(), (0, 1));
        slots.freed().await;
        assert_eq!(free(), (1, 0));
        running.shutdown().await;
        assert_eq!(free(), (2, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_namespace_whose_issuer_never_answers_leaves_slots_of_both_kinds_to_others() {
        let slots = RenewalSlots::new(4);
        let mut running = JoinSet::new();
        for _ in 0..100 {
            while run_for_ever(&slots, &mut running, "hostile") {}
            tokio::time::sleep(SLOW_AFTER).await;
        }
        assert_eq!((slots.active.free(), slots.waiting.free()), (1, 4));
        for _ in 0..4 {
            assert!(run_for_ever(&slots, &mut running, "innocent"));
            tokio::time::sleep(2 * SLOW_AFTER).await;
        }
        assert_eq!((slots.active.free(), slots.waiting.free()), (1, 0));
    }
}
