//! The driver's one tmpfs: a directory and a record for each volume, the atomic swap, and the bind mounts.
//!
//! ```text
//! <data root>/              tmpfs, nosuid, nodev, noexec, noswap where the kernel has it
//!   view/                   the same tmpfs again, read-only: what targets are bound from
//!   volumes/<dir>/          0700; <dir> is the volume id, or its hash where that is no safe name
//!     record.json           0600
//!     mount/                what the pod sees (generation.rs)
//!     pending.pem           0600: key, request and note while a slow signer is at work
//! ```
//!
//! # kill -9 between any two steps
//! What a volume's steps leave when the process ends after one of them, and who clears it up:
//!
//! | step | left behind | cleared by |
//! |---|---|---|
//! | `..N+1` made and being filled | a generation that is not live | the next sweep |
//! | new names linked | names that lead nowhere | the next sweep |
//! | `..data_tmp` linked | a link that is not live | the next sweep |
//! | `..data_tmp` renamed to `..data`: **the swap** | stale names, the old generation | the next sweep |
//! | files written, record not | no record, or one with an older generation number | the caller: [`Store::generation`] |
//! | `record.json.tmp` or `pending.pem.tmp` written | the old file and that one | the next open, or write of it |
//! | target made | an empty directory | the next bind or unbind |
//! | target bound, never a moment without its flags | | |
//! | target unbound | a volume that is mounted nowhere | the caller, from the record |
//! | volume renamed to `.trash-*`, being deleted | some of it | the next open |
//!
//! A sweep comes before every write of a generation in a directory that was there and, for all volumes, with every open.
//! The record is written before the bind, so a volume without one is mounted nowhere unless its record was set aside. Calls
//! for one volume come one at a time (the caller has a lock per volume); calls for different volumes do not touch each
//! other's paths.

mod bind;
mod error;
mod files;
mod generation;
mod ledger;
mod pending;
mod record;
#[cfg(test)]
mod tests;
mod tmpfs;
mod usage;
mod volumes;

pub use bind::Bound;
pub use error::{Resource, StoreError};
pub use ledger::LedgerFile;
pub use pending::Pending;
pub use record::{IssuedRecord, LastError, Record, RecordError};
pub use tmpfs::Binding;
pub use usage::Usage;
pub use volumes::{StoredVolume, VolumeDir, read_volumes};

use crate::attributes::VolumeId;
use crate::delivery::DeliveredFile;
use error::Attempt;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

const VOLUMES: &str = "volumes";
const MOUNT: &str = "mount";
const RECORD: &str = "record.json";
const SET_ASIDE: &str = "record.json.unreadable";
const TRASH: &str = ".trash-";

/// Where the store is and how large it may grow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreOptions {
    /// The data root, where the tmpfs is mounted; made if need be. A relative path is taken from the working directory.
    pub root: PathBuf,
    /// Bytes that the files of all volumes may take; each takes whole pages.
    pub size_bytes: u64,
    /// Files, links and directories that all volumes may have; one volume has about 12, and half as many again during a
    /// renewal.
    pub inodes: u64,
    /// The SELinux context of all that is in the store, such as `system_u:object_r:container_file_t:s0`; without one the
    /// policy's own for a tmpfs, which containers may not read where SELinux is enforcing.
    pub selinux_context: Option<String>,
}

/// What [`Store::open`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The tmpfs was there, and so may be volumes.
    pub adopted: bool,
    /// Its pages never reach a swap device.
    pub noswap: bool,
    /// What an operator should know.
    pub warnings: Vec<String>,
}

/// The open store.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    view: PathBuf,
    /// Held, not read: the lock on the root goes with it.
    _lock: File,
}

impl Store {
    /// Mounts the store, or adopts the one an earlier process left, and clears away what that was in the middle of.
    pub fn open(options: &StoreOptions) -> Result<(Self, Opened), StoreError> {
        for (limit, flag) in [(options.size_bytes, "--store-size"), (options.inodes, "--store-inodes")] {
            if limit == 0 {
                return Err(StoreError::Limit { flag });
            }
        }
        let root = tmpfs::prepare_root(&options.root)?;
        let mut opened = tmpfs::mount_or_adopt(&root, options)?;
        let lock = lock(&root)?;
        tmpfs::resize(&root, options, &mut opened)?;
        let view = tmpfs::ensure_view(&root)?;
        files::ensure_dir(&root.join(VOLUMES), 0o700)?;
        let store = Self { root, view, _lock: lock };
        for name in files::names(&store.root.join(VOLUMES))? {
            if let Err(error) = store.sweep(&name.to_string_lossy()) {
                opened.warnings.push(format!("a leftover stays: {error}"));
            }
        }
        Ok((store, opened))
    }

    /// Every volume in the store, ordered by directory.
    pub fn list(&self) -> Result<Vec<StoredVolume>, StoreError> {
        read_volumes(&self.root)
    }

    /// Every place where a volume is bound, whether a record tells of it or not. Reads the node's mount table: for the
    /// start, not for every call.
    pub fn bindings(&self) -> Result<Vec<Binding>, StoreError> {
        tmpfs::bindings(&self.root)
    }

    /// Writes a delivery as the volume's next generation, swaps it in atomically, and returns its number. Secret files
    /// are 0400, or 0440 and `group`'s. On failure the old generation stays, and nothing of the new one.
    pub fn write_bundle(
        &self,
        volume: &VolumeId,
        delivery: &[DeliveredFile],
        group: Option<u32>,
    ) -> Result<u64, StoreError> {
        self.in_dir_of(volume, || generation::write(&self.mount_of(volume), delivery, group))
    }

    /// The number of the generation that is live, if one was written.
    pub fn generation(&self, volume: &VolumeId) -> Result<Option<u64>, StoreError> {
        generation::live(&self.mount_of(volume))
    }

    /// Reads a file of the live generation; `None` where there is none of that name.
    pub fn read_file(&self, volume: &VolumeId, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        generation::check_name(name)?;
        files::read(&self.mount_of(volume).join(generation::DATA).join(name))
    }

    /// Puts a record in place of the volume's last one, or leaves that.
    pub fn write_record(&self, record: &Record) -> Result<(), StoreError> {
        let dir = self.dir_of(&record.volume_id);
        let path = dir.join(RECORD);
        let json = record.encode().map_err(|source| StoreError::Record { path: path.clone(), source })?;
        self.in_dir_of(&record.volume_id, || files::replace(&path, &json))
    }

    /// Reads the volume's record; `None` where there is none.
    pub fn read_record(&self, volume: &VolumeId) -> Result<Option<Record>, StoreError> {
        let name = VolumeDir::of(volume);
        let dir = self.path_of(&name);
        match volumes::read_record(&dir, &name) {
            Ok(record) => Ok(Some(record)),
            Err(RecordError::Missing | RecordError::SetAside) => Ok(None),
            Err(source) => Err(StoreError::Record { path: dir.join(RECORD), source }),
        }
    }

    /// Takes a record that cannot be read out of the way, keeping it for a person to look at. The volume's files and its
    /// mount stay as they are; its next publish writes a new record.
    pub fn set_aside(&self, dir: &VolumeDir) -> Result<(), StoreError> {
        let record = self.path_of(dir).join(RECORD);
        fs::rename(&record, self.path_of(dir).join(SET_ASIDE)).attempt("set aside", &record)
    }

    /// An issuance that begins. Before the signer's first note the volume needs a record: without one a restart takes it
    /// for unfinished.
    pub fn new_pending(
        &self,
        volume: &VolumeId,
        key_pem: Zeroizing<Vec<u8>>,
        csr_der: Vec<u8>,
        follows: Option<u64>,
    ) -> Pending {
        Pending::new(&self.dir_of(volume), key_pem, csr_der, follows)
    }

    /// The issuance that an earlier call left waiting.
    pub fn pending(&self, volume: &VolumeId) -> Result<Option<Pending>, StoreError> {
        Pending::load(&self.dir_of(volume))
    }

    /// Whether an issuance waits.
    pub fn has_pending(&self, volume: &VolumeId) -> bool {
        Pending::exists(&self.dir_of(volume))
    }

    /// Forgets the issuance that waits: it has succeeded, or has failed for good.
    pub fn clear_pending(&self, volume: &VolumeId) -> Result<(), StoreError> {
        Pending::clear(&self.dir_of(volume))
    }

    /// A file of a signer's own, beside the volumes.
    pub fn ledger(&self, name: &'static str) -> LedgerFile {
        LedgerFile { path: self.root.join(name) }
    }

    /// Removes all that the store has of a volume; nothing there is fine. It is unbound before.
    pub fn remove(&self, volume: &VolumeId) -> Result<(), StoreError> {
        self.remove_dir(&VolumeDir::of(volume))
    }

    /// As [`Self::remove`], for a volume whose identifier nobody knows because its record is missing or set aside.
    pub fn remove_dir(&self, dir: &VolumeDir) -> Result<(), StoreError> {
        let path = self.path_of(dir);
        let trash = self.root.join(VOLUMES).join(format!("{TRASH}{dir}"));
        files::remove_tree(&trash)?;
        // Renamed first, so that a crash leaves the whole volume or none, and never a record without its files.
        match fs::rename(&path, &trash) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            renamed => {
                renamed.attempt("retire", &path)?;
                files::remove_tree(&trash)
            }
        }
    }

    /// Clears what a crash has left of one entry of `volumes/`.
    fn sweep(&self, name: &str) -> Result<(), StoreError> {
        let path = self.root.join(VOLUMES).join(name);
        if name.starts_with(TRASH) {
            return files::remove_tree(&path);
        }
        files::remove_file(&files::temporary(&path.join(RECORD)))?;
        Pending::sweep(&path)?;
        generation::sweep(&path.join(MOUNT)).map(drop)
    }

    /// Writes in the volume's directory, which is mostly there; where it is not, it is made first.
    fn in_dir_of<T>(
        &self,
        volume: &VolumeId,
        write: impl Fn() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        match write() {
            Err(StoreError::Vanished { .. }) => {
                files::ensure_dir(&self.dir_of(volume), 0o700)?;
                write()
            }
            written => written,
        }
    }

    fn path_of(&self, dir: &VolumeDir) -> PathBuf {
        self.root.join(VOLUMES).join(dir.as_str())
    }

    fn dir_of(&self, volume: &VolumeId) -> PathBuf {
        self.path_of(&VolumeDir::of(volume))
    }

    fn mount_of(&self, volume: &VolumeId) -> PathBuf {
        self.dir_of(volume).join(MOUNT)
    }

    /// The volume's mount directory as the read-only view shows it.
    fn view_of(&self, volume: &VolumeId) -> PathBuf {
        self.view.join(VOLUMES).join(VolumeDir::of(volume).as_str()).join(MOUNT)
    }
}

/// Two processes would sweep each other's half-written generations away.
fn lock(root: &Path) -> Result<File, StoreError> {
    let file = File::open(root).attempt("open", root)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse { root: root.to_owned() }),
        Err(TryLockError::Error(error)) => Err(error).attempt("lock", root),
    }
}
