//! File events of one directory, by way of the `notify` crate.

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use std::io;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::Notify;

/// A watch on one directory. It costs no wakeups while nothing changes: its thread blocks in the kernel.
#[derive(Debug)]
pub(crate) struct DirectoryWatch {
    changed: Arc<Notify>,
    _watcher: RecommendedWatcher,
}

impl DirectoryWatch {
    /// Starts watching: from here on no change is missed.
    pub(crate) fn new(directory: &Path) -> io::Result<Self> {
        let changed = Arc::new(Notify::new());
        let notify = Arc::clone(&changed);
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // An error, such as an overflow of the kernel's queue, can hide a change. So it counts as a change.
            if event.map_or(true, |event| is_change(event.kind)) {
                notify.notify_one();
            }
        })
        .map_err(io::Error::other)?;
        watcher.watch(directory, RecursiveMode::NonRecursive).map_err(io::Error::other)?;
        Ok(Self { changed, _watcher: watcher })
    }

    /// Returns after a change in the directory, or of the directory itself; several changes can count as one.
    /// Cancel-safe.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}

/// Whether the event is a change. Opening and reading are not. The end of a write is: an earlier read may have got half
/// of the file.
fn is_change(kind: EventKind) -> bool {
    !matches!(kind, EventKind::Access(_)) || kind == EventKind::Access(AccessKind::Close(AccessMode::Write))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::time::Duration;

    #[tokio::test]
    async fn a_swapped_link_and_a_removed_directory_are_noticed() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("watched");
        fs::create_dir(&directory).unwrap();
        let watch = DirectoryWatch::new(&directory).unwrap();
        let idle = tokio::time::timeout(Duration::from_millis(50), watch.changed()).await;
        assert!(idle.is_err(), "nothing has changed");
        std::os::unix::fs::symlink("..1", directory.join("..data_tmp")).unwrap();
        watch.changed().await;
        fs::rename(directory.join("..data_tmp"), directory.join("..data")).unwrap();
        watch.changed().await;
        fs::remove_dir_all(&directory).unwrap();
        watch.changed().await;
    }
}
