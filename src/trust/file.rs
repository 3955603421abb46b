//! A file as a trust source.

use super::reader::SourceReader;
use crate::platform::{Backoff, DirectoryWatch};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The pauses while the file's directory cannot be watched: it does not exist yet, or no more.
const RETRIES: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_mins(1));

/// Follows the file for ever. A ConfigMap that is mounted as a volume is followed too: its `..data` is in the file's directory.
pub(super) async fn follow(path: PathBuf, reader: impl SourceReader) {
    let directory = path.parent().unwrap_or(Path::new("/")).to_owned();
    let mut failures = 0;
    loop {
        let watch = DirectoryWatch::new(&directory);
        let (reading, max_bytes) = (path.clone(), reader.max_bytes());
        let text = tokio::task::spawn_blocking(move || read(&reading, max_bytes)).await;
        reader.read(text.unwrap_or_else(|error| Err(format!("could not be read: {error}")))).await;
        match watch {
            // Watched anew after each change, so that a directory which is replaced is followed.
            Ok(watch) if directory.exists() => {
                failures = 0;
                watch.changed().await;
            }
            _ => {
                tokio::time::sleep(RETRIES.full_pause(failures)).await;
                failures += 1;
            }
        }
    }
}

fn read(path: &Path, max_bytes: usize) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("cannot be read: {error}");
    let mut text = Vec::new();
    let file = File::open(path).map_err(failed)?;
    // One byte more, so that a file which is too long is refused and not cut.
    file.take(max_bytes as u64 + 1).read_to_end(&mut text).map_err(failed)?;
    Ok(text)
}
