//! How many publishes run at a time, and how many of each namespace wait.

use crate::model::{Failure, FailureKind};
use crate::platform::{FairPermit, FairSemaphore};
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// How long a publish waits for a slot, if its caller waits twice as long: the rest of its time is for the signer.
const MAX_WAIT: Duration = Duration::from_mins(1);

/// How many publishes of one namespace wait for a slot. Each keeps its attributes in memory, up to 64 KiB.
const MAX_WAITING_PER_NAMESPACE: usize = 64;

/// The slots for publishes (`--max-volumes-in-flight`).
pub(super) struct PublishSlots {
    limit: usize,
    slots: Arc<FairSemaphore>,
}

impl PublishSlots {
    /// So many slots. A quarter of them is not for a namespace that has the rest: its issuer may never answer.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, slots: FairSemaphore::with_limit_per_namespace(limit, limit - limit / 4) }
    }

    /// Waits for a slot, for half of the time that the caller has. Namespaces are served one after the other. Cancel-safe.
    pub(super) async fn acquire(
        &self,
        namespace: &str,
        needed_by: Timestamp,
        time: Duration,
    ) -> Result<FairPermit, Failure> {
        if self.slots.waiting(namespace) >= MAX_WAITING_PER_NAMESPACE {
            return Err(self.full());
        }
        let slot = timeout(MAX_WAIT.min(time / 2), self.slots.acquire(namespace, needed_by));
        slot.await.map_err(|_| self.full())
    }

    fn full(&self) -> Failure {
        let message = format!(
            "as many publishes are under way on this node, or in this namespace, as --max-volumes-in-flight={} allows; try again",
            self.limit
        );
        Failure::new(FailureKind::Full, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    const TIME: Duration = Duration::from_mins(2);

    #[tokio::test(start_paused = true)]
    async fn so_many_publishes_of_one_namespace_wait_and_those_of_others_besides() {
        let slots = PublishSlots::new(1);
        let acquire = |namespace| Box::pin(slots.acquire(namespace, Timestamp::MAX, TIME));
        let held = acquire("hostile").await.unwrap();
        let mut waiting: Vec<_> = (0..MAX_WAITING_PER_NAMESPACE).map(|_| acquire("hostile")).collect();
        assert!(waiting.iter_mut().all(|slot| slot.now_or_never().is_none()));
        let refused = acquire("hostile").now_or_never().unwrap().unwrap_err();
        assert_eq!(refused.kind, FailureKind::Full);
        let mut other = acquire("innocent");
        assert!((&mut other).now_or_never().is_none());
        drop((held, waiting));
        other.await.unwrap();
        acquire("hostile").now_or_never().unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_namespace_whose_issuer_never_answers_leaves_slots_for_others() {
        let slots = PublishSlots::new(8);
        let mut held = Vec::new();
        while let Some(slot) = Box::pin(slots.acquire("hostile", Timestamp::MAX, TIME)).now_or_never() {
            held.push(slot.unwrap());
        }
        assert_eq!(held.len(), 6);
        Box::pin(slots.acquire("innocent", Timestamp::MAX, TIME)).now_or_never().unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_publish_waits_for_half_of_its_time_and_a_minute_at_most() {
        let slots = PublishSlots::new(1);
        let _held = slots.acquire("shop", Timestamp::MAX, TIME).await.unwrap();
        for (seconds, waited) in [(10, 5), (120, 60), (u64::MAX, 60)] {
            let started = tokio::time::Instant::now();
            let refused = slots.acquire("shop", Timestamp::MAX, Duration::from_secs(seconds)).await;
            assert!(refused.unwrap_err().message.contains("--max-volumes-in-flight"));
            assert_eq!(started.elapsed().as_secs(), waited);
        }
    }
}
