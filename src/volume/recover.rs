//! Recovery: what the last process left, adopted or removed.

use super::files::Presence;
use super::registry::Registry;
use super::volume::Volume;
use super::{VolumeService, renew};
use crate::attributes;
use crate::credential::{CATCH_UP, Work, is_ahead, position_within};
use crate::model::{Failure, PodTokens, WorkloadIdentity};
use crate::platform::until;
use crate::store::{IssuedRecord, Record, RecordError, StoredVolume, VolumeDir};
use std::sync::Arc;

/// What recovery found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Mounted volumes, adopted.
    pub adopted: usize,
    /// Volumes whose publish was cut off; the kubelet's retry will find what they have.
    pub waiting: usize,
    /// Leftovers of volumes whose pod is gone, removed.
    pub removed: usize,
    /// Volumes whose record could not be read: their files stay, and the next publish issues them anew.
    pub unreadable: usize,
}

impl VolumeService {
    /// Reads every record in the store: adopts what is mounted, schedules its renewal, and removes what nobody has any
    /// more. An unreadable record costs that one volume a new issuance.
    pub async fn recover(&self) -> Result<Recovered, Failure> {
        let mut recovered = Recovered::default();
        for StoredVolume { dir, record } in self.files.store.list()? {
            match record {
                Ok(record) => self.adopt(record, &mut recovered).await,
                Err(RecordError::Missing) => {
                    // A publish was cut off before its record was written, and so before anything was mounted.
                    self.files.store.remove_dir(&dir)?;
                    recovered.removed += 1;
                }
                // The files stay for the pod that may have them mounted; its unpublish removes them.
                Err(RecordError::Quarantined) => recovered.count_unreadable(&self.registry, dir),
                Err(error) => {
                    tracing::warn!(directory = %dir, %error, "unreadable record set aside; the next publish issues the volume anew");
                    if let Err(error) = self.files.store.quarantine(&dir) {
                        tracing::error!(directory = %dir, %error, "an unreadable record could not be set aside");
                    }
                    recovered.count_unreadable(&self.registry, dir);
                }
            }
        }
        Ok(recovered)
    }

    async fn adopt(&self, record: Record, recovered: &mut Recovered) {
        let id = record.volume_id.clone();
        // On this thread: nothing else runs yet, and handing over each of a thousand volumes would take longer.
        let presence = self.files.presence(&id, &record.target);
        let spec = match attributes::parse(&record.attributes, &record.pod) {
            Ok(spec) => spec,
            Err(error) => {
                // Mounted nowhere, it is of no use: its next publish is refused.
                if matches!(presence, Ok(Presence::Gone | Presence::Expected)) {
                    return self.remove_orphan(&record, recovered).await;
                }
                let WorkloadIdentity { namespace, name: pod, .. } = &record.pod;
                tracing::error!(volume = %id, namespace, pod, %error, "a stored volume's attributes are no longer accepted; it is not renewed");
                return recovered.count_unreadable(&self.registry, VolumeDir::of(&id));
            }
        };
        let volume = Volume::new(record, spec, PodTokens::default(), &self.queue);
        self.registry.insert(Arc::clone(&volume));
        match presence {
            Ok(Presence::Mounted) => {
                recovered.adopted += 1;
                self.schedule_adopted(&volume);
            }
            Ok(Presence::Expected) => {
                recovered.waiting += 1;
                self.queue.put_in(&volume.schedule, Work::Reap, renew::REAP_AFTER);
            }
            Ok(Presence::Gone) => self.remove_orphan(&volume.record(), recovered).await,
            Err(error) => {
                tracing::error!(volume = %id, %error, "a stored volume's mount could not be examined");
                self.queue.put_in(&volume.schedule, Work::Reap, renew::REAP_AFTER);
            }
        }
    }

    async fn remove_orphan(&self, record: &Record, recovered: &mut Recovered) {
        recovered.removed += 1;
        if let Err(error) = self.remover.remove(&record.volume_id).await {
            tracing::error!(volume = %record.volume_id, %error, "an orphaned volume could not be removed");
        }
    }

    fn schedule_adopted(&self, volume: &Volume) {
        let now = self.clock.now();
        let put_in = |pause| self.queue.put_in(&volume.schedule, Work::Renew, pause);
        let live = self.files.store.generation(&volume.id).ok().flatten();
        match volume.with_record(|record| record.issued.clone()) {
            // The files are of another generation than the record: the last process ended between the two, and what the
            // record says is of an older certificate.
            Some(IssuedRecord { generation, .. }) if Some(generation) != live => {
                self.queue.put_now(&volume.schedule, Work::Renew);
            }
            // Issued while the clock was ahead: the certificate is not valid yet, and its end says nothing.
            Some(IssuedRecord { issued_at, .. }) if is_ahead(issued_at, now) => {
                put_in(position_within(CATCH_UP, &volume.id));
            }
            Some(IssuedRecord { renew_at, .. }) if renew_at > now => {
                self.queue.put(&volume.schedule, Work::Renew, renew_at);
            }
            Some(IssuedRecord { facts, .. }) => {
                // It fell due while no process ran.
                let window = CATCH_UP.min(until(now, facts.not_after) / 10);
                put_in(position_within(window, &volume.id));
            }
            // Mounted empty, because its pod was not ready.
            None => self.queue.put_now(&volume.schedule, Work::Renew),
        }
    }
}

impl Recovered {
    /// Nothing can be done for a volume without its record but to count it.
    fn count_unreadable(&mut self, registry: &Registry, dir: VolumeDir) {
        registry.count_unreadable(dir);
        self.unreadable += 1;
    }
}
