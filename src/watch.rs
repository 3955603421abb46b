//! inotify(7) on one directory, without a thread.

use crate::readiness::readable;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use tokio::io::unix::AsyncFd;

/// A watch on one directory.
#[derive(Debug)]
pub struct DirectoryWatch {
    inotify: Inotify,
    readiness: AsyncFd<OwnedFd>,
}

impl DirectoryWatch {
    /// Starts watching for `events`.
    pub fn new(directory: &Path, events: AddWatchFlags) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        inotify.add_watch(directory, events)?;
        Ok(Self { readiness: readable(&inotify)?, inotify })
    }

    /// The next events, as soon as there are some. Dropping the future loses none.
    pub async fn events(&self) -> io::Result<Vec<InotifyEvent>> {
        loop {
            let mut ready = self.readiness.readable().await?;
            match self.inotify.read_events() {
                Err(nix::Error::EAGAIN) => ready.clear_ready(),
                events => return Ok(events?),
            }
        }
    }
}
