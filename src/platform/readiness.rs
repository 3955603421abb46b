//! Waiting for a descriptor to become readable. One of the three files with `unsafe` in them.

use std::io;
use std::os::fd::OwnedFd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers `descriptor` with the runtime, which then tells when it is readable. The open file must be non-blocking.
pub(crate) fn readable(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is open, the `AsyncFd` owns it from here on, and an `OwnedFd` keeps the same descriptor for as
    // long as it lives.
    #[expect(unsafe_code, reason = "AsyncFd has no safe constructor, even for an OwnedFd")]
    let registered = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) };
    Ok(registered?)
}
