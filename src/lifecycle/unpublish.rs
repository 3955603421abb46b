//! Unpublish: everything about a volume goes.

use super::locks::Guard;
use super::news::News;
use super::{Lifecycle, LifecycleError, Shared, ended_early};
use crate::attributes::VolumeId;
use std::path::{Path, PathBuf};
use std::sync::Arc;

impl Lifecycle {
    /// Cancels what is in flight for the volume, takes its mount away and removes it. Nothing there: nothing to do.
    pub async fn unpublish(&self, volume: VolumeId, target: PathBuf) -> Result<(), LifecycleError> {
        let guard = self
            .0
            .locks
            .acquire_for_unpublish(&volume)
            .await
            .map_err(|operation| LifecycleError::Busy { volume: volume.clone(), operation })?;
        let shared = Arc::clone(&self.0);
        let id = volume.clone();
        // A task of its own: a caller that goes away leaves no half of an unpublish behind.
        let task = tokio::spawn(async move { shared.unpublish(&guard, &id, &target).await });
        task.await.map_err(|error| ended_early(&volume, &error))?
    }
}

impl Shared {
    async fn unpublish(
        self: &Arc<Self>,
        _guard: &Guard,
        id: &VolumeId,
        target: &Path,
    ) -> Result<(), LifecycleError> {
        let elsewhere = self.volumes.get(id).map(|volume| volume.look(|record| record.target.clone()));
        let elsewhere = elsewhere.filter(|published| published != target);
        let (volume, target) = (id.clone(), target.to_owned());
        let in_use = self
            .blocking(id, move |shared| {
                shared.store.unbind(&target)?;
                Ok(match elsewhere {
                    Some(published) => shared.store.is_bound(&volume, &published)?,
                    None => false,
                })
            })
            .await?;
        // The target of a publish that was refused goes without the live volume at the other target.
        if in_use {
            return Ok(());
        }
        self.forget(id).await?;
        self.events.forget(id);
        Ok(())
    }

    /// Removes a volume that is mounted nowhere: queue, memory, store, and what its signer still keeps for it. What its pod
    /// has been told is not forgotten, for a publish that fails again and again shall say so once.
    pub(super) async fn forget(self: &Arc<Self>, id: &VolumeId) -> Result<(), LifecycleError> {
        self.queue.remove(id);
        let volume = id.clone();
        self.blocking(id, move |shared| Ok(shared.store.remove(&volume)?)).await?;
        if let Some(volume) = self.volumes.remove(id) {
            self.tell_signer(id, &volume, News::Removed);
        }
        Ok(())
    }
}
