//! Who runs an issuance: the configured signers, the maker of keys, the bounds on both.

use super::request::{self, RequestError};
use super::verify::{VerifiedChain, verify};
use super::verify_error::VerifyError;
use crate::attributes::{Attributes, KeyAlgorithm, PodIdentity, PodTokens, SignerKind, VolumeId};
use crate::clock::Clock;
use crate::signer::{Progress, Purpose, SignError, Signer, SigningRequest};
use crate::x509::{KeyError, PrivateKey};
use futures_util::future::{BoxFuture, select_all};
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::sync::Semaphore;

/// Runs issuances. One serves the whole node.
pub struct Issuer {
    signers: Vec<Arc<dyn Signer>>,
    clock: Arc<dyn Clock>,
    heavy: Arc<Semaphore>,
}

/// What an issuance is about.
#[derive(Clone, Copy)]
pub struct IssueRequest<'a> {
    /// The volume.
    pub volume: &'a VolumeId,
    /// The pod it belongs to.
    pub pod: &'a PodIdentity,
    /// The pod's service account tokens.
    pub tokens: &'a PodTokens,
    /// What it asks for.
    pub attributes: &'a Attributes,
    /// The key made for it. It stays with the caller: a signing that is cut off goes on later with the same key.
    pub key: &'a PrivateKey,
    /// What [`Issuer::csr`] gave for that key. ECDSA signatures differ from one call to the next, RSA and Ed25519 ones
    /// do not: keep it with the key, and do not take it for the name of an issuance.
    pub csr_der: &'a [u8],
    /// Where the signer keeps its note.
    pub progress: &'a dyn Progress,
    /// What it is for.
    pub purpose: Purpose,
}

impl Issuer {
    /// Takes the signers that this node is configured with.
    pub fn new(signers: Vec<Arc<dyn Signer>>, clock: Arc<dyn Clock>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let heavy = Arc::new(Semaphore::new(cores.saturating_sub(1).max(1)));
        Self { signers, clock, heavy }
    }

    /// The signer of that kind.
    pub fn signer(&self, kind: SignerKind) -> Result<&Arc<dyn Signer>, IssueError> {
        self.signers.iter().find(|signer| signer.kind() == kind).ok_or(IssueError::NotConfigured { kind })
    }

    /// A volume whose certificate one of the signers has, while nobody waits for it.
    pub async fn answered(&self) -> VolumeId {
        // Without any signer there is nothing to wait for.
        let never: BoxFuture<'_, VolumeId> = Box::pin(std::future::pending());
        let all = self.signers.iter().map(|signer| signer.answered()).chain([never]);
        select_all(all).await.0
    }

    /// Makes a key, off the async threads where that takes long. However many are asked for at once, RSA and P-521
    /// keys leave one core to everything else.
    pub async fn make_key(&self, algorithm: KeyAlgorithm) -> Result<PrivateKey, IssueError> {
        if !algorithm.is_slow_to_make() {
            return Ok(PrivateKey::generate(algorithm)?);
        }
        let interrupted = |_| IssueError::Interrupted;
        let permit = Arc::clone(&self.heavy).acquire_owned().await.map_err(|_| IssueError::Interrupted)?;
        let work = tokio::task::spawn_blocking(move || {
            // The permit goes with the work: a caller that gives up does not stop the thread.
            let _permit = permit;
            PrivateKey::generate(algorithm)
        });
        Ok(work.await.map_err(interrupted)??)
    }

    /// The certificate signing request for `key`, DER (RFC 2986).
    pub fn csr(&self, attributes: &Attributes, key: &PrivateKey) -> Result<Vec<u8>, IssueError> {
        Ok(request::csr(attributes, key)?)
    }

    /// Has the request signed and verifies what comes back. Dropping the future abandons the wait and nothing else.
    pub async fn issue(&self, request: IssueRequest<'_>) -> Result<VerifiedChain, IssueError> {
        let IssueRequest { volume, pod, tokens, attributes, key, csr_der, progress, purpose } = request;
        let signer = self.signer(attributes.signer)?;
        let request = SigningRequest { volume, pod, tokens, attributes, csr_der, progress, purpose };
        let answer = signer.sign(&request).await?;
        Ok(verify(&answer, key.spki_der(), attributes, self.clock.now())?)
    }
}

/// Why an issuance gave no certificate.
#[derive(Clone, Debug, Error)]
pub enum IssueError {
    /// The volume asks for a signer that this node does not have.
    #[error("signer: \"{kind}\" is not available on this node: {}", how_to_configure(*.kind))]
    NotConfigured {
        /// The signer asked for.
        kind: SignerKind,
    },
    /// No key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// No request.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// No signature.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// An answer that is not used.
    #[error("the answer of the signer was refused: {0}")]
    Refused(#[from] VerifyError),
    /// The process is on its way down.
    #[error("the driver is shutting down")]
    Interrupted,
}

/// How to go on after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureClass {
    /// Asking again will not help until somebody changes something.
    Permanent,
    /// The signer asks us to slow down.
    Throttled {
        /// How long to wait, where the signer says so.
        retry_after: Option<Duration>,
    },
    /// The pod is not ready to have one asked for.
    NotReady {
        /// When to look again.
        retry_after: Duration,
    },
    /// Asking again may help.
    Transient,
}

impl FailureClass {
    /// The word for it in metrics, logs and records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Permanent => "permanent",
            Self::Throttled { .. } => "throttled",
            Self::NotReady { .. } => "not-ready",
            Self::Transient => "transient",
        }
    }
}

impl IssueError {
    /// How to go on after it.
    pub fn class(&self) -> FailureClass {
        match self {
            Self::NotConfigured { .. } | Self::Request(_) | Self::Sign(SignError::Permanent { .. }) => {
                FailureClass::Permanent
            }
            Self::Refused(error) if !error.may_pass() => FailureClass::Permanent,
            Self::Sign(SignError::Throttled { retry_after, .. }) => {
                FailureClass::Throttled { retry_after: *retry_after }
            }
            Self::Sign(SignError::NotReady { retry_after, .. }) => {
                FailureClass::NotReady { retry_after: *retry_after }
            }
            Self::Refused(_) | Self::Key(_) | Self::Sign(SignError::Transient { .. }) | Self::Interrupted => {
                FailureClass::Transient
            }
        }
    }
}

fn how_to_configure(kind: SignerKind) -> &'static str {
    match kind {
        SignerKind::Local => {
            "certlet node offers it only with --allow-local-signer, which is for development"
        }
        SignerKind::CertManager => "this installation of certlet has no cert-manager signer configured",
        SignerKind::AcmPca => {
            "this installation of certlet has no AWS Private CA signer configured (--pca-policy)"
        }
    }
}

#[cfg(test)]
mod tests;
