//! The operating system: wall time, file events, private memory; and pauses between attempts.

mod backoff;
mod clock;
mod hardening;
mod inotify;
mod readiness;
mod token_bucket;

pub(crate) use backoff::Backoff;
pub use clock::Clock;
pub(crate) use clock::{SystemClock, until};
pub use hardening::keep_memory_private;
pub(crate) use inotify::DirectoryWatch;
pub(crate) use token_bucket::TokenBucket;
