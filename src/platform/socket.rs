//! Listening on Unix sockets.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use thiserror::Error;
use tokio::net::UnixListener;

/// Errors of listening on a socket.
#[derive(Debug, Error)]
pub enum SocketError {
    /// The path exists and is not a socket.
    #[error("socket {}: the path exists and is not a socket; remove it, or choose another path", .path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// Another process listens on it.
    #[error("socket {}: another process listens on it already", .path.display())]
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// A system call failed.
    #[error("socket {}: {what}: {source}", .path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// The step that failed.
        what: &'static str,
        /// The system's error.
        source: io::Error,
    },
}

/// Listens on `path` with mode 0600. It creates the parent directory, and replaces a stale socket but not a live one.
pub(crate) fn listen(path: &Path) -> Result<UnixListener, SocketError> {
    let failed = |what| move |source| SocketError::Io { path: path.to_owned(), what, source };
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(failed("its directory cannot be created"))?;
    }
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed("cannot be read")(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(SocketError::NotASocket { path: path.to_owned() });
        }
        Ok(_) if UnixStream::connect(path).is_ok() => {
            return Err(SocketError::InUse { path: path.to_owned() });
        }
        Ok(_) => fs::remove_file(path).map_err(failed("the stale socket cannot be removed"))?,
    }
    let listener = UnixListener::bind(path).map_err(failed("cannot listen"))?;
    // Between bind and chmod, the directory protects the socket: the kubelet's plugin directories belong to root.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed("its mode cannot be set"))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plugins/csi.sock");
        let first = listen(&path).unwrap();
        assert!(matches!(listen(&path), Err(SocketError::InUse { .. })));
        drop(first);
        let _second = listen(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[tokio::test]
    async fn a_file_at_the_path_of_the_socket_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("csi.sock");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(listen(&path), Err(SocketError::NotASocket { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }
}
