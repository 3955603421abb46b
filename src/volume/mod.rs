//! A CSI volume's life on this node: publish, renew, unpublish, recover; locks and bind mounts.
//!
//! Each part has one duty:
//! [`registry`] is the one owner of what is known of a volume, its lock included; [`admission`] lets new volumes in;
//! [`publish`], [`remove`], [`renew`] and [`recover`] are the operations; [`issue`] is what publish and renewal share;
//! [`files`] is a volume on the file systems, [`mounts`] its bind mount, [`tmpfs`] the node's store; [`report`] tells
//! operators and authors.
//!
//! Every operation runs in a task of its own: a caller that goes away cancels the wait for the signer and nothing else, so
//! that files and mounts are never left half done.

mod admission;
mod files;
mod issue;
mod mount_error;
mod mount_table;
mod mounts;
mod publish;
mod recover;
mod registry;
mod remove;
mod renew;
mod report;
mod stats;
#[cfg(test)]
mod tests;
mod tmpfs;
#[expect(clippy::module_inception, reason = "the type that the module is named after")]
mod volume;

pub(crate) use files::VolumeFiles;
pub use mount_error::MountError;
pub use publish::PublishRequest;
pub use recover::Recovered;
pub(crate) use registry::Registry;
pub use stats::{Condition, VolumeStats};
pub use tmpfs::{Opened, StoreOptions};

use crate::credential::{Follower, Obtainer, RenewalSlots, Work, WorkQueue};
use crate::kube::EventRecorder;
use crate::model::{Failure, FailureKind, VolumeId};
use crate::platform::Clock;
use crate::signer::ConfiguredSigner;
use crate::telemetry::Metrics;
use crate::trust::TrustBundle;
use admission::Admission;
use issue::Issuance;
use publish::Publisher;
use remove::Remover;
use renew::Renewals;
use report::Reporter;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How much can go on at once.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Publishes that are issuing or writing; `--max-volumes-in-flight`.
    pub publishes: usize,
    /// Renewals, but for those that have waited a while for their signer; `--max-renewals-in-flight`.
    pub renewals: usize,
    /// How long a certificate is used at least; `--min-renewal-interval`.
    pub renewal_interval: Duration,
}

/// Everything that a [`VolumeService`] is made of.
pub(crate) struct Parts {
    /// Where volumes are.
    pub(crate) files: VolumeFiles,
    /// What is known of them.
    pub(crate) registry: Arc<Registry>,
    /// Who signs.
    pub(crate) signers: Vec<ConfiguredSigner>,
    /// Wall time.
    pub(crate) clock: Arc<dyn Clock>,
    /// What is counted.
    pub(crate) metrics: Arc<Metrics>,
    /// Tells the pods' authors; none without a cluster.
    pub(crate) events: Option<EventRecorder>,
    /// How much can go on at once.
    pub(crate) limits: Limits,
    /// Whether a volume is mounted empty while its pod is not ready to have a certificate requested.
    pub(crate) continue_on_not_ready: bool,
}

/// The volumes of this node. Cheap to clone: every clone is the same node.
#[derive(Clone)]
pub struct VolumeService {
    registry: Arc<Registry>,
    files: VolumeFiles,
    queue: Arc<WorkQueue>,
    clock: Arc<dyn Clock>,
    publisher: Arc<Publisher>,
    remover: Arc<Remover>,
    renewals: Arc<Renewals>,
    shutdown: CancellationToken,
}

impl VolumeService {
    /// Puts the parts together. Nothing happens before [`Self::recover`] and [`Self::run`].
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { files, registry, signers, clock, metrics, events, limits, continue_on_not_ready } = parts;
        let queue = Arc::new(WorkQueue::new(Arc::clone(&clock)));
        let shutdown = CancellationToken::new();
        let issuance = Arc::new(Issuance {
            obtainer: Obtainer::new(signers, Arc::clone(files.store()), Arc::clone(&clock)),
            queue: Arc::clone(&queue),
            admission: Admission::new(limits.publishes, Arc::clone(files.store())),
            reporter: Reporter::new(metrics, events, Arc::clone(&registry)),
            clock: Arc::clone(&clock),
            renewal_interval: limits.renewal_interval,
            files: files.clone(),
        });
        let remover = Arc::new(Remover {
            registry: Arc::clone(&registry),
            files: files.clone(),
            issuance: Arc::clone(&issuance),
        });
        let publisher = Arc::new(Publisher {
            registry: Arc::clone(&registry),
            files: files.clone(),
            queue: Arc::clone(&queue),
            clock: Arc::clone(&clock),
            issuance: Arc::clone(&issuance),
            remover: Arc::clone(&remover),
            continue_on_not_ready,
            shutdown: shutdown.clone(),
        });
        let renewals = Arc::new(Renewals::new(
            Arc::clone(&remover),
            Arc::clone(&queue),
            Arc::clone(&clock),
            RenewalSlots::new(limits.renewals),
            shutdown.clone(),
        ));
        Self { registry, files, queue, clock, publisher, remover, renewals, shutdown }
    }

    /// Runs what falls due until shutdown.
    pub async fn run(&self) {
        self.renewals.run().await;
    }

    /// Whether work that falls due is started. A queue that is behind because all slots are taken by renewals that wait for
    /// their signer counts as running, as long as a slot becomes free now and then.
    pub fn is_running(&self) -> bool {
        self.renewals.is_running()
    }

    /// Follows a volume's credential and trust bundle, from the current ones on; the first value is there at once, or with
    /// the first issuance. Where the credential is not in memory it is read back from the store.
    pub async fn follow(&self, id: &VolumeId) -> Result<Follower, Failure> {
        let volume = self.volume(id)?;
        let id = volume.id.clone();
        self.files.run(&id, move |files| volume.live.follow(|| files.current(&volume))).await
    }

    /// Hands over a new trust bundle with the credential in use, soon and without an issuance.
    pub fn set_trust(&self, id: &VolumeId, trust: TrustBundle) -> Result<(), Failure> {
        let volume = self.volume(id)?;
        volume.set_trust(Arc::new(trust));
        self.queue.put_now(&volume.schedule, Work::RefreshTrust);
        Ok(())
    }

    /// Stops starting new work. What is in flight gets `grace` to end by itself, then is cancelled and waited for. Mounts
    /// stay as they are.
    pub async fn shut_down(&self, grace: Duration) {
        self.shutdown.cancel();
        if tokio::time::timeout(grace, self.idle()).await.is_err() {
            tracing::warn!(
                in_flight = self.registry.in_flight(),
                "the grace period is over; cancelling what is in flight"
            );
            self.registry.cancel_all();
            // Cancelled work ends at once; a stuck disk must not keep the process for ever.
            let _ended = tokio::time::timeout(Duration::from_secs(2), self.idle()).await;
        }
    }

    /// Returns when no volume is being worked on.
    async fn idle(&self) {
        // Polling, because it happens only while the process ends.
        while self.registry.in_flight() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn volume(&self, id: &VolumeId) -> Result<Arc<volume::Volume>, Failure> {
        self.registry.get(id).ok_or_else(|| not_found(id))
    }
}

fn not_found(id: &VolumeId) -> Failure {
    Failure::new(FailureKind::NotFound, format!("volume {id} is not known on this node"))
}
