//! A watch on a mounted directory, like that of Envoy.

use inotify::{EventStream, Inotify, WatchMask};
use std::io;
use std::path::Path;
use tokio_stream::StreamExt;

/// The size of one event with the longest file name.
const BUFFER_BYTES: usize = 512;

/// Watches a mounted directory for the swap of its `..data` link.
#[derive(Debug)]
pub struct Swaps(EventStream<[u8; BUFFER_BYTES]>);

impl Swaps {
    /// Starts watching. Needs a Tokio runtime.
    pub fn watch(directory: &Path) -> io::Result<Self> {
        let inotify = Inotify::init()?;
        inotify.watches().add(directory, WatchMask::MOVED_TO)?;
        inotify.into_event_stream([0; BUFFER_BYTES]).map(Self)
    }

    /// Waits for the next swap.
    pub async fn next(&mut self) -> io::Result<()> {
        while let Some(event) = self.0.next().await {
            if event?.name.as_deref() == Some("..data".as_ref()) {
                return Ok(());
            }
        }
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}
