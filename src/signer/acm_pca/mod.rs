//! AWS Private CA, called directly: IssueCertificate, then GetCertificate. Two calls a certificate.
//!
//! What is asked for goes through [`templates`] (what would be dropped?), the operator's [`crate::policy`] (may this pod
//! have it?), [`authority`] (what can the CA give?) and [`validity`]. A [`note`] beside the pending key makes every step
//! safe to repeat; [`client`] keeps within the quotas by way of [`quota`].

mod agent;
mod arn;
mod authority;
mod ca_request;
mod client;
mod credentials;
mod errors;
mod first_wait;
mod metrics;
mod note;
mod pod_identity;
mod quota;
mod revoke;
mod templates;
mod validity;

pub use ca_request::template_of;
pub use metrics::PcaMetrics;
pub use quota::{Bucket, CallKind, Fleet, Urgency, Waiters};

use super::{
    IssuedCertificate, Journal, Purpose, RequestId, SignedChain, Signer, SignerNotification, SigningRequest,
};
use crate::model::{CertificateSpec, Failure, PcaCaller, SignerKind, fingerprint, jitter};
use crate::platform::Clock;
use crate::policy::{LivePolicy, Question};
use crate::x509::pem;
use arn::AuthorityArn;
use authority::Authorities;
use ca_request::CaRequest;
use client::Api;
use credentials::Callers;
use errors::{CallError, Class};
use first_wait::FirstWait;
use futures_util::future::BoxFuture;
use http::Uri;
use note::SavedRequest;
use pod_identity::Agent;
use quota::Limiter;
use revoke::{Reason, Revocation, Revocations, Revoker};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

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
    pub revocations: Option<Arc<dyn Journal>>,
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
    first_wait: FirstWait,
    revocations: Option<Revocations>,
}

impl AcmPca {
    /// A signer that has not called AWS yet.
    pub fn new(parts: AcmPcaParts) -> Self {
        let AcmPcaParts { policy, fleet, node, clock, metrics, revocations, pod_identity } = parts;
        Self {
            policy,
            limiter: Arc::new(Limiter::new(fleet, jitter(&node, b""))),
            clock,
            metrics,
            callers: Callers::new(Agent::new(pod_identity)),
            authorities: Authorities::default(),
            first_wait: FirstWait::default(),
            revocations: revocations.map(Revocations::open),
        }
    }

    /// Revokes what is listed, with the driver's own credentials, until `shutdown`.
    pub async fn run(&self, shutdown: CancellationToken) {
        let Some(revocations) = &self.revocations else { return };
        revocations.work(&shutdown, self).await;
    }

    fn to_be_revoked(&self, volume: &IssuedCertificate<'_>, serial: Option<&str>, reason: Reason) {
        if let (Some(revocations), Some(serial), Some(pca)) =
            (&self.revocations, serial, volume.spec.signer.acm_pca())
        {
            revocations.put(Revocation::new(&pca.certificate_authority_arn, serial, reason));
        }
    }

    async fn sign_with(&self, request: &SigningRequest<'_>) -> Result<SignedChain, Failure> {
        let ca_request = CaRequest::of(request.spec, request.identity).map_err(permanent)?;
        self.allowed(request, &ca_request)?;
        let api = self.api(request, &ca_request).await?;
        let answer = self.take_up(request, &ca_request, &api).await;
        answer.map_err(|failure| match failure {
            SignFailure::Sign(error) => error,
            SignFailure::Call(error) => {
                match error.class {
                    Class::Credentials => self.callers.forget(request, &ca_request.authority),
                    Class::State => self.authorities.forget(ca_request.authority.as_str()),
                    Class::Denied | Class::Permanent => {
                        self.authorities.doubt(ca_request.authority.as_str(), &ca_request.caller);
                    }
                    _ => {}
                }
                error.into_sign_error()
            }
        })
    }

    fn allowed(&self, request: &SigningRequest<'_>, ca_request: &CaRequest<'_>) -> Result<(), Failure> {
        let question = Question {
            pod: request.identity,
            spec: request.spec,
            pca: ca_request.pca,
            template: &ca_request.template,
        };
        let decision = self.policy.decide(&question);
        decision.denial().map_or(Ok(()), |denial| Err(permanent(denial)))
    }

    async fn api(&self, request: &SigningRequest<'_>, ca_request: &CaRequest<'_>) -> Result<Api, Failure> {
        let client = self.callers.client(request, &ca_request.authority, &self.metrics, &*self.clock).await?;
        Ok(Api {
            client,
            limiter: Arc::clone(&self.limiter),
            metrics: self.metrics.clone(),
            authority: ca_request.authority.clone(),
            urgency: match request.purpose {
                Purpose::Publish => Urgency::Publish,
                Purpose::Renewal => Urgency::Renewal,
            },
            seed: request.id.to_string(),
        })
    }

    /// Goes on from the note where there is one that fits, or begins with a new one.
    async fn take_up(
        &self,
        request: &SigningRequest<'_>,
        ca_request: &CaRequest<'_>,
        api: &Api,
    ) -> Result<SignedChain, SignFailure> {
        let parts =
            [ca_request.authority.as_str(), &ca_request.template, &ca_request.caller].map(str::as_bytes);
        let itself = fingerprint(&[parts[0], parts[1], parts[2], request.csr_der]);
        let found = request.checkpoint.load().and_then(|text| SavedRequest::parse(&text));
        let found = found.filter(|note| note.is_good_for(&itself, self.clock.now()));
        let mut note = if let Some(note) = found {
            note
        } else {
            let note = self.plan(request.spec, ca_request, api, itself).await?;
            request.checkpoint.save(&note.encode())?;
            note
        };
        let mut resumed = true;
        if note.certificate.is_none() {
            resumed = false;
            let csr = pem::certificate_request(request.csr_der);
            let issued = api.issue(&csr, &ca_request.template, &note).await;
            if let Err(error) = &issued
                && matches!(error.class, Class::State | Class::Denied | Class::Permanent)
            {
                // Refused, and so not paid for: the next attempt plans anew.
                request.checkpoint.save("")?;
            }
            note.certificate = Some(issued?);
            // At once: from here on the certificate is paid for.
            request.checkpoint.save(&note.encode())?;
        }
        let arn = note.certificate.as_deref().unwrap_or_default();
        match self.collect(api, arn, resumed).await {
            Ok(chain) => Ok(SignedChain {
                chain,
                ca: None,
                warning: note.limit.map(|limit| limit.warning().to_owned()),
            }),
            Err(error) => {
                if matches!(error.class, Class::Lost | Class::Permanent) {
                    // This certificate will never come; the next attempt asks for another.
                    request.checkpoint.save("")?;
                }
                Err(error.into())
            }
        }
    }

    /// What is asked for, decided once: a retry asks for exactly the same.
    async fn plan(
        &self,
        attributes: &CertificateSpec,
        ca_request: &CaRequest<'_>,
        api: &Api,
        request: String,
    ) -> Result<SavedRequest, Failure> {
        let facts =
            self.authorities.facts(api, &ca_request.caller, ca_request.algorithm, &*self.clock).await?;
        let algorithm = authority::signing_algorithm(ca_request.algorithm, &facts)?;
        let now = self.clock.now();
        let (not_after, limit) =
            validity::clamp(attributes.duration, facts.short_lived, facts.not_after, now)
                .map_err(permanent)?;
        if let Some(limit) = limit {
            self.metrics.clamped(limit);
            tracing::info!(
                authority = ca_request.authority.as_str(), %limit, asked_seconds = attributes.duration.as_secs(),
                expires_at = %not_after, "a certificate's life is cut short"
            );
        }
        Ok(SavedRequest { request, asked_at: now, not_after, algorithm, limit, certificate: None })
    }

    /// GetCertificate until it is there. A certificate that was asked for just now is given the time that AWS needed
    /// lately.
    async fn collect(&self, api: &Api, arn: &str, resumed: bool) -> Result<Vec<u8>, CallError> {
        let began = Instant::now();
        let mut wait = if resumed { Duration::ZERO } else { self.first_wait.first() };
        for attempt in 0_u32.. {
            tokio::time::sleep(wait.mul_f64(0.9 + 0.2 * jitter(&api.seed, &attempt.to_be_bytes()))).await;
            match api.certificate(arn).await {
                Err(error) if error.class == Class::InProgress && began.elapsed() < LONGEST_MAKING => {
                    self.first_wait.was_early();
                    wait = (wait * 3 / 2).clamp(Duration::from_millis(200), Duration::from_secs(5));
                }
                answer => {
                    if answer.is_ok() && attempt == 0 && !resumed {
                        self.first_wait.was_late();
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

    fn is_resumable(&self) -> bool {
        true
    }

    fn sign<'a>(&'a self, request: &'a SigningRequest<'a>) -> BoxFuture<'a, Result<SignedChain, Failure>> {
        Box::pin(self.sign_with(request))
    }

    fn needs_token(&self, spec: &CertificateSpec) -> bool {
        spec.signer.acm_pca().is_some_and(|pca| pca.caller != PcaCaller::Driver)
    }

    fn describe(&self, checkpoint: &str) -> String {
        checkpoint.to_owned()
    }
}

impl SignerNotification for AcmPca {
    /// Every call waits for its own certificate, and nothing tells when one is ready.
    fn next_completed(&self) -> BoxFuture<'_, RequestId> {
        Box::pin(std::future::pending())
    }

    fn in_use(&self, issued: &IssuedCertificate<'_>) {
        // With the same key nothing is gained: whoever has it has the new certificate too.
        if !issued.spec.key.reuse {
            self.to_be_revoked(issued, issued.superseded, Reason::Superseded);
        }
    }

    fn removed(&self, issued: &IssuedCertificate<'_>) {
        self.to_be_revoked(issued, issued.serial, Reason::Cessation);
    }
}

enum SignFailure {
    Call(CallError),
    Sign(Failure),
}

impl From<CallError> for SignFailure {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

impl From<Failure> for SignFailure {
    fn from(error: Failure) -> Self {
        Self::Sign(error)
    }
}

fn permanent(reason: String) -> Failure {
    Failure::permanent(reason)
}

#[cfg(test)]
mod tests;
