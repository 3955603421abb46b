//! When to look for a certificate that was asked for.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// How long AWS takes to make a certificate, learnt from the answers: one first GetCertificate in twelve comes too early.
pub(super) struct FirstWait(AtomicU32);

impl Default for FirstWait {
    fn default() -> Self {
        Self(AtomicU32::new(500))
    }
}

impl FirstWait {
    pub(super) fn first(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed).into())
    }

    pub(super) fn was_early(&self) {
        self.change(|milliseconds| (milliseconds * 5 / 4).min(3000));
    }

    pub(super) fn was_late(&self) {
        self.change(|milliseconds| (milliseconds * 49 / 50).max(50));
    }

    fn change(&self, next: impl Fn(u32) -> u32) {
        // Two changes at once may be counted as one: it is an estimate.
        self.0.store(next(self.0.load(Ordering::Relaxed)), Ordering::Relaxed);
    }
}
