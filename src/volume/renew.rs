//! The renewal loop: starts volumes as they fall due, at most `limits.renewals` at once.

use super::files::Presence;
use super::issue::Issuance;
use super::registry::{Operation, Registry};
use super::remove::Remover;
use super::volume::Volume;
use crate::credential::{
    CATCH_UP, Lifetime, Next, RenewalSlot, RenewalSlots, Work, WorkQueue, is_ahead, position_within,
    retry_after, spread,
};
use crate::model::{Failure, FailureKind, VolumeId};
use crate::platform::Clock;
use crate::signer::Purpose;
use crate::store::LastError;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// When a volume that is not mounted is checked again, to see whether its pod is gone.
pub(super) const REAP_AFTER: Duration = Duration::from_mins(10);

/// When work of a volume that another operation has is tried again.
const BUSY_RETRY: Duration = Duration::from_secs(5);

/// Within this time the kubelet has called for every volume whose driver has `requiresRepublish`.
const TOKENS_COME: Duration = Duration::from_mins(3);

/// Time for a timed-out renewal to record its failure and requeue.
const TIMEOUT_BOOKKEEPING: Duration = Duration::from_secs(1);

/// How long one renewal waits for its signer. For a signer that needs longer, the next attempt resumes what was begun.
const RENEWAL_TIMEOUT: Duration = Duration::from_mins(1);

/// A queue that is this far behind, and from which nothing was taken for as long, is stuck and not busy.
const STUCK_AFTER: Duration = Duration::from_mins(5);

/// Runs work that falls due.
pub(super) struct Renewals {
    remover: Arc<Remover>,
    registry: Arc<Registry>,
    issuance: Arc<Issuance>,
    queue: Arc<WorkQueue>,
    clock: Arc<dyn Clock>,
    slots: RenewalSlots,
    running: AtomicBool,
    started: Instant,
    shutdown: CancellationToken,
}

impl Renewals {
    pub(super) fn new(
        remover: Arc<Remover>,
        queue: Arc<WorkQueue>,
        clock: Arc<dyn Clock>,
        slots: RenewalSlots,
        shutdown: CancellationToken,
    ) -> Self {
        Self {
            registry: Arc::clone(&remover.registry),
            issuance: Arc::clone(&remover.issuance),
            remover,
            queue,
            clock,
            slots,
            running: AtomicBool::new(false),
            started: Instant::now(),
            shutdown,
        }
    }

    pub(super) async fn run(self: &Arc<Self>) {
        self.running.store(true, Ordering::Relaxed);
        tokio::select! {
            () = self.shutdown.cancelled() => {}
            () = self.start_due_work() => {}
            () = self.follow_completed() => {}
        }
        self.running.store(false, Ordering::Relaxed);
    }

    pub(super) fn is_running(&self) -> bool {
        let is_stuck = self.queue.lateness() >= STUCK_AFTER && self.queue.idle() >= STUCK_AFTER;
        self.running.load(Ordering::Relaxed) && !is_stuck
    }

    /// Never returns.
    async fn start_due_work(self: &Arc<Self>) {
        loop {
            let slot = self.slots.acquire().await;
            let (id, work) = loop {
                match self.queue.next().await {
                    Next::Due(id, work) => break (id, work),
                    Next::ClockSetBack => self.reschedule_all(),
                }
            };
            let renewals = Arc::clone(self);
            tokio::spawn(async move { renewals.run_due(&id, work, slot).await });
        }
    }

    /// The clock was ahead and has been set back. Pauses that began meanwhile would end in what is the future again, and so
    /// would the lives of certificates that were issued meanwhile.
    fn reschedule_all(&self) {
        tracing::warn!("the clock was set back; renewals are scheduled anew");
        let now = self.clock.now();
        for volume in self.registry.all() {
            let renew_at = volume.with_record(|record| {
                let issued = record.issued.as_ref().filter(|issued| !is_ahead(issued.issued_at, now));
                issued.map(|issued| issued.renew_at)
            });
            let soon = now.saturating_add(position_within(CATCH_UP, &volume.id)).unwrap_or(now);
            for work in [Work::Renew, Work::RefreshTrust, Work::Reap] {
                let Some(due) = volume.schedule.due(work) else { continue };
                let at = renew_at.filter(|_| work == Work::Renew).map_or(soon, |at| at.max(now));
                self.queue.put(&volume.schedule, work, due.min(at));
            }
        }
    }

    /// Brings renewals forward whose requests were completed while they pause. Never returns.
    async fn follow_completed(self: &Arc<Self>) {
        loop {
            let id = VolumeId::new(self.issuance.obtainer.next_completed().await.as_str());
            let renewals = Arc::clone(self);
            tokio::spawn(async move { renewals.bring_forward(&id).await });
        }
    }

    /// A renewal that timed out is tried again now, and not after its pause. For a publish that failed the kubelet calls
    /// again, whatever is done here.
    async fn bring_forward(&self, id: &VolumeId) {
        let Some(volume) = self.registry.get(id) else { return };
        if volume.schedule.due(Work::Renew).is_none() {
            // It has just timed out, and is not in the queue yet.
            tokio::time::sleep(TIMEOUT_BOOKKEEPING).await;
        }
        if volume.presence(&self.issuance.files).await != Ok(Presence::Mounted) {
            return;
        }
        // Checked last, without waiting for anything after it: an operation takes the volume out of the queue first, and
        // puts it back after it has cleared the checkpoint.
        if volume.schedule.due(Work::Renew).is_some() && self.issuance.files.store.has_checkpoint(id) {
            self.queue.put_now(&volume.schedule, Work::Renew);
        }
    }

    /// Runs work of a volume: nothing but removal, where its pod is gone.
    async fn run_due(self: &Arc<Self>, id: &VolumeId, work: Work, slot: RenewalSlot) {
        let Some(volume) = self.registry.get(id) else { return };
        let Ok(guard) = self.registry.try_acquire(id, Operation::Renewal) else {
            // A publish schedules the renewal itself if it issues, an unpublish removes the volume; else it is tried again.
            return self.queue.put_in(&volume.schedule, work, BUSY_RETRY);
        };
        match volume.presence(&self.issuance.files).await {
            Ok(Presence::Mounted) => match work {
                // Mounted after all, though its mount could not be examined before: the renewal is still to be scheduled.
                Work::Reap if volume.schedule.due(Work::Renew).is_none() => {
                    self.issuance.schedule_renewal(&volume);
                }
                Work::Reap => {}
                Work::RefreshTrust => self.refresh_trust(&volume).await,
                Work::Renew if self.awaits_token(&volume) => {
                    self.queue.put_in(&volume.schedule, Work::Renew, BUSY_RETRY);
                }
                Work::Renew => {
                    let issue = self.issuance.issue(&guard, &volume, Purpose::Renewal, Some(RENEWAL_TIMEOUT));
                    if let Err(failure) = slot.run(issue).await {
                        self.renewal_failed(&volume, &failure);
                    }
                }
            },
            Ok(Presence::Expected) => {
                if work == Work::RefreshTrust {
                    self.refresh_trust(&volume).await;
                }
                self.queue.put_in(&volume.schedule, Work::Reap, REAP_AFTER);
            }
            Ok(Presence::Gone) => {
                tracing::info!(volume = %id, "the pod is gone; removing its volume");
                if let Err(error) = self.remover.remove(id).await {
                    tracing::error!(volume = %id, %error, "the volume of a pod that is gone could not be removed");
                    self.queue.put_in(&volume.schedule, Work::Reap, REAP_AFTER);
                }
            }
            Err(failure) if work == Work::Renew => self.renewal_failed(&volume, &failure),
            Err(error) => {
                tracing::warn!(volume = %id, %error, "a volume's mount could not be examined; trying again");
                self.queue.put_in(&volume.schedule, work, BUSY_RETRY);
            }
        }
    }

    /// Hands over a new trust bundle with the credential in use. On failure the old generation stays, and the refresh is
    /// tried again.
    async fn refresh_trust(&self, volume: &Arc<Volume>) {
        let Some(trust) = volume.trust() else { return };
        let replaced = Arc::clone(volume);
        let written =
            self.issuance.files.run(&volume.id, move |files| files.replace_trust(&replaced, &trust)).await;
        match written {
            Ok(Some(current)) => volume.live.publish(current),
            // Without a certificate yet: the bundle is handed over with the first one.
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(volume = %volume.id, %error, "a new trust bundle could not be written; the old files stay");
                self.queue.put_in(&volume.schedule, Work::RefreshTrust, BUSY_RETRY);
            }
        }
    }

    /// Tokens are never stored: after a start they come with the kubelet's next call, and until then a renewal can only
    /// fail.
    fn awaits_token(&self, volume: &Volume) -> bool {
        self.issuance.obtainer.needs_token(&volume.spec)
            && volume.tokens().is_empty()
            && self.started.elapsed() < TOKENS_COME
    }

    /// The old certificate stays: records the failure, logs it, and schedules the next attempt.
    fn renewal_failed(&self, volume: &Volume, failure: &Failure) {
        let (id, kind) = (&volume.id, failure.kind.retry_kind());
        if failure.kind == FailureKind::Cancelled {
            // An unpublish wants the volume, or the process ends: neither is a failure. An unpublish of another target
            // leaves the volume as it is, with its renewal still to come.
            return self.queue.put_in(&volume.schedule, Work::Renew, BUSY_RETRY);
        }
        if kind == FailureKind::NotReady {
            tracing::debug!(volume = %id, error = %failure, "the pod is not ready yet");
            volume.count_not_ready(false);
            let pause = failure.retry_after.unwrap_or_default();
            return self.queue.put_in(&volume.schedule, Work::Renew, pause);
        }
        let now = self.clock.now();
        let mut record = volume.record();
        let lifetime = record.issued.as_ref().map_or(Lifetime { issued_at: now, not_after: now }, |issued| {
            Lifetime { issued_at: issued.issued_at, not_after: issued.facts.not_after }
        });
        // Counted by kind: one refusal after a long outage does not begin with the longest pause.
        let last = record.last_error.as_ref().filter(|last| last.kind == kind);
        let consecutive = last.map_or(1, |last| last.consecutive.saturating_add(1));
        let pause = retry_after(failure, consecutive, lifetime, now, spread(id, consecutive));
        let remaining = lifetime.remaining_fraction(now).max(0.0);
        tracing::warn!(
            volume = %id, namespace = record.pod.namespace, pod = record.pod.name, error = %failure, %kind,
            consecutive, retry_in_seconds = pause.as_secs_f64(), remaining_fraction = remaining,
            "renewal failed; the old certificate stays in place"
        );
        record.last_error = Some(LastError { at: now, message: failure.to_string(), consecutive, kind });
        if let Err(error) = self.issuance.files.store.write_record(&record) {
            tracing::warn!(volume = %id, %error, "the failure could not be written to the volume's record");
        }
        volume.set_record(record);
        self.queue.put_in(&volume.schedule, Work::Renew, pause);
    }
}
