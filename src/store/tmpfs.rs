//! The tmpfs at the data root, and its read-only view.
//!
//! The view is the tmpfs, mounted a second time on a directory of its own, read-only, nosuid, nodev and noexec. A target
//! is bound from the view and so has those flags from its first instant, in one system call. Binding and then remounting
//! would leave a moment in which the target is writable, and, which is worse, a remount does not propagate: where the
//! driver's container shares mounts with the host, the host's copy, the one that pods get, would stay writable.

use super::error::{Attempt, StoreError};
use super::{Opened, StoreOptions, VOLUMES, files};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{major, minor};
use nix::sys::statvfs::{FsFlags, statvfs};
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The mount's source as mountinfo shows it: how the driver knows its own tmpfs from somebody else's.
const SOURCE: &str = "certlet";
const VIEW: &str = "view";
const MOUNTINFO: &str = "/proc/self/mountinfo";

/// A volume's directory that is bound somewhere, whatever the records say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The name of the volume's directory in the store.
    pub dir: String,
    /// Where it is mounted.
    pub target: PathBuf,
}

/// The data root as a canonical path to a directory that exists.
pub(super) fn prepare_root(root: &Path) -> Result<PathBuf, StoreError> {
    let root = std::path::absolute(root).attempt("resolve", root)?;
    if let Err(error) = DirBuilder::new().mode(0o700).recursive(true).create(&root) {
        return Err(match error.kind() {
            io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
                StoreError::RootNotADirectory { root }
            }
            _ => match Err::<(), _>(error).attempt("make the data root", &root) {
                Err(error) => error,
                Ok(()) => StoreError::RootNotADirectory { root },
            },
        });
    }
    fs::canonicalize(&root).attempt("resolve", &root)
}

/// Mounts the tmpfs unless it is there.
pub(super) fn mount_or_adopt(root: &Path, options: &StoreOptions) -> Result<Opened, StoreError> {
    if let Some(found) = mounted_at(root)? {
        if found.filesystem != "tmpfs" || found.source != SOURCE {
            return Err(StoreError::RootOccupied { root: root.to_owned(), found: found.filesystem });
        }
        let mut opened = Opened { adopted: true, noswap: found.has("noswap"), warnings: Vec::new() };
        warn_of_swap(&mut opened);
        // No remount changes a context.
        if let Some(context) = &options.selinux_context
            && !found.options.contains(context)
        {
            opened.warnings.push(format!(
                "the store at {} was mounted without the SELinux context {context} and keeps what it has until the node \
                 starts anew, or until it is unmounted while no pod uses it",
                root.display()
            ));
        }
        return Ok(opened);
    }
    let mut opened = Opened { adopted: false, noswap: true, warnings: Vec::new() };
    // In quotes, since a range of categories has commas.
    let context = options.selinux_context.as_ref().map(|context| format!(",context=\"{context}\""));
    let limits = format!("mode=0700,{}{}", limits(options), context.unwrap_or_default());
    let outcome = match mount_tmpfs(root, &format!("{limits},noswap"), MsFlags::empty()) {
        // Linux before 6.4 does not know the option, and an unprivileged user namespace may not use it.
        Err(Errno::EINVAL) => {
            opened.noswap = false;
            mount_tmpfs(root, &limits, MsFlags::empty())
        }
        outcome => outcome,
    };
    match (outcome, &options.selinux_context) {
        // So answers a kernel without SELinux, which does not know the option, and one whose policy does not know the context.
        (Err(Errno::EINVAL), Some(context)) => {
            return Err(StoreError::SelinuxContext { context: context.clone() });
        }
        (outcome, _) => outcome.attempt("mount a tmpfs at", root)?,
    }
    warn_of_swap(&mut opened);
    Ok(opened)
}

/// Gives an adopted tmpfs today's limits. One that is too full for them keeps its own: pods are using it.
pub(super) fn resize(root: &Path, options: &StoreOptions, opened: &mut Opened) -> Result<(), StoreError> {
    let now = statvfs(root).attempt("look at", root)?;
    let page = now.fragment_size().max(1);
    if now.blocks() == options.size_bytes.div_ceil(page) && now.files() == options.inodes {
        return Ok(());
    }
    // Kernels differ in whether a remount has to repeat noswap; none takes offence at it.
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

/// Sees to the read-only view, and returns its path. Every step can have been the last one of an earlier process.
pub(super) fn ensure_view(root: &Path) -> Result<PathBuf, StoreError> {
    let view = root.join(VIEW);
    files::ensure_dir(&view, 0o700)?;
    // The tmpfs has propagated to the host by now, where it has to live on; its view should not. A view bound from a
    // private mount is private too, and so each target is a mount group of its own: nothing that is mounted on one of
    // them turns up at another, or in the store.
    set_private(root)?;
    if inode(&view)? != inode(root)? {
        mount(Some(root), &view, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .attempt("bind the view at", &view)?;
    }
    protect(&view)?;
    Ok(view)
}

/// Makes a bind mount read-only, nosuid, nodev and noexec, unless it is.
pub(super) fn protect(mounted: &Path) -> Result<(), StoreError> {
    let wanted = FsFlags::ST_RDONLY | FsFlags::ST_NOSUID | FsFlags::ST_NODEV | FsFlags::ST_NOEXEC;
    if statvfs(mounted).attempt("look at", mounted)?.flags().contains(wanted) {
        return Ok(());
    }
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | hardening();
    mount(None::<&str>, mounted, None::<&str>, flags, None::<&str>).attempt("make read-only", mounted)
}

/// What tells one directory from every other, through whatever mount it is looked at.
pub(super) fn inode(path: &Path) -> Result<(u64, u64), StoreError> {
    let metadata = fs::symlink_metadata(path).attempt("look at", path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Every place where a volume's directory is bound. Reads the whole mount table: once at start, never per call.
pub(super) fn bindings(root: &Path) -> Result<Vec<Binding>, StoreError> {
    let (device, _) = inode(root)?;
    let device = format!("{}:{}", major(device), minor(device));
    let volumes = Path::new("/").join(VOLUMES);
    let bound = |entry: Entry| {
        let inside = entry.root.strip_prefix(&volumes).ok()?;
        let dir = inside.iter().next()?.to_str()?.to_owned();
        Some(Binding { dir, target: entry.mount_point })
    };
    Ok(mounts()?.into_iter().filter(|entry| entry.device == device).filter_map(bound).collect())
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

fn set_private(mounted: &Path) -> Result<(), StoreError> {
    mount(None::<&str>, mounted, None::<&str>, MsFlags::MS_PRIVATE, None::<&str>)
        .attempt("make private", mounted)
}

fn warn_of_swap(opened: &mut Opened) {
    if !opened.noswap {
        opened.warnings.push(
            "the store's tmpfs is without noswap, so that keys may reach a swap device if this node has one: \
             Linux 6.4 or newer has the option, outside of user namespaces"
                .into(),
        );
    }
}

/// What lies on top at a path.
fn mounted_at(path: &Path) -> Result<Option<Entry>, StoreError> {
    Ok(mounts()?.into_iter().rfind(|entry| entry.mount_point == path))
}

/// One line of `/proc/pid/mountinfo`, see `proc_pid_mountinfo(5)`.
struct Entry {
    device: String,
    root: PathBuf,
    mount_point: PathBuf,
    filesystem: String,
    source: String,
    /// Of the file system, as far as the kernel shows them.
    options: String,
}

impl Entry {
    fn has(&self, option: &str) -> bool {
        self.options.split(',').any(|one| one == option)
    }
}

fn mounts() -> Result<Vec<Entry>, StoreError> {
    let table = fs::read(MOUNTINFO).attempt("read", Path::new(MOUNTINFO))?;
    Ok(table.split(|&byte| byte == b'\n').filter_map(parse).collect())
}

fn parse(line: &[u8]) -> Option<Entry> {
    let mut fields = line.split(|&byte| byte == b' ');
    let device = text(fields.nth(2)?);
    let root = unescape(fields.next()?);
    let mount_point = unescape(fields.next()?);
    // Any number of optional fields, then a lone dash.
    fields.find(|field| *field == b"-")?;
    let filesystem = text(fields.next()?);
    let source = text(fields.next()?);
    let options = text(fields.next()?);
    Some(Entry { device, root, mount_point, filesystem, source, options })
}

fn text(field: &[u8]) -> String {
    OsStr::from_bytes(field).to_string_lossy().into_owned()
}

/// The kernel writes space, tab, newline and backslash as a backslash and three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let escaped = match (first, after) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..]) => {
                Some((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'))
            }
            _ => None,
        };
        plain.push(escaped.unwrap_or(first));
        rest = if escaped.is_some() { &after[3..] } else { after };
    }
    PathBuf::from(OsString::from_vec(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_mountinfo_is_read_with_its_escapes_and_optional_fields() {
        let line = br"36 35 98:0 /mnt\0401 /a\134b\040c rw,noatime master:1 shared:7 - tmpfs certlet rw,size=4k,noswap";
        let entry = parse(line).unwrap();
        assert_eq!(entry.device, "98:0");
        assert_eq!(entry.root, Path::new("/mnt 1"));
        assert_eq!(entry.mount_point, Path::new(r"/a\b c"));
        assert_eq!((entry.filesystem.as_str(), entry.source.as_str()), ("tmpfs", "certlet"));
        assert!(entry.has("noswap") && !entry.has("swap"));
        assert!(parse(b"").is_none());
    }
}
