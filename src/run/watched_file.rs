//! A file of the operator's that is read again whenever it may have changed.

use crate::platform::DirectoryWatch;
use std::io;
use std::path::Path;
use tokio_util::sync::CancellationToken;

/// Watches the file's directory, because a ConfigMap's volume swaps the symlink `..data` beside the file. Start the watch before the
/// file is read, so that no change is missed.
pub(super) fn watch(path: &Path) -> io::Result<DirectoryWatch> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    DirectoryWatch::new(directory.unwrap_or(Path::new(".")))
}

/// Calls `reload` whenever the directory of the file changes, until `end`. One change of the file can cause several calls.
pub(super) async fn follow(watch: DirectoryWatch, end: CancellationToken, mut reload: impl FnMut()) {
    while end.run_until_cancelled(watch.changed()).await.is_some() {
        reload();
    }
}
