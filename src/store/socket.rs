//! The socket of a volume, beside its generations in the directory that a pod sees.

use super::error::{Attempt, StoreError};
use super::{files, generation};
use nix::fcntl::{OFlag, open};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use nix::sys::stat::{Mode, fchmod};
use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::chown;
use std::os::unix::net::UnixListener;
use std::path::Path;

/// The name of a socket before its rename. A sweep removes one that a crash has left.
const NEXT: &str = "..socket_tmp";
/// Connections that wait to be accepted.
const BACKLOG: i32 = 64;

/// The name of a socket, and who may connect to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewSocket {
    /// A plain file name.
    pub(crate) name: String,
    /// The permission bits. Whoever may write may connect (unix(7)).
    pub(crate) mode: u32,
    /// The user that owns it; none: the process's own.
    pub(crate) owner: Option<u32>,
    /// The group that owns it; none: the process's own.
    pub(crate) group: Option<u32>,
}

/// Listens on a socket in `directory`. It replaces the socket of an earlier process by a rename, so that the path never vanishes.
pub(super) fn listen_in(directory: &Path, new: &NewSocket) -> Result<UnixListener, StoreError> {
    generation::check_name(&new.name)?;
    let (next, path) = (directory.join(NEXT), directory.join(&new.name));
    files::remove_file(&next)?;
    let listener = bound(directory, &next, new);
    let served = listener.and_then(|listener| {
        fs::rename(&next, &path).attempt("put in place", &path)?;
        Ok(listener)
    });
    if served.is_err() {
        files::discard(files::remove_file(&next));
    }
    served
}

/// A listener at the temporary name. Only its owner can connect until its owners are set. Then it gets its mode.
fn bound(directory: &Path, next: &Path, new: &NewSocket) -> Result<UnixListener, StoreError> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let listener =
        socket(AddressFamily::Unix, SockType::Stream, flags, None).attempt("make the socket", next)?;
    // On Linux the mode of an unbound socket is that of its file.
    fchmod(&listener, Mode::from_bits_truncate(0o600)).attempt("set the mode of", next)?;
    // An address holds at most 108 bytes, fewer than the path can have.
    let how = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let parent = open(directory, how, Mode::empty()).attempt("open", directory)?;
    let short = format!("/proc/self/fd/{}/{NEXT}", parent.as_fd().as_raw_fd());
    let address = UnixAddr::new(short.as_str()).attempt("bind the socket", next)?;
    bind(listener.as_raw_fd(), &address).attempt("bind the socket", next)?;
    if new.owner.is_some() || new.group.is_some() {
        chown(next, new.owner, new.group).map_err(|source| StoreError::Owners {
            path: next.to_owned(),
            owner: new.owner,
            group: new.group,
            source,
        })?;
    }
    files::set_mode(next, new.mode)?;
    let backlog = Backlog::new(BACKLOG).attempt("listen on", next)?;
    listen(&listener, backlog).attempt("listen on", next)?;
    Ok(UnixListener::from(listener))
}
