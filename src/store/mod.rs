//! A directory and a record for each volume, on a tmpfs: generations and their atomic swap, records, checkpoints.
//!
//! The store works in any writable tmpfs directory, whoever mounted it. It takes names, modes and bytes, and is the only
//! module that writes files.
//!
//! ```text
//! <root>/
//!   volumes/<dir>/          0700; <dir> is the volume id, or its hash if the id is no safe name
//!     record.json           0600
//!     mount/                what the pod sees: generations (generation.rs) and its socket (socket.rs)
//!     unmounted/            the generations of a volume that is handed over by its socket only
//!     pending.pem           0600: key, request and checkpoint while a signing is under way
//!     keystore.password     0600: if it is not in the pod's manifest
//!   crls/, shared/          CRLs (crls.rs)
//! ```
//!
//! A store of a single volume ([`Store::open_inside`]) is in the directory that its pod sees: its root is `..certlet/` (0700) there, and
//! the directory itself takes the place of `mount/`.
//!
//! # kill -9 between any two steps
//! What is left behind if the process ends after a step, and what clears it:
//!
//! | step | left behind | cleared by |
//! |---|---|---|
//! | `..N+1` made and being filled | a generation that is not live | the next sweep |
//! | new names linked | names that lead nowhere | the next sweep |
//! | `..data_tmp` linked | a link that is not live | the next sweep |
//! | `..data_tmp` renamed to `..data`: **the swap** | stale names, the old generation | the next sweep |
//! | files written, record not | no record, or one with an older generation number | the caller: [`Store::generation`] |
//! | `record.json.tmp`, `pending.pem.tmp` or `keystore.password.tmp` written | the old file and that one | the next open, or write of it |
//! | `..socket_tmp` bound | a socket that nobody listens on | the next sweep, or bind of it |
//! | socket in place | a socket that nobody listens on | the next process, which renames its own over it |
//! | volume renamed to `.trash-*`, being deleted | some of it | the next open |
//! | shared file of CRLs written, not linked | a file with one link | the next open, or the next shared file |
//!
//! A sweep runs before every write of a generation in an existing directory, and for all volumes when the store is opened.
//! The record is written before the bind, so a volume without a record is not mounted, unless its record was moved away.
//! Calls for one volume come one at a time (the caller has a lock per volume). Calls for different volumes use different
//! paths.

mod checkpoint;
mod crls;
mod error;
mod files;
mod generation;
mod journal;
mod record;
mod shares;
mod size;
mod socket;
#[cfg(test)]
pub(crate) mod tests;
mod usage;
mod volumes;

pub(crate) use checkpoint::{CheckpointFile, Refusal};
pub(crate) use crls::Shared;
pub(crate) use error::Attempt;
pub use error::{Cause, Resource, StoreError};
pub(crate) use files::ensure_dir;
pub(crate) use generation::Generation;
pub use journal::JournalFile;
pub use record::{IssuedRecord, LastError, LeafRoot, Record, RecordError, RetainedAnchor, TrustRecord};
pub(crate) use shares::{Account, Promise, ShareLimits, Shares, Want};
pub(crate) use size::{Size, VOLUME_INODES};
pub(crate) use socket::NewSocket;
pub(crate) use usage::Usage;
pub(crate) use volumes::{StoredVolume, VolumeDir, read_volumes, volume_dirs};

use crate::model::VolumeId;
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use parking_lot::Mutex;
use secrecy::{ExposeSecret, SecretString};
use std::cell::Cell;
use std::fs::{self, File, TryLockError};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

const VOLUMES: &str = "volumes";
const MOUNT: &str = "mount";
const UNMOUNTED: &str = "unmounted";
const RECORD: &str = "record.json";
const PASSWORD: &str = "keystore.password";
const UNREADABLE_RECORD: &str = "record.json.unreadable";
const TRASH: &str = ".trash-";
/// The root of a store of a single volume, in the directory that its pod sees.
pub(crate) const INSIDE: &str = "..certlet";

/// A file to be written: its name, bytes and mode, and its owners if they are not the process's own.
#[derive(Clone)]
pub(crate) struct NewFile {
    /// A plain file name.
    pub(crate) name: String,
    /// What it holds; zeroized, as it can be a key.
    pub(crate) contents: Zeroizing<Vec<u8>>,
    /// The permission bits, such as `0o400`.
    pub(crate) mode: u32,
    /// The user that owns it; none: the process's own.
    pub(crate) owner: Option<u32>,
    /// The group that owns it; none: the process's own.
    pub(crate) group: Option<u32>,
    /// A file of the store that is linked in place of a new one: [`Store::share`].
    pub(crate) shared: Option<PathBuf>,
}

/// The open store.
#[derive(Debug)]
pub(crate) struct Store {
    root: PathBuf,
    /// The directory that the pod of its only volume sees; none: each volume has one in its own directory.
    shown: Option<PathBuf>,
    /// Held while what a removal frees is measured.
    examined: Mutex<()>,
    /// Held while CRLs are written, and while a generation with some of them is.
    shared: Mutex<()>,
    /// Holds the lock on the root until it is dropped.
    _lock: File,
}

impl Store {
    /// Opens the store in a directory of a tmpfs, and removes what an earlier process left half done. Also returns a warning
    /// for everything that could not be removed.
    pub(crate) fn open(root: &Path) -> Result<(Self, Vec<String>), StoreError> {
        check_tmpfs(root)?;
        Self::open_at(root.to_owned(), None)
    }

    /// As [`Self::open`], for a single volume that is handed over in this directory of a tmpfs. Nothing else may be in it.
    pub(crate) fn open_inside(directory: &Path) -> Result<(Self, Vec<String>), StoreError> {
        check_tmpfs(directory)?;
        if let Some(name) = generation::foreign_name(directory)? {
            return Err(StoreError::Foreign { directory: directory.to_owned(), name });
        }
        let root = directory.join(INSIDE);
        // Others may be able to write to the directory. A link of theirs must not lead keys elsewhere.
        if !files::is_own_dir(&root)? {
            return Err(StoreError::Foreign { directory: directory.to_owned(), name: INSIDE.to_owned() });
        }
        files::ensure_dir(&root, 0o700)?;
        Self::open_at(root, Some(directory.to_owned()))
    }

    fn open_at(root: PathBuf, shown: Option<PathBuf>) -> Result<(Self, Vec<String>), StoreError> {
        let lock = lock(&root)?;
        let store = Self { root, shown, examined: Mutex::default(), shared: Mutex::default(), _lock: lock };
        files::ensure_dir(&store.root.join(VOLUMES), 0o700)?;
        let names = files::names(&store.root.join(VOLUMES))?.into_iter();
        let failed = names.filter_map(|name| store.sweep(&name.to_string_lossy()).err());
        let failed = failed.chain(store.remove_unshared().err());
        let warnings = failed.map(|error| format!("a leftover could not be removed: {error}")).collect();
        Ok((store, warnings))
    }

    /// The directory of a volume that a pod sees, relative to the root.
    pub(crate) fn mount_dir(volume: &VolumeId) -> PathBuf {
        VolumeDir::of(volume).mount()
    }

    /// Where the store is.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Every volume in the store, ordered by directory.
    pub(crate) fn list(&self) -> Result<Vec<StoredVolume>, StoreError> {
        read_volumes(&self.root)
    }

    /// Writes the volume's next generation, swaps it in atomically, and returns its number. On failure the old generation
    /// stays live, and nothing of the new one is left.
    pub(crate) fn write_generation(&self, volume: &VolumeId, new: &[NewFile]) -> Result<u64, StoreError> {
        let remove = |old: &Path| files::discard(files::remove_tree(old));
        self.in_dir_of(volume, || self.write_in(&self.generations_of(volume), new, remove))
    }

    /// As [`Self::write_generation`]. Also returns what the old generation still takes, because a process keeps it open.
    pub(crate) fn write_generation_examined(
        &self,
        volume: &VolumeId,
        new: &[NewFile],
    ) -> Result<(u64, Size), StoreError> {
        let retained = Cell::default();
        let remove = |old: &Path| retained.set(self.remove_examined(old).unwrap_or_default());
        let number = self.in_dir_of(volume, || self.write_in(&self.generations_of(volume), new, remove))?;
        Ok((number, retained.get()))
    }

    /// Keeps the volume's generations outside of what its pod sees, before the first one is written.
    pub(crate) fn keep_unmounted(&self, volume: &VolumeId) -> Result<(), StoreError> {
        self.in_dir_of(volume, || {
            self.ensure_mount(volume)?;
            files::ensure_dir(&self.dir_of(volume).join(UNMOUNTED), 0o700).map(drop)
        })
    }

    /// The number of the live generation, if one was written.
    pub(crate) fn generation(&self, volume: &VolumeId) -> Result<Option<u64>, StoreError> {
        generation::live(&self.generations_of(volume))
    }

    /// Reads the live generation with `read`, which runs again if the generation is replaced meanwhile; `None` if there is none.
    pub(crate) fn read_generation<T, E: From<StoreError>>(
        &self,
        volume: &VolumeId,
        read: impl Fn(&Generation) -> Result<T, E>,
    ) -> Result<Option<T>, E> {
        generation::read(&self.generations_of(volume), read)
    }

    /// Listens on the volume's socket, in the directory that its pod sees.
    pub(crate) fn listen(&self, volume: &VolumeId, new: &NewSocket) -> Result<UnixListener, StoreError> {
        self.in_dir_of(volume, || {
            self.ensure_mount(volume)?;
            socket::listen_in(&self.mount_of(volume), new)
        })
    }

    /// Replaces the volume's record as a whole; on failure the old one stays.
    pub(crate) fn write_record(&self, record: &Record) -> Result<(), StoreError> {
        let path = self.dir_of(&record.volume_id).join(RECORD);
        let json = record.encode().map_err(|_| StoreError::Encoding { path: path.clone() })?;
        self.in_dir_of(&record.volume_id, || files::replace(&path, &json))
    }

    /// Moves a record that cannot be read away, and keeps it for a person to examine. The volume's files and its mount stay;
    /// its next publish writes a new record.
    pub(crate) fn move_record_away(&self, dir: &VolumeDir) -> Result<(), StoreError> {
        let record = self.path_of(dir).join(RECORD);
        fs::rename(&record, self.path_of(dir).join(UNREADABLE_RECORD)).attempt("move away", &record)
    }

    /// Keeps the password of the volume's keystores, outside of what a pod sees.
    pub(crate) fn keep_password(&self, volume: &VolumeId, password: &SecretString) -> Result<(), StoreError> {
        let path = self.dir_of(volume).join(PASSWORD);
        let password = password.expose_secret().as_bytes();
        if files::read(&path)?.is_some_and(|kept| *kept == password) {
            return Ok(());
        }
        self.in_dir_of(volume, || files::replace(&path, password))
    }

    /// Whether a password was kept. Opens no file.
    pub(crate) fn has_password(&self, volume: &VolumeId) -> bool {
        self.dir_of(volume).join(PASSWORD).exists()
    }

    /// The password that was kept.
    pub(crate) fn password(&self, volume: &VolumeId) -> Result<Option<SecretString>, StoreError> {
        let kept = files::read(&self.dir_of(volume).join(PASSWORD))?;
        let text = kept.as_ref().and_then(|kept| std::str::from_utf8(kept).ok());
        Ok(text.map(SecretString::from))
    }

    /// A signer's own file in the root of the store.
    pub(crate) fn journal(&self, name: &'static str) -> JournalFile {
        JournalFile { path: self.root.join(name) }
    }

    /// Removes a volume from the store. The volume must no longer be bind-mounted.
    pub(crate) fn remove(&self, volume: &VolumeId) -> Result<(), StoreError> {
        self.remove_dir(&VolumeDir::of(volume))
    }

    /// As [`Self::remove`], for a volume whose identifier is not known because its record is missing.
    pub(crate) fn remove_dir(&self, dir: &VolumeDir) -> Result<(), StoreError> {
        let path = self.path_of(dir);
        let trash = self.root.join(VOLUMES).join(format!("{TRASH}{dir}"));
        files::remove_tree(&trash)?;
        // Renamed first, so that a crash leaves the whole volume or none, and never a record without its files.
        match files::if_present(fs::rename(&path, &trash)).attempt("retire", &path)? {
            Some(()) => files::remove_tree(&trash),
            None => Ok(()),
        }
    }

    /// Clears what a crash has left of one entry of `volumes/`.
    fn sweep(&self, name: &str) -> Result<(), StoreError> {
        let path = self.root.join(VOLUMES).join(name);
        if name.starts_with(TRASH) {
            return files::remove_tree(&path);
        }
        files::remove_file(&files::temporary(&path.join(RECORD)))?;
        files::remove_file(&files::temporary(&checkpoint::path(&path)))?;
        files::remove_file(&files::temporary(&path.join(PASSWORD)))?;
        generation::sweep(&path.join(UNMOUNTED))?;
        generation::sweep(self.shown.as_deref().unwrap_or(&path.join(MOUNT))).map(drop)
    }

    /// Makes the directory that the volume's pod sees.
    fn ensure_mount(&self, volume: &VolumeId) -> Result<(), StoreError> {
        match &self.shown {
            Some(_) => Ok(()),
            None => files::ensure_dir(&self.mount_of(volume), 0o755).map(drop),
        }
    }

    /// Writes a generation in this directory.
    fn write_in(
        &self,
        directory: &Path,
        new: &[NewFile],
        retire: impl FnOnce(&Path),
    ) -> Result<u64, StoreError> {
        let make = || match &self.shown {
            // Others made it, with their own mode.
            Some(shown) if shown == directory => Ok(false),
            _ => files::ensure_dir(directory, 0o755),
        };
        generation::write(directory, make, new, retire)
    }

    /// Runs `write`. If the volume's directory is missing, creates it and runs `write` again.
    fn in_dir_of<T>(
        &self,
        volume: &VolumeId,
        write: impl Fn() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        match write() {
            Err(error) if error.is_vanished() => {
                files::ensure_dir(&self.dir_of(volume), 0o700)?;
                write()
            }
            written => written,
        }
    }

    fn path_of(&self, dir: &VolumeDir) -> PathBuf {
        self.root.join(VOLUMES).join(&dir.0)
    }

    fn dir_of(&self, volume: &VolumeId) -> PathBuf {
        self.path_of(&VolumeDir::of(volume))
    }

    /// Where the generations are.
    fn generations_of(&self, volume: &VolumeId) -> PathBuf {
        let unmounted = self.dir_of(volume).join(UNMOUNTED);
        if unmounted.exists() { unmounted } else { self.mount_of(volume) }
    }

    fn mount_of(&self, volume: &VolumeId) -> PathBuf {
        self.shown.clone().unwrap_or_else(|| self.root.join(Self::mount_dir(volume)))
    }
}

/// An error if the directory is not on a tmpfs.
fn check_tmpfs(directory: &Path) -> Result<(), StoreError> {
    let found = statfs(directory).attempt("examine", directory)?.filesystem_type();
    if found == TMPFS_MAGIC { Ok(()) } else { Err(StoreError::NotTmpfs { root: directory.to_owned() }) }
}

/// Locks the root: two processes would remove each other's unfinished generations.
fn lock(root: &Path) -> Result<File, StoreError> {
    let file = File::open(root).attempt("open", root)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse { root: root.to_owned() }),
        Err(TryLockError::Error(error)) => Err(error).attempt("lock", root),
    }
}
