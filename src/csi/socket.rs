//! Unix sockets to listen on.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use thiserror::Error;
use tokio::net::UnixListener;

/// Why a socket could not be listened on.
#[derive(Debug, Error)]
pub enum SocketError {
    /// Something that is not a socket is in its place.
    #[error("socket {}: a file that is not a socket is in its place; remove it, or choose another path", .path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// Another process answers on it.
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
        /// What was being done.
        what: &'static str,
        /// What the system says.
        source: io::Error,
    },
}

/// Listens on `path`, mode 0600. The parent directory is made if need be; a stale socket is removed, a live one is not.
pub(super) fn listen(path: &Path) -> Result<UnixListener, SocketError> {
    let failed = |what| move |source| SocketError::Io { path: path.to_owned(), what, source };
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(failed("its directory cannot be made"))?;
    }
    remove_stale(path)?;
    let listener = UnixListener::bind(path).map_err(failed("cannot listen"))?;
    // Between bind and chmod the directory protects it: the kubelet's plugin directories are root's.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed("its mode cannot be set"))?;
    Ok(listener)
}

fn remove_stale(path: &Path) -> Result<(), SocketError> {
    let failed = |what| move |source| SocketError::Io { path: path.to_owned(), what, source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed("cannot be looked at")(error)),
        Ok(found) if !found.file_type().is_socket() => Err(SocketError::NotASocket { path: path.to_owned() }),
        Ok(_) if UnixStream::connect(path).is_ok() => Err(SocketError::InUse { path: path.to_owned() }),
        Ok(_) => fs::remove_file(path).map_err(failed("the stale socket cannot be removed")),
    }
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
    async fn a_file_in_the_sockets_place_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("csi.sock");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(listen(&path), Err(SocketError::NotASocket { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }
}
