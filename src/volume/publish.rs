//! Publish: from a request to files under the target.

use super::context::{Context, REAP_AFTER};
use super::files::{ended_early, password_is_gone};
use super::issue::Issuance;
use super::mounts::AtTarget;
use super::publish_slots::PublishSlots;
use super::registry::{Guard, Held, Operation};
use super::request::{PublishRequest, RefusedPublish};
use super::volume::Volume;
use super::{VolumeFiles, VolumeService};
use crate::attributes::VolumeContext;
use crate::credential::Work;
use crate::model::{Failure, FailureKind, KeystorePassword, PodTokens, VolumeId};
use crate::platform::FairPermit;
use crate::signer::Purpose;
use crate::store::{IssuedRecord, TrustRecord};
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

/// What the target of a refused publish holds that the pod may be using.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InUse {
    /// Nothing of this volume.
    Nothing,
    /// The volume. It goes on with the attributes that it was published with.
    Renewed,
    /// Files that this process does not renew: of another driver, or of a volume whose record it cannot use.
    NotRenewed,
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

    /// Whether a refused publish is that of a volume in use. If it has the attributes of the volume's first publish, which an
    /// earlier build accepted, its tokens serve the volume as those of any republish do.
    pub(crate) async fn republish_refused(&self, refused: RefusedPublish) -> InUse {
        let RefusedPublish { volume: id, target, context } = refused;
        if nothing_at(&target) {
            return InUse::Nothing;
        }
        let Context { registry, files, .. } = &*self.context;
        let guard = registry.try_acquire(&id, Operation::Publish);
        let examined = (id.clone(), target.clone());
        let found = files.run(move |files| Ok(files.mounts.at(&examined.0, &examined.1)?)).await;
        let volume = match found {
            Ok(AtTarget::Volume) => registry.get(&id),
            Ok(AtTarget::Foreign) => None,
            Ok(AtTarget::Nothing | AtTarget::AnotherVolume(_)) | Err(_) => return InUse::Nothing,
        };
        let Some(volume) = volume else { return InUse::NotRenewed };
        let is_same = |context: &VolumeContext| {
            volume.with_record(|record| record.target == target && record.attributes == context.raw)
        };
        match (context.filter(is_same), guard) {
            (Some(context), Ok(_guard)) => self.publisher.refresh(&volume, context.tokens),
            (Some(context), Err(_)) => drop(volume.refresh_tokens(context.tokens)),
            (None, _) => {}
        }
        InUse::Renewed
    }

    /// Whether the password of the volume's keystores is in the store. Then a publish needs none.
    pub(crate) fn has_password(&self, id: &VolumeId) -> bool {
        self.context.files.store.has_password(id)
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
        // An error if something else is mounted there: before a signer is asked, also for a volume that is known.
        let found = self.found_at_target(&request).await?;
        if known.is_none() {
            match found {
                Found::Nothing => {}
                Found::AnotherDrivers => {
                    let PublishRequest { volume, target, context, .. } = &request;
                    let events = registry.events(volume);
                    self.context.reporter.not_renewed(volume, target, &context.pod, &events);
                    return Ok(());
                }
                Found::OursWithoutRecord => return self.adopt(&request).await,
            }
        }
        let started = Instant::now();
        let is_new = known.is_none();
        let volume = if let Some(known) = known {
            known
        } else {
            // Before the wait: a publish that is over a limit needs no slot.
            self.context.admit_sources(&request.spec.trust_sources, &request.context.pod)?;
            request.new_volume(&self.context, self.context.counts.admit(&request.context.pod)?)
        };
        let _slot = self.slot(guard, &request).await?;
        if is_new {
            self.context.reporter.mistyped_passwords(&volume, &request.context.mistyped_passwords);
        }
        let timeout = request.timeout.map(|timeout| timeout.saturating_sub(started.elapsed()));
        let issued = match self.keep_password(&volume, &request).await {
            Ok(()) => self.issuance.issue(guard, &volume, Purpose::Publish, timeout).await,
            Err(failure) => Err(failure),
        };
        match &issued {
            Ok(()) => {
                registry.insert(Arc::clone(&volume));
                // A source that changed before went through the volumes that were known then.
                let applied = volume.applied();
                if applied.refresh_sources() || applied.crls.has_changed() {
                    volume.schedule.put_now(Work::RefreshTrust);
                }
            }
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
        let (context, mounting) = (Arc::clone(&self.context), Arc::clone(&volume));
        let mounted = self.context.files.run(move |files| {
            files.prepare_generations(&mounting, &mounting.spec())?;
            files.store.write_generation(&mounting.id, &[])?;
            files.store.write_record(&mounting.record())?;
            files.measure(&mounting);
            context.mount(&mounting)
        });
        let mounted = mounted.await;
        self.context.registry.insert(Arc::clone(&volume));
        match mounted {
            Ok(()) => volume.schedule.put_in(Work::Renew, retry_after),
            Err(_) => volume.schedule.put_in(Work::Reap, REAP_AFTER),
        }
        mounted
    }

    /// Keeps the keystore's password of this call for the renewals, which get none. Not for a mounted volume: its keystore has
    /// the password that the pod knows.
    async fn keep_password(&self, volume: &Volume, request: &PublishRequest) -> Result<(), Failure> {
        let Some(KeystorePassword::Secret(_)) = &request.spec.files.password else { return Ok(()) };
        let (id, password) = (volume.id.clone(), request.context.keystore_password.clone());
        let keep = move |files: &VolumeFiles| match password {
            Some(password) => Ok(files.store.keep_password(&id, &password)?),
            None if files.store.has_password(&id) => Ok(()),
            // The volume had one, and was removed because its attributes are others now.
            None => Err(password_is_gone()),
        };
        self.context.files.run(keep).await
    }

    /// A publish of a volume that this process knows. Returns true if nothing more is to do.
    async fn republish(&self, volume: &Arc<Volume>, request: &PublishRequest) -> Result<bool, Failure> {
        let Context { files, clock, .. } = &*self.context;
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
        if is_bound {
            self.refresh(volume, request.context.tokens.clone());
            return Ok(true);
        }
        volume.refresh_tokens(request.context.tokens.clone());
        if record.issued.as_ref().is_none_or(|issued| issued.end() <= clock.now()) {
            return Ok(false);
        }
        let (context, mounting) = (Arc::clone(&self.context), Arc::clone(volume));
        files.run(move |_| context.mount(&mounting)).await?;
        self.issuance.schedule_renewal(volume);
        Ok(true)
    }

    /// A republish of a mounted volume: takes its tokens, and starts the renewal now if it is late or may only have lacked them.
    /// The kubelet republishes each volume about every minute, so this reads no file.
    fn refresh(&self, volume: &Volume, tokens: PodTokens) {
        let Context { obtainer, clock, .. } = &*self.context;
        let has_fresh_token = volume.refresh_tokens(tokens);
        let is_valid =
            volume.with_record(|record| record.issued.as_ref().map(|issued| issued.end() > clock.now()));
        let is_renewed_now = match is_valid {
            // The renewal may have failed only because the token had expired.
            Some(true) => {
                let failed = volume.with_record(|record| {
                    record.last_error.as_ref().is_some_and(|error| error.kind == FailureKind::Transient)
                });
                has_fresh_token && failed && obtainer.needs_token(&volume.spec())
            }
            // An error here could make the kubelet unmount the volume of a running pod (kubernetes#121271). So the renewal
            // is started now, and its failure is reported by metric, log and volume condition.
            Some(false) => {
                tracing::warn!(volume = %volume.id, "republished with an expired certificate; renewing now");
                true
            }
            // Mounted without files: the first certificate is requested now, unless it is already scheduled.
            None => volume.schedule.due(Work::Renew).is_none(),
        };
        if is_renewed_now {
            volume.schedule.put_now(Work::Renew);
        }
    }

    /// Whether a volume that is just being renewed is mounted as the request asks for. Then a republish has nothing to do, even
    /// if the certificate has expired. Takes no lock.
    async fn is_live(&self, request: &PublishRequest) -> bool {
        let Some(volume) = self.context.registry.get(&request.volume) else { return false };
        volume.refresh_tokens(request.context.tokens.clone());
        volume.with_record(|record| request.differs_from(record).is_none())
            && self.context.files.is_bound(&request.volume, &request.target).await == Ok(true)
    }

    /// What is mounted at the target of a volume that is not known to be mounted there.
    async fn found_at_target(&self, request: &PublishRequest) -> Result<Found, Failure> {
        if nothing_at(&request.target) {
            return Ok(Found::Nothing);
        }
        let (id, target) = (request.volume.clone(), request.target.clone());
        let certificate = target.join(request.spec.files.layout.certificate_file());
        let examined = self.context.files.run(move |files| {
            let occupied = |by: &str| {
                let message = format!(
                    "target_path {}: {by} is mounted there; unmount it, or delete the pod",
                    target.display()
                );
                Err(Failure::new(FailureKind::Occupied, message))
            };
            match files.mounts.at(&id, &target)? {
                AtTarget::Nothing => Ok(Found::Nothing),
                AtTarget::Volume => Ok(Found::OursWithoutRecord),
                AtTarget::AnotherVolume(another) => occupied(&format!("the volume {another}")),
                AtTarget::Foreign if !certificate.exists() => occupied("something else"),
                AtTarget::Foreign => Ok(Found::AnotherDrivers),
            }
        });
        examined.await
    }

    /// Adopts a volume that is mounted and whose record was lost. A running pod uses its files, so they stay even if the new
    /// certificate, which is requested as at a renewal, fails.
    async fn adopt(&self, request: &PublishRequest) -> Result<(), Failure> {
        let volume = request.new_volume(&self.context, self.context.counts.count(&request.context.pod));
        let (mut record, measured) = (volume.record(), Arc::clone(&volume));
        let now = self.context.clock.now();
        let adopted = self.context.files.run(move |files| {
            let id = &record.volume_id;
            let facts = files
                .read_back(&measured)
                .ok()
                .flatten()
                .map(|current| Arc::clone(&current.credential.facts));
            if let Some((facts, generation)) = facts.zip(files.store.generation(id)?) {
                let issued_at = facts.not_before.min(now);
                record.issued = Some(IssuedRecord {
                    facts,
                    issued_at,
                    renew_at: now,
                    generation,
                    warning: None,
                    trust: TrustRecord::default(),
                });
            }
            if let Err(error) = files.store.write_record(&record) {
                tracing::warn!(volume = %record.volume_id, %error, "no record yet; the renewal writes it");
            }
            files.measure(&measured);
            Ok(record)
        });
        volume.set_record(adopted.await?);
        let (context, serving) = (Arc::clone(&self.context), Arc::clone(&volume));
        // Renewed at once, and then tried again.
        let served = self.context.files.run(move |_| context.serve_socket(&serving)).await;
        if let Err(error) = served {
            tracing::error!(volume = %volume.id, %error, "the volume's socket could not be served");
        }
        self.context.registry.insert(Arc::clone(&volume));
        volume.schedule.put_now(Work::Renew);
        Ok(())
    }

    /// Cleans up after a failed first publish. A checkpoint stays for the retry, and so does a certificate of a slow signer that
    /// could not be mounted. All else is removed.
    async fn undo(&self, volume: Arc<Volume>) {
        let Context { files, obtainer, registry, .. } = &*self.context;
        let is_issued = volume.with_record(|record| record.issued.is_some());
        if files.store.has_checkpoint(&volume.id) || is_issued && obtainer.is_resumable(&volume.spec()) {
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
