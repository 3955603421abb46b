//! Unpublish: everything about a volume is removed.

use super::VolumeService;
use super::files::{VolumeFiles, ended_early};
use super::issue::Issuance;
use super::publish::busy;
use super::registry::Registry;
use crate::model::{Failure, VolumeId};
use std::path::PathBuf;
use std::sync::Arc;

/// Removes volumes.
pub(super) struct Remover {
    pub(super) registry: Arc<Registry>,
    pub(super) files: VolumeFiles,
    pub(super) issuance: Arc<Issuance>,
}

impl VolumeService {
    /// Cancels what is in flight for the volume, unmounts it and removes it. Nothing there: nothing to do.
    pub async fn unpublish(&self, volume: VolumeId, target: PathBuf) -> Result<(), Failure> {
        let guard = self.registry.acquire_for_unpublish(&volume).await;
        let guard = guard.map_err(|operation| busy(&volume, operation))?;
        let remover = Arc::clone(&self.remover);
        let id = volume.clone();
        // A task of its own: a caller that goes away leaves no half of an unpublish behind.
        let task = tokio::spawn(async move {
            let _guard = guard;
            remover.unpublish(&id, target).await
        });
        task.await.map_err(|error| ended_early(&volume, &error))?
    }
}

impl Remover {
    async fn unpublish(&self, id: &VolumeId, target: PathBuf) -> Result<(), Failure> {
        let published =
            self.registry.get(id).map(|volume| volume.with_record(|record| record.target.clone()));
        let elsewhere = published.filter(|published| *published != target);
        let volume = id.clone();
        let in_use = self
            .files
            .run(id, move |files| {
                files.mounts.unbind(&target)?;
                elsewhere.map_or(Ok(false), |published| files.is_bound(&volume, &published))
            })
            .await?;
        // The target of a publish that was refused is removed without the live volume at the other target.
        if in_use {
            return Ok(());
        }
        self.remove(id).await?;
        self.registry.forget_told(id);
        Ok(())
    }

    /// Removes a volume that is mounted nowhere: from the store, from memory, and what its signer keeps for it. What its
    /// pod was told is kept for a while: a publish that fails again and again says so once.
    pub(super) async fn remove(&self, id: &VolumeId) -> Result<(), Failure> {
        let volume = id.clone();
        self.files.run(id, move |files| Ok(files.store.remove(&volume)?)).await?;
        if let Some(volume) = self.registry.remove(id) {
            self.issuance.notify_removed(&volume);
        }
        Ok(())
    }
}
