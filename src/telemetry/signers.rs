//! Counting what signers answer, around them and not in them.

use super::Metrics;
use crate::attributes::{Attributes, SignerKind, VolumeId};
use crate::signer::{SignError, SignedChain, SignedVolume, Signer, SigningRequest};
use futures_util::future::BoxFuture;
use std::sync::Arc;

/// A signer whose answers are counted.
pub struct CountedSigner {
    inner: Arc<dyn Signer>,
    metrics: Arc<Metrics>,
}

impl CountedSigner {
    /// Puts the counting around a signer.
    pub fn around(inner: Arc<dyn Signer>, metrics: Arc<Metrics>) -> Arc<dyn Signer> {
        Arc::new(Self { inner, metrics })
    }
}

/// Counts when it goes: a wait that was given up never says so itself.
struct Outcome<'a> {
    metrics: &'a Metrics,
    kind: SignerKind,
    result: &'static str,
}

impl Drop for Outcome<'_> {
    fn drop(&mut self) {
        self.metrics.signer_call(self.kind, self.result);
    }
}

impl Signer for CountedSigner {
    fn kind(&self) -> SignerKind {
        self.inner.kind()
    }

    fn is_slow(&self) -> bool {
        self.inner.is_slow()
    }

    fn sign<'a>(&'a self, request: &'a SigningRequest<'a>) -> BoxFuture<'a, Result<SignedChain, SignError>> {
        Box::pin(async move {
            let mut outcome =
                Outcome { metrics: &self.metrics, kind: self.inner.kind(), result: "abandoned" };
            let answer = self.inner.sign(request).await;
            outcome.result = match &answer {
                Ok(_) => "ok",
                Err(SignError::Permanent { .. }) => "permanent",
                Err(SignError::Throttled { .. }) => "throttled",
                Err(SignError::NotReady { .. }) => "not-ready",
                Err(SignError::Transient { .. }) => "transient",
            };
            answer
        })
    }

    fn needs_token(&self, attributes: &Attributes) -> bool {
        self.inner.needs_token(attributes)
    }

    fn describe(&self, note: &str) -> String {
        self.inner.describe(note)
    }

    fn answered(&self) -> BoxFuture<'_, VolumeId> {
        self.inner.answered()
    }

    fn delivered<'a>(&'a self, volume: &'a SignedVolume<'a>) -> BoxFuture<'a, ()> {
        self.inner.delivered(volume)
    }

    fn removed<'a>(&'a self, volume: &'a SignedVolume<'a>) -> BoxFuture<'a, ()> {
        self.inner.removed(volume)
    }
}
