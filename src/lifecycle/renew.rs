//! The task that turns the queue.

use super::errand::{Errand, Place};
use super::locks::Operation;
use super::schedule::{self, CATCH_UP, Lifetime};
use super::volume::Volume;
use super::{Lifecycle, LifecycleError, Shared};
use crate::attributes::VolumeId;
use crate::issue::FailureClass;
use crate::signer::Purpose;
use crate::store::LastError;
use jiff::Timestamp;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

/// When a volume that is not mounted is looked at again, to see whether its pod is gone.
const REAP_AFTER: Duration = Duration::from_mins(10);

/// When a volume somebody else is working on is looked at again.
const BUSY_RETRY: Duration = Duration::from_secs(5);

/// Within this time the kubelet has called for every volume whose driver has `requiresRepublish`.
const TOKENS_COME: Duration = Duration::from_mins(3);

/// What a renewal needs to write down that it has run out of patience.
const ON_ITS_WAY: Duration = Duration::from_secs(1);

/// How long a renewal goes on. It does not wait for a signer that needs an hour: what was begun is taken up when it is tried
/// again.
const PATIENCE: Duration = Duration::from_mins(1);

impl Lifecycle {
    /// Turns the queue until shutdown: sleeps until something is due, starts what is due, within the limit.
    pub async fn turn(&self) {
        let shared = &self.0;
        shared.turning.store(true, Ordering::Relaxed);
        tokio::select! {
            () = self.take_up_what_is_due() => {}
            () = shared.heed_answers() => {}
        }
        shared.turning.store(false, Ordering::Relaxed);
    }

    async fn take_up_what_is_due(&self) {
        let shared = &self.0;
        while let Some((volume, permit)) = shared.next_due().await {
            let shared = Arc::clone(shared);
            tokio::spawn(async move { shared.look_after(&volume, permit).await });
        }
    }
}

impl Shared {
    /// The next volume that is due, as soon as it is and there is room to work on it; none at shutdown.
    async fn next_due(&self) -> Option<(VolumeId, OwnedSemaphorePermit)> {
        let permit = tokio::select! {
            () = self.shutdown.cancelled() => return None,
            permit = Arc::clone(&self.renewing).acquire_owned() => permit.ok()?,
        };
        loop {
            let now = self.clock.now();
            if self.last_look.again(now) {
                self.queue_anew(now);
            }
            if let Some(volume) = self.queue.take_due(now) {
                return Some((volume, permit));
            }
            tokio::select! {
                () = self.shutdown.cancelled() => return None,
                () = self.queue.earlier() => {}
                () = self.clock.wait_until(self.queue.next()) => {}
            }
        }
    }

    /// The clock was ahead and has been set back. Pauses that began meanwhile would end in what is the future again, and so
    /// would the lives of certificates that were issued meanwhile.
    fn queue_anew(&self, now: Timestamp) {
        tracing::warn!("the clock was set back; renewals are queued anew");
        for volume in self.volumes.all() {
            let (id, renew_at) = volume.look(|record| {
                let issued =
                    record.issued.as_ref().filter(|issued| !schedule::is_ahead(issued.issued_at, now));
                (record.volume_id.clone(), issued.map(|issued| issued.renew_at))
            });
            let Some(due) = self.queue.due(&id) else { continue };
            let soon = now.saturating_add(schedule::place_within(CATCH_UP, &id)).unwrap_or(now);
            let at = renew_at.map_or(soon, |renew_at| renew_at.max(now));
            self.queue.put(&id, due.min(at));
        }
    }

    /// Puts ahead what pauses although its certificate has come. Never returns.
    async fn heed_answers(self: &Arc<Self>) {
        loop {
            let id = self.issuer.answered().await;
            let shared = Arc::clone(self);
            tokio::spawn(async move { shared.heed_answer(&id).await });
        }
    }

    /// A renewal whose patience ran out is tried again now, and not after its pause. For a publish that failed the kubelet
    /// calls again, whatever is done here.
    async fn heed_answer(self: &Arc<Self>, id: &VolumeId) {
        let Some(volume) = self.volumes.get(id) else { return };
        if self.queue.due(id).is_none() {
            // It has just run out, and the volume is on its way to its pause.
            tokio::time::sleep(ON_ITS_WAY).await;
        }
        if !matches!(self.presence(id, &volume).await, Ok(Presence::Mounted)) {
            return;
        }
        // Asked last, and nothing is waited for after it: whoever works on the volume has taken it out of the queue, and
        // puts it back after what was pending is cleared.
        if self.queue.due(id).is_some() && self.store.has_pending(id) {
            self.queue.put(id, self.clock.now());
        }
    }

    /// A volume is due: renew it if it is mounted, remove it if its pod is gone.
    async fn look_after(self: &Arc<Self>, id: &VolumeId, permit: OwnedSemaphorePermit) {
        let Ok(guard) = self.locks.try_acquire(id, Operation::Renewal) else {
            // A publish queues the volume again by itself if it issues, an unpublish forgets it; else we look again.
            return self.queue_in(id, BUSY_RETRY);
        };
        let Some(volume) = self.volumes.get(id) else { return };
        match self.presence(id, &volume).await {
            Ok(Presence::Mounted) if self.awaits_token(&volume) => self.queue_in(id, BUSY_RETRY),
            Ok(Presence::Mounted) => {
                let place = Place::new(permit, Arc::clone(&self.aside));
                let errand =
                    Errand { purpose: Purpose::Renewal, patience: Some(PATIENCE), place: Some(place) };
                if let Err(error) = self.issue(&guard, id, &volume, errand).await {
                    self.renewal_failed(id, &volume, &error);
                }
            }
            Ok(Presence::Expected) => self.queue_reap(id),
            Ok(Presence::Gone) => {
                tracing::info!(volume = %id, "the pod is gone; removing its volume");
                if let Err(error) = self.forget(id).await {
                    tracing::error!(volume = %id, %error, "the volume of a pod that is gone could not be removed");
                    self.queue_reap(id);
                }
            }
            Err(error) => self.renewal_failed(id, &volume, &error),
        }
    }

    /// Tokens are never stored: after a start they come with the kubelet's next call, and until then a renewal could only fail.
    fn awaits_token(&self, volume: &Volume) -> bool {
        self.needs_token(volume) && volume.tokens().is_empty() && self.started.elapsed() < TOKENS_COME
    }

    /// Whether the volume's certificate is asked for with a token of its pod's.
    pub(super) fn needs_token(&self, volume: &Volume) -> bool {
        let attributes = &volume.attributes;
        self.issuer.signer(attributes.signer).is_ok_and(|signer| signer.needs_token(attributes))
    }

    /// The old certificate stays; when to try again, and what to say.
    fn renewal_failed(&self, id: &VolumeId, volume: &Volume, error: &LifecycleError) {
        if matches!(error, LifecycleError::Cancelled { .. }) {
            // An unpublish wants the volume, or the process ends: neither is a failure. An unpublish of another target
            // leaves the volume as it is, with its renewal still to come.
            return self.queue_in(id, BUSY_RETRY);
        }
        let now = self.clock.now();
        let mut record = volume.record();
        let lifetime = record.issued.as_ref().map_or(Lifetime { issued_at: now, not_after: now }, |issued| {
            Lifetime { issued_at: issued.issued_at, not_after: issued.facts.not_after }
        });
        let class = error.class();
        // Counted by class: a moment's refusal after a long outage does not begin with the longest pause.
        let consecutive = record
            .last_error
            .as_ref()
            .filter(|last| last.class == class.as_str())
            .map_or(1, |last| last.consecutive.saturating_add(1));
        if let FailureClass::NotReady { retry_after } = class {
            tracing::debug!(volume = %id, %error, "looked at the pod too early");
            return self.queue_in(id, retry_after);
        }
        let pause =
            schedule::retry_after(class, consecutive, lifetime, now, schedule::spread(id, consecutive));
        let remaining = lifetime.remaining_fraction(now).max(0.0);
        tracing::warn!(
            volume = %id, namespace = record.pod.namespace, pod = record.pod.name, %error, class = class.as_str(),
            consecutive, retry_in_seconds = pause.as_secs_f64(), remaining_fraction = remaining,
            "renewal failed; the old certificate stays in place"
        );
        record.last_error = Some(LastError {
            at: now,
            message: error.to_string(),
            consecutive,
            class: class.as_str().to_owned(),
        });
        if let Err(error) = self.store.write_record(&record) {
            tracing::warn!(volume = %id, %error, "the failure could not be written to the volume's record");
        }
        volume.set_record(record);
        self.queue_in(id, pause);
    }

    /// Looks at an unmounted volume again later: if no publish has taken it up by then, its pod may be gone.
    pub(super) fn queue_reap(&self, id: &VolumeId) {
        self.queue_in(id, REAP_AFTER);
    }

    pub(super) fn queue_in(&self, id: &VolumeId, pause: Duration) {
        let now = self.clock.now();
        self.queue.put(id, now.saturating_add(pause).unwrap_or(now));
    }

    /// Whether the volume is mounted, or may still be.
    pub(super) async fn presence(
        self: &Arc<Self>,
        id: &VolumeId,
        volume: &Volume,
    ) -> Result<Presence, LifecycleError> {
        let (volume, target) = (id.clone(), volume.look(|record| record.target.clone()));
        self.blocking(id, move |shared| shared.look_at(&volume, &target)).await
    }

    /// As [`Self::presence`], on this thread.
    pub(super) fn look_at(&self, id: &VolumeId, target: &Path) -> Result<Presence, LifecycleError> {
        Ok(if self.store.is_bound(id, target)? {
            Presence::Mounted
        } else if target.parent().is_some_and(Path::exists) {
            // The kubelet removes the directory around the target when the pod ends.
            Presence::Expected
        } else {
            Presence::Gone
        })
    }
}

/// Where a volume's mount stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    /// Mounted at its target.
    Mounted,
    /// Not mounted, but the kubelet still keeps a place for it: a publish may come.
    Expected,
    /// The place is gone, and so is the pod.
    Gone,
}
