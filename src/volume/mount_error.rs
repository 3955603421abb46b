//! Errors of mounting and unmounting, with what a person can do about them.

use crate::model::{Failure, FailureKind};
use crate::store::StoreError;
use std::path::PathBuf;
use thiserror::Error;

/// Why the store's tmpfs, or a volume's bind mount, could not be made or removed. Nothing is left half done.
#[derive(Debug, Error)]
pub enum MountError {
    /// The store, or a system call.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An option of the store cannot be used.
    #[error("{flag} {value}: {problem}")]
    Option {
        /// The flag that sets it.
        flag: &'static str,
        /// Its value.
        value: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// The target path cannot be used.
    #[error("target path {} {problem}", target.display())]
    Target {
        /// The target path.
        target: PathBuf,
        /// What is wrong, and what to do.
        problem: &'static str,
    },
    /// The kernel's limit on mounts is reached.
    #[error("cannot mount at target path {}: this node is at its limit of mounts; raise sysctl fs.mount-max",
        target.display())]
    MountLimit {
        /// The target path.
        target: PathBuf,
    },
}

impl From<MountError> for Failure {
    fn from(error: MountError) -> Self {
        let kind = match error {
            MountError::Store(error) => return error.into(),
            MountError::MountLimit { .. } => FailureKind::Full,
            MountError::Option { .. } | MountError::Target { .. } => FailureKind::Internal,
        };
        Self::new(kind, error.to_string())
    }
}
