//! The API server's wish to be left alone: `Retry-After` (RFC 9110 section 10.2.3).

use crate::signer::SignError;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Until when the driver makes no request of its own. Whoever comes before waits, or is told so without a call: the kubelet
/// tries its publishes again when it likes, and would not leave the server alone.
#[derive(Debug, Default)]
pub(super) struct Pause(Mutex<Option<Instant>>);

/// A longer wish is not believed.
const LONGEST: Duration = Duration::from_mins(5);
/// A pause that is waited out. A caller who is told of a longer one has better things to do.
const SHORT: Duration = Duration::from_secs(5);

impl Pause {
    /// Takes note of an answer that is about the server, and not about what it was asked for.
    pub(super) fn note(&self, error: &SignError) {
        if let SignError::Throttled { retry_after: Some(wish), .. } = error {
            let end = Instant::now() + (*wish).min(LONGEST);
            let mut noted = self.lock();
            *noted = (*noted).max(Some(end));
        }
    }

    /// How much of it is left.
    pub(super) fn left(&self) -> Duration {
        self.lock().map_or(Duration::ZERO, |end| end.saturating_duration_since(Instant::now()))
    }

    /// Waits for the end of a short one; an error for a long one.
    pub(super) async fn over(&self) -> Result<(), SignError> {
        loop {
            let left = self.left();
            if left.is_zero() {
                return Ok(());
            }
            if left > SHORT {
                let reason =
                    format!("the API server wants to be left alone for {} s more", left.as_secs() + 1);
                return Err(SignError::Throttled { reason, retry_after: Some(left) });
            }
            tokio::time::sleep(left).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
