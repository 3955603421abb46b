//! Publish: from a request to files under the target.

use super::errand::Errand;
use super::locks::{Guard, Operation};
use super::volume::Volume;
use super::{Lifecycle, LifecycleError, Shared, ended_early};
use crate::attributes::{Attributes, VolumeContext, VolumeId};
use crate::issue::{CertificateFacts, FailureClass};
use crate::signer::Purpose;
use crate::store::{IssuedRecord, LastError, Record};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::SemaphorePermit;

/// A `NodePublishVolume`, parsed and checked.
#[derive(Debug)]
pub struct PublishRequest {
    /// The volume.
    pub volume: VolumeId,
    /// Where the kubelet wants it: an absolute path whose parent exists.
    pub target: PathBuf,
    /// Pod, tokens and the author's attributes as they came.
    pub context: VolumeContext,
    /// The attributes, typed.
    pub attributes: Attributes,
    /// The pod's fsGroup, as CSI's `volume_mount_group`.
    pub mount_group: Option<u32>,
    /// How long the caller waits, where it says so.
    pub patience: Option<Duration>,
}

impl Lifecycle {
    /// Makes the volume's files and mounts them at the target; at once if that is so already.
    ///
    /// Dropping the future cancels the wait for the signer and undoes what this call made.
    pub async fn publish(&self, request: PublishRequest) -> Result<(), LifecycleError> {
        let shared = Arc::clone(&self.0);
        let volume = request.volume.clone();
        let guard = match shared.locks.try_acquire(&volume, Operation::Publish) {
            Ok(guard) => guard,
            // A republish must not fail because the volume is just being renewed.
            Err(Operation::Renewal) if shared.is_live(&request).await => return Ok(()),
            Err(operation) => return Err(LifecycleError::Busy { volume, operation }),
        };
        let caller = guard.cancel().clone().drop_guard();
        let task = tokio::spawn(async move { shared.publish(&guard, request).await });
        let result = task.await.map_err(|error| ended_early(&volume, &error))?;
        caller.disarm();
        result
    }

    /// Whether the volume, or what another driver mounted, is at this target, so that a pod may be using it.
    pub async fn is_in_use(&self, volume: &VolumeId, target: &Path) -> bool {
        let shared = &self.0;
        if nothing_at(target) {
            return false;
        }
        let (id, target) = (volume.clone(), target.to_owned());
        let found = shared.blocking(volume, move |shared| {
            Ok(shared.store.is_bound(&id, &target)? || shared.store.foreign_mount(&id, &target)?)
        });
        found.await.unwrap_or(false)
    }
}

impl Shared {
    async fn publish(self: &Arc<Self>, guard: &Guard, request: PublishRequest) -> Result<(), LifecycleError> {
        if self.shutdown.is_cancelled() {
            return Err(LifecycleError::ShuttingDown);
        }
        let known = self.volumes.get(&request.volume);
        if let Some(volume) = &known
            && self.republish(volume, &request).await?
        {
            return Ok(());
        }
        // Looked up again: what was published otherwise, and is mounted nowhere, has just been forgotten.
        let known = known.and_then(|_| self.volumes.get(&request.volume));
        if known.is_none() {
            match self.found_at_target(&request).await? {
                Found::Nothing => {}
                Found::AnotherDrivers => return Ok(()),
                Found::OursWithoutRecord => return self.adopt(&request).await,
            }
        }
        let _slot = self.slot()?;
        let is_new = known.is_none();
        let volume = known.unwrap_or_else(|| request.new_volume());
        let id = request.volume.clone();
        let errand = Errand { purpose: Purpose::Publish, patience: request.patience, place: None };
        match self.issue(guard, &id, &volume, errand).await {
            Ok(()) => {
                self.volumes.insert(id, volume);
                Ok(())
            }
            Err(error) => {
                if self.continue_on_not_ready
                    && let FailureClass::NotReady { retry_after } = error.class()
                {
                    return self.mount_empty(&id, volume, retry_after).await;
                }
                if is_new {
                    self.undo(&id, volume).await;
                }
                Err(error)
            }
        }
    }

    /// The pod is not ready to have a certificate asked for, an address of its own missing perhaps, and would not become
    /// so before its volumes are mounted: it gets the volume empty, and the files follow as at a renewal.
    async fn mount_empty(
        self: &Arc<Self>,
        id: &VolumeId,
        volume: Arc<Volume>,
        look_again_in: Duration,
    ) -> Result<(), LifecycleError> {
        let record = volume.record();
        let mounted = self
            .blocking(id, move |shared| {
                shared.store.write_bundle(&record.volume_id, &[], None)?;
                shared.store.write_record(&record)?;
                Ok(shared.store.bind(&record.volume_id, &record.target).map(drop)?)
            })
            .await;
        self.volumes.insert(id.clone(), volume);
        match mounted {
            Ok(()) => self.queue_in(id, look_again_in),
            Err(_) => self.queue_reap(id),
        }
        mounted
    }

    /// A publish of a volume this process knows. True: there is nothing more to do.
    async fn republish(
        self: &Arc<Self>,
        volume: &Arc<Volume>,
        request: &PublishRequest,
    ) -> Result<bool, LifecycleError> {
        let id = &request.volume;
        let record = volume.record();
        let bound = {
            let (id, target) = (id.clone(), record.target.clone());
            self.blocking(&request.volume, move |shared| Ok(shared.store.is_bound(&id, &target)?)).await?
        };
        let differs = [
            (record.target != request.target, "target_path"),
            (record.attributes != request.context.raw, "volumeAttributes"),
        ];
        if let Some((_, what)) = differs.iter().find(|(differs, _)| *differs) {
            if bound {
                return Err(LifecycleError::Incompatible { volume: id.clone(), what });
            }
            // Nobody uses what is there: begin anew.
            self.forget(id).await?;
            return Ok(false);
        }
        let has_fresh_token = volume.refresh_tokens(request.context.tokens.clone());
        let valid = record.issued.as_ref().is_some_and(|issued| issued.facts.not_after > self.clock.now());
        match (bound, valid) {
            (true, true) => {
                let may_pass = |error: &LastError| error.class == FailureClass::Transient.as_str();
                if has_fresh_token
                    && record.last_error.as_ref().is_some_and(may_pass)
                    && self.needs_token(volume)
                {
                    // It may be all that the renewal failed for.
                    self.queue.put(id, self.clock.now());
                }
                Ok(true)
            }
            (true, false) if record.issued.is_none() => {
                // Mounted empty, and waiting for its turn.
                if self.queue.due(id).is_none() {
                    self.queue.put(id, self.clock.now());
                }
                Ok(true)
            }
            (true, false) => {
                // An error here could make the kubelet take the mount away from a running pod (kubernetes#121271):
                // the renewal is put ahead instead, and says what is wrong by metric, log and volume condition.
                tracing::warn!(volume = %id, "republished with an expired certificate; renewing now");
                self.queue.put(id, self.clock.now());
                Ok(true)
            }
            (false, true) => {
                let (id, target) = (id.clone(), record.target.clone());
                self.blocking(&request.volume, move |shared| {
                    shared.store.bind(&id, &target)?;
                    Ok(())
                })
                .await?;
                self.queue_renewal(&request.volume, volume);
                Ok(true)
            }
            (false, false) => Ok(false),
        }
    }

    /// Whether a volume that is just being renewed is mounted as it is asked for: a republish has nothing to add, valid or
    /// not. Takes no lock.
    async fn is_live(self: &Arc<Self>, request: &PublishRequest) -> bool {
        let Some(volume) = self.volumes.get(&request.volume) else { return false };
        let same =
            volume.look(|record| record.target == request.target && record.attributes == request.context.raw);
        volume.refresh_tokens(request.context.tokens.clone());
        let (id, target) = (request.volume.clone(), request.target.clone());
        same && matches!(
            self.blocking(&request.volume, move |shared| Ok(shared.store.is_bound(&id, &target)?)).await,
            Ok(true)
        )
    }

    /// What the target of a volume that this process does not know holds already.
    async fn found_at_target(self: &Arc<Self>, request: &PublishRequest) -> Result<Found, LifecycleError> {
        if nothing_at(&request.target) {
            return Ok(Found::Nothing);
        }
        let (id, target) = (request.volume.clone(), request.target.clone());
        let certificate = target.join(&request.attributes.files.certificate);
        self.blocking(&request.volume, move |shared| {
            if shared.store.is_bound(&id, &target)? {
                return Ok(Found::OursWithoutRecord);
            }
            if !shared.store.foreign_mount(&id, &target)? {
                return Ok(Found::Nothing);
            }
            if !certificate.exists() {
                return Err(LifecycleError::ForeignMount { target });
            }
            tracing::warn!(
                volume = %id, target = %target.display(),
                "another driver's volume is mounted here: left as it is, and not renewed; restart the pod to take it over"
            );
            Ok(Found::AnotherDrivers)
        })
        .await
    }

    /// Takes up a volume that is mounted and whose record was lost. A running pod has its files: they stay whatever becomes
    /// of the new certificate, which is asked for as at a renewal.
    async fn adopt(self: &Arc<Self>, request: &PublishRequest) -> Result<(), LifecycleError> {
        let (id, volume) = (request.volume.clone(), request.new_volume());
        let (mut record, certificate) = (volume.record(), request.attributes.files.certificate.clone());
        let now = self.clock.now();
        let record = self
            .blocking(&id, move |shared| {
                let id = &record.volume_id;
                let facts =
                    shared.store.read_file(id, &certificate)?.and_then(|pem| CertificateFacts::of_pem(&pem));
                if let (Some(facts), Some(generation)) = (facts, shared.store.generation(id)?) {
                    let issued_at = facts.not_before.min(now);
                    record.issued =
                        Some(IssuedRecord { facts, issued_at, renew_at: now, generation, remark: None });
                }
                shared.store.write_record(&record)?;
                Ok(record)
            })
            .await?;
        volume.set_record(record);
        self.volumes.insert(id.clone(), volume);
        self.queue.put(&id, self.clock.now());
        Ok(())
    }

    fn slot(&self) -> Result<SemaphorePermit<'_>, LifecycleError> {
        self.publishing
            .try_acquire()
            .map_err(|_| LifecycleError::TooManyInFlight { limit: self.limits.publishes })
    }

    /// After a failed first publish: what waits for a slow signer stays for the retry, and so does its certificate that could
    /// not be mounted; all else goes.
    async fn undo(self: &Arc<Self>, id: &VolumeId, volume: Arc<Volume>) {
        let is_slow = self.issuer.signer(volume.attributes.signer).is_ok_and(|signer| signer.is_slow());
        let is_issued = volume.look(|record| record.issued.is_some());
        if self.store.has_pending(id) || is_slow && is_issued {
            self.volumes.insert(id.clone(), volume);
            self.queue_reap(id);
        } else if let Err(error) = self.forget(id).await {
            tracing::error!(volume = %id, %error, "what a failed publish made could not be removed");
        }
    }
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

impl PublishRequest {
    /// The volume, before its first certificate.
    fn new_volume(&self) -> Arc<Volume> {
        let Self { volume, target, context, attributes, mount_group, .. } = self;
        let record = Record {
            volume_id: volume.clone(),
            target: target.clone(),
            pod: context.pod.clone(),
            attributes: context.raw.clone(),
            fs_group: *mount_group,
            signer: attributes.signer.to_string(),
            issued: None,
            last_error: None,
        };
        Volume::new(record, attributes.clone(), context.tokens.clone())
    }
}

/// So it is at a first publish: the kubelet has just made the parent. One look costs less than having another thread look.
fn nothing_at(target: &Path) -> bool {
    matches!(std::fs::symlink_metadata(target), Err(error) if error.kind() == ErrorKind::NotFound)
}
