//! The generations of the watched directories.

use crate::platform::DirectoryWatch;
use std::fs;
use std::io;
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
    /// The generation in a directory.
    fn in_directory(directory: &Path) -> io::Result<Self> {
        let link = directory.join(LINK);
        let name = fs::read_link(&link)?;
        // Renaming changes this time, and not that of the modification.
        let metadata = fs::symlink_metadata(&link)?;
        let nanoseconds = i128::from(metadata.ctime()) * 1_000_000_000 + i128::from(metadata.ctime_nsec());
        // A time before 1970 is a clock that was never set.
        let since_epoch = Duration::from_nanos_u128(u128::try_from(nanoseconds).unwrap_or_default());
        Ok(Self { directory: directory.to_owned(), name, swapped_at: UNIX_EPOCH + since_epoch })
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
    /// Why there is no generation, and why there is no watch, as logged last.
    logged: [Option<String>; 2],
}

/// What is watched: the directory, or the closest one above it that exists.
#[derive(Debug)]
struct Watched {
    inode: Inode,
    watch: DirectoryWatch,
}

/// Identifies a directory: one that was made anew is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Inode {
    device: u64,
    number: u64,
    /// Some file systems give the number of a removed directory to the next one.
    created: Option<SystemTime>,
}

impl Directories {
    pub(super) fn new(paths: Vec<PathBuf>) -> Self {
        Self(paths.into_iter().map(Directory::new).collect())
    }

    /// The generations that are there now count as seen.
    pub(super) fn skip_present(&mut self) {
        for directory in &mut self.0 {
            directory.seen = Generation::in_directory(&directory.path).ok();
        }
    }

    /// Sends every generation that it sees. One that follows another within a moment can replace it.
    pub(super) async fn follow(self, newest: &watch::Sender<Option<Generation>>) {
        let follow = |mut directory: Directory| async move {
            loop {
                let generation = directory.next().await;
                newest.send_modify(|newest| {
                    // The latest time of all directories stays, so that a process that started before it is not missed.
                    let before = newest.as_ref().map_or(UNIX_EPOCH, |newest| newest.swapped_at);
                    let swapped_at = before.max(generation.swapped_at);
                    *newest = Some(Generation { swapped_at, ..generation });
                });
            }
        };
        futures_util::future::join_all(self.0.into_iter().map(follow)).await;
    }
}

impl Directory {
    fn new(path: PathBuf) -> Self {
        Self { path, seen: None, watched: None, logged: [None, None] }
    }

    /// Waits for a generation that has not been seen.
    async fn next(&mut self) -> Generation {
        loop {
            // Watching begins before the link is read, so that no swap is missed.
            self.watch();
            match Generation::in_directory(&self.path) {
                Ok(present) if self.seen.as_ref() != Some(&present) => {
                    self.seen = Some(present.clone());
                    return present;
                }
                Ok(_) => {}
                Err(error) => self.log_absence(&error),
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
            self.watched = match DirectoryWatch::new(&path) {
                Ok(watch) => Some(Watched { inode, watch }),
                Err(error) => {
                    self.watched = None;
                    if is_new(&mut self.logged[1], &error.to_string()) {
                        tracing::warn!(path = %path.display(), %error, "the directory cannot be watched; it is read every ten seconds");
                    }
                    return;
                }
            };
        }
    }

    /// Says why there is no generation, once for each reason.
    fn log_absence(&mut self, error: &io::Error) {
        let reason = match error.kind() {
            io::ErrorKind::NotFound if self.path.is_dir() => format!("it has no link {LINK} yet"),
            io::ErrorKind::NotFound => "it does not exist yet".to_owned(),
            _ => format!("its link {LINK} cannot be read: {error}"),
        };
        if is_new(&mut self.logged[0], &reason) {
            tracing::warn!(path = %self.path.display(), reason, "there is no certificate in the directory; waiting for it");
        }
    }
}

/// Whether this text is another one than that which was logged last. It is kept.
fn is_new(logged: &mut Option<String>, text: &str) -> bool {
    let is_new = logged.as_deref() != Some(text);
    *logged = Some(text.to_owned());
    is_new
}

/// The closest directory that exists, and its inode.
fn closest(path: &Path) -> Option<(PathBuf, Inode)> {
    let absolute = std::path::absolute(path).ok()?;
    absolute.ancestors().find_map(|ancestor| {
        let metadata = fs::metadata(ancestor).ok().filter(fs::Metadata::is_dir)?;
        let path = if ancestor == absolute { path } else { ancestor };
        let inode =
            Inode { device: metadata.dev(), number: metadata.ino(), created: metadata.created().ok() };
        Some((path.to_owned(), inode))
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

    async fn soon(directory: &mut Directory) -> Option<String> {
        let next = tokio::time::timeout(Duration::from_secs(5), directory.next()).await.ok()?;
        Some(next.name.display().to_string())
    }

    #[tokio::test]
    async fn a_directory_that_comes_later_and_one_that_is_made_anew_are_followed() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/b");
        let mut followed = Directory::new(path.clone());
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
    async fn the_latest_time_stays_and_the_directory_is_that_of_the_last_swap() {
        let root = tempfile::tempdir().unwrap();
        let [first, second] = ["a", "b"].map(|name| root.path().join(name));
        for directory in [&first, &second] {
            fs::create_dir(directory).unwrap();
            swap(directory, "..1");
        }
        // A clock that is set back gives the next generation an earlier time.
        let later = SystemTime::now() + Duration::from_hours(1);
        let generation = Generation { directory: second.clone(), name: "..1".into(), swapped_at: later };
        let (newest, mut generations) = watch::channel(Some(generation));
        let directories = Directories::new(vec![first.clone()]);
        let follow = directories.follow(&newest);
        let next = tokio::time::timeout(Duration::from_secs(5), generations.changed());
        tokio::select! {
            changed = next => changed.unwrap().unwrap(),
            () = follow => unreachable!("it never ends"),
        }
        let newest = generations.borrow().clone().unwrap();
        assert_eq!((newest.directory, newest.swapped_at), (first, later));
    }

    #[tokio::test]
    async fn a_directory_with_the_inode_of_a_removed_one_is_another_one() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a");
        let inode = || {
            fs::create_dir(&path).unwrap();
            let (_, inode) = closest(&path).unwrap();
            fs::remove_dir(&path).unwrap();
            std::thread::sleep(Duration::from_millis(20));
            inode
        };
        assert_ne!(inode(), inode());
    }

    #[test]
    fn a_reason_is_logged_once() {
        let mut logged = None;
        let logs = ["a", "a", "b", "b", "a"].map(|text| is_new(&mut logged, text));
        assert_eq!(logs, [true, false, true, false, true]);
    }

    #[tokio::test]
    async fn a_swap_counts_once_also_if_the_name_stays_the_same() {
        let root = tempfile::tempdir().unwrap();
        swap(root.path(), "..1");
        let mut followed = Directory::new(root.path().to_owned());
        assert_eq!(soon(&mut followed).await.as_deref(), Some("..1"));
        fs::write(root.path().join("other"), "").unwrap();
        let again = tokio::time::timeout(Duration::from_millis(100), followed.next()).await;
        assert!(again.is_err(), "the link has not been swapped");
        std::thread::sleep(Duration::from_millis(20));
        swap(root.path(), "..1");
        assert_eq!(soon(&mut followed).await.as_deref(), Some("..1"));
    }
}
