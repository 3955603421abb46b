//! Unpublish: removes everything of a volume.

use super::VolumeService;
use super::context::Context;
use super::files::ended_early;
use super::publish::busy;
use crate::model::{Failure, VolumeId};
use std::path::PathBuf;
use std::sync::Arc;

impl VolumeService {
    /// Cancels what is in flight for the volume, unmounts it and removes it. Succeeds if there is no such volume.
    pub(crate) async fn unpublish(&self, volume: VolumeId, target: PathBuf) -> Result<(), Failure> {
        let context = Arc::clone(&self.context);
        let guard = context.registry.acquire_for_unpublish(&volume).await;
        let guard = guard.map_err(|held| busy(&volume, &held))?;
        // A task of its own, so that an unpublish whose caller goes away is still finished.
        let task = tokio::spawn(async move {
            let _guard = guard;
            context.unpublish(&volume, target).await
        });
        task.await.map_err(|error| ended_early(&error))?
    }
}

impl Context {
    async fn unpublish(&self, id: &VolumeId, target: PathBuf) -> Result<(), Failure> {
        let published =
            self.registry.get(id).map(|volume| volume.with_record(|record| record.target.clone()));
        let elsewhere = published.filter(|published| *published != target);
        let volume = id.clone();
        self.files.run(move |files| Ok(files.mounts.unbind(&volume, &target)?)).await?;
        // This target is that of a publish that was refused. The volume is live at its other target, and stays.
        if let Some(published) = elsewhere
            && self.files.is_bound(id, &published).await?
        {
            return Ok(());
        }
        self.remove(id).await?;
        self.registry.forget_events(id);
        Ok(())
    }
}
