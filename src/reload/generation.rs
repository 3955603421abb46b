//! The generations of the watched directories.

use crate::platform::DirectoryWatch;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;

/// The link to the current generation, as in every volume of Kubernetes with files.
const LINK: &str = "..data";
/// How often a directory without a generation is checked. A volume that is mounted there causes no event.
const RECHECK: Duration = Duration::from_secs(10);

/// One generation of one directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Generation {
    /// The directory.
    pub(super) directory: PathBuf,
    /// What the link leads to.
    pub(super) name: PathBuf,
    /// When the link was swapped.
    pub(super) swapped_at: SystemTime,
}

impl Generation {
    /// The generation in a directory, if there is one.
    fn in_directory(directory: &Path) -> Option<Self> {
        let link = directory.join(LINK);
        let name = fs::read_link(&link).ok()?;
        // Renaming changes this time, and not that of the modification.
        let metadata = fs::symlink_metadata(&link).ok()?;
        let nanoseconds = i128::from(metadata.ctime()) * 1_000_000_000 + i128::from(metadata.ctime_nsec());
        let since_epoch = Duration::from_nanos_u128(u128::try_from(nanoseconds).ok()?);
        Some(Self { directory: directory.to_owned(), name, swapped_at: UNIX_EPOCH + since_epoch })
    }
}

/// The watched directories.
#[derive(Debug)]
pub(super) struct Directories(Vec<Directory>);

/// One directory. It may not exist yet.
#[derive(Debug)]
struct Directory {
    path: PathBuf,
    seen: Option<Generation>,
    watched: Option<Watched>,
}

/// What is watched: the directory, or the closest one above it that exists.
#[derive(Debug)]
struct Watched {
    /// Device and inode: a directory that was made anew is another one.
    inode: (u64, u64),
    watch: DirectoryWatch,
}

impl Directories {
    pub(super) fn new(paths: Vec<PathBuf>) -> Self {
        Self(paths.into_iter().map(|path| Directory { path, seen: None, watched: None }).collect())
    }

    /// The generations that are there now count as seen.
    pub(super) fn skip_present(&mut self) {
        for directory in &mut self.0 {
            directory.seen = Generation::in_directory(&directory.path);
        }
    }

    /// Sends every generation that it sees. One that follows another within a moment can replace it.
    pub(super) async fn follow(self, newest: &watch::Sender<Option<Generation>>) {
        let follow = |mut directory: Directory| async move {
            loop {
                let generation = directory.next().await;
                // The one that came last stays, so that a process that started before it is not missed.
                newest.send_modify(|newest| {
                    if newest.as_ref().is_none_or(|newest| newest.swapped_at <= generation.swapped_at) {
                        *newest = Some(generation);
                    }
                });
            }
        };
        futures_util::future::join_all(self.0.into_iter().map(follow)).await;
    }
}

impl Directory {
    /// Waits for a generation that has not been seen.
    async fn next(&mut self) -> Generation {
        loop {
            // Watching begins before the link is read, so that no swap is missed.
            self.watch();
            match Generation::in_directory(&self.path) {
                Some(present) if self.seen.as_ref() != Some(&present) => {
                    self.seen = Some(present.clone());
                    return present;
                }
                _ => {}
            }
            match &self.watched {
                Some(Watched { watch, .. }) if self.seen.is_some() => watch.changed().await,
                Some(Watched { watch, .. }) => drop(tokio::time::timeout(RECHECK, watch.changed()).await),
                None => tokio::time::sleep(RECHECK).await,
            }
        }
    }

    /// Watches what is there now, if the system allows it.
    fn watch(&mut self) {
        while let Some((path, inode)) = closest(&self.path) {
            if self.watched.as_ref().is_some_and(|watched| watched.inode == inode) {
                return;
            }
            if path != self.path {
                tracing::info!(path = %self.path.display(), "waiting for the directory, which does not exist yet");
            }
            self.watched = match DirectoryWatch::new(&path) {
                Ok(watch) => Some(Watched { inode, watch }),
                Err(error) => {
                    self.watched = None;
                    tracing::warn!(path = %path.display(), %error, "the directory cannot be watched; it is read every ten seconds");
                    return;
                }
            };
        }
    }
}

/// The closest directory that exists, and its inode.
fn closest(path: &Path) -> Option<(PathBuf, (u64, u64))> {
    let absolute = std::path::absolute(path).ok()?;
    absolute.ancestors().find_map(|ancestor| {
        let metadata = fs::metadata(ancestor).ok().filter(fs::Metadata::is_dir)?;
        let path = if ancestor == absolute { path } else { ancestor };
        Some((path.to_owned(), (metadata.dev(), metadata.ino())))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn swap(directory: &Path, name: &str) {
        symlink(name, directory.join("..data_tmp")).unwrap();
        fs::rename(directory.join("..data_tmp"), directory.join(LINK)).unwrap();
    }

    fn directory(path: PathBuf) -> Directory {
        Directory { path, seen: None, watched: None }
    }

    async fn soon(directory: &mut Directory) -> Option<String> {
        let next = tokio::time::timeout(Duration::from_secs(5), directory.next()).await.ok()?;
        Some(next.name.display().to_string())
    }

    #[tokio::test]
    async fn a_directory_that_comes_later_and_one_that_is_made_anew_are_followed() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/b");
        let mut followed = directory(path.clone());
        let early = tokio::time::timeout(Duration::from_millis(50), followed.next()).await;
        assert!(early.is_err(), "there is no generation yet");
        let maker = path.clone();
        tokio::task::spawn_blocking(move || {
            std::thread::sleep(Duration::from_millis(50));
            fs::create_dir_all(&maker).unwrap();
            swap(&maker, "..1");
        });
        assert_eq!(soon(&mut followed).await.as_deref(), Some("..1"));
        fs::remove_dir_all(&path).unwrap();
        fs::create_dir_all(&path).unwrap();
        swap(&path, "..2");
        assert_eq!(soon(&mut followed).await.as_deref(), Some("..2"));
    }

    #[tokio::test]
    async fn a_swap_counts_once_also_if_the_name_stays_the_same() {
        let root = tempfile::tempdir().unwrap();
        swap(root.path(), "..1");
        let mut followed = directory(root.path().to_owned());
        assert_eq!(soon(&mut followed).await.as_deref(), Some("..1"));
        fs::write(root.path().join("other"), "").unwrap();
        let again = tokio::time::timeout(Duration::from_millis(100), followed.next()).await;
        assert!(again.is_err(), "the link has not been swapped");
        std::thread::sleep(Duration::from_millis(20));
        swap(root.path(), "..1");
        assert_eq!(soon(&mut followed).await.as_deref(), Some("..1"));
    }
}
