//! One issuance for a volume: obtains the credential, writes files and record, publishes it to the sinks, and schedules
//! the renewal.

use super::admission::Admission;
use super::applied::AppliedSpec;
use super::context::Context;
use super::registry::Guard;
use super::report::Before;
use super::volume::Volume;
use crate::credential::{Current, IssueOptions, Lifetime, Obtained, Work, Workload, renew_at};
use crate::model::{CertificateSpec, Failure, FailureKind, MAX_MESSAGE_BYTES, SignerKind, VolumeId, clipped};
use crate::signer::{Purpose, SignerNotification};
use crate::store::IssuedRecord;
use crate::trust::{joined_within, read_within};
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
        let last = volume.applied();
        let options = IssueOptions { purpose, timeout, cancel: guard.cancel().clone() };
        let is_mounted = purpose == Purpose::Renewal || before.serial.is_some();
        let (signer, result) = match self.context.apply_class(volume, is_mounted) {
            Ok(next) => (next.spec.signer.kind(), self.obtain_and_write(volume, next, &options).await),
            Err(failure) => (last.spec.signer.kind(), Err(failure)),
        };
        let reported = result.as_ref().copied();
        self.context.reporter.issuance(volume, (signer, purpose), &before, reported, started.elapsed());
        if result.is_err() {
            self.context.files.measure(volume);
        }
        result?;
        self.schedule_renewal(volume);
        let (mut replaced, mut superseded) = (before.issuing_ca.as_deref(), before.serial.as_deref());
        if has_other_signer(volume, &last.spec) {
            self.context.notify_last_signer(volume, &last.spec, superseded);
            (replaced, superseded) = (None, None);
        }
        self.context.follow_issuing_ca(volume, replaced);
        self.context.notify_signer(volume, superseded, <dyn SignerNotification>::in_use);
        Ok(())
    }

    async fn obtain_and_write(
        self: &Arc<Self>,
        volume: &Arc<Volume>,
        applied: Arc<AppliedSpec>,
        options: &IssueOptions,
    ) -> Result<(), Failure> {
        let Context { obtainer, files, .. } = &*self.context;
        if volume.with_record(|record| record.issued.is_none()) {
            // No files depend on what applied before.
            volume.set_applied(&applied);
        }
        let asked = volume.ask(&applied.spec);
        if !volume.uses(asked.signer.kind()) {
            // It was asked for a certificate by an earlier version of the class, and has given none.
            self.context.notify_last_signer(volume, &asked, None);
        }
        let (record, spec) = (volume.record(), &*applied.spec);
        let in_use = record.issued.as_ref();
        let _promise = self.admission.admit(volume, &record)?;
        if in_use.is_none() {
            // Before a signer is asked: without a trust bundle there would be nothing to hand over.
            let timeout = options.timeout.unwrap_or(TRUST_TIMEOUT).min(TRUST_TIMEOUT);
            let (own, ()) = tokio::join!(
                joined_within(&applied.trust_sources, timeout),
                applied.federation.read_within(timeout)
            );
            own.map_err(Failure::transient)?;
            applied.crls.check_before_first(timeout).await?;
        } else {
            self.read_new_sources(volume, &applied).await?;
        }
        if in_use.is_none() && obtainer.is_resumable(spec) {
            // Written before the first wait: a restart removes a volume without a record as unfinished.
            files.store.write_record(&record)?;
        }
        let workload = Workload {
            id: &volume.id,
            identity: &record.pod,
            tokens: &volume.tokens(),
            spec,
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
        issuance.wait_for_crls(&applied, &obtained).await?;
        files.run(move |_| issuance.write(&volume, &applied, obtained, bind)).await
    }

    /// Reads the sources that a running volume has only now, by its changed class. Until its trust sources can be read, it trusts what it
    /// trusted before. CRLs that it did not have before must be there: without any, its files could not be written.
    async fn read_new_sources(&self, volume: &Volume, next: &Arc<AppliedSpec>) -> Result<(), Failure> {
        let now = volume.applied();
        if Arc::ptr_eq(next, &now) {
            return Ok(());
        }
        let sources: Vec<_> =
            next.trust_sources.iter().chain(next.federation.sources()).map(Arc::clone).collect();
        read_within(&sources, TRUST_TIMEOUT).await;
        if now.crls.is_asked_for() {
            return Ok(());
        }
        next.crls.check_before_first(TRUST_TIMEOUT).await
    }

    /// Writes files and record and, for a publish, makes the mount. Blocks this thread.
    fn write(
        &self,
        volume: &Arc<Volume>,
        applied: &Arc<AppliedSpec>,
        obtained: Obtained,
        bind: bool,
    ) -> Result<(), Failure> {
        let Context { obtainer, files, clock, .. } = &*self.context;
        let spec = &*applied.spec;
        let anchored = self.context.anchored(volume, applied, &obtained, !bind)?;
        let Obtained { credential, warning, .. } = obtained;
        let warnings: Vec<String> = warning.into_iter().chain(anchored.warning).collect();
        let warning = (!warnings.is_empty()).then(|| clipped(&warnings.join("; "), MAX_MESSAGE_BYTES));
        // Before the write, which can take long.
        let issued_at = clock.now();
        let facts = Arc::clone(&credential.facts);
        let trust = files.with_crls(volume, applied, &credential, &anchored.trust)?;
        let current = Current { credential: Arc::new(credential), trust };
        let generation = match files.write_generation(volume, spec, &current) {
            // The same certificate cannot be written later either.
            Err(failure) if failure.kind == FailureKind::Permanent => {
                obtainer.refuse_answer(&volume.id, spec)?;
                return Err(failure);
            }
            written => written?,
        };
        // From here on the files are read by it.
        volume.set_applied(applied);
        let mut record = volume.record();
        let trust = anchored.record;
        let mut issued = IssuedRecord { facts, issued_at, renew_at: issued_at, generation, warning, trust };
        issued.renew_at = self.renew_at(&volume.id, spec, &issued);
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
        applied.refresh_sources();
        let has_changed = applied.present_sources().is_ok_and(|sources| sources != anchored.sources);
        let has_changed = has_changed || applied.crls.has_changed();
        if has_changed || applied.federation.refreshed(Arc::clone(&trust), &trust) != trust {
            volume.schedule.put_now(Work::RefreshTrust);
        }
        // Cleared last: after a crash before this point, the same request is resumed.
        // A class can have had a resumable signer before.
        if obtainer.is_resumable(spec) || spec.class.is_some() {
            files.store.clear_checkpoint(&volume.id)?;
        }
        // A socket that could not be served at a restart is served now.
        if bind { self.context.mount(volume) } else { self.context.serve_socket(volume) }
    }

    /// When a new certificate is renewed.
    fn renew_at(&self, id: &VolumeId, spec: &CertificateSpec, issued: &IssuedRecord) -> Timestamp {
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

/// Whether the certificate before is another signer's, or another private CA's, than the one in use.
fn has_other_signer(volume: &Volume, last: &CertificateSpec) -> bool {
    let spec = volume.spec();
    let (now, before) = (&spec.signer, &last.signer);
    // One signer keeps all requests of a volume to cert-manager, whichever issuer they name.
    now.kind() != before.kind()
        || now.kind() == SignerKind::AcmPca
            && volume.with_record(|record| {
                let namespace = &record.pod.namespace;
                now.authority(namespace) != before.authority(namespace)
            })
}
