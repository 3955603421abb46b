//! How much of the store is used.

use super::error::{Attempt, StoreError};
use super::size::{Capacity, Size};
use super::{Store, files};
use crate::model::VolumeId;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The usage of one volume, and the limits of the store, which all volumes share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Bytes in the volume's directory.
    pub(crate) volume_bytes: u64,
    /// Inodes in the volume's directory.
    pub(crate) volume_inodes: u64,
    /// Bytes the store can hold.
    pub(crate) total_bytes: u64,
    /// Bytes the store has left.
    pub(crate) available_bytes: u64,
    /// Inodes the store can hold.
    pub(crate) total_inodes: u64,
    /// Inodes the store has left.
    pub(crate) available_inodes: u64,
}

impl Store {
    /// What the store can hold and what it has left.
    pub(crate) fn capacity(&self) -> Result<Capacity, StoreError> {
        Ok(Capacity { crls: self.size_of_crls()?, ..Capacity::at(&self.root)? })
    }

    /// What the volume uses: nothing if the store does not have it.
    pub(crate) fn size(&self, volume: &VolumeId) -> Result<Size, StoreError> {
        match measure(self.shown.as_deref().unwrap_or(&self.dir_of(volume))) {
            Err(error) if error.is_vanished() => Ok(Size::default()),
            measured => measured,
        }
    }

    /// The usage of the volume, and the limits of the store.
    pub(crate) fn usage(&self, volume: &VolumeId) -> Result<Usage, StoreError> {
        let volume = measure(self.shown.as_deref().unwrap_or(&self.dir_of(volume)))?;
        let Capacity { total, free, .. } = self.capacity()?;
        Ok(Usage {
            volume_bytes: volume.bytes,
            volume_inodes: volume.inodes,
            total_bytes: total.bytes,
            available_bytes: free.bytes,
            total_inodes: total.inodes,
            available_inodes: free.inodes,
        })
    }
}

impl Store {
    /// Removes a directory, and returns what it still takes afterwards: an open file, directory or mapping stays until it is
    /// closed. Other writes at the same time make this inexact by what they take or free.
    pub(super) fn remove_examined(&self, path: &Path) -> Result<Size, StoreError> {
        let _one_at_a_time = self.examined.lock();
        let size = measure(path)?;
        let before = self.capacity()?.free;
        files::remove_tree(path)?;
        Ok(size.minus(self.capacity()?.free.minus(before)))
    }
}

/// The size of a file or directory, with all that is in it.
fn measure(path: &Path) -> Result<Size, StoreError> {
    let metadata = fs::symlink_metadata(path).attempt("examine", path)?;
    // A file that volumes share takes no space of one of them.
    let is_shared = metadata.is_file() && metadata.nlink() > 1;
    // st_blocks counts in units of 512 bytes on every file system.
    let mut sum = Size { bytes: if is_shared { 0 } else { metadata.blocks() * 512 }, inodes: 1 };
    let names = if metadata.is_dir() { files::names(path)? } else { Vec::new() };
    for name in names {
        match measure(&path.join(name)) {
            Ok(part) => sum = sum.plus(part),
            // No lock is held here: a record may be replaced, or an old generation removed, at the same time.
            Err(error) if error.is_vanished() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sum)
}
