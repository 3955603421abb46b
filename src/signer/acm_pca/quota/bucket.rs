//! One kind of call at one quota: a token bucket whose rate falls when the other side throttles and climbs back when it
//! does not. Pure: time comes in as a duration since some beginning, so that tests and simulations drive it.

use crate::platform::TokenBucket;
use std::time::Duration;

/// No lane is slower than this, whatever the other side says: one call in two minutes.
const SLOWEST: f64 = 1.0 / 120.0;

/// What a fleet may do with one quota, and what this node's part of it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// Calls a second that are this node's fair share.
    pub share: f64,
    /// Calls a second of the whole fleet: more than this is never tried, even by a node that is alone in being busy.
    pub ceiling: f64,
    /// Calls that may go at once after a rest.
    pub burst: f64,
}

/// A token bucket with additive increase and multiplicative decrease.
#[derive(Clone, Debug)]
pub struct Bucket {
    pace: Pace,
    tokens: TokenBucket,
    /// Nothing has been throttled yet: the rate doubles instead of growing slowly.
    probing: bool,
    cut_at: Option<Duration>,
}

impl Bucket {
    /// A bucket that begins at the fair share, with one call ready at `phase` of the time its share gives each call: nodes
    /// that start together do not call together. The wait is at most ten seconds.
    pub fn new(pace: Pace, phase: f64) -> Self {
        const MAX_WAIT: f64 = 10.0;
        let wait = phase.clamp(0.0, 1.0) * MAX_WAIT.min(1.0 / pace.share - 1.0).max(0.0);
        let tokens = TokenBucket::new(pace.share, pace.burst).with_tokens(1.0 - wait * pace.share);
        Self { pace, tokens, probing: true, cut_at: None }
    }

    /// Takes a token for one call, or says how long to wait for it.
    pub fn take(&mut self, now: Duration) -> Result<(), Duration> {
        self.tokens.take(now)
    }

    /// A call went through. Below the fair share the rate climbs; above it only with `demand`, when others wait.
    pub fn succeeded(&mut self, demand: bool, now: Duration) {
        let (Pace { share, ceiling, .. }, rate) = (self.pace, self.rate());
        if !demand && rate >= share {
            return;
        }
        let rate = if rate < share {
            share.min(rate + share * 0.25)
        } else if self.probing {
            ceiling.min(rate * 2.0)
        } else {
            ceiling.min(rate + share * 0.1)
        };
        self.tokens.set_rate(rate, now);
    }

    /// A call was throttled: the rate falls to its half, but not below the fair share at first, and what was saved up is
    /// forfeited. Several answers within a second are one event: they tell of one and the same rate.
    pub fn throttled(&mut self, now: Duration) {
        self.tokens.drain(now);
        self.probing = false;
        if self.cut_at.is_some_and(|cut| now.saturating_sub(cut) < Duration::from_secs(1)) {
            return;
        }
        self.cut_at = Some(now);
        let (share, rate) = (self.pace.share, self.rate());
        let rate =
            if rate > share * 1.01 { share.max(rate * 0.5) } else { (rate * 0.7).max(SLOWEST.min(share)) };
        self.tokens.set_rate(rate, now);
    }

    /// Calls a second, now.
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
    fn calls_go_at_the_fair_share_and_a_rest_saves_up_a_burst() {
        let mut bucket = Bucket::new(PACE, 0.0);
        assert_eq!(bucket.take(at(0.0)), Ok(()));
        let wait = bucket.take(at(0.0)).unwrap_err();
        assert!(wait >= at(0.5) && wait < at(0.51), "{wait:?}");
        assert_eq!(bucket.take(wait), Ok(()));
        let taken = (0..10).filter(|_| bucket.take(at(100.0)).is_ok()).count();
        assert_eq!(taken, 5, "no more than the burst");
    }

    #[test]
    fn a_node_alone_in_being_busy_reaches_the_whole_fleets_rate_and_no_more() {
        let mut bucket = Bucket::new(PACE, 0.0);
        for _ in 0..10 {
            bucket.succeeded(true, NOW);
        }
        assert!((bucket.rate() - 20.0).abs() < 1e-9);
    }

    #[test]
    fn throttling_halves_the_rate_once_a_second_and_success_brings_it_back() {
        let mut bucket = Bucket::new(PACE, 0.0);
        (0..10).for_each(|_| bucket.succeeded(true, NOW));
        bucket.throttled(at(1.0));
        bucket.throttled(at(1.2));
        assert!((bucket.rate() - 10.0).abs() < 1e-9, "{}", bucket.rate());
        assert!(bucket.take(at(1.2)).is_err(), "what was saved up is forfeited");
        for second in 2..40 {
            bucket.throttled(at(f64::from(second)));
        }
        assert!(bucket.rate() < 0.1 && bucket.rate() >= SLOWEST, "{}", bucket.rate());
        (0..10).for_each(|_| bucket.succeeded(true, NOW));
        assert!(bucket.rate() > 2.0, "{}", bucket.rate());
    }

    #[test]
    fn without_demand_the_rate_stays() {
        let mut bucket = Bucket::new(PACE, 0.0);
        (0..10).for_each(|_| bucket.succeeded(false, NOW));
        assert!((bucket.rate() - 2.0).abs() < 1e-9);
        (0..20).for_each(|second| bucket.throttled(at(f64::from(second))));
        (0..10).for_each(|_| bucket.succeeded(false, NOW));
        assert!((bucket.rate() - 2.0).abs() < 1e-9, "what throttling took comes back: {}", bucket.rate());
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
