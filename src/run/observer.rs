//! Counts every call of the Kubernetes API, and delays it to a client-side rate if the operator sets one.

use super::notices::Notices;
use crate::kube::ApiObserver;
use crate::platform::TokenBucket;
use crate::telemetry::Metrics;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::time::Instant;

/// A client-side rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateLimit {
    /// Calls per second on average.
    pub qps: f64,
    /// Number of calls that may be made at once.
    pub burst: f64,
}

/// Counts calls, and delays them to the rate if there is one.
pub(super) struct CallObserver {
    metrics: Arc<Metrics>,
    limit: Option<Mutex<TokenBucket>>,
    started: Instant,
    notices: Arc<Notices>,
}

impl CallObserver {
    pub(super) fn new(metrics: Arc<Metrics>, limit: Option<RateLimit>, notices: Arc<Notices>) -> Self {
        let bucket = |limit: RateLimit| Mutex::new(TokenBucket::new(limit.qps, limit.burst));
        Self { metrics, limit: limit.map(bucket), started: Instant::now(), notices }
    }
}

/// A token that was taken in advance. It is given back if its call is dropped before it was made.
struct Reservation<'a> {
    bucket: &'a Mutex<TokenBucket>,
    is_used: bool,
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if !self.is_used {
            self.bucket.lock().put_back();
        }
    }
}

impl ApiObserver for CallObserver {
    fn admit(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let Some(bucket) = &self.limit else { return };
            let pause = bucket.lock().reserve(self.started.elapsed());
            if pause.is_zero() {
                return;
            }
            let mut reservation = Reservation { bucket, is_used: false };
            tokio::time::sleep(pause).await;
            reservation.is_used = true;
        })
    }

    fn api_call(&self, verb: &'static str, code: u16) {
        self.metrics.api_call(verb, code);
    }

    fn watch_restarted(&self) {
        self.metrics.watch_restarted();
    }

    fn requests_tracked(&self, tracked: usize, ignored: u64) {
        self.metrics.requests_tracked(tracked, ignored);
    }

    fn approved_unchecked(&self) {
        self.metrics.approved_unchecked();
        self.notices.approved_unchecked();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn calls_come_at_the_rate_and_callers_that_give_up_cost_the_others_nothing() {
        let limit = RateLimit { qps: 1.0, burst: 1.0 };
        let observer = CallObserver::new(Arc::default(), Some(limit), Arc::default());
        let begun = Instant::now();
        for _ in 0..3 {
            observer.admit().await;
        }
        assert_eq!(begun.elapsed().as_secs(), 2);
        for _ in 0..20 {
            assert!(tokio::time::timeout(Duration::from_millis(1), observer.admit()).await.is_err());
        }
        let begun = Instant::now();
        observer.admit().await;
        assert!(begun.elapsed() <= Duration::from_secs(1), "{:?}", begun.elapsed());
    }
}
