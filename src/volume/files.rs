//! A volume on the node's file systems: its generations, record, checkpoint and bind mount.

use super::mounts::Mounts;
use super::volume::Volume;
use super::{Opened, StoreOptions, tmpfs};
use crate::credential::Current;
use crate::model::{Failure, FailureKind, VolumeId};
use crate::sink::files;
use crate::store::{IssuedRecord, Record, Store};
use crate::trust::TrustBundle;
use std::path::Path;
use std::sync::Arc;

/// Store and mounts. Cheap to clone.
#[derive(Clone)]
pub(crate) struct VolumeFiles {
    pub(super) store: Arc<Store>,
    pub(super) mounts: Arc<Mounts>,
}

/// Where a volume's mount stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    /// Mounted at its target.
    Mounted,
    /// Not mounted, but the kubelet still keeps the directory around the target: a publish may come.
    Expected,
    /// The directory around the target is gone, and so is the pod.
    Gone,
}

impl VolumeFiles {
    /// Opens the node's store, or adopts the one of an earlier process.
    pub(crate) fn open(options: &StoreOptions) -> Result<(Self, Opened), super::MountError> {
        let (store, view, opened) = tmpfs::open(options)?;
        let mounts = Arc::new(Mounts::new(store.root().to_owned(), view));
        Ok((Self { store: Arc::new(store), mounts }, opened))
    }

    /// The store.
    pub(crate) fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Runs file system work off the async threads.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        id: &VolumeId,
        work: impl FnOnce(&Self) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let files = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&files)).await;
        done.map_err(|error| ended_early(id, &error))?
    }

    /// Writes a credential with a trust bundle as the volume's next generation, and swaps it in atomically. No signer is
    /// involved: a new trust bundle alone is written so too. Returns the generation's number.
    pub(super) fn write_generation(&self, volume: &Volume, current: &Current) -> Result<u64, Failure> {
        let group = volume.spec.fs_group.or_else(|| volume.with_record(|record| record.fs_group));
        let new = files::encode(&current.credential, &current.trust, &volume.spec, group)?;
        Ok(self.store.write_generation(&volume.id, &new)?)
    }

    /// Hands over the credential in use with another trust bundle: a generation and a record, and no issuance. Returns what
    /// was written.
    pub(super) fn replace_trust(
        &self,
        volume: &Volume,
        trust: &Arc<TrustBundle>,
    ) -> Result<Option<Current>, Failure> {
        let Some(current) = self.current(volume)? else { return Ok(None) };
        let current = Current { trust: Arc::clone(trust), ..current };
        let generation = self.write_generation(volume, &current)?;
        let mut record = volume.record();
        record.issued = record.issued.map(|issued| IssuedRecord { generation, ..issued });
        self.store.write_record(&record)?;
        volume.set_record(record);
        Ok(Some(current))
    }

    /// The credential in use with its trust bundle: from memory, or read back from the live generation.
    pub(super) fn current(&self, volume: &Volume) -> Result<Option<Current>, Failure> {
        if let Some(current) = volume.live.current() {
            return Ok(Some(current));
        }
        let read = |name: &str| self.store.read_file(&volume.id, name);
        let names = &volume.spec.files;
        let (Some(key), Some(chain)) = (read(&names.private_key)?, read(&names.certificate)?) else {
            return Ok(None);
        };
        let anchors = read(&names.ca)?.unwrap_or_default();
        let (credential, trust) = files::decode(&key, &chain, &anchors)?;
        Ok(Some(Current { credential: Arc::new(credential), trust: Arc::new(trust) }))
    }

    /// Binds the volume at its target.
    pub(super) fn bind(&self, record: &Record) -> Result<(), Failure> {
        Ok(self.mounts.bind(&record.volume_id, &record.target).map(drop)?)
    }

    /// Whether the volume is what a reader finds at `target`.
    pub(super) fn is_bound(&self, id: &VolumeId, target: &Path) -> Result<bool, Failure> {
        Ok(self.mounts.is_bound(id, target)?)
    }

    /// Whether the volume is mounted, or can still be.
    pub(super) fn presence(&self, id: &VolumeId, target: &Path) -> Result<Presence, Failure> {
        Ok(if self.is_bound(id, target)? {
            Presence::Mounted
        } else if target.parent().is_some_and(Path::exists) {
            Presence::Expected
        } else {
            Presence::Gone
        })
    }
}

impl Volume {
    /// Where the volume's mount stands.
    pub(super) async fn presence(&self, files: &VolumeFiles) -> Result<Presence, Failure> {
        let (id, target) = (self.id.clone(), self.with_record(|record| record.target.clone()));
        files.run(&self.id, move |files| files.presence(&id, &target)).await
    }
}

/// A bug: the task that did the work panicked.
pub(super) fn ended_early(volume: &VolumeId, error: &tokio::task::JoinError) -> Failure {
    let message = format!("internal error: the task for volume {volume} ended early: {error}");
    Failure::new(FailureKind::Internal, message)
}
