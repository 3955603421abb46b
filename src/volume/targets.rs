//! Where a pod finds its volume: at the target of a bind mount or, for a sidecar, in the store itself.

use super::mount_error::MountError;
use super::mounts::{AtTarget, Mounts};
use crate::model::VolumeId;
use crate::store::{Store, StoreError};
use std::path::Path;
use std::sync::Arc;

/// Where pods find their volumes.
#[derive(Clone, Debug)]
pub(super) enum Targets {
    /// Each at the target that the kubelet names, by a bind mount.
    Mounted(Arc<Mounts>),
    /// The only volume, in the directory where the store writes it. Nothing is mounted.
    Unmounted(Arc<Store>),
}

impl Targets {
    /// See [`Mounts::bind`].
    pub(super) fn bind(&self, volume: &VolumeId, target: &Path) -> Result<(), MountError> {
        match self {
            Self::Mounted(mounts) => mounts.bind(volume, target),
            Self::Unmounted(_) => Ok(()),
        }
    }

    /// Whether a reader finds this volume at `target`. In place it does with the first generation.
    pub(super) fn is_bound(&self, volume: &VolumeId, target: &Path) -> Result<bool, StoreError> {
        match self {
            Self::Mounted(mounts) => mounts.is_bound(volume, target),
            Self::Unmounted(store) => Ok(store.generation(volume)?.is_some()),
        }
    }

    /// What a reader finds at `target`, and whether it is this volume.
    pub(super) fn at(&self, volume: &VolumeId, target: &Path) -> Result<AtTarget, StoreError> {
        match self {
            Self::Mounted(mounts) => mounts.at(volume, target),
            Self::Unmounted(_) if self.is_bound(volume, target)? => Ok(AtTarget::Volume),
            Self::Unmounted(_) => Ok(AtTarget::Nothing),
        }
    }

    /// See [`Mounts::unbind`].
    pub(super) fn unbind(&self, volume: &VolumeId, target: &Path) -> Result<(), MountError> {
        match self {
            Self::Mounted(mounts) => mounts.unbind(volume, target),
            Self::Unmounted(_) => Ok(()),
        }
    }
}
