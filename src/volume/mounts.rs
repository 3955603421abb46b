//! Targets: the directories at which volumes are bound for their pods.
//!
//! What is mounted at a target is found by comparing inodes. The time for that does not grow with the number of mounts.

use super::mount_error::MountError;
use super::tmpfs;
use crate::model::VolumeId;
use crate::store::{Attempt, Store, StoreError, VolumeDir, volume_dirs};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

/// The bind mounts of the node's volumes.
#[derive(Debug)]
pub(crate) struct Mounts {
    root: PathBuf,
    view: PathBuf,
}

/// What is at a target.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum AtTarget {
    /// No mount.
    Nothing,
    /// The volume that was asked for.
    Volume,
    /// Another volume of this node. Its record may be unreadable.
    AnotherVolume(VolumeDir),
    /// The mount of another driver for example, or of a store that no longer exists.
    Foreign,
}

impl Mounts {
    /// Binds from `view`, the read-only view of the store at `root`.
    pub(super) fn new(root: PathBuf, view: PathBuf) -> Self {
        Self { root, view }
    }

    /// Binds the volume at its target, read-only, nosuid, nodev, noexec. It makes the target's last component; CSI says that the
    /// parent exists. If the volume is bound there already, it only sets these flags again. A failure undoes what this call made.
    pub(super) fn bind(&self, volume: &VolumeId, target: &Path) -> Result<(), MountError> {
        self.check_target(target)?;
        let is_new = make_target(target)?;
        if !is_new && self.examine(volume, target)? {
            return Ok(tmpfs::protect(target)?);
        }
        let bound = self.mount_view(volume, target);
        if bound.is_err() && is_new {
            let _ = fs::remove_dir(target);
        }
        bound
    }

    /// Whether a reader finds this volume at `target`.
    pub(super) fn is_bound(&self, volume: &VolumeId, target: &Path) -> Result<bool, StoreError> {
        Ok(match (identity(&self.root.join(Store::mount_dir(volume)))?, identity(target)?) {
            (Some(ours), Some(theirs)) => ours == theirs,
            _ => false,
        })
    }

    /// What a reader finds at `target`, and whether it is this volume.
    pub(super) fn at(&self, volume: &VolumeId, target: &Path) -> Result<AtTarget, StoreError> {
        Ok(match self.volume_at(volume, target)? {
            Some(dir) if dir == VolumeDir::of(volume) => AtTarget::Volume,
            Some(another) => AtTarget::AnotherVolume(another),
            None if is_mount_point(target)? => AtTarget::Foreign,
            None => AtTarget::Nothing,
        })
    }

    /// The volume that a reader finds at `target`; most often it is this one. The mount tells, and not the records: some may be
    /// unreadable, and several may have the same target.
    fn volume_at(&self, volume: &VolumeId, target: &Path) -> Result<Option<VolumeDir>, StoreError> {
        let Some(found) = identity(target)? else { return Ok(None) };
        // Fast path: only a mount of the store is on the store's device.
        if identity(&self.root)?.is_none_or(|(device, _)| device != found.0) {
            return Ok(None);
        }
        let is_found =
            |dir: &VolumeDir| Ok::<_, StoreError>(identity(&self.root.join(dir.mount()))? == Some(found));
        let own = VolumeDir::of(volume);
        if is_found(&own)? {
            return Ok(Some(own));
        }
        for dir in volume_dirs(&self.root)? {
            if is_found(&dir)? {
                return Ok(Some(dir));
            }
        }
        Ok(None)
    }

    /// Unmounts everything that is stacked at `target` and removes the directory, but never unmounts another volume: that stays with
    /// the directory. It succeeds if `target` does not exist or is an empty directory. A file, or a directory with contents, stays
    /// as it is and is an error.
    pub(super) fn unbind(&self, volume: &VolumeId, target: &Path) -> Result<(), MountError> {
        self.check_target(target)?;
        loop {
            // What cannot be examined is none of this store's, and can still be unmounted.
            if let Ok(AtTarget::AnotherVolume(another)) = self.at(volume, target) {
                tracing::info!(%volume, %another, target = %target.display(), "another volume is mounted here, and stays");
                return Ok(());
            }
            // Lazy unmount: a process of the pod that still runs must not block the pod's removal.
            match umount2(target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
                Ok(()) => {}
                Err(Errno::EINVAL) => return remove_target(target),
                Err(Errno::ENOENT) => return Ok(()),
                Err(error) => return Ok(Err(error).attempt("unmount", target)?),
            }
        }
    }

    fn mount_view(&self, volume: &VolumeId, target: &Path) -> Result<(), MountError> {
        let source = self.view.join(Store::mount_dir(volume));
        match mount(Some(&source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>) {
            Err(Errno::ENOSPC) => Err(MountError::MountLimit { target: target.to_owned() }),
            Err(Errno::ENOENT) => Ok(Err(Errno::ENOENT).attempt("bind", &source)?),
            outcome => Ok(outcome.attempt("bind a volume at", target)?),
        }
    }

    /// Whether the volume is bound at a target that exists. It is an error if the volume cannot be bound there.
    fn examine(&self, volume: &VolumeId, target: &Path) -> Result<bool, MountError> {
        if !fs::symlink_metadata(target).attempt("examine", target)?.is_dir() {
            return Err(target_error(target, NOT_A_DIRECTORY));
        }
        if self.is_bound(volume, target)? {
            return Ok(true);
        }
        if is_mount_point(target)? {
            return Err(target_error(target, OCCUPIED));
        }
        // A mount would hide the contents until the unpublish, which then could not remove the directory.
        match fs::read_dir(target).attempt("list", target)?.next() {
            Some(_) => Err(target_error(target, NOT_EMPTY)),
            None => Ok(false),
        }
    }

    /// Checks a path from the caller, which can be any path: it must not lead to an unmount of the store or of a file
    /// system of the node.
    fn check_target(&self, target: &Path) -> Result<(), MountError> {
        let plain = |component| matches!(component, Component::RootDir | Component::Normal(_));
        let problem = if !target.is_absolute() {
            "is not absolute: give the absolute path that the kubelet made for this volume"
        } else if !target.components().all(plain) {
            "has a '..' in it: give the absolute path that the kubelet made for this volume"
        } else if target.starts_with(&self.root) || self.root.starts_with(target) {
            "overlaps with the driver's data root: give the absolute path that the kubelet made for this volume"
        } else {
            return Ok(());
        };
        Err(target_error(target, problem))
    }
}

const NOT_A_DIRECTORY: &str = "exists and is not a directory: remove it";
const NOT_EMPTY: &str = "is a directory that is not empty: move its contents away, the driver deletes none";
const OCCUPIED: &str = "has something mounted that is not this volume: unmount it";
const WITHOUT_PARENT: &str = "has no parent directory: the kubelet makes it, and the driver must see the kubelet's pods \
     directory under the same path";

fn target_error(target: &Path, problem: &'static str) -> MountError {
    MountError::Target { target: target.to_owned(), problem }
}

/// Makes the target with the mode that the kubelet uses for its own directories. False if it exists already.
fn make_target(target: &Path) -> Result<bool, MountError> {
    match DirBuilder::new().mode(0o750).create(target) {
        Ok(()) => Ok(true),
        Err(error) => match error.kind() {
            io::ErrorKind::AlreadyExists => Ok(false),
            io::ErrorKind::NotFound => Err(target_error(target, WITHOUT_PARENT)),
            _ => Ok(Err(error).attempt("make the target", target)?),
        },
    }
}

fn remove_target(target: &Path) -> Result<(), MountError> {
    match fs::remove_dir(target) {
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound => Ok(()),
            io::ErrorKind::DirectoryNotEmpty => Err(target_error(target, NOT_EMPTY)),
            io::ErrorKind::NotADirectory => remove_empty_file(target),
            _ => Ok(Err(error).attempt("remove the target", target)?),
        },
        removed => Ok(removed.attempt("remove the target", target)?),
    }
}

fn remove_empty_file(target: &Path) -> Result<(), MountError> {
    let metadata = fs::symlink_metadata(target).attempt("examine", target)?;
    if metadata.is_file() && metadata.len() == 0 {
        return Ok(fs::remove_file(target).attempt("remove the target", target)?);
    }
    Err(target_error(target, NOT_A_DIRECTORY))
}

/// Device and inode; `None` if the path does not exist.
fn identity(path: &Path) -> Result<Option<(u64, u64)>, StoreError> {
    match tmpfs::inode(path) {
        Err(error) if error.is_vanished() => Ok(None),
        found => found.map(Some),
    }
}

/// Whether the last component of `path` is a mount point, a bind from the same file system included.
fn is_mount_point(path: &Path) -> Result<bool, StoreError> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(true) };
    let here = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let parent_how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC);
    let how = OpenHow::new().flags(here).resolve(ResolveFlag::RESOLVE_NO_XDEV);
    match openat2(AT_FDCWD, parent, parent_how).and_then(|parent| openat2(parent, name, how)) {
        Ok(_) | Err(Errno::ENOENT) => Ok(false),
        Err(Errno::EXDEV) => Ok(true),
        // Linux before 5.6, or a seccomp profile older than that: only binds of the same device go unnoticed here.
        Err(Errno::ENOSYS | Errno::EPERM) => on_another_device(path, parent),
        Err(error) => Err(error).attempt("examine", path),
    }
}

fn on_another_device(path: &Path, parent: &Path) -> Result<bool, StoreError> {
    let parent = fs::metadata(parent).attempt("examine", parent)?.dev();
    Ok(identity(path)?.is_some_and(|(device, _)| device != parent))
}
