//! A decorator that counts the results of a signer.

use super::{SignedChain, Signer, SigningRequest};
use crate::model::{CertificateSpec, Failure, SignerKind};
use crate::telemetry::Metrics;
use futures_util::future::BoxFuture;
use std::sync::Arc;

/// A signer whose results are counted.
pub struct CountedSigner {
    inner: Arc<dyn Signer>,
    metrics: Arc<Metrics>,
}

impl CountedSigner {
    /// Wraps a signer.
    pub fn wrap(inner: Arc<dyn Signer>, metrics: Arc<Metrics>) -> Arc<dyn Signer> {
        Arc::new(Self { inner, metrics })
    }
}

/// Counts when it is dropped, so that an abandoned `sign` is counted too.
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

    fn is_resumable(&self) -> bool {
        self.inner.is_resumable()
    }

    fn needs_token(&self, spec: &CertificateSpec) -> bool {
        self.inner.needs_token(spec)
    }

    fn describe(&self, checkpoint: &str) -> String {
        self.inner.describe(checkpoint)
    }

    fn sign<'a>(&'a self, request: &'a SigningRequest<'a>) -> BoxFuture<'a, Result<SignedChain, Failure>> {
        Box::pin(async move {
            let mut outcome =
                Outcome { metrics: &self.metrics, kind: self.inner.kind(), result: "abandoned" };
            let answer = self.inner.sign(request).await;
            outcome.result = answer.as_ref().err().map_or("ok", |failure| failure.kind.as_str());
            answer
        })
    }
}
