//! Polling, without a watch: a signing reads its own request until it is decided.

use super::api::{CertificateRequest, State};
use super::checkpoint::RequestCheckpoint;
use super::tracker::Waiter;
use super::{CertManager, Following};
use crate::model::{Failure, FailureKind, jitter};
use crate::platform::Backoff;
use crate::signer::SigningRequest;
use std::pin::pin;
use std::time::Duration;

/// The pauses before reading a request again. An idle cert-manager has signed with a CA of its own after about 20 ms.
const PAUSES: Backoff = Backoff::with_factor(Duration::from_millis(20), 1.5, Duration::from_secs(2));
/// Cap on the server's Retry-After.
const MAX_RETRY_AFTER: Duration = Duration::from_mins(5);

impl CertManager {
    /// The state in which a request is decided, as the watch or the polls show it.
    pub(super) async fn decided(
        &self,
        request: &SigningRequest<'_>,
        checkpoint: &mut RequestCheckpoint,
        waiter: Waiter,
    ) -> Result<State, Failure> {
        match self.options.following {
            Following::Watch => Ok(waiter.decided().await),
            Following::Poll => self.poll(request, checkpoint, waiter).await,
        }
    }

    /// Reads the request until it is decided. What may pass does not end the signing, so that its timeout is the caller's.
    async fn poll(
        &self,
        request: &SigningRequest<'_>,
        checkpoint: &mut RequestCheckpoint,
        waiter: Waiter,
    ) -> Result<State, Failure> {
        let mut decided = pin!(waiter.decided());
        let mut retry_after = Duration::ZERO;
        let mut polls = 0_u32;
        loop {
            let pause = PAUSES.pause(polls, jitter(&checkpoint.key.name, &polls.to_be_bytes()));
            tokio::select! {
                biased;
                // The create, or the last poll, has shown it.
                state = &mut decided => return Ok(state),
                () = tokio::time::sleep(pause.max(retry_after)) => {}
            }
            retry_after = match self.resume(request, checkpoint).await {
                Ok(Some(state)) => return Ok(state),
                Ok(None) => Duration::ZERO,
                Err(failure) if failure.kind == FailureKind::Permanent => return Err(failure),
                Err(failure) => {
                    tracing::debug!(request = %checkpoint.key, %failure, "a CertificateRequest could not be read");
                    self.tracker.set_watch_error(Some(failure.message));
                    failure.retry_after.unwrap_or_default().min(MAX_RETRY_AFTER)
                }
            };
            polls = polls.saturating_add(1);
        }
    }

    /// Tells the observer of a request that was read, as the watch does of one that it shows.
    pub(super) fn report_polled(&self, request: &CertificateRequest) {
        self.tracker.set_watch_error(None);
        if request.is_approved_unchecked() && request.key().is_some_and(|key| self.tracker.knows(&key)) {
            self.observer.approved_unchecked();
        }
        let (in_memory, ignored) = self.tracker.counts();
        self.observer.requests_tracked(in_memory, ignored);
    }
}
