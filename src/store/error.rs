//! Why the store could not do something, and what a person can do about it.

use super::RecordError;
use crate::model::{Failure, FailureKind};
use nix::errno::Errno;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why the store could not do something. Nothing is half done when one of these comes back.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The tmpfs has no room left.
    #[error("the store has no {resource} left to {operation} {}: raise {}", path.display(), resource.flag())]
    Full {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// What ran out.
        resource: Resource,
    },
    /// New volumes leave a part of the store alone.
    #[error(
        "the store has less than a tenth of its {resource} left, which is kept for renewals: raise {}", resource.flag()
    )]
    Reserved {
        /// What runs out.
        resource: Resource,
    },
    /// The file system is read-only.
    #[error("cannot {operation} {}: the file system is read-only; it must be writable for the driver", path.display())]
    ReadOnly {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
    },
    /// A directory the store relies on is not there.
    #[error(
        "cannot {operation} {}: it has vanished; something outside the driver removed or unmounted it, \
         and a restart of the driver sets the store up again", path.display()
    )]
    Vanished {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
    },
    /// The kernel refused for want of privileges.
    #[error(
        "not permitted to {operation} {}: the driver must be root with CAP_SYS_ADMIN (a privileged container)",
        path.display()
    )]
    NotPermitted {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
    },
    /// Any other error of the operating system.
    #[error("cannot {operation} {}: {source}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The directory is on a disk.
    #[error("{} is not on a tmpfs: keys must not reach a disk; give a directory of a tmpfs", root.display())]
    NotTmpfs {
        /// The directory.
        root: PathBuf,
    },
    /// Another process has the store open.
    #[error("another certlet process has the store at {} open: only one may run per data root", root.display())]
    InUse {
        /// The data root.
        root: PathBuf,
    },
    /// A file whose name is not a plain one.
    #[error("file name {name:?} {problem}")]
    FileName {
        /// The name.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The key could not be given to the pod's group.
    #[error("cannot give {} to group {group}: {source}; fs-group must be a group number this node can use",
        path.display())]
    Group {
        /// The file.
        path: PathBuf,
        /// The group.
        group: u32,
        /// What the operating system said.
        source: io::Error,
    },
    /// A record that cannot be read or written.
    #[error("the record {}: {source}", path.display())]
    Record {
        /// The record's file.
        path: PathBuf,
        /// What is wrong with it.
        source: RecordError,
    },
}

impl StoreError {
    /// Whether there is no room: more of it, or fewer volumes, would help.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::Reserved { .. })
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let kind = if error.is_full() { FailureKind::Full } else { FailureKind::Internal };
        Self::new(kind, error.to_string())
    }
}

/// What a tmpfs can run out of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Bytes, limited by `--store-size`.
    Space,
    /// Files and directories, limited by `--store-inodes`.
    Inodes,
}

impl Resource {
    fn flag(self) -> &'static str {
        match self {
            Self::Space => "--store-size",
            Self::Inodes => "--store-inodes",
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Space => "space",
            Self::Inodes => "inodes",
        })
    }
}

/// Turns the operating system's answer into a [`StoreError`] that says what was tried, and on what.
pub(crate) trait Attempt<T> {
    fn attempt(self, operation: &'static str, path: &Path) -> Result<T, StoreError>;
}

impl<T> Attempt<T> for io::Result<T> {
    fn attempt(self, operation: &'static str, path: &Path) -> Result<T, StoreError> {
        self.map_err(|source| classify(operation, path.to_owned(), source))
    }
}

impl<T> Attempt<T> for nix::Result<T> {
    fn attempt(self, operation: &'static str, path: &Path) -> Result<T, StoreError> {
        self.map_err(io::Error::from).attempt(operation, path)
    }
}

fn classify(operation: &'static str, path: PathBuf, source: io::Error) -> StoreError {
    match source.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOSPC) => StoreError::Full { operation, resource: exhausted(&path), path },
        Some(Errno::EROFS) => StoreError::ReadOnly { operation, path },
        Some(Errno::ENOENT) => StoreError::Vanished { operation, path },
        Some(Errno::EPERM | Errno::EACCES) => StoreError::NotPermitted { operation, path },
        _ => StoreError::Io { operation, path, source },
    }
}

/// The kernel says ENOSPC for both; which one it was decides the flag to raise.
fn exhausted(path: &Path) -> Resource {
    let statistics = path.ancestors().find_map(|ancestor| nix::sys::statvfs::statvfs(ancestor).ok());
    match statistics {
        Some(statistics) if statistics.files() > 0 && statistics.files_free() == 0 => Resource::Inodes,
        _ => Resource::Space,
    }
}
