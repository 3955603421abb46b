//! CRLs in the store: each is kept once for a restart, and each set of them is one file that all volumes with that set share.
//!
//! ```text
//! <root>/
//!   crls/<name>        0600: the newest list of a CA from a source
//!   shared/<name>      0444: the file of a set; generations have hard links to it
//! ```
//!
//! A hard link takes no space. So a list of some megabytes is in the store twice, however many volumes have it.

use super::error::{Attempt, StoreError};
use super::files;
use super::size::Size;
use super::{Generation, NewFile, Store};
use parking_lot::MutexGuard;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

const KEPT: &str = "crls";
const SHARED: &str = "shared";
/// How much of the store CRLs may take, in percent. While a list is replaced, the old file and the new one are there.
const PERCENT: u64 = 40;
/// Limit on the files that are kept for a restart.
const MAX_KEPT: usize = 1024;

/// A file that volumes share. While it is held, it is not removed for want of volumes.
pub(crate) struct Shared<'a> {
    path: PathBuf,
    _held: MutexGuard<'a, ()>,
}

impl Shared<'_> {
    /// The file in a volume.
    pub(crate) fn file(&self, name: &str) -> NewFile {
        NewFile {
            name: name.to_owned(),
            contents: Zeroizing::default(),
            mode: 0o444,
            owner: None,
            group: None,
            shared: Some(self.path.clone()),
        }
    }
}

impl Store {
    /// A list that was kept; none if there is none of this name.
    pub(crate) fn kept_crl(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        files::read(&self.root().join(KEPT).join(name))
    }

    /// Whether any list was kept.
    pub(crate) fn has_kept_crls(&self) -> bool {
        files::names(&self.root().join(KEPT)).is_ok_and(|names| !names.is_empty())
    }

    /// Keeps a list for the next process. For want of space, lists that are not in use are removed.
    pub(crate) fn keep_crl(
        &self,
        name: &str,
        der: &[u8],
        is_in_use: impl Fn(&str) -> bool,
    ) -> Result<(), StoreError> {
        let _held = self.shared.lock();
        let directory = self.root().join(KEPT);
        files::ensure_dir(&directory, 0o700)?;
        let path = directory.join(name);
        let names = files::names(&directory)?;
        let is_full = names.len() >= MAX_KEPT && !path.exists();
        if is_full || self.check_crls(der.len()).is_err() {
            for unused in names.iter().map(|name| name.to_string_lossy()).filter(|name| !is_in_use(name)) {
                files::discard(files::remove_file(&directory.join(&*unused)));
            }
        }
        self.check_crls(der.len())?;
        files::replace(&path, der)
    }

    /// A shared file of this name, which depends on the contents only. `make` runs if it does not exist yet.
    pub(crate) fn share(&self, name: &str, make: impl FnOnce() -> Vec<u8>) -> Result<Shared<'_>, StoreError> {
        let held = self.shared.lock();
        let directory = self.root().join(SHARED);
        let path = directory.join(name);
        if !path.exists() {
            files::ensure_dir(&directory, 0o700)?;
            self.remove_unshared()?;
            let contents = make();
            self.check_crls(contents.len())?;
            files::replace(&path, &contents)?;
            files::set_mode(&path, 0o444)?;
        }
        Ok(Shared { path, _held: held })
    }

    /// Whether a file of a generation is the shared file of this name.
    pub(crate) fn is_shared_as(&self, generation: &Generation, file: &str, name: &str) -> bool {
        let inode = |path: &Path| fs::symlink_metadata(path).ok().map(|found| found.ino());
        let in_generation = generation.path_of(file).ok().and_then(|path| inode(&path));
        in_generation.is_some() && in_generation == inode(&self.root().join(SHARED).join(name))
    }

    /// Removes shared files that no volume has any more.
    pub(super) fn remove_unshared(&self) -> Result<(), StoreError> {
        let directory = self.root().join(SHARED);
        for name in files::names(&directory)? {
            let path = directory.join(name);
            let found = files::if_present(fs::symlink_metadata(&path)).attempt("examine", &path)?;
            if found.is_some_and(|found| found.nlink() < 2) {
                files::remove_file(&path)?;
            }
        }
        Ok(())
    }

    /// What CRLs take of the store.
    pub(super) fn size_of_crls(&self) -> Result<Size, StoreError> {
        let mut size = Size::default();
        for directory in [KEPT, SHARED].map(|name| self.root().join(name)) {
            for name in files::names(&directory)? {
                let path = directory.join(name);
                if let Some(found) =
                    files::if_present(fs::symlink_metadata(&path)).attempt("examine", &path)?
                {
                    size = size.plus(Size { bytes: found.blocks() * 512, inodes: 1 });
                }
            }
        }
        Ok(size)
    }

    /// An error if so many bytes more are too many.
    fn check_crls(&self, more: usize) -> Result<(), StoreError> {
        let bytes = self.size_of_crls()?.bytes.saturating_add(more as u64);
        let limit = self.capacity()?.total.percent(PERCENT).bytes;
        if bytes > limit { Err(StoreError::CrlsTooLarge { bytes, limit }) } else { Ok(()) }
    }
}

/// Links a shared file into a generation.
pub(super) fn link(shared: &Path, path: &Path) -> Result<(), StoreError> {
    fs::hard_link(shared, path).attempt("link", path)
}
