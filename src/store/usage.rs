//! How full the store is, and with what.

use super::error::{Attempt, Resource, StoreError};
use super::{Store, files};
use crate::model::VolumeId;
use nix::sys::statvfs::statvfs;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What a volume uses, and what the store, which all volumes share, has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Bytes in the volume's directory.
    pub volume_bytes: u64,
    /// Inodes in the volume's directory.
    pub volume_inodes: u64,
    /// Bytes the store can hold.
    pub total_bytes: u64,
    /// Bytes the store has left.
    pub available_bytes: u64,
    /// Inodes the store can hold.
    pub total_inodes: u64,
    /// Inodes the store has left.
    pub available_inodes: u64,
}

/// Inodes of a volume.
const VOLUME_INODES: u64 = 14;
/// What is kept in any case: a renewal has two generations for a moment, each of some files of a page and their names.
const LEAST_RESERVE: (u64, u64) = (64 << 10, 24);

impl Store {
    /// Whether there is room for so many new volumes, of so many bytes together. A tenth of the store is kept for the renewals
    /// of those that are there.
    pub fn admit(&self, volumes: u64, bytes: u64) -> Result<(), StoreError> {
        let store = statvfs(&self.root).attempt("look at", &self.root)?;
        let page = store.fragment_size().max(1);
        let (least_bytes, least_inodes) = LEAST_RESERVE;
        let is_short =
            |left: u64, total: u64, least: u64, new: u64| left < (total / 10).max(least).saturating_add(new);
        let resource = if is_short(store.blocks_available(), store.blocks(), least_bytes / page, bytes / page)
        {
            Resource::Space
        } else if is_short(
            store.files_available(),
            store.files(),
            least_inodes,
            volumes.saturating_mul(VOLUME_INODES),
        ) {
            Resource::Inodes
        } else {
            return Ok(());
        };
        Err(StoreError::Reserved { resource })
    }

    /// What the volume uses and what the store has.
    pub fn usage(&self, volume: &VolumeId) -> Result<Usage, StoreError> {
        let (volume_bytes, volume_inodes) = measure(&self.dir_of(volume))?;
        let store = statvfs(&self.root).attempt("look at", &self.root)?;
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

/// Bytes and inodes of a directory, itself included.
fn measure(directory: &Path) -> Result<(u64, u64), StoreError> {
    // st_blocks counts in units of 512 bytes, whatever the file system's own are.
    let mut sum = (fs::symlink_metadata(directory).attempt("look at", directory)?.blocks() * 512, 1);
    for name in files::names(directory)? {
        match measure_one(&directory.join(name)) {
            Ok(part) => sum = (sum.0 + part.0, sum.1 + part.1),
            // A record is being replaced, or an old generation removed: no lock is held here.
            Err(StoreError::Vanished { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sum)
}

fn measure_one(path: &Path) -> Result<(u64, u64), StoreError> {
    let metadata = fs::symlink_metadata(path).attempt("look at", path)?;
    if metadata.is_dir() { measure(path) } else { Ok((metadata.blocks() * 512, 1)) }
}
