//! When the queue was last looked at, by both kinds of clock: whether it turns, and whether the wall clock was set back.

use super::schedule::is_ahead;
use jiff::Timestamp;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The last look.
pub(super) struct LastLook(Mutex<(Timestamp, Instant)>);

impl LastLook {
    /// One, now.
    pub(super) fn new(now: Timestamp) -> Self {
        Self(Mutex::new((now, Instant::now())))
    }

    /// Another one. True: the wall clock says less than it should after the time that has passed since the last.
    pub(super) fn again(&self, now: Timestamp) -> bool {
        let (before, at) = std::mem::replace(&mut *self.lock(), (now, Instant::now()));
        is_ahead(before.saturating_add(at.elapsed()).unwrap_or(Timestamp::MAX), now)
    }

    /// How long ago it was.
    pub(super) fn age(&self) -> Duration {
        self.lock().1.elapsed()
    }

    fn lock(&self) -> MutexGuard<'_, (Timestamp, Instant)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::SignedDuration;

    #[test]
    fn a_clock_that_is_set_back_is_noticed_once() {
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let look = LastLook::new(start);
        assert!(!look.again(start + SignedDuration::from_hours(720)));
        assert!(
            !look.again(start + SignedDuration::from_hours(720) - SignedDuration::from_secs(30)),
            "corrected"
        );
        assert!(look.again(start));
        assert!(!look.again(start));
        assert!(look.age() < Duration::from_mins(1));
    }
}
