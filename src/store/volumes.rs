//! The directories of the volumes, and the records in them.

use super::error::{Attempt, StoreError};
use super::{MOUNT, RECORD, Record, RecordError, UNREADABLE_RECORD, VOLUMES, files};
use crate::model::{VolumeId, hex, sha256};
use std::fmt;
use std::path::{Path, PathBuf};

const HASHED: &str = "sha256-";

/// A volume's directory in the store.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct VolumeDir(pub(super) String);

/// A volume found in the store.
#[derive(Clone, Debug)]
pub(crate) struct StoredVolume {
    /// Its directory.
    pub(crate) dir: VolumeDir,
    /// Its record, or why it has no usable one.
    pub(crate) record: Result<Record, RecordError>,
}

/// Every volume below a data root, ordered by directory, without opening the store: for `certlet status`, beside a
/// driver that is running. Without a store it fails.
pub(crate) fn read_volumes(root: &Path) -> Result<Vec<StoredVolume>, StoreError> {
    let volumes = root.join(VOLUMES);
    if !volumes.try_exists().attempt("examine", &volumes)? {
        return Err(StoreError::Absent { root: root.to_owned() });
    }
    let read = |dir: VolumeDir| StoredVolume { record: read_record(&volumes.join(&dir.0), &dir), dir };
    Ok(volume_dirs(root)?.into_iter().map(read).collect())
}

/// The directory of every volume below a data root, in order, whether or not its record can be read.
pub(crate) fn volume_dirs(root: &Path) -> Result<Vec<VolumeDir>, StoreError> {
    let mut dirs: Vec<VolumeDir> = files::names(&root.join(VOLUMES))?
        .into_iter()
        .filter_map(|name| name.into_string().ok())
        .filter(|name| !name.starts_with('.'))
        .map(VolumeDir)
        .collect();
    dirs.sort_unstable();
    Ok(dirs)
}

impl VolumeDir {
    /// The directory of a volume: its id if that is a safe name, else the hash of its id. An id that begins like a hash
    /// is hashed too, so that no two volumes share a directory.
    pub(crate) fn of(volume: &VolumeId) -> Self {
        let id = volume.as_str();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let safe = !id.is_empty() && id.len() <= 200 && id.bytes().all(plain);
        if safe && !id.starts_with('.') && !id.starts_with(HASHED) {
            return Self(id.to_owned());
        }
        Self(format!("{HASHED}{}", hex(&sha256(&[id.as_bytes()]))))
    }

    /// What a pod sees of it, relative to the root.
    pub(crate) fn mount(&self) -> PathBuf {
        Path::new(VOLUMES).join(&self.0).join(MOUNT)
    }
}

impl fmt::Display for VolumeDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub(super) fn read_record(path: &Path, dir: &VolumeDir) -> Result<Record, RecordError> {
    let json = match files::read(&path.join(RECORD)) {
        Ok(Some(json)) => json,
        Ok(None) if path.join(UNREADABLE_RECORD).exists() => return Err(RecordError::MovedAway),
        Ok(None) => return Err(RecordError::Missing),
        Err(error) => return Err(RecordError::Unreadable { problem: error.to_string() }),
    };
    let record = Record::parse(&json)?;
    if VolumeDir::of(&record.volume_id) == *dir {
        Ok(record)
    } else {
        Err(RecordError::Misplaced { volume: record.volume_id })
    }
}
