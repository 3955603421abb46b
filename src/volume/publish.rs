//! Publish: from a request to files under the target.

use super::files::{VolumeFiles, ended_early};
use super::issue::Issuance;
use super::registry::{Guard, Operation, Registry};
use super::remove::Remover;
use super::volume::Volume;
use super::{VolumeService, renew};
use crate::attributes::VolumeContext;
use crate::credential::{Work, WorkQueue};
use crate::model::{CertificateSpec, Failure, FailureKind, VolumeId};
use crate::platform::Clock;
use crate::signer::Purpose;
use crate::store::{IssuedRecord, LastError, Record};
use crate::x509;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A `NodePublishVolume`, parsed and checked.
#[derive(Debug)]
pub struct PublishRequest {
    /// The volume.
    pub volume: VolumeId,
    /// Where the kubelet wants it: an absolute path whose parent exists.
    pub target: PathBuf,
    /// Pod, tokens and the author's attributes as they came.
    pub context: VolumeContext,
    /// What the attributes ask for.
    pub spec: CertificateSpec,
    /// The pod's fsGroup, as CSI's `volume_mount_group`.
    pub mount_group: Option<u32>,
    /// How long the caller waits, where it says so.
    pub timeout: Option<Duration>,
}

/// Publishes volumes.
pub(super) struct Publisher {
    pub(super) registry: Arc<Registry>,
    pub(super) files: VolumeFiles,
    pub(super) queue: Arc<WorkQueue>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) issuance: Arc<Issuance>,
    pub(super) remover: Arc<Remover>,
    pub(super) continue_on_not_ready: bool,
    pub(super) shutdown: CancellationToken,
}

/// What a target holds before the first publish that this process sees of its volume.
enum Found {
    /// Nothing that matters.
    Nothing,
    /// The mount of another driver with the files asked for: of cert-manager's csi-driver, before certlet took over its
    /// name. The pod keeps it until it ends; certlet cannot renew what is not its own.
    AnotherDrivers,
    /// This volume.
    OursWithoutRecord,
}

impl VolumeService {
    /// Makes the volume's files and mounts them at the target; at once if that is so already.
    ///
    /// Dropping the future cancels the wait for the signer and undoes what this call made.
    pub async fn publish(&self, request: PublishRequest) -> Result<(), Failure> {
        let publisher = Arc::clone(&self.publisher);
        let volume = request.volume.clone();
        let guard = match self.registry.try_acquire(&volume, Operation::Publish) {
            Ok(guard) => guard,
            // A republish must not fail because the volume is just being renewed.
            Err(Operation::Renewal) if publisher.is_live(&request).await => return Ok(()),
            Err(operation) => return Err(busy(&volume, operation)),
        };
        let caller = guard.cancel().clone().drop_guard();
        let task = tokio::spawn(async move { publisher.publish(&guard, request).await });
        let result = task.await.map_err(|error| ended_early(&volume, &error))?;
        caller.disarm();
        result
    }

    /// Whether the volume, or what another driver mounted, is at this target, so that a pod may be using it.
    pub async fn is_in_use(&self, volume: &VolumeId, target: &Path) -> bool {
        if nothing_at(target) {
            return false;
        }
        let (id, target) = (volume.clone(), target.to_owned());
        let found = self.files.run(volume, move |files| {
            Ok(files.is_bound(&id, &target)? || files.mounts.foreign_mount(&id, &target)?)
        });
        found.await.unwrap_or(false)
    }
}

pub(super) fn busy(volume: &VolumeId, operation: Operation) -> Failure {
    Failure::new(FailureKind::Busy, format!("volume {volume}: {operation} is under way; try again"))
}

impl Publisher {
    async fn publish(&self, guard: &Guard, request: PublishRequest) -> Result<(), Failure> {
        if self.shutdown.is_cancelled() {
            let message = "certlet is shutting down; try again";
            return Err(Failure::new(FailureKind::ShuttingDown, message));
        }
        if let Some(volume) = self.registry.get(&request.volume)
            && self.republish(&volume, &request).await?
        {
            return Ok(());
        }
        // Looked up again: a volume that was published with other parameters, and is mounted nowhere, was just removed.
        let known = self.registry.get(&request.volume);
        if known.is_none() {
            match self.found_at_target(&request).await? {
                Found::Nothing => {}
                Found::AnotherDrivers => return Ok(()),
                Found::OursWithoutRecord => return self.adopt(&request).await,
            }
        }
        let _slot = self.issuance.admission.slot()?;
        let is_new = known.is_none();
        let volume = known.unwrap_or_else(|| request.new_volume(&self.queue));
        match self.issuance.issue(guard, &volume, Purpose::Publish, request.timeout).await {
            Ok(()) => {
                self.registry.insert(Arc::clone(&volume));
                // Once more: a renewal that fell due before the volume was known was dropped.
                self.issuance.schedule_renewal(&volume);
                Ok(())
            }
            Err(failure) => {
                if failure.kind == FailureKind::NotReady {
                    volume.count_not_ready(false);
                    if self.continue_on_not_ready {
                        return self.mount_empty(volume, failure.retry_after.unwrap_or_default()).await;
                    }
                }
                if is_new {
                    self.undo(volume).await;
                }
                Err(failure)
            }
        }
    }

    /// The pod is not ready to have a certificate requested, an address of its own missing perhaps, and would not become
    /// ready before its volumes are mounted: it gets the volume empty, and the files follow as at a renewal.
    async fn mount_empty(&self, volume: Arc<Volume>, retry_after: Duration) -> Result<(), Failure> {
        let record = volume.record();
        let mounted = self
            .files
            .run(&volume.id, move |files| {
                files.store.write_generation(&record.volume_id, &[])?;
                files.store.write_record(&record)?;
                files.bind(&record)
            })
            .await;
        self.registry.insert(Arc::clone(&volume));
        match mounted {
            Ok(()) => self.queue.put_in(&volume.schedule, Work::Renew, retry_after),
            Err(_) => self.queue.put_in(&volume.schedule, Work::Reap, renew::REAP_AFTER),
        }
        mounted
    }

    /// A publish of a volume that this process knows. True: there is nothing more to do.
    async fn republish(&self, volume: &Arc<Volume>, request: &PublishRequest) -> Result<bool, Failure> {
        let id = &request.volume;
        let record = volume.record();
        let bound = {
            let (id, target) = (id.clone(), record.target.clone());
            self.files.run(&request.volume, move |files| files.is_bound(&id, &target)).await?
        };
        let differs = [
            (record.target != request.target, "target_path"),
            (record.attributes != request.context.raw, "volumeAttributes"),
        ];
        if let Some((_, what)) = differs.iter().find(|(differs, _)| *differs) {
            if bound {
                let message = format!("volume {id} is already published with different {what}");
                return Err(Failure::new(FailureKind::Conflict, message));
            }
            // Nobody uses what is there: begin anew.
            self.remover.remove(id).await?;
            return Ok(false);
        }
        let has_fresh_token = volume.refresh_tokens(request.context.tokens.clone());
        let valid = record.issued.as_ref().is_some_and(|issued| issued.facts.not_after > self.clock.now());
        match (bound, valid) {
            (true, true) => {
                let is_transient = |error: &LastError| error.kind == FailureKind::Transient;
                if has_fresh_token
                    && record.last_error.as_ref().is_some_and(is_transient)
                    && self.issuance.obtainer.needs_token(&volume.spec)
                {
                    // An expired token may be all that the renewal failed for.
                    self.queue.put_now(&volume.schedule, Work::Renew);
                }
                Ok(true)
            }
            (true, false) if record.issued.is_none() => {
                // Mounted empty: its first certificate is due, or on its way.
                if volume.schedule.due(Work::Renew).is_none() {
                    self.queue.put_now(&volume.schedule, Work::Renew);
                }
                Ok(true)
            }
            (true, false) => {
                // An error here could make the kubelet take the mount away from a running pod (kubernetes#121271):
                // the renewal is brought forward, and reports what is wrong by metric, log and volume condition.
                tracing::warn!(volume = %id, "republished with an expired certificate; renewing now");
                self.queue.put_now(&volume.schedule, Work::Renew);
                Ok(true)
            }
            (false, true) => {
                self.files.run(&request.volume, move |files| files.bind(&record)).await?;
                self.issuance.schedule_renewal(volume);
                Ok(true)
            }
            (false, false) => Ok(false),
        }
    }

    /// Whether a volume that is just being renewed is mounted as the request asks for: a republish has nothing to add,
    /// valid or not. Takes no lock.
    async fn is_live(&self, request: &PublishRequest) -> bool {
        let Some(volume) = self.registry.get(&request.volume) else { return false };
        let same = volume.with_record(|record| {
            record.target == request.target && record.attributes == request.context.raw
        });
        volume.refresh_tokens(request.context.tokens.clone());
        let (id, target) = (request.volume.clone(), request.target.clone());
        let bound = self.files.run(&request.volume, move |files| files.is_bound(&id, &target));
        same && bound.await == Ok(true)
    }

    /// What the target of a volume that this process does not know holds already.
    async fn found_at_target(&self, request: &PublishRequest) -> Result<Found, Failure> {
        if nothing_at(&request.target) {
            return Ok(Found::Nothing);
        }
        let (id, target) = (request.volume.clone(), request.target.clone());
        let certificate = target.join(&request.spec.files.certificate);
        let lookup = move |files: &VolumeFiles| {
            if files.is_bound(&id, &target)? {
                return Ok(Found::OursWithoutRecord);
            }
            if !files.mounts.foreign_mount(&id, &target)? {
                return Ok(Found::Nothing);
            }
            if !certificate.exists() {
                let message = format!(
                    "target_path {}: something else is mounted there; unmount it, or delete the pod",
                    target.display()
                );
                return Err(Failure::new(FailureKind::Occupied, message));
            }
            tracing::warn!(
                volume = %id, target = %target.display(),
                "another driver's volume is mounted here: it stays as it is, and is not renewed; restart the pod to replace it"
            );
            Ok(Found::AnotherDrivers)
        };
        self.files.run(&request.volume, lookup).await
    }

    /// Adopts a volume that is mounted and whose record was lost. A running pod has its files: they stay whatever becomes
    /// of the new certificate, which is requested as at a renewal.
    async fn adopt(&self, request: &PublishRequest) -> Result<(), Failure> {
        let volume = request.new_volume(&self.queue);
        let (mut record, certificate) = (volume.record(), request.spec.files.certificate.clone());
        let now = self.clock.now();
        let record = self
            .files
            .run(&volume.id, move |files| {
                let id = &record.volume_id;
                let pem = files.store.read_file(id, &certificate)?;
                let facts = pem.and_then(|pem| x509::facts_of_pem(&pem));
                if let (Some(facts), Some(generation)) = (facts, files.store.generation(id)?) {
                    let issued_at = facts.not_before.min(now);
                    record.issued =
                        Some(IssuedRecord { facts, issued_at, renew_at: now, generation, warning: None });
                }
                files.store.write_record(&record)?;
                Ok(record)
            })
            .await?;
        volume.set_record(record);
        self.registry.insert(Arc::clone(&volume));
        self.queue.put_now(&volume.schedule, Work::Renew);
        Ok(())
    }

    /// After a failed first publish: what waits for a slow signer stays for the retry, and so does its certificate that could
    /// not be mounted; all else is removed.
    async fn undo(&self, volume: Arc<Volume>) {
        let is_issued = volume.with_record(|record| record.issued.is_some());
        if self.files.store.has_checkpoint(&volume.id)
            || is_issued && self.issuance.obtainer.is_resumable(&volume.spec)
        {
            self.registry.insert(Arc::clone(&volume));
            self.queue.put_in(&volume.schedule, Work::Reap, renew::REAP_AFTER);
        } else if let Err(error) = self.remover.remove(&volume.id).await {
            tracing::error!(volume = %volume.id, %error, "what a failed publish made could not be removed");
        }
    }
}

impl PublishRequest {
    /// The volume, before its first certificate.
    fn new_volume(&self, queue: &WorkQueue) -> Arc<Volume> {
        let Self { volume, target, context, spec, mount_group, .. } = self;
        let record = Record {
            volume_id: volume.clone(),
            target: target.clone(),
            pod: context.pod.clone(),
            attributes: context.raw.clone(),
            fs_group: *mount_group,
            signer: spec.signer.kind().to_string(),
            issued: None,
            last_error: None,
        };
        Volume::new(record, spec.clone(), context.tokens.clone(), queue)
    }
}

/// Fast path: on a first publish the target does not exist. One lstat is cheaper than a hop to the blocking pool.
fn nothing_at(target: &Path) -> bool {
    matches!(std::fs::symlink_metadata(target), Err(error) if error.kind() == ErrorKind::NotFound)
}
