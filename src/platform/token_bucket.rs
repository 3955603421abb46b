//! A token bucket. The caller passes the time since a fixed start, so that tests and simulations need no clock.

use std::time::Duration;

/// Tokens that come at a rate and are saved up to a burst.
#[derive(Clone, Debug)]
pub(crate) struct TokenBucket {
    rate: f64,
    burst: f64,
    tokens: f64,
    at: Duration,
}

impl TokenBucket {
    /// A full bucket: `rate` tokens a second, at most `burst` saved up.
    pub(crate) fn new(rate: f64, burst: f64) -> Self {
        Self { rate, burst, tokens: burst, at: Duration::ZERO }
    }

    /// This bucket with another number of tokens.
    pub(crate) fn with_tokens(self, tokens: f64) -> Self {
        Self { tokens, ..self }
    }

    /// This bucket, as full at `now`.
    pub(crate) fn at(self, now: Duration) -> Self {
        Self { at: now, ..self }
    }

    /// Whether it has as many tokens as it saves up.
    pub(crate) fn is_full(&mut self, now: Duration) -> bool {
        self.refill(now);
        self.tokens >= self.burst
    }

    /// Takes a token if there is one, or says how long to wait for it.
    pub(crate) fn take(&mut self, now: Duration) -> Result<(), Duration> {
        self.take_above(0.0, now)
    }

    /// Takes a token if so many remain after it, or says how long to wait for that.
    pub(crate) fn take_above(&mut self, remaining: f64, now: Duration) -> Result<(), Duration> {
        self.refill(now);
        let missing = remaining + 1.0 - self.tokens;
        if missing <= 0.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        // A little more than the exact time, so that rounding does not cause a second wait.
        Err(self.time_for(missing) + Duration::from_micros(100))
    }

    /// Takes a token in advance, and says how long to wait before it may be used: callers are served in their order.
    pub(crate) fn reserve(&mut self, now: Duration) -> Duration {
        self.refill(now);
        self.tokens -= 1.0;
        self.time_for(-self.tokens)
    }

    /// Gives a reserved token back.
    pub(crate) fn put_back(&mut self) {
        self.tokens += 1.0;
    }

    /// Tokens a second.
    pub(crate) fn rate(&self) -> f64 {
        self.rate
    }

    /// Changes the rate, from `now` on.
    pub(crate) fn set_rate(&mut self, rate: f64, now: Duration) {
        self.refill(now);
        self.rate = rate;
    }

    /// Changes rate and burst, from `now` on. A larger burst is there at once: the tokens used so far stay the same.
    pub(crate) fn set_limits(&mut self, rate: f64, burst: f64, now: Duration) {
        self.set_rate(rate, now);
        self.tokens += (burst - self.burst).max(0.0);
        self.burst = burst;
        self.tokens = self.tokens.min(burst);
    }

    /// Removes the saved tokens.
    pub(crate) fn drain(&mut self, now: Duration) {
        self.refill(now);
        self.tokens = self.tokens.min(0.0);
    }

    fn time_for(&self, tokens: f64) -> Duration {
        Duration::try_from_secs_f64(tokens / self.rate).unwrap_or_default()
    }

    fn refill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.tokens = (self.tokens + passed * self.rate).min(self.burst.max(1.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_larger_burst_is_there_at_once_and_a_smaller_one_too() {
        let mut bucket = TokenBucket::new(0.001, 3.0);
        let now = Duration::from_secs(1);
        let taken = |bucket: &mut TokenBucket| (0..20).filter(|_| bucket.take(now).is_ok()).count();
        assert_eq!(taken(&mut bucket), 3);
        bucket.set_limits(0.001, 10.0, now);
        bucket.set_limits(0.001, 10.0, now);
        assert_eq!(taken(&mut bucket.clone()), 7);
        bucket.set_limits(0.001, 2.0, now);
        assert_eq!(taken(&mut bucket), 2);
    }

    #[test]
    fn a_burst_passes_and_the_rest_comes_at_the_rate() {
        let mut bucket = TokenBucket::new(10.0, 2.0);
        let pauses = [(); 4].map(|()| bucket.reserve(Duration::ZERO).as_millis());
        assert_eq!(pauses, [0, 0, 100, 200]);
        assert_eq!(bucket.reserve(Duration::from_secs(10)), Duration::ZERO);
        bucket.put_back();
        assert_eq!(bucket.take(Duration::from_secs(10)), Ok(()));
        assert_eq!(bucket.take(Duration::from_secs(10)), Ok(()));
        assert!(bucket.take(Duration::from_secs(10)).is_err());
    }
}
