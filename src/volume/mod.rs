//! A CSI volume's life on this node: publish, renew, unpublish, recover; locks and bind mounts.
//!
//! Each part has one duty:
//! [`registry`] owns the state of each volume and its lock; [`admission`], [`publish_slots`] and [`volume_counts`] admit new
//! volumes; [`publish`], [`remove`], [`renew`] and [`recover`] are the operations, [`renew_now`] brings renewals forward; [`issue`] is the part that publish and renewal
//! share, [`applied`] is the spec that a volume's files are made by, and [`context`] holds what all of them use; [`files`] handles a volume's files, [`mounts`] its bind mount, [`targets`] says where a pod finds it, [`tmpfs`]
//! the node's store; [`report`] counts issuances and records Events.
//!
//! Every operation runs in a task of its own. A caller that goes away cancels the wait for the signer and nothing else, so that
//! files and mounts are never left half done.

mod admission;
mod applied;
mod context;
mod crls;
mod event_history;
mod federation;
mod files;
mod issue;
mod issuing_cas;
mod mount_error;
mod mount_table;
mod mounts;
mod publish;
mod publish_slots;
mod recover;
mod registry;
mod remove;
mod renew;
mod renew_now;
mod report;
mod request;
mod socket;
mod stats;
mod targets;
#[cfg(test)]
mod tests;
mod tmpfs;
mod trust;
#[expect(clippy::module_inception, reason = "the type that the module is named after")]
mod volume;
mod volume_counts;

pub(crate) use files::VolumeFiles;
pub use mount_error::MountError;
pub(crate) use publish::InUse;
pub(crate) use recover::Recovered;
pub(crate) use registry::Registry;
pub use renew_now::RenewTarget;
pub(crate) use report::EventSink;
pub(crate) use request::{PublishRequest, RefusedPublish, accepted_spec};
pub(crate) use tmpfs::Opened;
pub use tmpfs::StoreOptions;

use crate::attributes::OperatorDefaults;
use crate::credential::{Follower, Obtainer, Work, WorkQueue, offset_within};
use crate::model::{Failure, FailureKind, SignerKind, VolumeId};
use crate::platform::{Clock, until};
use crate::signer::{ConfiguredSigner, PodAddresses};
use crate::sink::Sockets;
use crate::store::{IssuedRecord, Record, ShareLimits, Shares};
use crate::telemetry::Metrics;
use crate::trust::{Crls, Pins, TrustBundle, TrustSources};
use admission::Admission;
use context::Context;
use issue::Issuance;
use issuing_cas::IssuingCas;
use jiff::Timestamp;
use publish::Publisher;
use publish_slots::PublishSlots;
use renew::Renewals;
use report::Reporter;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use volume_counts::VolumeCounts;

/// Limits on concurrent work.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Publishes that issue or write at the same time; `--max-volumes-in-flight`.
    pub publishes: usize,
    /// Active renewals. Those that wait for a slow signer do not count; `--max-renewals-in-flight`.
    pub renewals: usize,
    /// The shortest time from an issuance to its renewal; `--min-renewal-interval`.
    pub renewal_interval: Duration,
    /// Bytes of the files of one volume; `--max-volume-size`.
    pub volume_bytes: u64,
    /// Percent of the store that the volumes of one namespace use; `--max-store-share-per-namespace`.
    pub namespace_store_percent: u8,
    /// Volumes of one pod, 0 for no limit; `--max-volumes-per-pod`.
    pub volumes_per_pod: usize,
    /// Volumes of one namespace, 0 for no limit; `--max-volumes-per-namespace`.
    pub volumes_per_namespace: usize,
}

/// What a [`VolumeService`] is made of.
pub(crate) struct Parts {
    /// Store and mounts.
    pub(crate) files: VolumeFiles,
    /// Volumes in memory.
    pub(crate) registry: Arc<Registry>,
    /// The signers of this node.
    pub(crate) signers: Vec<ConfiguredSigner>,
    /// Wall time.
    pub(crate) clock: Arc<dyn Clock>,
    /// The metrics.
    pub(crate) metrics: Arc<Metrics>,
    /// Records Events on pods; none without a cluster.
    pub(crate) events: Option<Box<dyn EventSink>>,
    /// Reads the addresses of pods; none without a cluster.
    pub(crate) addresses: Option<Arc<dyn PodAddresses>>,
    /// Limits on concurrent work.
    pub(crate) limits: Limits,
    /// Trust anchors by issuer.
    pub(crate) pins: Pins,
    /// Trust sources other than the signers.
    pub(crate) trust: TrustSources,
    /// CRLs, for volumes that ask for them.
    pub(crate) crls: Crls,
    /// What the operator's flags give to volumes.
    pub(crate) defaults: Arc<OperatorDefaults>,
    /// Whether a volume is mounted empty while its pod is not ready to have a certificate requested.
    pub(crate) continue_on_not_ready: bool,
}

/// The time in which failed renewals of volumes of classes are tried again after the operator's classes have changed.
const CLASS_RETRY: Duration = Duration::from_secs(10);

/// Rejections of secrets that `certlet status` shows.
const MAX_REJECTIONS: usize = 5;

/// The volumes of this node. Cheap to clone: all clones share the same volumes.
#[derive(Clone)]
pub struct VolumeService {
    context: Arc<Context>,
    publisher: Arc<Publisher>,
    renewals: Arc<Renewals>,
}

impl VolumeService {
    /// Puts the parts together. [`Self::recover`] and [`Self::run`] start the work.
    pub(crate) fn new(parts: Parts) -> Self {
        let issuer = parts.defaults.issuer.clone();
        let Parts { files, registry, signers, clock, metrics, events, limits, pins, trust, crls, .. } = parts;
        let store = Arc::clone(&files.store);
        let obtainer = Obtainer::new(signers, Arc::clone(&store), Arc::clone(&clock), pins, issuer);
        let admission = Admission::new(Arc::clone(&store));
        let shares = Shares::new(ShareLimits {
            volume_bytes: limits.volume_bytes,
            namespace_percent: limits.namespace_store_percent,
        });
        let shutdown = CancellationToken::new();
        let context = Arc::new(Context {
            registry,
            files,
            shares,
            counts: VolumeCounts::new(limits.volumes_per_pod, limits.volumes_per_namespace),
            queue: WorkQueue::new(Arc::clone(&clock)),
            obtainer: obtainer.with_addresses(parts.addresses),
            sockets: Sockets::new(
                parts.defaults.secret_names.clone(),
                Arc::clone(&metrics),
                shutdown.clone(),
            ),
            defaults: parts.defaults,
            trust,
            issuing_cas: IssuingCas::default(),
            volume_bytes: limits.volume_bytes,
            crls,
            reporter: Reporter { metrics, events },
            clock,
            shutdown,
        });
        let renewal_interval = limits.renewal_interval;
        let issuance = Arc::new(Issuance { context: Arc::clone(&context), admission, renewal_interval });
        let renewals = Arc::new(Renewals::new(Arc::clone(&context), Arc::clone(&issuance), limits.renewals));
        let publisher = Arc::new(Publisher {
            context: Arc::clone(&context),
            issuance,
            slots: PublishSlots::new(limits.publishes),
            continue_on_not_ready: parts.continue_on_not_ready,
        });
        Self { context, publisher, renewals }
    }

    /// Runs what falls due, answers on the volumes' sockets, and follows trust sources and CRLs, until shutdown.
    pub(crate) async fn run(&self) {
        let Context { sockets, .. } = &*self.context;
        tokio::join!(
            self.renewals.run(),
            sockets.run(),
            self.context.follow_trust(),
            self.context.follow_crls()
        );
    }

    /// Whether the renewal loop works. If renewals that wait for their signer hold all slots, the queue is late. That still
    /// counts as running while a slot becomes free now and then.
    pub(crate) fn is_running(&self) -> bool {
        self.renewals.is_running()
    }

    /// What is wrong with the trust sources and CRLs in use, for `certlet status`.
    pub(crate) fn trust_faults(&self) -> Vec<String> {
        self.context.trust.faults().into_iter().chain(self.context.crls.faults()).collect()
    }

    /// What pods' Envoys said of secrets that they do not accept, for `certlet status`.
    pub(crate) fn rejections(&self) -> Vec<String> {
        let of_volume = |volume: Arc<volume::Volume>| {
            let rejection = volume.rejection()?;
            let pod = volume.with_record(|record| format!("{}/{}", record.pod.namespace, record.pod.name));
            Some(format!("{pod}: {rejection}"))
        };
        self.context.registry.all().into_iter().filter_map(of_volume).take(MAX_REJECTIONS).collect()
    }

    /// Follows a volume's credential and trust bundle. The first value is the current one, or that of the first issuance.
    /// If the credential is not in memory, it is read back from the store.
    pub async fn follow(&self, id: &VolumeId) -> Result<Follower, Failure> {
        self.context.files.follow(self.volume(id)?).await
    }

    /// Sets a new trust bundle. The renewal loop soon hands it over with the credential in use, without an issuance. Federated trust
    /// bundles come from the operator's sources alone.
    pub fn set_trust(&self, id: &VolumeId, trust: TrustBundle) -> Result<(), Failure> {
        let volume = self.volume(id)?;
        volume.applied().set_trust(Arc::new(trust));
        volume.schedule.put_now(Work::RefreshTrust);
        Ok(())
    }

    /// Whether the volume has a certificate that is valid at this time. The error says why not.
    pub(crate) fn is_valid(&self, id: &VolumeId, now: Timestamp) -> Result<(), String> {
        let volume = self.volume(id).map_err(|failure| failure.to_string())?;
        volume.with_record(|record| {
            if record.issued.as_ref().is_some_and(|issued| issued.end() > now) {
                return Ok(());
            }
            let error = record.last_error.as_ref().map(|last| last.message.as_str());
            Err(format!("the certificate has expired: {}", error.unwrap_or("its renewal has not ended yet")))
        })
    }

    /// What the pending request for the volume waits for; none if nothing is pending.
    pub(crate) fn pending(&self, id: &VolumeId, signer: SignerKind) -> Option<String> {
        self.context.obtainer.pending(id, signer)
    }

    /// How long the volume's certificate is still valid; zero without one.
    pub(crate) fn time_left(&self, id: &VolumeId) -> Duration {
        let now = self.context.clock.now();
        let end =
            self.context.registry.get(id).and_then(|volume| {
                volume.with_record(|record| record.issued.as_ref().map(IssuedRecord::end))
            });
        end.map(|end| until(now, end)).unwrap_or_default()
    }

    /// Whether the volume has a certificate that is not due for renewal.
    pub(crate) fn is_fresh(&self, id: &VolumeId) -> Result<bool, Failure> {
        let now = self.context.clock.now();
        let volume = self.volume(id)?;
        Ok(volume.with_record(|record| record.issued.as_ref().is_some_and(|issued| issued.renew_at > now)))
    }

    /// Renews the volume now if it is due, and not somewhat later as after a restart of a node.
    pub(crate) fn renew_if_due(&self, id: &VolumeId) -> Result<(), Failure> {
        if !self.is_fresh(id)? {
            self.volume(id)?.schedule.put_now(Work::Renew);
        }
        Ok(())
    }

    /// Tries failed renewals of volumes of classes again soon: the operator's classes have changed.
    pub(crate) fn retry_failed_classes(&self) {
        for volume in self.context.registry.all() {
            let has_failed = |record: &Record| record.class.is_some() && record.last_error.is_some();
            if volume.with_record(has_failed) {
                volume.schedule.bring_forward(Work::Renew, offset_within(CLASS_RETRY, &volume.id));
            }
        }
    }

    /// Stops starting new work. Operations in flight have `grace` to end by themselves. Then they are cancelled and
    /// waited for. Mounts stay as they are.
    pub(crate) async fn shut_down(&self, grace: Duration) {
        let Context { registry, shutdown, .. } = &*self.context;
        shutdown.cancel();
        if tokio::time::timeout(grace, self.idle()).await.is_err() {
            tracing::warn!(
                in_flight = registry.in_flight(),
                "the grace period is over; cancelling what is in flight"
            );
            registry.cancel_all();
            // Cancelled work ends at once; a stuck disk must not keep the process for ever.
            let _ended = tokio::time::timeout(Duration::from_secs(2), self.idle()).await;
        }
    }

    /// Returns when no volume is being worked on.
    async fn idle(&self) {
        // Polling, because it happens only while the process ends.
        while self.context.registry.in_flight() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn volume(&self, id: &VolumeId) -> Result<Arc<volume::Volume>, Failure> {
        self.context.registry.get(id).ok_or_else(|| not_found(id))
    }
}

fn not_found(id: &VolumeId) -> Failure {
    Failure::new(FailureKind::NotFound, format!("volume {id} is not known on this node"))
}
