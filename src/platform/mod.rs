//! The operating system: wall time, file events, Unix sockets, private memory; pauses between attempts, and queues that are fair by namespace.

mod authority;
mod backoff;
#[cfg(feature = "aws")]
mod bounded_map;
mod clock;
mod fair_queue;
mod fair_semaphore;
mod hardening;
mod inotify;
mod readiness;
mod socket;
mod tally;
mod token_bucket;

pub(crate) use authority::AnyAuthority;
pub(crate) use backoff::Backoff;
#[cfg(feature = "aws")]
pub(crate) use bounded_map::BoundedMap;
pub use clock::Clock;
pub(crate) use clock::{SystemClock, until};
pub(crate) use fair_queue::FairQueue;
pub(crate) use fair_semaphore::{FairPermit, FairSemaphore};
pub use hardening::keep_memory_private;
pub(crate) use inotify::DirectoryWatch;
pub use socket::SocketError;
pub(crate) use socket::listen;
pub(crate) use tally::Tally;
pub(crate) use token_bucket::TokenBucket;

/// The cores that this process may use, at least one.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// As [`cores`], but one is left to others, if there is another one.
pub(crate) fn all_cores_but_one() -> usize {
    cores().saturating_sub(1).max(1)
}
