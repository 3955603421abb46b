//! Deleting requests nobody needs any more: best effort, a few at a time, tried again while the process lives.

use super::api::{CertificateRequest, Key};
use super::board::Board;
use crate::kube::{CallError, Caller, Cluster};
use kube::Resource;
use kube::api::DeleteParams;
use kube::core::Request;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};

/// Where keys go to be deleted.
#[derive(Clone)]
pub(super) struct Deletions {
    queue: mpsc::UnboundedSender<Deletion>,
    under_way: UnderWay,
}

/// Deletions at a time.
const AT_ONCE: usize = 8;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(5);

impl Deletions {
    /// Starts the task that deletes; it ends with the last of its clones.
    pub(super) fn start(cluster: Cluster, board: Board) -> Self {
        // Its length is bounded by the number of this node's requests: a key is only added for a request that exists, and
        // is under way once.
        let (queue, mut deletions) = mpsc::unbounded_channel::<Deletion>();
        let weak = queue.downgrade();
        tokio::spawn(async move {
            let slots = Arc::new(Semaphore::new(AT_ONCE));
            while let Some(mut deletion) = deletions.recv().await {
                let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
                let (cluster, board, weak) = (cluster.clone(), board.clone(), weak.clone());
                tokio::spawn(async move {
                    let deleted = delete(&cluster, &board, &deletion.key).await;
                    drop(slot);
                    if let Err(error) = deleted {
                        tokio::time::sleep(deletion.failed(&error)).await;
                        if let Some(queue) = weak.upgrade() {
                            let _ending = queue.send(deletion);
                        }
                    }
                });
            }
        });
        Self { queue, under_way: UnderWay::default() }
    }

    /// Has a request deleted, unless that is under way: the same keys are handed over again at every issuance for as long
    /// as they cannot be deleted.
    pub(super) fn add(&self, key: Key) {
        if let Some(deletion) = self.under_way.begin(key) {
            let _ending = self.queue.send(deletion);
        }
    }

    /// How many requests are on their way out.
    #[cfg(test)]
    pub(super) fn under_way(&self) -> usize {
        self.under_way.lock().len()
    }
}

/// The keys whose deletion has begun and not ended. Every clone is the same.
#[derive(Clone, Default)]
struct UnderWay(Arc<Mutex<HashSet<Key>>>);

impl UnderWay {
    /// None: it has begun already.
    fn begin(&self, key: Key) -> Option<Deletion> {
        if !self.lock().insert(key.clone()) {
            return None;
        }
        Some(Deletion { key, failures: 0, under_way: self.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<Key>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One key on its way. However that ends, it is dropped then, and the key may be added again.
struct Deletion {
    key: Key,
    failures: u32,
    under_way: UnderWay,
}

impl Deletion {
    /// Counts a failure, and says how long to wait before the next try.
    fn failed(&mut self, error: &CallError) -> Duration {
        let key = &self.key;
        if self.failures == 0 {
            tracing::warn!(request = %key, %error, "a CertificateRequest that is not needed any more could not be deleted; trying again");
        } else {
            tracing::debug!(request = %key, %error, failures = self.failures, "a CertificateRequest still cannot be deleted");
        }
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(16)).min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        // Spread by the name's digits, so that what failed together does not come back together.
        let spread = 0.5 + f64::from(key.name.bytes().fold(0_u8, u8::wrapping_add)) / 512.0;
        pause.mul_f64(spread) + error.retry_after().unwrap_or_default().min(LONGEST_PAUSE)
    }
}

impl Drop for Deletion {
    fn drop(&mut self) {
        self.under_way.lock().remove(&self.key);
    }
}

/// Succeeds also where there was nothing to delete.
async fn delete(cluster: &Cluster, board: &Board, key: &Key) -> Result<(), CallError> {
    let requests = Request::new(CertificateRequest::url_path(&(), Some(&key.namespace)));
    match cluster.call(Caller::Driver, requests.delete(&key.name, &DeleteParams::background())).await {
        Err(error) if error.code() != Some(404) => Err(error),
        _ => {
            board.lost(key);
            Ok(())
        }
    }
}
