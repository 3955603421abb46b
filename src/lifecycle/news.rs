//! What a slow signer is told of a volume, so that it can clear away what stood for its older certificates.

use super::Shared;
use super::volume::Volume;
use crate::attributes::VolumeId;
use crate::signer::SignedVolume;
use std::sync::Arc;

/// What has come of a volume.
pub(super) enum News {
    /// It has a new certificate.
    Delivered {
        /// The serial number of the one it had.
        superseded: Option<String>,
    },
    /// It is gone.
    Removed,
}

impl Shared {
    /// Tells the volume's signer, without making anybody wait for it.
    pub(super) fn tell_signer(&self, id: &VolumeId, volume: &Arc<Volume>, news: News) {
        let Ok(signer) = self.issuer.signer(volume.attributes.signer) else { return };
        if !signer.is_slow() {
            return;
        }
        let (id, volume, signer) = (id.clone(), Arc::clone(volume), Arc::clone(signer));
        tokio::spawn(async move {
            let pod = volume.look(|record| record.pod.clone());
            let serial = serial(&volume);
            let mut told = SignedVolume {
                id: &id,
                pod: &pod,
                attributes: &volume.attributes,
                serial: serial.as_deref(),
                superseded: None,
            };
            match &news {
                News::Delivered { superseded } => {
                    // The same certificate delivered twice supersedes nothing.
                    told.superseded = superseded.as_deref().filter(|old| Some(*old) != told.serial);
                    signer.delivered(&told).await;
                }
                News::Removed => signer.removed(&told).await,
            }
        });
    }
}

/// The serial number of the certificate in use.
pub(super) fn serial(volume: &Volume) -> Option<String> {
    volume.look(|record| record.issued.as_ref().map(|issued| issued.facts.serial.clone()))
}
