//! Deletes CertificateRequests that are no longer needed: best effort, retried while the process lives.

use super::api::Key;
use super::tracker::RequestTracker;
use crate::kube::{CallError, Caller, Cluster};
use crate::model::jitter;
use crate::platform::Backoff;
use kube::api::DeleteParams;
use parking_lot::Mutex;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Deletes in the background.
pub(super) struct Deletions {
    cluster: Cluster,
    tracker: Arc<RequestTracker>,
    /// Requests whose deletion has begun and not ended. Only keys of requests that were tracked are added, so the tracker's limits
    /// hold for it.
    pending: Mutex<HashSet<Key>>,
    permits: Semaphore,
}

/// Deletions in flight. Few: a burst of renewals deletes as many requests as it creates, and pods wait only for creates.
const MAX_IN_FLIGHT: usize = 2;
const MAX_PAUSE: Duration = Duration::from_mins(5);
const BACKOFF: Backoff = Backoff::new(Duration::from_secs(1), MAX_PAUSE);

impl Deletions {
    pub(super) fn new(cluster: Cluster, tracker: Arc<RequestTracker>) -> Arc<Self> {
        let (pending, permits) = (Mutex::default(), Semaphore::new(MAX_IN_FLIGHT));
        Arc::new(Self { cluster, tracker, pending, permits })
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

    /// Tries until the request is gone.
    async fn delete(&self, key: &Key) {
        for failures in 0.. {
            let Err(error) = self.try_delete(key).await else { return self.tracker.lost(key) };
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
        let _permit = self.permits.acquire().await;
        let delete = key.collection().delete(&key.name, &DeleteParams::background());
        match self.cluster.call(Caller::Driver, delete).await {
            Err(CallError::Refused { code: 404, .. }) => Ok(()),
            result => result.map(drop),
        }
    }
}
