//! Deletes CertificateRequests that are no longer needed: best effort, retried while the process lives.

use super::Following;
use super::api::Key;
use super::tracker::RequestTracker;
use crate::kube::{CallError, Caller, Cluster};
use crate::model::jitter;
use crate::platform::{Backoff, FairSemaphore};
use jiff::Timestamp;
use kube::api::DeleteParams;
use parking_lot::Mutex;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Deletes in the background.
pub(super) struct Deletions {
    cluster: Cluster,
    tracker: Arc<RequestTracker>,
    /// Requests whose deletion has begun and not ended. Only keys of requests that were tracked are added, so the tracker's limits
    /// hold for it.
    pending: Mutex<HashSet<Key>>,
    permits: Arc<FairSemaphore>,
    following: Following,
    /// Whether a refusal was logged.
    was_refused: AtomicBool,
}

/// Deletions in flight. Few: a burst of renewals deletes as many requests as it creates, and pods wait only for creates.
const MAX_IN_FLIGHT: usize = 2;
const MAX_PAUSE: Duration = Duration::from_mins(5);
const BACKOFF: Backoff = Backoff::new(Duration::from_secs(1), MAX_PAUSE);

impl Deletions {
    pub(super) fn new(cluster: Cluster, tracker: Arc<RequestTracker>, following: Following) -> Arc<Self> {
        let (pending, permits) = (Mutex::default(), FairSemaphore::new(MAX_IN_FLIGHT));
        let was_refused = AtomicBool::default();
        Arc::new(Self { cluster, tracker, pending, permits, following, was_refused })
    }

    /// Deletes these requests. A request whose deletion is pending is skipped: each issuance passes all older requests.
    pub(super) fn delete_all(self: &Arc<Self>, keys: impl IntoIterator<Item = Key>) {
        for key in keys {
            if self.pending.lock().insert(key.clone()) {
                let this = Arc::clone(self);
                tokio::spawn(async move {
                    this.delete(&key).await;
                    this.pending.lock().remove(&key);
                });
            }
        }
    }

    #[cfg(test)]
    pub(super) fn pending(&self) -> usize {
        self.pending.lock().len()
    }

    /// Tries until the request is gone. A pod's service account may be without the permission: then the garbage collector deletes the
    /// request with its owner, the pod.
    async fn delete(&self, key: &Key) {
        for failures in 0.. {
            let Err(error) = self.try_delete(key).await else { return self.tracker.lost(key) };
            if self.following == Following::Poll && matches!(error, CallError::Refused { code: 403, .. }) {
                if !self.was_refused.swap(true, Ordering::Relaxed) {
                    tracing::debug!(request = %key, %error, "old CertificateRequests stay as long as the pod");
                }
                // Forgotten, so that later issuances do not try again.
                return self.tracker.lost(key);
            }
            if failures == 0 {
                tracing::warn!(request = %key, %error, "a CertificateRequest that is no longer needed could not be deleted; trying again");
            } else {
                tracing::debug!(request = %key, %error, failures, "a CertificateRequest still cannot be deleted");
            }
            let pause = BACKOFF.pause(failures, jitter(&key.name, &failures.to_be_bytes()));
            tokio::time::sleep(pause + error.retry_after().unwrap_or_default().min(MAX_PAUSE)).await;
        }
    }

    /// Succeeds also if there is no such request.
    async fn try_delete(&self, key: &Key) -> Result<(), CallError> {
        // One namespace after the other, in the order of their arrival.
        let _permit = self.permits.acquire(&key.namespace, Timestamp::MIN).await;
        let delete = key.collection().delete(&key.name, &DeleteParams::background());
        match self.cluster.call(Caller::Driver, delete).await {
            Err(CallError::Refused { code: 404, .. }) => Ok(()),
            result => result.map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::testing::Uncounted;
    use crate::model::SignerKind;
    use crate::signer::{LiveRequests, Liveness, RequestId};
    use axum::Router;
    use axum::extract::Request;
    use tokio::net::TcpListener;

    struct NoRequests;

    impl LiveRequests for NoRequests {
        fn liveness(&self, _signer: SignerKind, _id: &RequestId, _namespace: &str) -> Liveness {
            Liveness::Unknown
        }
    }

    #[tokio::test]
    async fn deletions_of_one_namespace_delay_those_of_another_by_one() {
        let deleted = Arc::new(Mutex::new(Vec::new()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let cluster = Cluster::at(listener.local_addr().unwrap(), Arc::new(Uncounted));
        let recorded = Arc::clone(&deleted);
        let app = Router::new().fallback(async move |request: Request| {
            recorded.lock().push(request.uri().path().contains("/hostile/"));
            tokio::time::sleep(Duration::from_millis(20)).await;
            "{}"
        });
        tokio::spawn(async move { axum::serve(listener, app).await });
        let deletions = Deletions::new(cluster, RequestTracker::new(Arc::new(NoRequests)), Following::Watch);
        let key =
            |namespace: &str, n: usize| Key { namespace: namespace.to_owned(), name: format!("web-{n}") };
        deletions.delete_all((0..50).map(|n| key("hostile", n)));
        deletions.delete_all([key("innocent", 0)]);
        while deletions.pending() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let deleted = deleted.lock();
        assert_eq!(deleted.len(), 51);
        let innocent = deleted.iter().position(|is_hostile| !is_hostile).unwrap();
        assert!(innocent <= 2 * MAX_IN_FLIGHT, "{innocent} of the other namespace came before it");
    }
}
