//! What the operating system gives: wall time, file events, a private memory.

mod backoff;
mod clock;
mod hardening;
mod inotify;
mod readiness;
mod token_bucket;

pub(crate) use backoff::Backoff;
pub use clock::{Clock, SystemClock, until};
pub use hardening::keep_memory_private;
pub(crate) use inotify::DirectoryWatch;
pub(crate) use token_bucket::TokenBucket;
