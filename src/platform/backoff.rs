//! Exponential backoff with a cap and jitter.

use std::time::Duration;

/// Pauses between attempts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Backoff {
    first: Duration,
    factor: f64,
    cap: Duration,
}

impl Backoff {
    /// Doubles from `first` to `cap`.
    pub(crate) const fn new(first: Duration, cap: Duration) -> Self {
        Self::with_factor(first, 2.0, cap)
    }

    /// Grows by `factor` from `first` to `cap`.
    pub(crate) const fn with_factor(first: Duration, factor: f64, cap: Duration) -> Self {
        Self { first, factor, cap }
    }

    /// The pause after this number of failures, without jitter.
    pub(crate) fn full_pause(&self, failures: u32) -> Duration {
        // The factor has a limit, because zero times infinity is not a number.
        let factor = self.factor.powi(i32::try_from(failures).unwrap_or(i32::MAX)).min(1e12);
        Duration::try_from_secs_f64(self.first.as_secs_f64() * factor).unwrap_or(self.cap).min(self.cap)
    }

    /// The pause with jitter: from half of [`Self::full_pause`] (`jitter` 0) to all of it (`jitter` 1).
    pub(crate) fn pause(&self, failures: u32, jitter: f64) -> Duration {
        self.full_pause(failures).mul_f64(0.5 + 0.5 * jitter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_cap_however_many_failures_there_are() {
        let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(10));
        let pauses = [0, 1, 2, 3, 4, 4_000_000_000].map(|failures| backoff.full_pause(failures).as_secs());
        assert_eq!(pauses, [1, 2, 4, 8, 10, 10]);
        assert_eq!(backoff.pause(1, 0.0), Duration::from_secs(1));
        let none = Backoff::with_factor(Duration::ZERO, 2.0, Duration::from_secs(10));
        assert_eq!(none.full_pause(u32::MAX), Duration::ZERO);
    }
}
