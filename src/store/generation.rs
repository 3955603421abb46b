//! The directory that a pod sees, and its atomic swap.
//!
//! ```text
//! mount/
//!   ..7/            the live generation: tls.crt, tls.key, ca.crt as plain files
//!   ..data -> ..7
//!   tls.crt -> ..data/tls.crt       the same for every name
//! ```

use super::NewFile;
use super::error::{Attempt, StoreError};
use super::{INSIDE, crls, files};
use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::{FileTypeExt, PermissionsExt, fchown, symlink};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The symlink whose rename is the swap. Envoy, Istio and other inotify watchers know it by this name.
pub(super) const DATA: &str = "..data";
/// The name of that symlink before the rename.
const DATA_NEXT: &str = "..data_tmp";

/// Writes a new generation, swaps it in, and calls `retire` with the directory of the old one. `make` makes the directory that a pod
/// sees, and returns whether it is new. On failure the old generation stays live, and nothing new is left.
pub(super) fn write(
    mount: &Path,
    make: impl FnOnce() -> Result<bool, StoreError>,
    new: &[NewFile],
    retire: impl FnOnce(&Path),
) -> Result<u64, StoreError> {
    let wanted = checked_names(new)?;
    let is_new = make()?;
    let Swept { live, names: visible } = if is_new { Swept::default() } else { sweep(mount)? };
    let next = live.map_or(1, |live| live.wrapping_add(1));
    let fresh: Vec<&String> = wanted.difference(&visible).collect();
    if let Err(error) = stage(mount, next, new, &fresh).and_then(|()| swap(mount, next)) {
        undo(mount, next, &fresh);
        return Err(error);
    }
    for stale in visible.difference(&wanted) {
        files::discard(files::remove_file(&mount.join(stale)));
    }
    if let Some(old) = live {
        retire(&directory(mount, old));
    }
    Ok(next)
}

/// The live generation's number.
pub(super) fn live(mount: &Path) -> Result<Option<u64>, StoreError> {
    let data = mount.join(DATA);
    let link = files::if_present(fs::read_link(&data)).attempt("read the link", &data)?;
    Ok(link.as_deref().and_then(Path::to_str).and_then(number))
}

/// The files of one generation.
pub(crate) struct Generation(PathBuf);

impl Generation {
    /// The names of its files.
    pub(crate) fn names(&self) -> Result<Vec<String>, StoreError> {
        let names = files::names(&self.0)?.into_iter();
        Ok(names.filter_map(|name| name.into_string().ok()).collect())
    }

    pub(super) fn path_of(&self, name: &str) -> Result<PathBuf, StoreError> {
        check_name(name)?;
        Ok(self.0.join(name))
    }

    /// Reads a file; `None` if there is none of this name.
    pub(crate) fn file(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        files::read(&self.path_of(name)?)
    }
}

/// Reads the live generation with `read`; `None` if there is none. A swap removes the old generation while it is being read. Then
/// `read` runs again, so that key and certificate are of the same generation.
pub(super) fn read<T, E: From<StoreError>>(
    mount: &Path,
    read: impl Fn(&Generation) -> Result<T, E>,
) -> Result<Option<T>, E> {
    while let Some(live) = live(mount)? {
        let result = read(&Generation(directory(mount, live)));
        if self::live(mount)? == Some(live) {
            return result.map(Some);
        }
    }
    Ok(None)
}

/// What is left after a sweep.
#[derive(Debug, Default)]
pub(super) struct Swept {
    /// The live generation.
    pub(super) live: Option<u64>,
    /// The names that lead into it.
    pub(super) names: BTreeSet<String>,
}

/// Removes everything that a crash can leave: the next link, generations that are not live, names that lead nowhere.
pub(super) fn sweep(mount: &Path) -> Result<Swept, StoreError> {
    let live = live(mount)?;
    let mut names = BTreeSet::new();
    for name in files::names(mount)? {
        let name = name.to_string_lossy().into_owned();
        let keep = if name == INSIDE {
            true
        } else if name == DATA {
            live.is_some()
        } else if name.starts_with("..") {
            live.is_some() && number(&name) == live
        } else {
            // `metadata` follows the links: a name that does not lead to a file is a leftover. A socket is no part of a
            // generation, and stays.
            let found = fs::metadata(mount.join(&name)).map(|found| found.file_type()).ok();
            found.is_some_and(|found| found.is_socket() || found.is_file() && names.insert(name.clone()))
        };
        if !keep {
            files::remove_tree(&mount.join(&name))?;
        }
    }
    Ok(Swept { live, names })
}

/// A name in a directory that pods see which no store has made.
pub(super) fn foreign_name(mount: &Path) -> Result<Option<String>, StoreError> {
    for name in files::names(mount)? {
        let path = mount.join(&name);
        let found = fs::symlink_metadata(&path).attempt("examine", &path)?.file_type();
        let is_link = || fs::read_link(&path).is_ok_and(|target| target.starts_with(DATA));
        let name = name.to_string_lossy();
        if !name.starts_with("..") && !found.is_socket() && !is_link() {
            return Ok(Some(name.into_owned()));
        }
    }
    Ok(None)
}

/// Writes the files and the links of a new generation. Readers do not see it yet, because no name leads to it. Only its
/// owner can open the directory until all files are in it.
fn stage(mount: &Path, generation: u64, new: &[NewFile], fresh: &[&String]) -> Result<(), StoreError> {
    let directory = directory(mount, generation);
    files::ensure_dir(&directory, 0o700)?;
    for file in new {
        write_file(&directory.join(&file.name), file)?;
    }
    files::set_mode(&directory, 0o755)?;
    for name in fresh {
        let link = mount.join(name);
        symlink(Path::new(DATA).join(name), &link).attempt("make the link", &link)?;
    }
    Ok(())
}

/// Makes the new generation live: readers see all of it at once.
fn swap(mount: &Path, generation: u64) -> Result<(), StoreError> {
    let next = mount.join(DATA_NEXT);
    symlink(format!("..{generation}"), &next).attempt("make the link", &next)?;
    fs::rename(&next, mount.join(DATA)).attempt("swap in", &next)
}

fn undo(mount: &Path, generation: u64, fresh: &[&String]) {
    files::discard(files::remove_file(&mount.join(DATA_NEXT)));
    for name in fresh {
        files::discard(files::remove_file(&mount.join(name)));
    }
    files::discard(files::remove_tree(&directory(mount, generation)));
}

/// Writes a file. Only its owner can use it until its owners are set. Then it gets its mode.
fn write_file(path: &Path, file: &NewFile) -> Result<(), StoreError> {
    if let Some(shared) = &file.shared {
        return crls::link(shared, path);
    }
    let owners = file.mode & 0o700;
    let written = files::create(path, owners, &file.contents)?;
    if file.owner.is_some() || file.group.is_some() {
        fchown(&written, file.owner, file.group).map_err(|source| StoreError::Owners {
            path: path.to_owned(),
            owner: file.owner,
            group: file.group,
            source,
        })?;
    }
    if file.mode == owners {
        return Ok(());
    }
    written.set_permissions(Permissions::from_mode(file.mode)).attempt("set the mode of", path)
}

fn directory(mount: &Path, generation: u64) -> PathBuf {
    mount.join(format!("..{generation}"))
}

fn number(name: &str) -> Option<u64> {
    name.strip_prefix("..")?.parse().ok()
}

/// The names of the new files, if they are plain and different.
fn checked_names(new: &[NewFile]) -> Result<BTreeSet<String>, StoreError> {
    let mut names = BTreeSet::new();
    for NewFile { name, .. } in new {
        check_name(name)?;
        if !names.insert(name.clone()) {
            return Err(StoreError::FileName { name: name.clone(), problem: "is given to two files" });
        }
    }
    Ok(names)
}

/// Checks that the name is plain. Names that begin with two dots are reserved for generations and links.
pub(super) fn check_name(name: &str) -> Result<(), StoreError> {
    let problem = match name {
        "" => "is empty",
        "." => "is the directory itself",
        name if name.starts_with("..") => "begins with two dots",
        name if name.contains(['/', '\0']) => "has a slash or a NUL in it",
        name if name.len() > 255 => "is longer than 255 bytes",
        _ => return Ok(()),
    };
    Err(StoreError::FileName { name: name.to_owned(), problem })
}
