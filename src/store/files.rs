//! The file operations of the store. Files and directories get exactly their mode if the umask leaves the owner's bits.

use super::error::{Attempt, Cause, StoreError};
use nix::unistd::geteuid;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Creates a directory with this mode; false if it exists already. The mode is set afterwards only if it differs, because
/// setting it would wake watchers of the directory.
pub(crate) fn ensure_dir(path: &Path, mode: u32) -> Result<bool, StoreError> {
    let is_new = match DirBuilder::new().mode(mode).create(path) {
        // The umask leaves the owner's bits.
        Ok(()) if mode == 0o700 => return Ok(true),
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
        Err(error) => return Err(error).attempt("make the directory", path),
    };
    let found = fs::symlink_metadata(path).attempt("examine", path)?.permissions().mode();
    if found & 0o7777 != mode {
        set_mode(path, mode)?;
    }
    Ok(is_new)
}

/// Whether the path is a directory of this process's user, or nothing.
pub(super) fn is_own_dir(path: &Path) -> Result<bool, StoreError> {
    let found = if_present(fs::symlink_metadata(path)).attempt("examine", path)?;
    Ok(found.is_none_or(|found| found.is_dir() && found.uid() == geteuid().as_raw()))
}

pub(super) fn set_mode(path: &Path, mode: u32) -> Result<(), StoreError> {
    fs::set_permissions(path, Permissions::from_mode(mode)).attempt("set the mode of", path)
}

/// Creates a file with this mode. `create_new` is `O_CREAT|O_EXCL`: it neither follows a symlink nor takes over an existing
/// file.
pub(super) fn create(path: &Path, mode: u32, contents: &[u8]) -> Result<File, StoreError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .attempt("make the file", path)?;
    file.write_all(contents).attempt("write to", path)?;
    Ok(file)
}

/// Replaces a file as a whole (mode 0600); on failure the old one stays. It needs no fsync: a tmpfs survives a kill -9,
/// and does not survive a power cut.
pub(super) fn replace(path: &Path, contents: &[u8]) -> Result<(), StoreError> {
    let temporary = temporary(path);
    let created = match create(&temporary, 0o600, contents) {
        // A crash has left a temporary file.
        Err(StoreError::System { cause: Cause::Other(error), .. })
            if error.kind() == io::ErrorKind::AlreadyExists =>
        {
            remove_file(&temporary)?;
            create(&temporary, 0o600, contents)
        }
        created => created,
    };
    let written = created.and_then(|_| fs::rename(&temporary, path).attempt("put in place", path));
    if written.is_err() {
        discard(remove_file(&temporary));
    }
    written
}

/// The name under which [`replace`] writes.
pub(super) fn temporary(path: &Path) -> PathBuf {
    path.with_added_extension("tmp")
}

/// Reads a whole file; `None` if there is none.
pub(super) fn read(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
    let Some(mut file) = if_present(File::open(path)).attempt("open", path)? else { return Ok(None) };
    // Allocated in full: a buffer that grows leaves copies of a key behind.
    let length = file.metadata().attempt("examine", path)?.len();
    let mut contents = Zeroizing::new(Vec::with_capacity(usize::try_from(length).unwrap_or(0)));
    file.read_to_end(&mut contents).attempt("read", path)?;
    Ok(Some(contents))
}

/// The names in a directory; empty if there is no directory.
pub(super) fn names(path: &Path) -> Result<Vec<std::ffi::OsString>, StoreError> {
    let Some(entries) = if_present(fs::read_dir(path)).attempt("list", path)? else { return Ok(Vec::new()) };
    entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<_>>().attempt("list", path)
}

/// Removes a file, if it exists.
pub(super) fn remove_file(path: &Path) -> Result<(), StoreError> {
    if_present(fs::remove_file(path)).attempt("remove", path).map(drop)
}

/// Removes a file, a symlink or a whole directory, if it exists. It does not follow symlinks.
pub(super) fn remove_tree(path: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => remove_file(path),
        removed => if_present(removed).attempt("remove", path).map(drop),
    }
}

/// Ignores the failure of a clean-up: it must not hide the first failure, and the next sweep removes what is left.
pub(super) fn discard(cleared: Result<(), StoreError>) {
    if let Err(error) = cleared {
        tracing::warn!(%error, "a leftover could not be removed; the next sweep tries again");
    }
}

/// `None` if the operation found nothing at its path.
pub(super) fn if_present<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}
