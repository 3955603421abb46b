//! Notices that the wall clock was set back.

use super::schedule::is_ahead;
use jiff::Timestamp;
use parking_lot::Mutex;
use std::time::Instant;

/// Compares wall and monotonic time between polls.
pub(super) struct ClockJumpDetector(Mutex<(Timestamp, Instant)>);

impl ClockJumpDetector {
    pub(super) fn new(now: Timestamp) -> Self {
        Self(Mutex::new((now, Instant::now())))
    }

    /// Whether the wall clock was set back since the last poll: it shows less than the last time plus the elapsed time.
    pub(super) fn poll(&self, now: Timestamp) -> bool {
        let (before, at) = std::mem::replace(&mut *self.0.lock(), (now, Instant::now()));
        is_ahead(before.saturating_add(at.elapsed()).unwrap_or(Timestamp::MAX), now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::SignedDuration;

    #[test]
    fn a_clock_that_is_set_back_is_noticed_once() {
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let detector = ClockJumpDetector::new(start);
        assert!(!detector.poll(start + SignedDuration::from_hours(720)));
        assert!(
            !detector.poll(start + SignedDuration::from_hours(720) - SignedDuration::from_secs(30)),
            "corrected"
        );
        assert!(detector.poll(start));
        assert!(!detector.poll(start));
    }
}
