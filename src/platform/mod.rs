//! The operating system: wall time, file events, private memory; pauses between attempts, and fair semaphores.

mod backoff;
mod clock;
mod fair_semaphore;
mod hardening;
mod inotify;
mod readiness;
mod token_bucket;

pub(crate) use backoff::Backoff;
pub use clock::Clock;
pub(crate) use clock::{SystemClock, until};
pub(crate) use fair_semaphore::{FairPermit, FairSemaphore};
pub use hardening::keep_memory_private;
pub(crate) use inotify::DirectoryWatch;
pub(crate) use token_bucket::TokenBucket;
