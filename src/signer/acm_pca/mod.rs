//! AWS Private CA, called directly: IssueCertificate, then GetCertificate. Two calls a certificate.
//!
//! What is asked for goes through [`templates`] (what would be dropped?), the operator's [`crate::policy`] (may this pod
//! have it?), [`authority`] (what can the CA give?) and [`validity`]. A [`note`] beside the pending key makes every step
//! safe to repeat; [`client`] keeps within the quotas by way of [`crate::limiter`].

mod agent;
mod arn;
mod authority;
mod client;
mod credentials;
mod errors;
mod metrics;
mod note;
mod patience;
mod pod_identity;
mod revoke;
mod templates;
mod validity;
mod wish;

pub use metrics::PcaMetrics;
pub use wish::template_of;

use super::{Ledger, Purpose, SignError, SignedChain, SignedVolume, Signer, SigningRequest};
use crate::attributes::{Attributes, PcaCaller, PodIdentity, SignerKind};
use crate::clock::Clock;
use crate::limiter::{Fleet, Limiter, Urgency};
use crate::policy::{LivePolicy, Question};
use crate::x509::pem;
use arn::AuthorityArn;
use authority::Authorities;
use client::{Api, spread};
use credentials::Callers;
use errors::{CallError, Class};
use futures_util::future::BoxFuture;
use http::Uri;
use note::{Note, fingerprint};
use patience::Patience;
use pod_identity::Agent;
use revoke::{Reason, Revocation, Revocations, Revoker};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wish::Wish;

/// How long one call waits for a certificate that AWS is still making.
const LONGEST_MAKING: Duration = Duration::from_mins(2);

/// What the signer is made of.
pub struct AcmPcaParts {
    /// Who may ask for what.
    pub policy: Arc<LivePolicy>,
    /// What the fleet may do to the account's quotas.
    pub fleet: Fleet,
    /// The node's name: it sets nodes apart that start together.
    pub node: String,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// What is counted.
    pub metrics: PcaMetrics,
    /// Where certificates that nobody has any more are listed until they are revoked; none: they are not.
    pub revocations: Option<Arc<dyn Ledger>>,
    /// Where the EKS Pod Identity agent of this node may be, tried in this order.
    pub pod_identity: Vec<Uri>,
}

/// AWS Private CA as a signer.
pub struct AcmPca {
    policy: Arc<LivePolicy>,
    limiter: Arc<Limiter>,
    clock: Arc<dyn Clock>,
    metrics: PcaMetrics,
    callers: Callers,
    authorities: Authorities,
    patience: Patience,
    revocations: Option<Revocations>,
}

impl AcmPca {
    /// A signer that has not called AWS yet.
    pub fn new(parts: AcmPcaParts) -> Self {
        let AcmPcaParts { policy, fleet, node, clock, metrics, revocations, pod_identity } = parts;
        Self {
            policy,
            limiter: Arc::new(Limiter::new(fleet, spread(&node, 0))),
            clock,
            metrics,
            callers: Callers::new(Agent::new(pod_identity)),
            authorities: Authorities::default(),
            patience: Patience::default(),
            revocations: revocations.map(Revocations::open),
        }
    }

    /// Revokes what is listed, with the driver's own credentials, until `shutdown`.
    pub async fn turn(&self, shutdown: CancellationToken) {
        let Some(revocations) = &self.revocations else { return };
        revocations.work(&shutdown, self).await;
    }

    fn to_be_revoked(&self, volume: &SignedVolume<'_>, serial: Option<&str>, reason: Reason) {
        if let (Some(revocations), Some(serial), Some(pca)) =
            (&self.revocations, serial, &volume.attributes.pca)
        {
            revocations.put(Revocation::new(&pca.certificate_authority_arn, serial, reason));
        }
    }

    async fn sign_with(&self, request: &SigningRequest<'_>) -> Result<SignedChain, SignError> {
        let wish = Wish::of(request.attributes, request.pod).map_err(permanent)?;
        self.allowed(request.pod, request.attributes, &wish.template)?;
        let api = self.api(request, &wish).await?;
        let answer = self.take_up(request, &wish, &api).await;
        answer.map_err(|failure| match failure {
            Failure::Sign(error) => error,
            Failure::Call(error) => {
                match error.class {
                    Class::Credentials => self.callers.forget(request, &wish.authority),
                    Class::State => self.authorities.forget(wish.authority.as_str()),
                    Class::Denied | Class::Permanent => {
                        self.authorities.doubt(wish.authority.as_str(), &wish.caller);
                    }
                    _ => {}
                }
                error.into_sign_error()
            }
        })
    }

    fn allowed(&self, pod: &PodIdentity, attributes: &Attributes, template: &str) -> Result<(), SignError> {
        let decision = self.policy.decide(&Question { pod, attributes, template });
        decision.denial().map_or(Ok(()), |denial| Err(permanent(denial)))
    }

    async fn api(&self, request: &SigningRequest<'_>, wish: &Wish<'_>) -> Result<Api, SignError> {
        let client = self.callers.client(request, &wish.authority, &self.metrics, &*self.clock).await?;
        Ok(Api {
            client,
            limiter: Arc::clone(&self.limiter),
            metrics: self.metrics.clone(),
            authority: wish.authority.clone(),
            urgency: match request.purpose {
                Purpose::Publish => Urgency::Publish,
                Purpose::Renewal => Urgency::Renewal,
            },
            seed: request.volume.to_string(),
        })
    }

    /// Goes on from the note where there is one that fits, or begins with a new one.
    async fn take_up(
        &self,
        request: &SigningRequest<'_>,
        wish: &Wish<'_>,
        api: &Api,
    ) -> Result<SignedChain, Failure> {
        let parts = [wish.authority.as_str(), &wish.template, &wish.caller].map(str::as_bytes);
        let itself = fingerprint(&[parts[0], parts[1], parts[2], request.csr_der]);
        let found = request.progress.load().and_then(|text| Note::parse(&text));
        let found = found.filter(|note| note.is_good_for(&itself, self.clock.now()));
        let mut note = if let Some(note) = found {
            note
        } else {
            let note = self.plan(request.attributes, wish, api, itself).await?;
            request.progress.save(&note.encode())?;
            note
        };
        let mut resumed = true;
        if note.certificate.is_none() {
            resumed = false;
            let csr = pem::certificate_request(request.csr_der);
            let issued = api.issue(&csr, &wish.template, &note).await;
            if let Err(error) = &issued
                && matches!(error.class, Class::State | Class::Denied | Class::Permanent)
            {
                // Refused, and so not paid for: the next attempt plans anew.
                request.progress.save("")?;
            }
            note.certificate = Some(issued?);
            // At once: from here on the certificate is paid for.
            request.progress.save(&note.encode())?;
        }
        let arn = note.certificate.as_deref().unwrap_or_default();
        match self.collect(api, arn, resumed).await {
            Ok(chain) => {
                Ok(SignedChain { chain, ca: None, remark: note.limit.map(|limit| limit.remark().to_owned()) })
            }
            Err(error) => {
                if matches!(error.class, Class::Lost | Class::Permanent) {
                    // This certificate will never come; the next attempt asks for another.
                    request.progress.save("")?;
                }
                Err(error.into())
            }
        }
    }

    /// What is asked for, decided once: a retry asks for exactly the same.
    async fn plan(
        &self,
        attributes: &Attributes,
        wish: &Wish<'_>,
        api: &Api,
        request: String,
    ) -> Result<Note, SignError> {
        let facts = self.authorities.facts(api, &wish.caller, wish.algorithm, &*self.clock).await?;
        let algorithm = authority::signing_algorithm(wish.algorithm, &facts)?;
        let now = self.clock.now();
        let (not_after, limit) =
            validity::clamp(attributes.duration, facts.short_lived, facts.not_after, now)
                .map_err(permanent)?;
        if let Some(limit) = limit {
            self.metrics.clamped(limit);
            tracing::info!(
                authority = wish.authority.as_str(), %limit, asked_seconds = attributes.duration.as_secs(),
                expires_at = %not_after, "a certificate's life is cut short"
            );
        }
        Ok(Note { request, asked_at: now, not_after, algorithm, limit, certificate: None })
    }

    /// GetCertificate until it is there. A certificate that was asked for just now is given the time that AWS needed
    /// lately.
    async fn collect(&self, api: &Api, arn: &str, resumed: bool) -> Result<Vec<u8>, CallError> {
        let began = Instant::now();
        let mut wait = if resumed { Duration::ZERO } else { self.patience.first() };
        for attempt in 0_u32.. {
            tokio::time::sleep(wait.mul_f64(0.9 + 0.2 * spread(&api.seed, attempt))).await;
            match api.certificate(arn).await {
                Err(error) if error.class == Class::InProgress && began.elapsed() < LONGEST_MAKING => {
                    self.patience.was_early();
                    wait = (wait * 3 / 2).clamp(Duration::from_millis(200), Duration::from_secs(5));
                }
                answer => {
                    if answer.is_ok() && attempt == 0 && !resumed {
                        self.patience.was_late();
                    }
                    return answer;
                }
            }
        }
        Err(CallError::local("GetCertificate", "too many attempts".to_owned()))
    }
}

impl Revoker for AcmPca {
    fn revoke<'a>(&'a self, revocation: &'a Revocation) -> BoxFuture<'a, Result<(), CallError>> {
        Box::pin(async move {
            let Some(authority) = AuthorityArn::parse(&revocation.authority) else { return Ok(()) };
            let api = Api {
                client: self.callers.driver(&authority.region).await,
                limiter: Arc::clone(&self.limiter),
                metrics: self.metrics.clone(),
                authority,
                urgency: Urgency::Renewal,
                seed: revocation.serial.clone(),
            };
            api.revoke(&revocation.serial, revocation.reason.to_aws()).await
        })
    }
}

impl Signer for AcmPca {
    fn kind(&self) -> SignerKind {
        SignerKind::AcmPca
    }

    fn is_slow(&self) -> bool {
        true
    }

    fn sign<'a>(&'a self, request: &'a SigningRequest<'a>) -> BoxFuture<'a, Result<SignedChain, SignError>> {
        Box::pin(self.sign_with(request))
    }

    fn needs_token(&self, attributes: &Attributes) -> bool {
        attributes.pca.as_ref().is_some_and(|pca| pca.caller != PcaCaller::Driver)
    }

    fn delivered<'a>(&'a self, volume: &'a SignedVolume<'a>) -> BoxFuture<'a, ()> {
        Box::pin(async {
            // With the same key nothing is gained: whoever has it has the new certificate too.
            if !volume.attributes.key.reuse {
                self.to_be_revoked(volume, volume.superseded, Reason::Superseded);
            }
        })
    }

    fn removed<'a>(&'a self, volume: &'a SignedVolume<'a>) -> BoxFuture<'a, ()> {
        Box::pin(async { self.to_be_revoked(volume, volume.serial, Reason::Cessation) })
    }
}

enum Failure {
    Call(CallError),
    Sign(SignError),
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

impl From<SignError> for Failure {
    fn from(error: SignError) -> Self {
        Self::Sign(error)
    }
}

fn permanent(reason: String) -> SignError {
    SignError::Permanent { reason }
}

#[cfg(test)]
mod tests;
