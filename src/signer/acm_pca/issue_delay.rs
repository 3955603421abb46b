//! The delay between IssueCertificate and the first GetCertificate.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// An estimate, in milliseconds, of the time that AWS needs to issue a certificate. It follows the answers of AWS so that
/// about one first GetCertificate in twelve is too early.
pub(super) struct IssueDelay(AtomicU32);

impl Default for IssueDelay {
    fn default() -> Self {
        Self(AtomicU32::new(500))
    }
}

impl IssueDelay {
    pub(super) fn get(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed).into())
    }

    /// The certificate was not ready yet.
    pub(super) fn increase(&self) {
        self.update(|milliseconds| (milliseconds * 5 / 4).min(3000));
    }

    /// The certificate was ready at the first GetCertificate.
    pub(super) fn decrease(&self) {
        self.update(|milliseconds| (milliseconds * 49 / 50).max(50));
    }

    fn update(&self, next: impl Fn(u32) -> u32) {
        // Of two concurrent updates one may be lost, because this is only an estimate.
        self.0.store(next(self.0.load(Ordering::Relaxed)), Ordering::Relaxed);
    }
}
