//! One issuance for a volume: obtains the credential, writes files and record, publishes it to the sinks, and schedules
//! the renewal.

use super::admission::Admission;
use super::context::Context;
use super::registry::Guard;
use super::report::Before;
use super::volume::Volume;
use crate::credential::{Current, IssueOptions, Lifetime, Obtained, Work, Workload, renew_at};
use crate::model::{Failure, FailureKind, MAX_MESSAGE_BYTES, clipped};
use crate::signer::{Purpose, SignerNotification};
use crate::store::IssuedRecord;
use crate::trust::joined_within;
use jiff::Timestamp;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a first certificate waits for trust sources that have not been read yet.
pub(super) const TRUST_TIMEOUT: Duration = Duration::from_secs(5);

/// Issues for volumes.
pub(super) struct Issuance {
    pub(super) context: Arc<Context>,
    pub(super) admission: Admission,
    /// The shortest time from an issuance to its renewal (`--min-renewal-interval`).
    pub(super) renewal_interval: Duration,
}

impl Issuance {
    /// One issuance for a volume whose lock the caller holds. It writes files and record, mounts the volume for a publish,
    /// and schedules the next renewal.
    pub(super) async fn issue(
        self: &Arc<Self>,
        guard: &Guard,
        volume: &Arc<Volume>,
        purpose: Purpose,
        timeout: Option<Duration>,
    ) -> Result<(), Failure> {
        let started = Instant::now();
        let before = Before::of(volume);
        let options = IssueOptions { purpose, timeout, cancel: guard.cancel().clone() };
        let result = self.obtain_and_write(volume, &options).await;
        let reported = result.as_ref().copied();
        self.context.reporter.issuance(volume, purpose, &before, reported, started.elapsed());
        if result.is_err() {
            self.context.files.measure(volume);
        }
        result?;
        self.schedule_renewal(volume);
        self.context.follow_issuing_ca(volume, before.issuing_ca.as_deref());
        self.context.notify_signer(volume, before.serial.as_deref(), <dyn SignerNotification>::in_use);
        Ok(())
    }

    async fn obtain_and_write(
        self: &Arc<Self>,
        volume: &Arc<Volume>,
        options: &IssueOptions,
    ) -> Result<(), Failure> {
        let Context { obtainer, files, .. } = &*self.context;
        let record = volume.record();
        let in_use = record.issued.as_ref();
        let _promise = self.admission.admit(volume, &record)?;
        if in_use.is_none() {
            // Before a signer is asked: without a trust bundle there would be nothing to hand over.
            let timeout = options.timeout.unwrap_or(TRUST_TIMEOUT).min(TRUST_TIMEOUT);
            let (own, ()) = tokio::join!(
                joined_within(&volume.trust_sources, timeout),
                volume.federation.read_within(timeout)
            );
            own.map_err(Failure::transient)?;
            volume.crls.check_before_first(timeout).await?;
        }
        if in_use.is_none() && obtainer.is_resumable(&volume.spec) {
            // Written before the first wait: a restart removes a volume without a record as unfinished.
            files.store.write_record(&record)?;
        }
        let workload = Workload {
            id: &volume.id,
            identity: &record.pod,
            tokens: &volume.tokens(),
            spec: &volume.spec,
            in_use,
            not_ready_count: volume.not_ready_count(),
            key_in_use: &|| files.key_in_use(volume),
        };
        let obtained = obtainer.obtain(workload, options).await;
        match &obtained {
            Ok(_) => volume.count_ready(true),
            Err(failure) if failure.kind == FailureKind::NotReady => volume.count_ready(false),
            Err(_) => {}
        }
        let (obtained, issuance, volume) = (obtained?, Arc::clone(self), Arc::clone(volume));
        let bind = options.purpose == Purpose::Publish;
        issuance.wait_for_crls(&volume, &obtained).await?;
        files.run(move |_| issuance.write(&volume, obtained, bind)).await
    }

    /// Writes files and record and, for a publish, makes the mount. Blocks this thread.
    fn write(&self, volume: &Arc<Volume>, obtained: Obtained, bind: bool) -> Result<(), Failure> {
        let Context { obtainer, files, clock, .. } = &*self.context;
        let anchored = self.context.anchored(volume, &obtained)?;
        let Obtained { credential, warning, .. } = obtained;
        let warnings: Vec<String> = warning.into_iter().chain(anchored.warning).collect();
        let warning = (!warnings.is_empty()).then(|| clipped(&warnings.join("; "), MAX_MESSAGE_BYTES));
        // Before the write, which can take long.
        let issued_at = clock.now();
        let facts = Arc::clone(&credential.facts);
        let trust = files.with_crls(volume, &credential, &anchored.trust)?;
        let current = Current { credential: Arc::new(credential), trust };
        let generation = match files.write_generation(volume, &current) {
            // The same certificate cannot be written later either.
            Err(failure) if failure.kind == FailureKind::Permanent => {
                obtainer.refuse_answer(&volume.id, &volume.spec)?;
                return Err(failure);
            }
            written => written?,
        };
        let mut record = volume.record();
        let trust = anchored.record;
        let mut issued = IssuedRecord { facts, issued_at, renew_at: issued_at, generation, warning, trust };
        issued.renew_at = self.renew_at(volume, &issued);
        record.issued = Some(issued);
        record.last_error = None;
        files.store.write_record(&record)?;
        // From here on the files are in place. If the bind fails, a retry finds them and binds.
        volume.set_record(record);
        volume.set_rejection(None);
        let trust = Arc::clone(&current.trust);
        volume.live.publish(current);
        volume.schedule_retained();
        // The trust sources can have changed during the write.
        volume.refresh_sources();
        let has_changed = volume.present_sources().is_ok_and(|sources| sources != anchored.sources);
        let has_changed = has_changed || volume.crls.has_changed();
        if has_changed || volume.federation.refreshed(Arc::clone(&trust), &trust) != trust {
            volume.schedule.put_now(Work::RefreshTrust);
        }
        // Cleared last: after a crash before this point, the same request is resumed.
        if obtainer.is_resumable(&volume.spec) {
            files.store.clear_checkpoint(&volume.id)?;
        }
        // A socket that could not be served at a restart is served now.
        if bind { self.context.mount(volume) } else { self.context.serve_socket(volume) }
    }

    /// When a new certificate is renewed.
    fn renew_at(&self, volume: &Volume, issued: &IssuedRecord) -> Timestamp {
        let Volume { id, spec, .. } = volume;
        let at = renew_at(id, Lifetime::of(issued), spec.renew_before, self.renewal_interval);
        if issued.end() == issued.facts.not_after {
            return at;
        }
        // An issuer whose own CA is about to end would otherwise be asked ever more often.
        at.max(issued.issued_at.saturating_add(self.renewal_interval).unwrap_or(Timestamp::MAX))
    }

    /// Schedules the renewal of a mounted volume at the time in its record, or its first certificate now. A mounted volume is
    /// not reaped.
    pub(super) fn schedule_renewal(&self, volume: &Volume) {
        volume.schedule.clear(Work::Reap);
        let renew_at = volume.with_record(|record| record.issued.as_ref().map(|issued| issued.renew_at));
        volume.schedule.put(Work::Renew, renew_at.unwrap_or_else(|| self.context.clock.now()));
    }
}
