//! A token bucket for one quota. Its rate falls when AWS throttles and rises again when it does not. Time is a parameter, so
//! that tests and simulations control it.

use crate::platform::TokenBucket;
use std::time::Duration;

/// The lowest rate: one call in two minutes.
const MIN_RATE: f64 = 1.0 / 120.0;

/// The rates for one quota.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// This node's fair share, in calls per second.
    pub share: f64,
    /// The rate of the whole fleet, in calls per second. A node never exceeds it, even if all others are idle.
    pub ceiling: f64,
    /// Calls that may start at once after an idle time.
    pub burst: f64,
}

/// A token bucket with additive increase and multiplicative decrease.
#[derive(Clone, Debug)]
pub struct Bucket {
    pace: Pace,
    tokens: TokenBucket,
    /// No call has been throttled yet, so the rate doubles instead of rising slowly.
    is_probing: bool,
    /// When the rate was reduced last.
    reduced_at: Option<Duration>,
}

impl Bucket {
    /// A bucket at the fair share. Its first token is there after `phase`, in [0, 1], of the time between two calls, and after
    /// ten seconds at most, so that nodes that start together do not call together.
    pub fn new(pace: Pace, phase: f64) -> Self {
        const MAX_WAIT: f64 = 10.0;
        let wait = phase.clamp(0.0, 1.0) * MAX_WAIT.min(1.0 / pace.share - 1.0).max(0.0);
        let tokens = TokenBucket::new(pace.share, pace.burst).with_tokens(1.0 - wait * pace.share);
        Self { pace, tokens, is_probing: true, reduced_at: None }
    }

    /// Takes a token for one call, or returns the time until there is one.
    pub fn take(&mut self, now: Duration) -> Result<(), Duration> {
        self.tokens.take(now)
    }

    /// A call was not throttled: the rate rises up to the fair share, and above it only if other calls wait (`demand`).
    pub fn succeeded(&mut self, demand: bool, now: Duration) {
        let (Pace { share, ceiling, .. }, rate) = (self.pace, self.rate());
        if !demand && rate >= share {
            return;
        }
        let rate = if rate < share {
            share.min(rate + share * 0.25)
        } else if self.is_probing {
            ceiling.min(rate * 2.0)
        } else {
            ceiling.min(rate + share * 0.1)
        };
        self.tokens.set_rate(rate, now);
    }

    /// A call was throttled: the saved tokens are lost and the rate falls. Above the fair share it is halved, down to the share
    /// at most. Further throttled calls within a second are ignored, because they were made at the old rate.
    pub fn throttled(&mut self, now: Duration) {
        self.tokens.drain(now);
        self.is_probing = false;
        if self.reduced_at.is_some_and(|at| now.saturating_sub(at) < Duration::from_secs(1)) {
            return;
        }
        self.reduced_at = Some(now);
        let (share, rate) = (self.pace.share, self.rate());
        let rate =
            if rate > share * 1.01 { share.max(rate * 0.5) } else { (rate * 0.7).max(MIN_RATE.min(share)) };
        self.tokens.set_rate(rate, now);
    }

    /// The present rate, in calls per second.
    pub fn rate(&self) -> f64 {
        self.tokens.rate()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace { share: 2.0, ceiling: 20.0, burst: 5.0 };

    const NOW: Duration = Duration::ZERO;

    fn at(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn calls_pass_at_the_fair_share_and_idle_time_saves_a_burst() {
        let mut bucket = Bucket::new(PACE, 0.0);
        assert_eq!(bucket.take(at(0.0)), Ok(()));
        let wait = bucket.take(at(0.0)).unwrap_err();
        assert!(wait >= at(0.5) && wait < at(0.51), "{wait:?}");
        assert_eq!(bucket.take(wait), Ok(()));
        let taken = (0..10).filter(|_| bucket.take(at(100.0)).is_ok()).count();
        assert_eq!(taken, 5, "no more than the burst");
    }

    #[test]
    fn a_single_busy_node_reaches_the_rate_of_the_fleet_and_no_more() {
        let mut bucket = Bucket::new(PACE, 0.0);
        for _ in 0..10 {
            bucket.succeeded(true, NOW);
        }
        assert!((bucket.rate() - 20.0).abs() < 1e-9);
    }

    #[test]
    fn throttling_halves_the_rate_once_a_second_and_success_restores_it() {
        let mut bucket = Bucket::new(PACE, 0.0);
        (0..10).for_each(|_| bucket.succeeded(true, NOW));
        bucket.throttled(at(1.0));
        bucket.throttled(at(1.2));
        assert!((bucket.rate() - 10.0).abs() < 1e-9, "{}", bucket.rate());
        assert!(bucket.take(at(1.2)).is_err(), "the saved tokens are lost");
        for second in 2..40 {
            bucket.throttled(at(f64::from(second)));
        }
        assert!(bucket.rate() < 0.1 && bucket.rate() >= MIN_RATE, "{}", bucket.rate());
        (0..10).for_each(|_| bucket.succeeded(true, NOW));
        assert!(bucket.rate() > 2.0, "{}", bucket.rate());
    }

    #[test]
    fn without_demand_the_rate_does_not_rise_above_the_share() {
        let mut bucket = Bucket::new(PACE, 0.0);
        (0..10).for_each(|_| bucket.succeeded(false, NOW));
        assert!((bucket.rate() - 2.0).abs() < 1e-9);
        (0..20).for_each(|second| bucket.throttled(at(f64::from(second))));
        (0..10).for_each(|_| bucket.succeeded(false, NOW));
        assert!((bucket.rate() - 2.0).abs() < 1e-9, "the rate returns to the fair share: {}", bucket.rate());
    }

    #[test]
    fn nodes_that_start_together_do_not_call_together() {
        let pace = Pace { share: 0.02, ceiling: 20.0, burst: 5.0 };
        let mut waits: Vec<_> = (0..10)
            .map(|n| Bucket::new(pace, f64::from(n) / 10.0).take(at(0.0)).err().unwrap_or_default())
            .collect();
        waits.dedup();
        assert_eq!(waits.len(), 10);
        assert!(waits.iter().all(|wait| *wait <= at(10.0)), "{waits:?}");
    }
}
