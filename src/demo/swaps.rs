//! An open watch on a mounted directory, as Envoy and others keep one.

use crate::watch::DirectoryWatch;
use nix::sys::inotify::AddWatchFlags;
use std::io;
use std::path::Path;

/// Watches a mounted directory for the swap of its `..data` link.
#[derive(Debug)]
pub struct Swaps(DirectoryWatch);

impl Swaps {
    /// Starts watching.
    pub fn watch(directory: &Path) -> io::Result<Self> {
        DirectoryWatch::new(directory, AddWatchFlags::IN_MOVED_TO).map(Self)
    }

    /// Waits for the next swap.
    pub async fn next(&mut self) -> io::Result<()> {
        loop {
            let events = self.0.events().await?;
            if events.iter().any(|event| event.name.as_deref() == Some("..data".as_ref())) {
                return Ok(());
            }
        }
    }
}
