//! What every operation on volumes uses.

use super::files::VolumeFiles;
use super::issuing_cas::IssuingCas;
use super::registry::Registry;
use super::report::Reporter;
use super::volume::Volume;
use super::volume_counts::{Counted, VolumeCounts};
use crate::attributes::OperatorDefaults;
use crate::credential::{Obtainer, Work, WorkQueue};
use crate::model::{CertificateSpec, Failure, PodTokens, VolumeId};
use crate::platform::Clock;
use crate::signer::{IssuedCertificate, RequestId, SignerNotification};
use crate::sink::Sockets;
use crate::store::{Record, Shares};
use crate::trust::{Crls, TrustSources};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// When a volume that is not mounted is checked again, to see whether its pod is gone.
pub(super) const REAP_AFTER: Duration = Duration::from_mins(10);

/// The node's volumes, in memory, in the store and with their signers.
pub(super) struct Context {
    pub(super) registry: Arc<Registry>,
    pub(super) files: VolumeFiles,
    pub(super) shares: Arc<Shares>,
    pub(super) counts: Arc<VolumeCounts>,
    pub(super) queue: Arc<WorkQueue>,
    pub(super) obtainer: Obtainer,
    pub(super) reporter: Reporter,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) shutdown: CancellationToken,
    pub(super) sockets: Sockets,
    pub(super) defaults: Arc<OperatorDefaults>,
    pub(super) trust: TrustSources,
    pub(super) issuing_cas: IssuingCas,
    /// `--max-volume-size`
    pub(super) volume_bytes: u64,
    pub(super) crls: Crls,
}

impl Context {
    /// A volume that the registry does not have yet.
    pub(super) fn new_volume(
        &self,
        record: Record,
        spec: Arc<CertificateSpec>,
        tokens: PodTokens,
        counted: Counted,
    ) -> Arc<Volume> {
        let schedule = self.queue.register(&record.volume_id, &record.pod.namespace);
        let events = self.registry.events(&record.volume_id);
        let account = self.shares.open(&record.pod.namespace);
        let applied = self.apply(spec, &record.pod.namespace);
        Volume::new(record, applied, tokens, schedule, events, (account, counted))
    }

    /// Removes a volume that is not mounted: from the store and from memory. Notifies its signer, which removes what it
    /// keeps for it.
    pub(super) async fn remove(&self, id: &VolumeId) -> Result<(), Failure> {
        let volume = id.clone();
        self.files.run(move |files| Ok(files.store.remove(&volume)?)).await?;
        if let Some(volume) = self.registry.remove(id) {
            self.notify_signer(&volume, None, <dyn SignerNotification>::removed);
        }
        Ok(())
    }

    /// Removes the volume of a pod that is gone. If that fails, it is tried again later.
    pub(super) async fn remove_orphan(&self, id: &VolumeId) {
        if let Err(error) = self.remove(id).await {
            tracing::error!(volume = %id, %error, "the volume of a pod that is gone could not be removed");
            if let Some(volume) = self.registry.get(id) {
                volume.schedule.put_in(Work::Reap, REAP_AFTER);
            }
        }
    }

    /// Notifies a volume's signer of the certificate in use. A certificate that was written twice does not supersede
    /// itself.
    pub(super) fn notify_signer(
        &self,
        volume: &Volume,
        superseded: Option<&str>,
        notify: fn(&(dyn SignerNotification + 'static), &IssuedCertificate<'_>),
    ) {
        let (spec, serial) = (volume.spec(), volume.fact(|facts| facts.serial.clone()));
        let serial = serial.as_deref();
        let superseded = superseded.filter(|old| serial != Some(*old));
        self.notify(volume, &spec, (serial, superseded), notify);
    }

    /// Notifies the signer of a certificate that its volume now has from another signer, or from another private CA. A signer that has
    /// the volume's new certificate too is notified of that one.
    pub(super) fn notify_last_signer(&self, volume: &Volume, last: &CertificateSpec, serial: Option<&str>) {
        self.notify(volume, last, (serial, None), <dyn SignerNotification>::removed);
    }

    fn notify(
        &self,
        volume: &Volume,
        spec: &CertificateSpec,
        (serial, superseded): (Option<&str>, Option<&str>),
        notify: fn(&(dyn SignerNotification + 'static), &IssuedCertificate<'_>),
    ) {
        let Ok(signer) = self.obtainer.signer(spec.signer.kind()) else { return };
        let id = &RequestId::new(volume.id.clone());
        let namespace = &volume.with_record(|record| record.pod.namespace.clone());
        notify(&*signer.notification, &IssuedCertificate { id, namespace, spec, serial, superseded });
    }
}
