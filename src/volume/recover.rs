//! Recovery: adopts or removes what the last process left.

use super::VolumeService;
use super::context::REAP_AFTER;
use super::files::Presence;
use super::volume::Volume;
use crate::attributes;
use crate::credential::{CATCH_UP, Work, is_ahead, offset_within};
use crate::model::{Failure, PodTokens, WorkloadIdentity};
use crate::platform::until;
use crate::store::{IssuedRecord, Record, RecordError, StoredVolume, VolumeDir};
use std::sync::Arc;
use std::time::Duration;

/// What recovery found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Recovered {
    /// Mounted volumes that were adopted.
    pub(crate) adopted: usize,
    /// Volumes whose publish was cut off. They wait for the kubelet's retry.
    pub(crate) waiting: usize,
    /// Volumes that were removed, because their pod is gone.
    pub(crate) removed: usize,
    /// Volumes whose record cannot be used. Their files stay, and the next publish requests a new certificate.
    pub(crate) unreadable: usize,
}

impl VolumeService {
    /// Reads every record in the store, adopts the mounted volumes, schedules their renewals, and removes volumes that no pod
    /// uses. A volume with an unreadable record is issued anew.
    pub(crate) async fn recover(&self) -> Result<Recovered, Failure> {
        let store = &self.context.files.store;
        let mut recovered = Recovered::default();
        for StoredVolume { dir, record } in store.list()? {
            match record {
                Ok(record) => self.adopt(record, &mut recovered).await,
                Err(RecordError::Missing) => {
                    // A publish was cut off before its record was written, so nothing was mounted.
                    store.remove_dir(&dir)?;
                    recovered.removed += 1;
                }
                // The files stay for the pod that may have them mounted; its unpublish removes them.
                Err(RecordError::MovedAway) => self.count_unreadable(dir, &mut recovered),
                Err(error) => {
                    tracing::warn!(directory = %dir, %error, "an unreadable record is moved away; the next publish requests a new certificate");
                    if let Err(error) = store.move_record_away(&dir) {
                        tracing::error!(directory = %dir, %error, "an unreadable record could not be moved away");
                    }
                    self.count_unreadable(dir, &mut recovered);
                }
            }
        }
        self.context.files.measure_all(&self.context.registry.all());
        Ok(recovered)
    }

    /// Counts a volume whose record cannot be used. Nothing else can be done for it.
    fn count_unreadable(&self, dir: VolumeDir, recovered: &mut Recovered) {
        self.context.registry.count_unreadable(dir);
        recovered.unreadable += 1;
    }

    async fn adopt(&self, mut record: Record, recovered: &mut Recovered) {
        let context = &self.context;
        // An earlier build kept them. A republish comes without them.
        attributes::take_mistyped(&mut record.attributes, context.defaults.dialect);
        let id = record.volume_id.clone();
        // On this thread: nothing else runs yet, and a hop to the blocking pool for each volume would take longer.
        let presence = context.files.presence_now(&id, &record.target);
        let in_use = record.issued.as_ref().map(|issued| &*issued.facts);
        let parsed = match &record.class {
            // The files are as the class was. Its next renewal follows the class that is in force now.
            Some(class) => attributes::parse_stored_class(class, &record.pod, &context.defaults, in_use),
            None => attributes::parse_stored(&record.attributes, &record.pod, &context.defaults, in_use),
        };
        let spec = match parsed {
            Ok(spec) => spec,
            // It is not mounted, and its next publish would be refused.
            Err(_) if matches!(presence, Ok(Presence::Gone | Presence::Expected)) => {
                recovered.removed += 1;
                return context.remove_orphan(&id).await;
            }
            Err(error) => {
                let WorkloadIdentity { namespace, name: pod, .. } = &record.pod;
                tracing::error!(volume = %id, namespace, pod, %error, "a stored volume's attributes are no longer accepted; it is not renewed");
                return self.count_unreadable(VolumeDir::of(&id), recovered);
            }
        };
        let counted = context.counts.count(&record.pod);
        let volume = context.new_volume(record, Arc::new(spec), PodTokens::default(), counted);
        context.registry.insert(Arc::clone(&volume));
        match presence {
            Ok(Presence::Mounted) => {
                recovered.adopted += 1;
                // On this thread too: clients of the last process connect again, and the path stays the same.
                if let Err(error) = context.serve_socket(&volume) {
                    tracing::error!(volume = %id, %error, "the volume's socket could not be served; the next renewal tries again");
                }
                self.schedule_adopted(&volume);
                if volume.spec().federated.is_some() {
                    // The operator may have removed a trust domain, whose anchors are still in the files.
                    volume.schedule.put_now(Work::RefreshTrust);
                } else if volume.applied().crls.is_asked_for() {
                    // It follows the sources of CRLs again, and writes nothing if they are the same.
                    volume.schedule.put_in(Work::RefreshTrust, offset_within(CATCH_UP, &volume.id));
                }
            }
            Ok(Presence::Gone) => {
                recovered.removed += 1;
                context.remove_orphan(&id).await;
            }
            Ok(Presence::Expected) => {
                recovered.waiting += 1;
                volume.schedule.put_in(Work::Reap, REAP_AFTER);
            }
            Err(error) => {
                tracing::error!(volume = %id, %error, "a stored volume's mount could not be examined");
                volume.schedule.put_in(Work::Reap, REAP_AFTER);
            }
        }
    }

    fn schedule_adopted(&self, volume: &Volume) {
        volume.schedule_retained();
        let now = self.context.clock.now();
        let put_in = |pause| volume.schedule.put_in(Work::Renew, pause);
        let live = self.context.files.store.generation(&volume.id).ok().flatten();
        match volume.with_record(|record| record.issued.clone()) {
            // The files are of another generation than the record: the last process ended after it wrote the files. The
            // record describes an older certificate.
            Some(IssuedRecord { generation, .. }) if Some(generation) != live => put_in(Duration::ZERO),
            // Issued while the clock was ahead: the certificate is not valid yet, and its end is wrong.
            Some(IssuedRecord { issued_at, .. }) if is_ahead(issued_at, now) => {
                put_in(offset_within(CATCH_UP, &volume.id));
            }
            Some(IssuedRecord { renew_at, .. }) if renew_at > now => {
                volume.schedule.put(Work::Renew, renew_at);
            }
            Some(issued) => {
                // The renewal fell due while no process ran.
                let window = CATCH_UP.min(until(now, issued.end()) / 10);
                put_in(offset_within(window, &volume.id));
            }
            // Mounted without files, because its pod was not ready.
            None => put_in(Duration::ZERO),
        }
    }
}
