//! Errors of the store, with what a person can do about them.

use crate::model::{Failure, FailureKind};
use nix::errno::Errno;
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// An error of the store. The operation has changed nothing, or has been undone.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The operating system refused an operation.
    #[error("cannot {operation} {}: {cause}", path.display())]
    System {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it was refused.
        cause: Cause,
    },
    /// The rest of the store is reserved for renewals.
    #[error(
        "the store has less than a tenth of its {} left, which is kept for renewals: raise {}",
        resource.name(),
        resource.flag()
    )]
    Reserved {
        /// What runs out.
        resource: Resource,
    },
    /// What is left is reserved for others.
    #[error(
        "the store has too little {} left for a renewal in namespace {namespace}: remove volumes that are not needed, or \
         raise {}",
        resource.name(),
        resource.flag()
    )]
    Crowded {
        /// Whose volume it is.
        namespace: String,
        /// What runs out.
        resource: Resource,
    },
    /// A namespace would use more of the store than one may.
    #[error(
        "the volumes of namespace {namespace} would use {used} {} of the store; accepted: at most {limit}, the {percent} % \
         of --max-store-share-per-namespace; remove volumes of that namespace, or raise that flag or {}",
        resource.unit(),
        resource.flag()
    )]
    NamespaceShare {
        /// The namespace.
        namespace: String,
        /// What it would use too much of.
        resource: Resource,
        /// How much it would use.
        used: u64,
        /// How much it may use.
        limit: u64,
        /// The same in percent of the store.
        percent: u8,
    },
    /// The files of one volume are too large.
    #[error(
        "the volume's files have {bytes} bytes; accepted: at most {limit} (--max-volume-size); the signer's chain and CA \
         are most of it, and each keystore repeats them"
    )]
    VolumeTooLarge {
        /// How large they are.
        bytes: u64,
        /// How large they may be.
        limit: u64,
    },
    /// The CRLs would take too much.
    #[error(
        "the CRLs would take {bytes} bytes of the store; accepted: at most {limit}, two fifths of it; raise --store-size"
    )]
    CrlsTooLarge {
        /// How much they would take.
        bytes: u64,
        /// How much they may take.
        limit: u64,
    },
    /// The directory is on a disk.
    #[error("{} is not on a tmpfs: keys must not reach a disk; give a directory of a tmpfs", root.display())]
    NotTmpfs {
        /// The directory.
        root: PathBuf,
    },
    /// There is no store.
    #[error(
        "there is no store in {}: no certlet node has run with this --data-root or --driver-name, and no certlet sidecar with \
         this --directory",
        root.display()
    )]
    Absent {
        /// Where it was sought.
        root: PathBuf,
    },
    /// A directory with files that the store has not made, and would remove.
    #[error("{} holds {name:?}, which certlet has not made; give a directory of its own, such as an emptyDir", directory.display())]
    Foreign {
        /// The directory.
        directory: PathBuf,
        /// The first of the files.
        name: String,
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
    /// The key could not be given to the pod's user and group.
    #[error("cannot give {} to {}: {source}; owner and fs-group must be numbers this node can use",
        path.display(), owners(*owner, *group))]
    Owners {
        /// The file.
        path: PathBuf,
        /// The user.
        owner: Option<u32>,
        /// The group.
        group: Option<u32>,
        /// What the operating system said.
        source: io::Error,
    },
    /// A record that cannot be encoded, and so not written. The reason is left out, because it could quote a password.
    #[error("cannot write {}: the record cannot be encoded as JSON; report this as a bug of certlet", path.display())]
    Encoding {
        /// The record's file.
        path: PathBuf,
    },
}

/// Why the operating system refused an operation.
#[derive(Debug, Error)]
pub enum Cause {
    /// The tmpfs is full.
    #[error("the store has no {} left: raise {}", .0.name(), .0.flag())]
    Full(Resource),
    /// The file system is read-only.
    #[error("the file system is read-only; it must be writable for the driver")]
    ReadOnly,
    /// A directory that the store needs does not exist.
    #[error(
        "it has vanished; something outside the driver removed or unmounted it, and a restart of the driver sets the \
         store up again"
    )]
    Vanished,
    /// The kernel refused, because the process lacks privileges.
    #[error(
        "not permitted; the driver must be root with CAP_SYS_ADMIN (a privileged container), and a sidecar's directory one that its user \
         may write to, such as an emptyDir"
    )]
    NotPermitted,
    /// Any other error of the operating system.
    #[error(transparent)]
    Other(io::Error),
}

impl StoreError {
    /// Whether a path does not exist.
    pub(crate) fn is_vanished(&self) -> bool {
        matches!(self, Self::System { cause: Cause::Vanished, .. })
    }
}

fn owners(owner: Option<u32>, group: Option<u32>) -> String {
    let named = |what: &str, id: Option<u32>| id.map(|id| format!("{what} {id}"));
    [named("user", owner), named("group", group)].into_iter().flatten().collect::<Vec<_>>().join(" and ")
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let kind = match error {
            StoreError::Reserved { .. }
            | StoreError::Crowded { .. }
            | StoreError::NamespaceShare { .. }
            | StoreError::CrlsTooLarge { .. }
            | StoreError::System { cause: Cause::Full(_), .. } => FailureKind::Full,
            StoreError::VolumeTooLarge { .. } => FailureKind::Permanent,
            _ => FailureKind::Internal,
        };
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
    fn name(self) -> &'static str {
        match self {
            Self::Space => "space",
            Self::Inodes => "inodes",
        }
    }

    fn unit(self) -> &'static str {
        match self {
            Self::Space => "bytes",
            Self::Inodes => "inodes",
        }
    }

    fn flag(self) -> &'static str {
        match self {
            Self::Space => "--store-size (for a sidecar: the emptyDir's sizeLimit)",
            Self::Inodes => "--store-inodes",
        }
    }
}

/// Makes a [`StoreError`] of an error of the operating system. It says what was tried, and on what.
pub(crate) trait Attempt<T> {
    fn attempt(self, operation: &'static str, path: &Path) -> Result<T, StoreError>;
}

impl<T, E: Into<io::Error>> Attempt<T> for Result<T, E> {
    fn attempt(self, operation: &'static str, path: &Path) -> Result<T, StoreError> {
        self.map_err(|error| {
            let source = error.into();
            let cause = match source.raw_os_error().map(Errno::from_raw) {
                Some(Errno::ENOSPC) => Cause::Full(exhausted(path)),
                Some(Errno::EROFS) => Cause::ReadOnly,
                Some(Errno::ENOENT) => Cause::Vanished,
                Some(Errno::EPERM | Errno::EACCES) => Cause::NotPermitted,
                _ => Cause::Other(source),
            };
            StoreError::System { operation, path: path.to_owned(), cause }
        })
    }
}

/// Whether ENOSPC means bytes or inodes. Each has its own flag.
fn exhausted(path: &Path) -> Resource {
    let statistics = path.ancestors().find_map(|ancestor| nix::sys::statvfs::statvfs(ancestor).ok());
    match statistics {
        Some(statistics) if statistics.files() > 0 && statistics.files_free() == 0 => Resource::Inodes,
        _ => Resource::Space,
    }
}
