//! Waiting for a descriptor to become readable. The only file with `unsafe` in it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Has the runtime tell when `descriptor` is readable, through a duplicate of it: the runtime wants to own what it waits
/// for. The open file must be non-blocking.
pub(crate) fn readable(descriptor: &impl AsFd) -> io::Result<AsyncFd<OwnedFd>> {
    let duplicate = descriptor.as_fd().try_clone_to_owned()?;
    // SAFETY: the duplicate is open, is owned by the `AsyncFd` from here on, and an `OwnedFd` gives the same descriptor
    // for as long as it lives.
    #[expect(unsafe_code, reason = "AsyncFd has no safe constructor, even for an OwnedFd")]
    let registered = unsafe { AsyncFd::register_with_interest(duplicate, Interest::READABLE) };
    Ok(registered?)
}
