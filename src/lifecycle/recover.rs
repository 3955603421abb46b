//! Recovery: what the last process left, taken up or cleared away.

use super::renew::Presence;
use super::schedule::{CATCH_UP, is_ahead, place_within};
use super::volume::Volume;
use super::{Lifecycle, LifecycleError, Shared};
use crate::attributes::{Attributes, PodIdentity, PodTokens, VolumeId};
use crate::issue::CertificateFacts;
use crate::store::{IssuedRecord, Record, RecordError, StoredVolume, VolumeDir};
use std::sync::Arc;

/// What recovery found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Mounted volumes, taken up again.
    pub adopted: usize,
    /// Volumes whose publish was cut off; the kubelet's retry will find what they have.
    pub waiting: usize,
    /// Leftovers of volumes whose pod is gone, removed.
    pub removed: usize,
    /// Volumes whose record could not be read: their files stay, and the next publish issues them anew.
    pub unreadable: usize,
}

impl Lifecycle {
    /// Reads every record in the store: adopts what is mounted, queues its renewal, and removes what nobody has any more.
    /// An unreadable record costs that one volume a new issuance.
    pub async fn recover(&self) -> Result<Recovered, LifecycleError> {
        let shared = &self.0;
        let stored = shared.store.list()?;
        let mut recovered = Recovered::default();
        for StoredVolume { dir, record } in stored {
            match record {
                Ok(record) => shared.take_up(record, &mut recovered).await,
                Err(RecordError::Missing) => {
                    // A publish was cut off before its record was written, and so before anything was mounted.
                    shared.store.remove_dir(&dir)?;
                    recovered.removed += 1;
                }
                // The files stay for the pod that may have them mounted; its unpublish removes them.
                Err(RecordError::SetAside) => shared.pass_over(dir, &mut recovered),
                Err(error) => {
                    tracing::warn!(directory = %dir, %error, "unreadable record set aside; the next publish issues the volume anew");
                    if let Err(error) = shared.store.set_aside(&dir) {
                        tracing::error!(directory = %dir, %error, "an unreadable record could not be set aside");
                    }
                    shared.pass_over(dir, &mut recovered);
                }
            }
        }
        Ok(recovered)
    }
}

impl Shared {
    /// Nothing can be done for a volume without its record but to say that it is there.
    fn pass_over(&self, dir: VolumeDir, recovered: &mut Recovered) {
        self.volumes.note_unreadable(dir);
        recovered.unreadable += 1;
    }

    async fn take_up(self: &Arc<Self>, record: Record, recovered: &mut Recovered) {
        let id = record.volume_id.clone();
        let attributes = match Attributes::parse(&record.attributes, &record.pod) {
            Ok(attributes) => attributes,
            Err(error) => {
                // Mounted nowhere, it is of no use: its next publish is refused.
                if matches!(self.look_at(&id, &record.target), Ok(Presence::Gone | Presence::Expected)) {
                    return self.remove_orphan(&id, recovered).await;
                }
                let PodIdentity { namespace, name: pod, .. } = &record.pod;
                tracing::error!(volume = %id, namespace, pod, %error, "a stored volume's attributes are no longer accepted; it is not renewed");
                return self.pass_over(VolumeDir::of(&id), recovered);
            }
        };
        let volume = Volume::new(record, attributes, PodTokens::default());
        self.volumes.insert(id.clone(), Arc::clone(&volume));
        // On this thread: nothing else runs yet, and handing over each of a thousand volumes would take longer.
        match self.look_at(&id, &volume.look(|record| record.target.clone())) {
            Ok(Presence::Mounted) => {
                recovered.adopted += 1;
                self.queue_adopted(&id, &volume);
            }
            Ok(Presence::Expected) => {
                recovered.waiting += 1;
                self.queue_reap(&id);
            }
            Ok(Presence::Gone) => self.remove_orphan(&id, recovered).await,
            Err(error) => {
                tracing::error!(volume = %id, %error, "a stored volume's mount could not be looked at");
                self.queue_reap(&id);
            }
        }
    }

    async fn remove_orphan(self: &Arc<Self>, id: &VolumeId, recovered: &mut Recovered) {
        recovered.removed += 1;
        if let Err(error) = self.forget(id).await {
            tracing::error!(volume = %id, %error, "an orphaned volume could not be removed");
        }
    }

    fn queue_adopted(&self, id: &VolumeId, volume: &Volume) {
        let now = self.clock.now();
        let issued = volume.look(|record| record.issued.clone());
        let live = self.store.generation(id).ok().flatten();
        match issued {
            // The files are of another generation than the record: the last process ended between the two, and what the
            // record says is of an older certificate.
            Some(IssuedRecord { generation, .. }) if Some(generation) != live => self.queue.put(id, now),
            // Issued while the clock was ahead: the certificate is not valid yet, and its end says nothing.
            Some(IssuedRecord { issued_at, .. }) if is_ahead(issued_at, now) => {
                self.queue_in(id, place_within(CATCH_UP, id));
            }
            Some(IssuedRecord { renew_at, .. }) if renew_at > now => self.queue.put(id, renew_at),
            Some(IssuedRecord { facts: CertificateFacts { not_after, .. }, .. }) => {
                // It fell due while no process ran.
                let window = CATCH_UP.min(crate::clock::until(now, not_after) / 10);
                self.queue_in(id, place_within(window, id));
            }
            // Mounted but never issued: only a record from a version that did so could say this.
            None => self.queue.put(id, now),
        }
    }
}
