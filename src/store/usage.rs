//! How much of the store is used.

use super::error::{Attempt, Resource, StoreError};
use super::{Store, files};
use crate::model::VolumeId;
use nix::sys::statvfs::statvfs;
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

/// Number of inodes that a volume needs.
const VOLUME_INODES: u64 = 14;

/// Bytes and inodes that are reserved in a store of any size: during a renewal a volume has two generations.
const MIN_RESERVE: (u64, u64) = (64 << 10, 24);

impl Store {
    /// Checks that the store has space for this number of new volumes with these bytes in total. A tenth of the store is
    /// reserved for renewals.
    pub(crate) fn admit(&self, volumes: u64, bytes: u64) -> Result<(), StoreError> {
        let store = statvfs(&self.root).attempt("examine", &self.root)?;
        let page = store.fragment_size().max(1);
        let (min_bytes, min_inodes) = MIN_RESERVE;
        let inodes = volumes.saturating_mul(VOLUME_INODES);
        for (resource, left, total, least, new) in [
            (Resource::Space, store.blocks_available(), store.blocks(), min_bytes / page, bytes / page),
            (Resource::Inodes, store.files_available(), store.files(), min_inodes, inodes),
        ] {
            if left < (total / 10).max(least).saturating_add(new) {
                return Err(StoreError::Reserved { resource });
            }
        }
        Ok(())
    }

    /// The usage of the volume, and the limits of the store.
    pub(crate) fn usage(&self, volume: &VolumeId) -> Result<Usage, StoreError> {
        let (volume_bytes, volume_inodes) = measure(&self.dir_of(volume))?;
        let store = statvfs(&self.root).attempt("examine", &self.root)?;
        let page = store.fragment_size();
        Ok(Usage {
            volume_bytes,
            volume_inodes,
            total_bytes: store.blocks() * page,
            available_bytes: store.blocks_available() * page,
            total_inodes: store.files(),
            available_inodes: store.files_available(),
        })
    }
}

/// Bytes and inodes of a file or directory, with all that is in it.
fn measure(path: &Path) -> Result<(u64, u64), StoreError> {
    let metadata = fs::symlink_metadata(path).attempt("examine", path)?;
    // st_blocks counts in units of 512 bytes on every file system.
    let mut sum = (metadata.blocks() * 512, 1);
    let names = if metadata.is_dir() { files::names(path)? } else { Vec::new() };
    for name in names {
        match measure(&path.join(name)) {
            Ok(part) => sum = (sum.0 + part.0, sum.1 + part.1),
            // No lock is held here: a record may be replaced, or an old generation removed, at the same time.
            Err(error) if error.is_vanished() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sum)
}
