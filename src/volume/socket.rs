//! The sockets of volumes.

use super::context::Context;
use super::files::VolumeFiles;
use super::volume::Volume;
use crate::credential::Follower;
use crate::model::{Failure, FailureKind};
use crate::sink::{Access, SocketOwner, Workload};
use futures_util::future::BoxFuture;
use std::sync::{Arc, Weak};

impl Context {
    /// Serves the volume's socket, if it asks for one, and binds the volume at its target. Blocks this thread.
    pub(super) fn mount(self: &Arc<Self>, volume: &Arc<Volume>) -> Result<(), Failure> {
        self.serve_socket(volume)?;
        self.files.bind(&volume.record())
    }

    /// Serves the volume's socket, if it asks for one and none is served yet. Blocks this thread.
    pub(super) fn serve_socket(self: &Arc<Self>, volume: &Arc<Volume>) -> Result<(), Failure> {
        let spec = volume.spec();
        let Some(name) = &spec.files.socket else { return Ok(()) };
        let mut served = volume.socket.lock();
        if served.is_some() {
            return Ok(());
        }
        let new = Access::new(&spec, volume.group(&spec)).socket(name);
        let listener = self.files.store.listen(&volume.id, &new)?;
        let workload = VolumeWorkload {
            volume: Arc::downgrade(volume),
            files: self.files.clone(),
            context: Arc::downgrade(self),
        };
        let owner = SocketOwner {
            volume: volume.id.clone(),
            namespace: volume.with_record(|record| record.pod.namespace.clone()),
            workload: Arc::new(workload),
        };
        let socket = self.sockets.serve(listener, owner).map_err(|error| {
            let message = format!("the volume's socket cannot be served: {error}");
            Failure::new(FailureKind::Internal, message)
        })?;
        *served = Some(socket);
        Ok(())
    }
}

/// A volume as its socket sees it. It does not keep the volume in memory.
struct VolumeWorkload {
    volume: Weak<Volume>,
    files: VolumeFiles,
    context: Weak<Context>,
}

impl Workload for VolumeWorkload {
    fn follow(&self) -> BoxFuture<'_, Result<Follower, Failure>> {
        Box::pin(async move {
            let volume = self
                .volume
                .upgrade()
                .ok_or_else(|| Failure::new(FailureKind::NotFound, "the volume is unmounted"))?;
            self.files.follow(volume).await
        })
    }

    fn secret_rejected(&self, message: &str) {
        if let Some((volume, context)) = self.volume.upgrade().zip(self.context.upgrade()) {
            context.reporter.secret_rejected(&volume, message);
        }
    }
}
