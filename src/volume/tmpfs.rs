//! The node's tmpfs at the data root, and its read-only view.
//!
//! The view is the same tmpfs, mounted a second time below the root: read-only, nosuid, nodev, noexec. A target is bound
//! from the view, so one system call makes the mount with all these flags. With a bind and a remount, the target would
//! be writable for a moment. A remount also does not propagate: if the driver's container shares mounts with the host,
//! the host's copy, which the pods get, would stay writable.

use super::mount_error::MountError;
use super::mount_table::{self, Entry};
use crate::store::{Attempt, Store, StoreError, ensure_dir};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::statvfs::{FsFlags, statvfs};
use std::fmt;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The mount's source in mountinfo. It identifies the driver's own tmpfs.
const SOURCE: &str = "certlet";
const VIEW: &str = "view";
/// The swap devices in use.
const SWAPS: &str = "/proc/swaps";
const DATA_ROOT: &str = "--data-root";

/// Path and limits of the node's store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreOptions {
    /// The data root, where the tmpfs is mounted; created if it does not exist. A relative path starts at the working directory.
    pub root: PathBuf,
    /// Limit on the bytes of all volumes; each file takes whole pages.
    pub size_bytes: u64,
    /// Limit on files, links and directories of all volumes. One volume has about 12, and about 18 during a renewal.
    pub inodes: u64,
    /// The SELinux context of everything in the store, such as `system_u:object_r:container_file_t:s0`. Without it, the
    /// policy's default for a tmpfs applies, which containers may not read if SELinux is enforcing.
    pub selinux_context: Option<String>,
}

/// What [`open`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Opened {
    /// Whether the tmpfs existed already, perhaps with volumes.
    pub(crate) adopted: bool,
    /// Whether its pages never reach a swap device.
    pub(crate) noswap: bool,
    /// Warnings for the operator.
    pub(crate) warnings: Vec<String>,
}

/// Mounts the tmpfs, or adopts the one of an earlier process, opens the store in it, and makes the read-only view.
pub(super) fn open(options: &StoreOptions) -> Result<(Store, PathBuf, Opened), MountError> {
    for (limit, flag) in [(options.size_bytes, "--store-size"), (options.inodes, "--store-inodes")] {
        if limit == 0 {
            return Err(unusable(flag, &limit, "tmpfs takes 0 for no limit at all: give a positive number"));
        }
    }
    let root = prepare_root(&options.root)?;
    let mut opened = mount_or_adopt(&root, options)?;
    let (store, warnings) = Store::open(&root)?;
    opened.warnings.extend(warnings);
    resize(&root, options, &mut opened)?;
    let view = ensure_view(&root)?;
    Ok((store, view, opened))
}

/// A warning if keys on the tmpfs at this path can reach a swap device.
pub(super) fn swap_warning(path: &Path) -> Result<Option<String>, StoreError> {
    let swaps = fs::read_to_string(SWAPS).unwrap_or_default();
    let has_noswap = mount_table::mounted_at(path)?.is_some_and(|mount| mount.has("noswap"));
    Ok((has_swap(&swaps) && !has_noswap).then(|| {
        format!(
            "this node has swap on, and the tmpfs at {} is without noswap, so that keys may reach a swap device: turn swap off, or use              nodes with Linux 6.4 and Kubernetes 1.31 or newer",
            path.display()
        )
    }))
}

/// Whether `/proc/swaps` lists a device: it has a header, and a line for each.
fn has_swap(swaps: &str) -> bool {
    swaps.lines().count() > 1
}

/// The data root as a canonical path to a directory that exists.
fn prepare_root(root: &Path) -> Result<PathBuf, MountError> {
    let root = std::path::absolute(root).attempt("resolve", root)?;
    match DirBuilder::new().mode(0o700).recursive(true).create(&root) {
        Err(error) if matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory) => {
            let problem = "it is not a directory: name a directory, or a path where one can be made";
            return Err(unusable(DATA_ROOT, &root.display(), problem));
        }
        made => made.attempt("make the data root", &root)?,
    }
    Ok(fs::canonicalize(&root).attempt("resolve", &root)?)
}

/// Mounts the tmpfs, unless it is mounted already.
fn mount_or_adopt(root: &Path, options: &StoreOptions) -> Result<Opened, MountError> {
    let mut opened = match mount_table::mounted_at(root)? {
        Some(found) => adopt(root, options, &found)?,
        None => mount_new(root, options)?,
    };
    if !opened.noswap {
        opened.warnings.push(
            "the store's tmpfs is without noswap, so that keys may reach a swap device if this node has one: \
             Linux 6.4 or newer has the option, outside of user namespaces"
                .into(),
        );
    }
    Ok(opened)
}

fn adopt(root: &Path, options: &StoreOptions, found: &Entry) -> Result<Opened, MountError> {
    if found.filesystem != "tmpfs" || found.source != SOURCE {
        let problem = format!(
            "{} is mounted there, and it is not the driver's own tmpfs: unmount it or choose another directory",
            found.filesystem
        );
        return Err(unusable(DATA_ROOT, &root.display(), problem));
    }
    let mut opened = Opened { adopted: true, noswap: found.has("noswap"), warnings: Vec::new() };
    // A remount cannot change the context.
    if let Some(context) = &options.selinux_context
        && !found.options.contains(context)
    {
        opened.warnings.push(format!(
            "the store at {} was mounted without the SELinux context {context} and keeps what it has until the node \
             restarts, or until it is unmounted while no pod uses it",
            root.display()
        ));
    }
    Ok(opened)
}

fn mount_new(root: &Path, options: &StoreOptions) -> Result<Opened, MountError> {
    // In quotes, because a list of categories has commas.
    let context = options.selinux_context.as_ref().map(|context| format!(",context=\"{context}\""));
    let limits = format!("mode=0700,{}{}", limits(options), context.unwrap_or_default());
    let mut noswap = true;
    let outcome = match mount_tmpfs(root, &format!("{limits},noswap"), MsFlags::empty()) {
        // Linux before 6.4 does not know the option, and an unprivileged user namespace may not use it.
        Err(Errno::EINVAL) => {
            noswap = false;
            mount_tmpfs(root, &limits, MsFlags::empty())
        }
        outcome => outcome,
    };
    match (outcome, &options.selinux_context) {
        // EINVAL comes from a kernel without SELinux, and from one whose policy does not know the context.
        (Err(Errno::EINVAL), Some(context)) => Err(unusable(
            "--store-selinux-context",
            context,
            "the kernel mounts no tmpfs with it: SELinux is off on this node, or its policy does not know the context; \
             leave the flag out, or give one that it knows",
        )),
        (outcome, _) => {
            outcome.attempt("mount a tmpfs at", root)?;
            Ok(Opened { adopted: false, noswap, warnings: Vec::new() })
        }
    }
}

/// Sets the present limits on an adopted tmpfs. If it is too full for them it keeps its old ones, because pods use its files.
fn resize(root: &Path, options: &StoreOptions, opened: &mut Opened) -> Result<(), MountError> {
    let now = statvfs(root).attempt("examine", root)?;
    let page = now.fragment_size().max(1);
    if now.blocks() == options.size_bytes.div_ceil(page) && now.files() == options.inodes {
        return Ok(());
    }
    // Some kernels want noswap repeated in a remount; none rejects it.
    let limits = format!("{}{}", limits(options), if opened.noswap { ",noswap" } else { "" });
    if let Err(error) = mount_tmpfs(root, &limits, MsFlags::MS_REMOUNT) {
        opened.warnings.push(format!(
            "the store at {} keeps its {} bytes and {} inodes, since it could not be given {} and {}: {error}",
            root.display(),
            now.blocks() * page,
            now.files(),
            options.size_bytes,
            options.inodes
        ));
    }
    Ok(())
}

/// Makes the read-only view, and returns its path. Each step is repeatable, because an earlier process can have ended
/// after any of them.
fn ensure_view(root: &Path) -> Result<PathBuf, MountError> {
    let view = root.join(VIEW);
    ensure_dir(&view, 0o700)?;
    // The tmpfs has propagated to the host by now, and stays there. The view must not propagate. A view bound from a
    // private mount is private too. So each target is private too: a mount on one target appears neither at other
    // targets nor in the store.
    mount(None::<&str>, root, None::<&str>, MsFlags::MS_PRIVATE, None::<&str>)
        .attempt("make private", root)?;
    if inode(&view)? != inode(root)? {
        mount(Some(root), &view, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .attempt("bind the view at", &view)?;
    }
    protect(&view)?;
    Ok(view)
}

/// Makes a bind mount read-only, nosuid, nodev and noexec, if it is not yet.
pub(super) fn protect(mounted: &Path) -> Result<(), StoreError> {
    let wanted = FsFlags::ST_RDONLY | FsFlags::ST_NOSUID | FsFlags::ST_NODEV | FsFlags::ST_NOEXEC;
    if statvfs(mounted).attempt("examine", mounted)?.flags().contains(wanted) {
        return Ok(());
    }
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | hardening();
    mount(None::<&str>, mounted, None::<&str>, flags, None::<&str>).attempt("make read-only", mounted)
}

/// Device and inode. They identify a directory, whichever mount leads to it.
pub(super) fn inode(path: &Path) -> Result<(u64, u64), StoreError> {
    let metadata = fs::symlink_metadata(path).attempt("examine", path)?;
    Ok((metadata.dev(), metadata.ino()))
}

fn unusable(flag: &'static str, value: &dyn fmt::Display, problem: impl Into<String>) -> MountError {
    MountError::Option { flag, value: value.to_string(), problem: problem.into() }
}

fn limits(options: &StoreOptions) -> String {
    format!("size={},nr_inodes={}", options.size_bytes, options.inodes)
}

fn hardening() -> MsFlags {
    MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC
}

fn mount_tmpfs(root: &Path, options: &str, flags: MsFlags) -> nix::Result<()> {
    mount(Some(SOURCE), root, Some("tmpfs"), flags | hardening(), Some(options))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_swap_if_a_device_is_listed() {
        const HEADER: &str = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";
        assert!(!has_swap("") && !has_swap(HEADER));
        assert!(has_swap(&format!("{HEADER}/dev/vdb partition\t2097148\t\t0\t\t-2\n")));
    }
}
