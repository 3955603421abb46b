//! The renewal loop: starts volumes as they fall due, at most `limits.renewals` at once.

use super::context::{Context, REAP_AFTER};
use super::files::Presence;
use super::issue::Issuance;
use super::registry::Operation;
use super::volume::Volume;
use crate::credential::{
    CATCH_UP, Lifetime, MIN_RETRY, Next, RenewalSlot, RenewalSlots, Work, is_ahead, offset_within,
    retry_after, spread,
};
use crate::model::{Failure, FailureKind, VolumeId};
use crate::signer::Purpose;
use crate::store::LastError;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The pause after work that was cancelled or that failed on the node itself, and between checks for a pod's token.
const SHORT_PAUSE: Duration = Duration::from_secs(5);

/// With `requiresRepublish`, the kubelet has republished every volume within this time.
const MAX_WAIT_FOR_TOKENS: Duration = Duration::from_mins(3);

/// Time for a timed-out renewal to record its failure and requeue.
const TIMEOUT_BOOKKEEPING: Duration = Duration::from_secs(1);

/// How long one renewal waits for its signer. If the signer needs longer, the next attempt resumes the request.
const RENEWAL_TIMEOUT: Duration = Duration::from_mins(1);

/// If the queue is this late, and nothing was taken from it for this time, it is stuck and not just busy.
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
            match self.context.queue.next(&self.slots).await {
                Next::Due(id, work, slot) => {
                    let renewals = Arc::clone(self);
                    tokio::spawn(async move { renewals.run_due(&id, work, slot).await });
                }
                Next::ClockSetBack => self.reschedule_all(),
            }
        }
    }

    /// Schedules all work again after the clock was ahead and was set back. Due times that were set while it was ahead are
    /// too late now. So are the renewals of certificates that were issued while it was ahead.
    fn reschedule_all(&self) {
        tracing::warn!("the clock was set back; all work is scheduled again");
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

    /// Starts renewals early if their requests were completed during the pause before the next attempt. Never returns.
    async fn follow_completed(self: &Arc<Self>) {
        loop {
            let id = VolumeId::new(self.context.obtainer.next_completed().await.as_str());
            let renewals = Arc::clone(self);
            tokio::spawn(async move { renewals.bring_forward(&id).await });
        }
    }

    /// Tries a renewal that timed out again now, and not after its pause. A publish that failed needs nothing here,
    /// because the kubelet calls again.
    async fn bring_forward(&self, id: &VolumeId) {
        let Context { registry, files, .. } = &*self.context;
        let Some(volume) = registry.get(id) else { return };
        if volume.schedule.due(Work::Renew).is_none() {
            // The renewal has just timed out, and is not in the queue yet.
            tokio::time::sleep(TIMEOUT_BOOKKEEPING).await;
        }
        if files.presence(&volume).await != Ok(Presence::Mounted) {
            return;
        }
        // Checked last, with no await after it. An operation takes the volume out of the queue first, and puts it back
        // after it has cleared the checkpoint. So a volume in the queue that has a checkpoint has an unfinished
        // signing.
        if volume.schedule.due(Work::Renew).is_some() && files.store.has_checkpoint(id) {
            volume.schedule.put_now(Work::Renew);
        }
    }

    /// Runs due work of a volume. If its pod is gone, removes the volume instead.
    async fn run_due(self: &Arc<Self>, id: &VolumeId, work: Work, slot: RenewalSlot) {
        let Context { registry, files, .. } = &*self.context;
        let guard = match registry.try_acquire(id, Operation::Renewal) {
            Ok(guard) => guard,
            Err(held) => {
                drop(slot);
                held.released().await;
                // A publish that issues schedules the renewal itself. An unpublish removes the volume.
                if let Some(volume) = registry.get(id)
                    && volume.schedule.due(work).is_none()
                {
                    volume.schedule.put_now(work);
                }
                return;
            }
        };
        // Read under the lock: the volume can have been removed and published again before.
        let Some(volume) = registry.get(id) else { return };
        match (work, files.presence(&volume).await) {
            (_, Ok(Presence::Gone)) => {
                tracing::info!(volume = %id, "the pod is gone; removing its volume");
                self.context.remove_orphan(id).await;
            }
            // Also if the volume is not mounted, because the next publish binds the existing files.
            (Work::RefreshTrust, Ok(Presence::Mounted | Presence::Expected)) => {
                self.refresh_trust(&volume).await;
            }
            (Work::Renew | Work::Reap, Ok(Presence::Expected)) => {
                volume.schedule.put_in(Work::Reap, REAP_AFTER);
            }
            (Work::Reap, Ok(Presence::Mounted)) => {
                // The mount could not be examined when the process started, so no renewal was scheduled.
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
        let (context, refreshed) = (Arc::clone(&self.context), Arc::clone(volume));
        if let Err(error) = self.context.files.run(move |_| context.refresh_trust(&refreshed)).await {
            tracing::warn!(volume = %volume.id, %error, "a new trust bundle could not be written; the old files stay");
            volume.schedule.put_in(Work::RefreshTrust, SHORT_PAUSE);
        }
    }

    /// Whether a renewal must wait for the pod's token. Tokens are never stored: after a start they come with the
    /// kubelet's next call, and a renewal before that would fail.
    fn awaits_token(&self, volume: &Volume) -> bool {
        self.context.obtainer.needs_token(&volume.spec())
            && volume.tokens().is_empty()
            && self.started.elapsed() < MAX_WAIT_FOR_TOKENS
    }

    /// Records and logs the failure, and schedules the next attempt. The old certificate stays.
    fn renewal_failed(&self, volume: &Volume, failure: &Failure) {
        let (id, kind) = (&volume.id, failure.kind.retry_kind());
        if failure.kind == FailureKind::Cancelled {
            // An unpublish waits for the volume, or the process ends. Neither is a failure. An unpublish of another
            // target keeps the volume, so its renewal must stay in the queue.
            return volume.schedule.put_in(Work::Renew, SHORT_PAUSE);
        }
        if kind == FailureKind::NotReady {
            tracing::debug!(volume = %id, reason = %failure, "the renewal waits");
            let pause = failure.retry_after.unwrap_or_default().max(MIN_RETRY);
            return volume.schedule.put_in(Work::Renew, pause);
        }
        let now = self.context.clock.now();
        let mut record = volume.record();
        let lifetime =
            record.issued.as_ref().map_or(Lifetime { issued_at: now, not_after: now }, Lifetime::of);
        // Failures are counted by kind, so that the first refusal after a long outage does not get the longest pause.
        let last = record.last_error.as_ref().filter(|last| last.kind == kind);
        let consecutive = last.map_or(1, |last| last.consecutive.saturating_add(1));
        let pause = retry_after(failure, consecutive, lifetime, now, spread(id, consecutive));
        let remaining = lifetime.remaining_fraction(now).max(0.0);
        tracing::warn!(
            volume = %id, namespace = record.pod.namespace, pod = record.pod.name, error = %failure, %kind,
            consecutive, retry_in_seconds = pause.as_secs_f64(), remaining_fraction = remaining,
            "renewal failed; the old certificate stays in place"
        );
        let (message, retry_at) = (failure.recorded_message(), now.saturating_add(pause).ok());
        record.last_error = Some(LastError { at: now, message, consecutive, kind, retry_at });
        if let Err(error) = self.context.files.store.write_record(&record) {
            tracing::warn!(volume = %id, %error, "the failure could not be written to the volume's record");
        }
        volume.set_record(record);
        volume.schedule.put_in(Work::Renew, pause);
    }
}
