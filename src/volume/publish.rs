//! Publish: from a request to files under the target.

use super::VolumeService;
use super::context::{Context, REAP_AFTER};
use super::files::ended_early;
use super::issue::Issuance;
use super::publish_slots::PublishSlots;
use super::registry::{Guard, Held, Operation};
use super::request::PublishRequest;
use super::volume::Volume;
use crate::credential::Work;
use crate::model::{Failure, FailureKind, KeystorePassword, VolumeId};
use crate::platform::FairPermit;
use crate::signer::Purpose;
use crate::store::IssuedRecord;
use crate::x509;
use jiff::Timestamp;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Publishes volumes.
pub(super) struct Publisher {
    pub(super) context: Arc<Context>,
    pub(super) issuance: Arc<Issuance>,
    pub(super) slots: PublishSlots,
    pub(super) continue_on_not_ready: bool,
}

/// What a target holds before the first publish that this process sees of its volume.
enum Found {
    /// No mount.
    Nothing,
    /// The mount of another driver with the requested files: of cert-manager's csi-driver, before certlet took over its
    /// name. The pod keeps this mount until it ends, because certlet cannot renew it.
    AnotherDrivers,
    /// This volume, without a record.
    OursWithoutRecord,
}

impl VolumeService {
    /// Makes the volume's files and mounts them at the target. Returns at once if they are mounted there already.
    ///
    /// Dropping the future cancels the wait for the signer and undoes what this call made.
    pub(crate) async fn publish(&self, request: PublishRequest) -> Result<(), Failure> {
        let publisher = Arc::clone(&self.publisher);
        let guard = match self.context.registry.try_acquire(&request.volume, Operation::Publish) {
            Ok(guard) => guard,
            // A republish must not fail because the volume is just being renewed.
            Err(held) if held.operation == Operation::Renewal && publisher.is_live(&request).await => {
                return Ok(());
            }
            Err(held) => return Err(busy(&request.volume, &held)),
        };
        let caller = guard.cancel().clone().drop_guard();
        let task = tokio::spawn(async move { publisher.publish(&guard, request).await });
        let result = task.await.map_err(|error| ended_early(&error))?;
        caller.disarm();
        result
    }

    /// Whether the volume, or what another driver mounted, is at this target, so that a pod may be using it.
    pub(crate) async fn is_in_use(&self, volume: &VolumeId, target: &Path) -> bool {
        if nothing_at(target) {
            return false;
        }
        let (id, target) = (volume.clone(), target.to_owned());
        let found = self.context.files.run(move |files| {
            Ok(files.mounts.is_bound(&id, &target)? || files.mounts.foreign_mount(&id, &target)?)
        });
        found.await.unwrap_or(false)
    }
}

pub(super) fn busy(volume: &VolumeId, held: &Held) -> Failure {
    let message = format!("volume {volume}: {} is under way; try again", held.operation);
    Failure::new(FailureKind::Busy, message)
}

impl Publisher {
    async fn publish(&self, guard: &Guard, request: PublishRequest) -> Result<(), Failure> {
        let Context { registry, .. } = &*self.context;
        if let Some(volume) = registry.get(&request.volume)
            && self.republish(&volume, &request).await?
        {
            return Ok(());
        }
        // Read again: `republish` may have removed a volume with other parameters that is not mounted.
        let known = registry.get(&request.volume);
        if known.is_none() {
            match self.found_at_target(&request).await? {
                Found::Nothing => {}
                Found::AnotherDrivers => return Ok(()),
                Found::OursWithoutRecord => return self.adopt(&request).await,
            }
        }
        let started = Instant::now();
        let is_new = known.is_none();
        let volume = match known {
            Some(known) => known,
            // Before the wait: a publish that is over a limit needs no slot.
            None => request.new_volume(&self.context, self.context.counts.admit(&request.context.pod)?),
        };
        let _slot = self.slot(guard, &request).await?;
        if is_new {
            self.context.reporter.mistyped_passwords(&volume, &request.context.mistyped_passwords);
        }
        self.keep_password(&volume, &request).await?;
        let timeout = request.timeout.map(|timeout| timeout.saturating_sub(started.elapsed()));
        let issued = self.issuance.issue(guard, &volume, Purpose::Publish, timeout).await;
        match &issued {
            Ok(()) => registry.insert(volume),
            Err(failure) if failure.kind == FailureKind::NotReady && self.continue_on_not_ready => {
                return self.mount_empty(volume, failure.retry_after.unwrap_or_default()).await;
            }
            Err(_) if is_new => self.undo(volume).await,
            Err(_) => {}
        }
        issued
    }

    /// Waits for a slot, until a shutdown or an unpublish ends the wait. A republish of a mounted volume needs none, so it does
    /// not fail at shutdown.
    async fn slot(&self, guard: &Guard, request: &PublishRequest) -> Result<FairPermit, Failure> {
        let Context { shutdown, clock, .. } = &*self.context;
        let (now, time) = (clock.now(), request.timeout.unwrap_or(Duration::MAX));
        let needed_by = now.saturating_add(time).unwrap_or(Timestamp::MAX);
        let slot = self.slots.acquire(&request.context.pod.namespace, needed_by, time);
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {
                Err(Failure::new(FailureKind::ShuttingDown, "certlet is shutting down; try again"))
            }
            () = guard.cancel().cancelled() => {
                let message = format!("volume {}: the operation was cancelled", request.volume);
                Err(Failure::new(FailureKind::Cancelled, message))
            }
            slot = slot => slot,
        }
    }

    /// Mounts a volume without files. Its pod is not ready for a request, because it has no address yet for example, and it does
    /// not become ready before its volumes are mounted. The files follow as at a renewal.
    async fn mount_empty(&self, volume: Arc<Volume>, retry_after: Duration) -> Result<(), Failure> {
        let (record, measured) = (volume.record(), Arc::clone(&volume));
        let mounted = self.context.files.run(move |files| {
            files.store.write_generation(&record.volume_id, &[])?;
            files.store.write_record(&record)?;
            files.measure(&measured);
            files.bind(&record)
        });
        let mounted = mounted.await;
        self.context.registry.insert(Arc::clone(&volume));
        match mounted {
            Ok(()) => volume.schedule.put_in(Work::Renew, retry_after),
            Err(_) => volume.schedule.put_in(Work::Reap, REAP_AFTER),
        }
        mounted
    }

    /// Keeps the keystore's password of this call for the renewals, which get none.
    async fn keep_password(&self, volume: &Volume, request: &PublishRequest) -> Result<(), Failure> {
        let Some(KeystorePassword::Secret(_)) = &volume.spec.files.password else { return Ok(()) };
        let Some(password) = request.context.keystore_password.clone() else { return Ok(()) };
        let id = volume.id.clone();
        self.context.files.run(move |files| Ok(files.store.keep_password(&id, &password)?)).await
    }

    /// A publish of a volume that this process knows. Returns true if nothing more is to do.
    async fn republish(&self, volume: &Arc<Volume>, request: &PublishRequest) -> Result<bool, Failure> {
        let Context { files, obtainer, clock, .. } = &*self.context;
        let id = &request.volume;
        let record = volume.record();
        let is_bound = files.is_bound(id, &record.target).await?;
        if let Some(what) = request.differs_from(&record) {
            if is_bound {
                let message = format!("volume {id} is already published with different {what}");
                return Err(Failure::new(FailureKind::Conflict, message));
            }
            // No pod uses the old files: remove them, and issue anew.
            self.context.remove(id).await?;
            return Ok(false);
        }
        self.keep_password(volume, request).await?;
        let has_fresh_token = volume.refresh_tokens(request.context.tokens.clone());
        let is_valid = record.issued.as_ref().map(|issued| issued.facts.not_after > clock.now());
        if !is_bound {
            if is_valid != Some(true) {
                return Ok(false);
            }
            files.run(move |files| files.bind(&record)).await?;
            self.issuance.schedule_renewal(volume);
            return Ok(true);
        }
        let is_renewed_now = match is_valid {
            // The renewal may have failed only because the token had expired.
            Some(true) => {
                let failed = record.last_error.is_some_and(|error| error.kind == FailureKind::Transient);
                has_fresh_token && failed && obtainer.needs_token(&volume.spec)
            }
            // An error here could make the kubelet unmount the volume of a running pod (kubernetes#121271). So the renewal
            // is started now, and its failure is reported by metric, log and volume condition.
            Some(false) => {
                tracing::warn!(volume = %id, "republished with an expired certificate; renewing now");
                true
            }
            // Mounted without files: the first certificate is requested now, unless it is already scheduled.
            None => volume.schedule.due(Work::Renew).is_none(),
        };
        if is_renewed_now {
            volume.schedule.put_now(Work::Renew);
        }
        Ok(true)
    }

    /// Whether a volume that is just being renewed is mounted as the request asks for. Then a republish has nothing to do, even
    /// if the certificate has expired. Takes no lock.
    async fn is_live(&self, request: &PublishRequest) -> bool {
        let Some(volume) = self.context.registry.get(&request.volume) else { return false };
        volume.refresh_tokens(request.context.tokens.clone());
        volume.with_record(|record| request.differs_from(record).is_none())
            && self.context.files.is_bound(&request.volume, &request.target).await == Ok(true)
    }

    /// What is mounted at the target of a volume that this process does not know.
    async fn found_at_target(&self, request: &PublishRequest) -> Result<Found, Failure> {
        if nothing_at(&request.target) {
            return Ok(Found::Nothing);
        }
        let (id, target) = (request.volume.clone(), request.target.clone());
        let certificate = target.join(&request.spec.files.certificate);
        let other = self.context.registry.other_at(&target, &id);
        let examined = self.context.files.run(move |files| {
            if files.mounts.is_bound(&id, &target)? {
                return Ok(Found::OursWithoutRecord);
            }
            if !files.mounts.foreign_mount(&id, &target)? {
                return Ok(Found::Nothing);
            }
            let occupied = |by: &str| {
                let message = format!(
                    "target_path {}: {by} is mounted there; unmount it, or delete the pod",
                    target.display()
                );
                Err(Failure::new(FailureKind::Occupied, message))
            };
            if let Some(other) = other
                && files.mounts.is_bound(&other.id, &target)?
            {
                return occupied(&format!("the volume {}", other.id));
            }
            if !certificate.exists() {
                return occupied("something else");
            }
            tracing::warn!(
                volume = %id, target = %target.display(),
                "another driver's volume is mounted here: it stays as it is, and is not renewed; restart the pod to replace it"
            );
            Ok(Found::AnotherDrivers)
        });
        examined.await
    }

    /// Adopts a volume that is mounted and whose record was lost. A running pod uses its files, so they stay even if the new
    /// certificate, which is requested as at a renewal, fails.
    async fn adopt(&self, request: &PublishRequest) -> Result<(), Failure> {
        let volume = request.new_volume(&self.context, self.context.counts.count(&request.context.pod));
        let (mut record, measured) = (volume.record(), Arc::clone(&volume));
        let certificate = request.spec.files.certificate.clone();
        let now = self.context.clock.now();
        let adopted = self.context.files.run(move |files| {
            let id = &record.volume_id;
            let [pem] = files.store.read_files(id, [&certificate])?;
            let facts = pem.and_then(|pem| x509::facts_of_pem(&pem)).map(Arc::new);
            if let Some((facts, generation)) = facts.zip(files.store.generation(id)?) {
                let issued_at = facts.not_before.min(now);
                record.issued =
                    Some(IssuedRecord { facts, issued_at, renew_at: now, generation, warning: None });
            }
            if let Err(error) = files.store.write_record(&record) {
                tracing::warn!(volume = %record.volume_id, %error, "no record yet; the renewal writes it");
            }
            files.measure(&measured);
            Ok(record)
        });
        volume.set_record(adopted.await?);
        self.context.registry.insert(Arc::clone(&volume));
        volume.schedule.put_now(Work::Renew);
        Ok(())
    }

    /// Cleans up after a failed first publish. A checkpoint stays for the retry, and so does a certificate of a slow signer that
    /// could not be mounted. All else is removed.
    async fn undo(&self, volume: Arc<Volume>) {
        let Context { files, obtainer, registry, .. } = &*self.context;
        let is_issued = volume.with_record(|record| record.issued.is_some());
        if files.store.has_checkpoint(&volume.id) || is_issued && obtainer.is_resumable(&volume.spec) {
            registry.insert(Arc::clone(&volume));
            volume.schedule.put_in(Work::Reap, REAP_AFTER);
        } else if let Err(error) = self.context.remove(&volume.id).await {
            tracing::error!(volume = %volume.id, %error, "what a failed publish made could not be removed");
        }
    }
}

/// Fast path: on a first publish the target does not exist. One lstat is cheaper than a hop to the blocking pool.
fn nothing_at(target: &Path) -> bool {
    matches!(std::fs::symlink_metadata(target), Err(error) if error.kind() == ErrorKind::NotFound)
}
