//! Wall time, and waiting for it. Injected everywhere, so that tests drive it.

use futures_util::future::BoxFuture;
use jiff::Timestamp;

/// Wall time, and waiting for it.
pub trait Clock: Send + Sync + 'static {
    /// Now, on the wall clock.
    fn now(&self) -> Timestamp;

    /// Returns at `deadline` on the wall clock, or as soon as the wall clock is set or jumps, whichever comes first:
    /// the caller looks at [`Clock::now`] again. Without a deadline it returns only on a jump.
    fn wait_until(&self, deadline: Option<Timestamp>) -> BoxFuture<'_, ()>;
}
