//! When a call to the API server may be made: a fixed number in flight, and none before the server's `Retry-After`
//! (RFC 9110 section 10.2.3) has passed.

use crate::model::{Failure, FailureKind};
use crate::platform::{FairPermit, FairSemaphore};
use jiff::Timestamp;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Limits the creates and gets of this signer.
#[derive(Debug)]
pub(super) struct CallLimiter {
    permits: Arc<FairSemaphore>,
    retry_at: Mutex<Option<Instant>>,
}

/// Signings whose calls are in flight. Each call has an HTTP/1.1 connection of its own, so this also limits how many
/// connections a burst opens.
const MAX_IN_FLIGHT: usize = 16;
/// How many of them one namespace may have: its answers can be large, and slow.
const MAX_IN_FLIGHT_PER_NAMESPACE: usize = MAX_IN_FLIGHT / 4 * 3;
/// Cap on the server's Retry-After.
const MAX_RETRY_AFTER: Duration = Duration::from_mins(5);
/// A longer delay is an error: the kubelet and the renewal queue retry by themselves.
const MAX_DELAY: Duration = Duration::from_secs(5);

impl Default for CallLimiter {
    fn default() -> Self {
        let permits = FairSemaphore::with_limit_per_namespace(MAX_IN_FLIGHT, MAX_IN_FLIGHT_PER_NAMESPACE);
        Self { permits, retry_at: Mutex::default() }
    }
}

impl CallLimiter {
    /// Waits for a permit, and then for the end of a short Retry-After; an error if it is long. Namespaces are served one
    /// after the other, and the callers of one by `needed_by`: the permit is kept during the Retry-After.
    pub(super) async fn acquire(&self, namespace: &str, needed_by: Timestamp) -> Result<FairPermit, Failure> {
        let permit = self.permits.acquire(namespace, needed_by).await;
        loop {
            let delay = self.delay();
            if delay.is_zero() {
                return Ok(permit);
            }
            if delay > MAX_DELAY {
                let message = format!("the API server asks for no calls for {} s more", delay.as_secs() + 1);
                return Err(Failure::throttled(message, Some(delay)));
            }
            tokio::time::sleep(delay).await;
        }
    }

    /// Delays later calls if the failure has a Retry-After that concerns the whole server.
    pub(super) fn record(&self, failure: &Failure) {
        if let Failure { kind: FailureKind::Throttled, retry_after: Some(delay), .. } = failure {
            let end = Instant::now() + (*delay).min(MAX_RETRY_AFTER);
            let mut retry_at = self.retry_at.lock();
            *retry_at = (*retry_at).max(Some(end));
        }
    }

    fn delay(&self) -> Duration {
        self.retry_at.lock().map_or(Duration::ZERO, |end| end.saturating_duration_since(Instant::now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test(start_paused = true)]
    async fn callers_are_served_in_the_order_of_their_arrival() {
        let limiter = Arc::new(CallLimiter::default());
        let served = Arc::new(Mutex::new(Vec::new()));
        limiter.record(&Failure::throttled("slow", Some(Duration::from_secs(3))));
        let callers: Vec<_> = (0..3 * MAX_IN_FLIGHT)
            .map(|n| {
                let (limiter, served) = (Arc::clone(&limiter), Arc::clone(&served));
                tokio::spawn(async move {
                    let _permit = limiter.acquire("shop", Timestamp::MIN).await.unwrap();
                    served.lock().push(n / MAX_IN_FLIGHT);
                    tokio::time::sleep(Duration::from_secs(1)).await;
                })
            })
            .collect();
        for caller in callers {
            caller.await.unwrap();
        }
        assert!(served.lock().is_sorted(), "{served:?}");
    }

    #[tokio::test]
    async fn a_namespace_whose_calls_are_not_answered_leaves_permits_for_others() {
        let limiter = CallLimiter::default();
        let acquire = |namespace| Box::pin(limiter.acquire(namespace, Timestamp::MIN)).now_or_never();
        let held: Vec<_> = std::iter::from_fn(|| acquire("hostile")).collect();
        assert_eq!(held.len(), 12);
        acquire("innocent").unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_retry_after_is_capped_and_reported_instead_of_waited_for() {
        let limiter = CallLimiter::default();
        limiter.record(&Failure::throttled("slow", Some(Duration::from_hours(1))));
        let failure = limiter.acquire("shop", Timestamp::MIN).now_or_never().unwrap().unwrap_err();
        assert_eq!((failure.kind, failure.retry_after), (FailureKind::Throttled, Some(MAX_RETRY_AFTER)));
    }
}
