//! Deleting requests nobody needs any more: best effort, a few at a time, tried again while the process lives.

use super::api::{CertificateRequest, Key};
use super::board::Board;
use crate::kube::{Caller, Cluster};
use kube::Resource;
use kube::api::DeleteParams;
use kube::core::Request;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};

/// Where keys go to be deleted.
#[derive(Clone)]
pub(super) struct Deletions(mpsc::UnboundedSender<(Key, u32)>);

/// Deletions at a time.
const AT_ONCE: usize = 8;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(5);

impl Deletions {
    /// Starts the task that deletes; it ends with the last of its clones.
    pub(super) fn start(cluster: Cluster, board: Board) -> Self {
        // Its length is bounded by the number of this node's requests: a key is only added for a request that exists.
        let (sender, mut keys) = mpsc::unbounded_channel::<(Key, u32)>();
        let weak = sender.downgrade();
        tokio::spawn(async move {
            let slots = Arc::new(Semaphore::new(AT_ONCE));
            while let Some((key, failures)) = keys.recv().await {
                let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
                let (cluster, board, weak) = (cluster.clone(), board.clone(), weak.clone());
                tokio::spawn(async move {
                    let done = delete(&cluster, &board, &key).await;
                    drop(slot);
                    if !done {
                        let pause = FIRST_PAUSE.saturating_mul(1 << failures.min(16)).min(LONGEST_PAUSE);
                        // Spread by the name's digits, so that what failed together does not come back together.
                        let spread = 0.5 + f64::from(key.name.bytes().fold(0_u8, u8::wrapping_add)) / 512.0;
                        tokio::time::sleep(pause.mul_f64(spread)).await;
                        if let Some(sender) = weak.upgrade() {
                            let _ending = sender.send((key, failures.saturating_add(1)));
                        }
                    }
                });
            }
        });
        Self(sender)
    }

    /// Has a request deleted.
    pub(super) fn add(&self, key: Key) {
        let _ending = self.0.send((key, 0));
    }
}

/// Whether there is nothing more to do about it.
async fn delete(cluster: &Cluster, board: &Board, key: &Key) -> bool {
    let requests = Request::new(CertificateRequest::url_path(&(), Some(&key.namespace)));
    match cluster.call(Caller::Driver, requests.delete(&key.name, &DeleteParams::background())).await {
        Ok(_) => {
            board.lost(key);
            true
        }
        Err(error) if error.code() == Some(404) => {
            board.lost(key);
            true
        }
        Err(error) => {
            tracing::warn!(request = %key, %error, "a CertificateRequest that is not needed any more could not be deleted; trying again");
            false
        }
    }
}
