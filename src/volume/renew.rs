//! The renewal loop: starts volumes as they fall due, at most `limits.renewals` at once.

use super::context::{Context, REAP_AFTER};
use super::files::Presence;
use super::issue::Issuance;
use super::registry::Operation;
use super::volume::Volume;
use crate::credential::{
    CATCH_UP, Lifetime, Next, RenewalSlot, RenewalSlots, Work, is_ahead, offset_within, retry_after, spread,
};
use crate::model::{Failure, FailureKind, VolumeId};
use crate::signer::Purpose;
use crate::store::LastError;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The pause after work that was cancelled or that the node itself could not do, and between checks for a pod's token.
const SHORT_PAUSE: Duration = Duration::from_secs(5);

/// Within this time the kubelet has called for every volume whose driver has `requiresRepublish`.
const MAX_WAIT_FOR_TOKENS: Duration = Duration::from_mins(3);

/// Time for a timed-out renewal to record its failure and requeue.
const TIMEOUT_BOOKKEEPING: Duration = Duration::from_secs(1);

/// How long one renewal waits for its signer. For a signer that needs longer, the next attempt resumes what was begun.
const RENEWAL_TIMEOUT: Duration = Duration::from_mins(1);

/// A queue that is this far behind, and from which nothing was taken for as long, is stuck and not busy.
const STUCK_AFTER: Duration = Duration::from_mins(5);

/// Runs work that falls due.
pub(super) struct Renewals {
    context: Arc<Context>,
    issuance: Arc<Issuance>,
    slots: RenewalSlots,
    running: AtomicBool,
    started: Instant,
}

impl Renewals {
    /// At most `limit` renewals at a time (`--max-renewals-in-flight`).
    pub(super) fn new(context: Arc<Context>, issuance: Arc<Issuance>, limit: usize) -> Self {
        let (slots, running) = (RenewalSlots::new(limit), AtomicBool::new(false));
        Self { context, issuance, slots, running, started: Instant::now() }
    }

    pub(super) async fn run(self: &Arc<Self>) {
        self.running.store(true, Ordering::Relaxed);
        tokio::select! {
            () = self.context.shutdown.cancelled() => {}
            () = self.start_due_work() => {}
            () = self.follow_completed() => {}
        }
        self.running.store(false, Ordering::Relaxed);
    }

    pub(super) fn is_running(&self) -> bool {
        let queue = &self.context.queue;
        let is_stuck = queue.lateness() >= STUCK_AFTER && queue.idle() >= STUCK_AFTER;
        self.running.load(Ordering::Relaxed) && !is_stuck
    }

    /// Never returns.
    async fn start_due_work(self: &Arc<Self>) {
        loop {
            let slot = self.slots.acquire().await;
            let (id, work) = loop {
                match self.context.queue.next().await {
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
        let now = self.context.clock.now();
        for volume in self.context.registry.all() {
            let renew_at = volume.with_record(|record| {
                let issued = record.issued.as_ref().filter(|issued| !is_ahead(issued.issued_at, now));
                issued.map(|issued| issued.renew_at)
            });
            let soon = now.saturating_add(offset_within(CATCH_UP, &volume.id)).unwrap_or(now);
            for work in Work::ALL {
                let Some(due) = volume.schedule.due(work) else { continue };
                let at = renew_at.filter(|_| work == Work::Renew).map_or(soon, |at| at.max(now));
                volume.schedule.put(work, due.min(at));
            }
        }
    }

    /// Brings renewals forward whose requests were completed while they pause. Never returns.
    async fn follow_completed(self: &Arc<Self>) {
        loop {
            let id = VolumeId::new(self.context.obtainer.next_completed().await.as_str());
            let renewals = Arc::clone(self);
            tokio::spawn(async move { renewals.bring_forward(&id).await });
        }
    }

    /// A renewal that timed out is tried again now, and not after its pause. For a publish that failed the kubelet calls
    /// again, whatever is done here.
    async fn bring_forward(&self, id: &VolumeId) {
        let Context { registry, files, .. } = &*self.context;
        let Some(volume) = registry.get(id) else { return };
        if volume.schedule.due(Work::Renew).is_none() {
            // It has just timed out, and is not in the queue yet.
            tokio::time::sleep(TIMEOUT_BOOKKEEPING).await;
        }
        if files.presence(&volume).await != Ok(Presence::Mounted) {
            return;
        }
        // Checked last, without waiting for anything after it: an operation takes the volume out of the queue first, and
        // puts it back after it has cleared the checkpoint.
        if volume.schedule.due(Work::Renew).is_some() && files.store.has_checkpoint(id) {
            volume.schedule.put_now(Work::Renew);
        }
    }

    /// Runs work of a volume: nothing but removal, where its pod is gone.
    async fn run_due(self: &Arc<Self>, id: &VolumeId, work: Work, slot: RenewalSlot) {
        let Context { registry, files, .. } = &*self.context;
        let guard = match registry.try_acquire(id, Operation::Renewal) {
            Ok(guard) => guard,
            Err(held) => {
                drop(slot);
                held.released().await;
                // A publish schedules the renewal itself if it issues, an unpublish removes the volume.
                if let Some(volume) = registry.get(id)
                    && volume.schedule.due(work).is_none()
                {
                    volume.schedule.put_now(work);
                }
                return;
            }
        };
        // Under the lock: before it the volume can have been removed and published again.
        let Some(volume) = registry.get(id) else { return };
        match (work, files.presence(&volume).await) {
            (_, Ok(Presence::Gone)) => {
                tracing::info!(volume = %id, "the pod is gone; removing its volume");
                self.context.remove_orphan(id).await;
            }
            // Also where it is not mounted: the next publish binds the files that are there.
            (Work::RefreshTrust, Ok(Presence::Mounted | Presence::Expected)) => {
                self.refresh_trust(&volume).await;
            }
            (Work::Renew | Work::Reap, Ok(Presence::Expected)) => {
                volume.schedule.put_in(Work::Reap, REAP_AFTER);
            }
            (Work::Reap, Ok(Presence::Mounted)) => {
                // Its mount could not be examined when the process started.
                if volume.schedule.due(Work::Renew).is_none() {
                    self.issuance.schedule_renewal(&volume);
                }
            }
            (Work::Renew, Ok(Presence::Mounted)) if self.awaits_token(&volume) => {
                volume.schedule.put_in(Work::Renew, SHORT_PAUSE);
            }
            (Work::Renew, Ok(Presence::Mounted)) => {
                let issue = self.issuance.issue(&guard, &volume, Purpose::Renewal, Some(RENEWAL_TIMEOUT));
                if let Err(failure) = slot.run(issue).await {
                    self.renewal_failed(&volume, &failure);
                }
            }
            (Work::Renew, Err(failure)) => self.renewal_failed(&volume, &failure),
            (Work::RefreshTrust | Work::Reap, Err(error)) => {
                tracing::warn!(volume = %id, %error, "a volume's mount could not be examined; trying again");
                volume.schedule.put_in(work, SHORT_PAUSE);
            }
        }
    }

    /// Hands over a new trust bundle with the credential in use. On failure the old generation stays, and the refresh is
    /// tried again.
    async fn refresh_trust(&self, volume: &Arc<Volume>) {
        let refreshed = Arc::clone(volume);
        if let Err(error) = self.context.files.run(move |files| files.refresh_trust(&refreshed)).await {
            tracing::warn!(volume = %volume.id, %error, "a new trust bundle could not be written; the old files stay");
            volume.schedule.put_in(Work::RefreshTrust, SHORT_PAUSE);
        }
    }

    /// Tokens are never stored: after a start they come with the kubelet's next call, and until then a renewal can only
    /// fail.
    fn awaits_token(&self, volume: &Volume) -> bool {
        self.context.obtainer.needs_token(&volume.spec)
            && volume.tokens().is_empty()
            && self.started.elapsed() < MAX_WAIT_FOR_TOKENS
    }

    /// The old certificate stays: records the failure, logs it, and schedules the next attempt.
    fn renewal_failed(&self, volume: &Volume, failure: &Failure) {
        let (id, kind) = (&volume.id, failure.kind.retry_kind());
        if failure.kind == FailureKind::Cancelled {
            // An unpublish wants the volume, or the process ends: neither is a failure. An unpublish of another target
            // leaves the volume as it is, with its renewal still to come.
            return volume.schedule.put_in(Work::Renew, SHORT_PAUSE);
        }
        if kind == FailureKind::NotReady {
            tracing::debug!(volume = %id, error = %failure, "the pod is not ready yet");
            return volume.schedule.put_in(Work::Renew, failure.retry_after.unwrap_or_default());
        }
        let now = self.context.clock.now();
        let mut record = volume.record();
        let lifetime =
            record.issued.as_ref().map_or(Lifetime { issued_at: now, not_after: now }, Lifetime::of);
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
        record.last_error =
            Some(LastError { at: now, message: failure.recorded_message(), consecutive, kind });
        if let Err(error) = self.context.files.store.write_record(&record) {
            tracing::warn!(volume = %id, %error, "the failure could not be written to the volume's record");
        }
        volume.set_record(record);
        volume.schedule.put_in(Work::Renew, pause);
    }
}
