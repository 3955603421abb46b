//! One issuance for a volume: obtained, written, recorded, published to the sinks, its renewal scheduled.

use super::admission::Admission;
use super::files::VolumeFiles;
use super::registry::Guard;
use super::report::{Before, Reporter};
use super::volume::Volume;
use crate::credential::{
    Current, InUse, IssueOptions, Lifetime, Obtained, Obtainer, Work, WorkQueue, Workload, renew_at,
};
use crate::model::{CertificateFacts, Failure};
use crate::platform::Clock;
use crate::signer::{IssuedCertificate, Purpose, RequestId};
use crate::store::IssuedRecord;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Issues for volumes.
pub(super) struct Issuance {
    pub(super) files: VolumeFiles,
    pub(super) obtainer: Obtainer,
    pub(super) queue: Arc<WorkQueue>,
    pub(super) admission: Admission,
    pub(super) reporter: Reporter,
    pub(super) clock: Arc<dyn Clock>,
    /// How long a certificate is used at least (`--min-renewal-interval`).
    pub(super) renewal_interval: Duration,
}

impl Issuance {
    /// One issuance for a volume whose lock the caller holds: files written, record written, for a publish mounted, the
    /// next renewal scheduled.
    pub(super) async fn issue(
        self: &Arc<Self>,
        guard: &Guard,
        volume: &Arc<Volume>,
        purpose: Purpose,
        timeout: Option<Duration>,
    ) -> Result<(), Failure> {
        let started = Instant::now();
        let before = Before::of(volume);
        let superseded = volume.fact(|facts| facts.serial.clone());
        let options = IssueOptions { purpose, timeout, cancel: guard.cancel().clone() };
        let result = self.obtain_and_write(volume, options).await;
        self.reporter.issuance(volume, purpose, before, result.as_ref().copied(), started.elapsed());
        result?;
        self.schedule_renewal(volume);
        self.notify_in_use(volume, superseded);
        Ok(())
    }

    async fn obtain_and_write(
        self: &Arc<Self>,
        volume: &Arc<Volume>,
        options: IssueOptions,
    ) -> Result<(), Failure> {
        let bind = options.purpose == Purpose::Publish;
        let (identity, in_use, record_bytes) = volume.with_record(|record| {
            let in_use = record
                .issued
                .as_ref()
                .map(|issued| InUse { generation: issued.generation, not_after: issued.facts.not_after });
            (record.pod.clone(), in_use, record.encoded_len())
        });
        let _arrival = if in_use.is_none() { Some(self.admission.admit(record_bytes)?) } else { None };
        if in_use.is_none() && self.obtainer.is_resumable(&volume.spec) {
            // Before anything waits: without a record, a restart takes the volume for unfinished and removes it.
            self.files.store.write_record(&volume.record())?;
        }
        let tokens = volume.tokens();
        let workload = Workload {
            id: &volume.id,
            identity: &identity,
            tokens: &tokens,
            spec: &volume.spec,
            in_use,
            not_ready_count: volume.not_ready_count(),
        };
        let obtained = self.obtainer.obtain(workload, &options).await?;
        volume.count_not_ready(true);
        let (issuance, volume) = (Arc::clone(self), Arc::clone(volume));
        let id = volume.id.clone();
        self.files.run(&id, move |_| issuance.write(&volume, obtained, bind)).await
    }

    /// Files, record and, for a publish, the mount. On this thread.
    fn write(&self, volume: &Volume, obtained: Obtained, bind: bool) -> Result<(), Failure> {
        let Obtained { credential, trust, warning } = obtained;
        let current = Current {
            credential: Arc::new(credential),
            trust: volume.trust().unwrap_or_else(|| Arc::new(trust)),
        };
        let generation = self.files.write_generation(volume, &current)?;
        let mut record = volume.record();
        record.issued =
            Some(self.issued_record(volume, current.credential.facts.clone(), warning, generation));
        record.last_error = None;
        self.files.store.write_record(&record)?;
        // From here on the files are in place; should the bind fail, a retry finds them and binds.
        volume.set_record(record.clone());
        volume.live.publish(current);
        // Until now a crash would have had the signer resume the same request.
        if self.obtainer.is_resumable(&volume.spec) {
            self.files.store.clear_checkpoint(&volume.id)?;
        }
        if bind { self.files.bind(&record) } else { Ok(()) }
    }

    fn issued_record(
        &self,
        volume: &Volume,
        facts: CertificateFacts,
        warning: Option<String>,
        generation: u64,
    ) -> IssuedRecord {
        let issued_at = self.clock.now();
        let lifetime = Lifetime { issued_at, not_after: facts.not_after };
        let renew_at = renew_at(&volume.id, lifetime, volume.spec.renew_before, self.renewal_interval);
        IssuedRecord { facts, issued_at, renew_at, generation, warning }
    }

    /// Schedules the volume's renewal as its record says. It is mounted: nothing is left to reap.
    pub(super) fn schedule_renewal(&self, volume: &Volume) {
        volume.schedule.clear(Work::Reap);
        if let Some(at) = volume.with_record(|record| record.issued.as_ref().map(|issued| issued.renew_at)) {
            self.queue.put(&volume.schedule, Work::Renew, at);
        }
    }

    /// Notifies the signer that a volume has a new certificate.
    fn notify_in_use(&self, volume: &Volume, superseded: Option<String>) {
        let serial = volume.fact(|facts| facts.serial.clone());
        // The same certificate written twice supersedes nothing.
        let superseded = superseded.filter(|old| serial.as_ref() != Some(old));
        if let Ok(signer) = self.obtainer.signer(volume.spec.signer.kind()) {
            signer.notification.in_use(&issued(
                volume,
                serial.as_deref(),
                superseded.as_deref(),
                &request_id(volume),
            ));
        }
    }

    /// Notifies the signer that a volume is gone.
    pub(super) fn notify_removed(&self, volume: &Volume) {
        let serial = volume.fact(|facts| facts.serial.clone());
        if let Ok(signer) = self.obtainer.signer(volume.spec.signer.kind()) {
            signer.notification.removed(&issued(volume, serial.as_deref(), None, &request_id(volume)));
        }
    }
}

fn request_id(volume: &Volume) -> RequestId {
    RequestId::new(volume.id.clone())
}

fn issued<'a>(
    volume: &'a Volume,
    serial: Option<&'a str>,
    superseded: Option<&'a str>,
    id: &'a RequestId,
) -> IssuedCertificate<'a> {
    IssuedCertificate { id, spec: &volume.spec, serial, superseded }
}
