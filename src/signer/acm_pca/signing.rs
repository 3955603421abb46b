//! One issuance: it starts with the policy, resumes from a checkpoint or plans a request, and ends with the chain.

use super::checkpoint::IssueCheckpoint;
use super::client::Api;
use super::errors::{CallError, ErrorKind};
use super::validity::Limit;
use super::{AcmPca, authority, templates, validity};
use crate::model::{
    CertificateSpec, Failure, PcaCaller, PcaRequest, Usage, WorkloadIdentity, fingerprint, jitter,
};
use crate::policy::Question;
use crate::signer::{SignedChain, SigningRequest};
use crate::x509::pem;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long one signing waits for a certificate that AWS is still issuing.
const MAX_ISSUE_TIME: Duration = Duration::from_mins(2);

/// The error if the policy denies a request for a certificate of that lifetime; without a policy, IAM alone decides. Off the async
/// threads, because its time grows with the policy and the request. For one namespace after the other, on all cores but one, so that many long decisions of one do not
/// delay the others, nor the work with files.
async fn check(
    signer: &AcmPca,
    request: &SigningRequest<'_>,
    template: &str,
    lifetime: Duration,
) -> Result<(), Failure> {
    let Some(policy) = &signer.policy else { return Ok(()) };
    let rules = policy.rules();
    let (pod, spec, template) = (request.identity.clone(), request.spec.clone(), template.to_owned());
    let slot = signer.decisions.acquire(&request.identity.namespace, request.needed_by).await;
    let decided = tokio::task::spawn_blocking(move || {
        // The work owns it, because it goes on if the caller gives up.
        let _slot = slot;
        let pca = spec.signer.acm_pca()?;
        let usages = templates::carried(&template, &spec);
        let usages = usages.as_deref();
        let template = template.as_str();
        rules.denial(&Question { pod: &pod, spec: &spec, pca, template, usages, lifetime })
    });
    let denial = decided.await.map_err(|_| Failure::transient("the driver is shutting down"))?;
    denial.map_or(Ok(()), |denial| Err(Failure::permanent(denial)))
}

/// One issuance.
pub(super) struct Signing<'a> {
    signer: &'a AcmPca,
    request: &'a SigningRequest<'a>,
    parameters: SigningParameters<'a>,
    api: Api,
}

impl<'a> Signing<'a> {
    /// Checks the policy and obtains credentials.
    pub(super) async fn start(signer: &'a AcmPca, request: &'a SigningRequest<'a>) -> Result<Self, Failure> {
        let parameters =
            SigningParameters::new(request.spec, request.identity).map_err(Failure::permanent)?;
        let pca = parameters.pca;
        check(signer, request, &parameters.template, request.spec.duration).await?;
        let client = signer.clients.client(request, pca, &signer.metrics, &*signer.clock).await?;
        let authority = pca.certificate_authority_arn.clone();
        let api = signer.api(client, authority, request.into(), request.id.as_str());
        Ok(Self { signer, request, parameters, api })
    }

    /// Obtains the chain.
    pub(super) async fn run(&self) -> Result<SignedChain, Failure> {
        let mut checkpoint = self.resume_or_plan().await?;
        let (arn, is_resumed) = match checkpoint.certificate {
            Some(arn) => (arn, true),
            None => (self.issue(&mut checkpoint).await?, false),
        };
        let chain = match self.collect(&arn, is_resumed).await {
            Ok(chain) => chain,
            Err(error) => {
                self.forget_outdated(&error);
                // This certificate cannot be had: the next attempt requests another one.
                if let ErrorKind::Lost | ErrorKind::Permanent = error.kind {
                    self.request.checkpoint.save("")?;
                }
                return Err(error.into());
            }
        };
        let warning = checkpoint.limit.map(|limit| limit.warning().to_owned());
        let template_usages = templates::usages(&self.parameters.template);
        Ok(SignedChain { chain, ca: None, warning, template_usages })
    }

    /// The saved checkpoint, if it is of this request, or a new one.
    async fn resume_or_plan(&self) -> Result<IssueCheckpoint, Failure> {
        let Self { signer, request, parameters, api } = self;
        let fingerprint = parameters.fingerprint(request.csr_der);
        let saved = request.checkpoint.load().and_then(|text| IssueCheckpoint::parse(&text));
        if let Some(saved) = saved.filter(|saved| saved.is_valid_for(&fingerprint, signer.clock.now())) {
            return Ok(saved);
        }
        let requested = parameters.pca.signing_algorithm.as_deref();
        let facts = signer.authorities.facts(api, &parameters.caller, requested, &*signer.clock).await?;
        let algorithm = authority::signing_algorithm(requested, &facts)?;
        let (now, duration) = (signer.clock.now(), request.spec.duration);
        let (not_after, limit) =
            validity::clamp(duration, facts.short_lived, facts.not_after, now).map_err(Failure::permanent)?;
        // Again, because `renew-before` counts from the end: a shorter lifetime can mean a renewal every few minutes. Not near the
        // CA's own end, where a later certificate ends no later, so that such a renewal does not repeat.
        if limit == Some(Limit::ShortLived) {
            let lifetime = not_after.duration_since(now).unsigned_abs();
            check(signer, request, &parameters.template, lifetime).await?;
        }
        if let Some(limit) = limit {
            signer.metrics.clamped(limit);
            tracing::info!(
                authority = api.authority.as_str(), %limit, requested_seconds = duration.as_secs(),
                expires_at = %not_after, "the validity of a certificate is shortened"
            );
        }
        let planned = IssueCheckpoint {
            request: fingerprint,
            requested_at: now,
            not_after,
            algorithm,
            limit,
            certificate: None,
        };
        let per_hour = signer.policy.as_ref().map_or(0, |policy| policy.rules().max_issuances_per_hour());
        signer.budget.take(request, per_hour)?;
        if let Err(failure) = request.checkpoint.save(&planned.encode()) {
            signer.budget.put_back(&request.identity.namespace);
            return Err(failure);
        }
        Ok(planned)
    }

    /// IssueCertificate: returns the certificate's ARN.
    async fn issue(&self, checkpoint: &mut IssueCheckpoint) -> Result<String, Failure> {
        let csr = pem::certificate_request(self.request.csr_der);
        let arn = match self.api.issue(&csr, &self.parameters.template, checkpoint).await {
            Ok(arn) => arn,
            Err(error) => {
                self.forget_outdated(&error);
                // No certificate exists and none is charged: the next attempt plans again.
                if let ErrorKind::State | ErrorKind::Denied | ErrorKind::Permanent = error.kind {
                    self.request.checkpoint.save("")?;
                    // Only now: an attempt that finds the checkpoint takes nothing from the budget.
                    self.signer.budget.put_back(&self.request.identity.namespace);
                }
                return Err(error.into());
            }
        };
        checkpoint.certificate = Some(arn.clone());
        // Saved at once, because from here on the certificate is charged.
        self.request.checkpoint.save(&checkpoint.encode())?;
        Ok(arn)
    }

    /// GetCertificate until the certificate is there. After IssueCertificate the first call waits as long as AWS has needed
    /// recently.
    async fn collect(&self, arn: &str, is_resumed: bool) -> Result<Vec<u8>, CallError> {
        let (started, delay) = (Instant::now(), &self.signer.issue_delay);
        let mut wait = if is_resumed { Duration::ZERO } else { delay.get() };
        let mut attempt = 0_u32;
        loop {
            let jitter = jitter(&self.api.seed, &attempt.to_be_bytes());
            sleep(wait.mul_f64(0.9 + 0.2 * jitter)).await;
            match self.api.certificate(arn).await {
                Err(error) if error.kind == ErrorKind::InProgress && started.elapsed() < MAX_ISSUE_TIME => {
                    delay.increase();
                    wait = (wait * 3 / 2).clamp(Duration::from_millis(200), Duration::from_secs(5));
                    attempt += 1;
                }
                answer => {
                    if answer.is_ok() && attempt == 0 && !is_resumed {
                        delay.decrease();
                    }
                    return answer;
                }
            }
        }
    }

    /// Forgets what the error shows to be outdated.
    fn forget_outdated(&self, error: &CallError) {
        let Self { signer, request, parameters, api } = self;
        let authority = api.authority.as_str();
        match error.kind {
            ErrorKind::Credentials => signer.clients.forget(request, parameters.pca),
            ErrorKind::State => signer.authorities.forget(authority),
            ErrorKind::Denied | ErrorKind::Permanent => {
                signer.authorities.shorten_cache_time(authority, &parameters.caller);
            }
            _ => {}
        }
    }
}

/// The parameters of one signing with AWS Private CA.
struct SigningParameters<'a> {
    pca: &'a PcaRequest,
    /// The ARN of the template.
    template: String,
    /// Distinguishes callers that can have different permissions; empty for the driver itself.
    caller: String,
}

impl<'a> SigningParameters<'a> {
    fn new(spec: &'a CertificateSpec, pod: &WorkloadIdentity) -> Result<Self, String> {
        let missing = "certificate-authority-arn: missing; accepted: the ARN of a private CA";
        let pca = spec.signer.acm_pca().ok_or(missing)?;
        let template = templates::choose(spec, pca)?;
        let caller = match &pca.caller {
            PcaCaller::Driver => String::new(),
            PcaCaller::Role(role) => role.clone(),
            // Each service account has its own association.
            PcaCaller::PodIdentity => format!("pod-identity {}", pod.account()),
        };
        Ok(Self { pca, template, caller })
    }

    /// Identifies these parameters and a certificate signing request in a checkpoint.
    fn fingerprint(&self, csr_der: &[u8]) -> String {
        let authority = self.pca.certificate_authority_arn.as_str();
        let [authority, template, caller] = [authority, &self.template, &self.caller].map(str::as_bytes);
        fingerprint(&[authority, template, caller, csr_der])
    }
}

/// The ARN of the template that a certificate of this spec is issued with, and the usages that the certificate can carry, if
/// these are known; for `certlet policy check`.
pub fn template_of(
    spec: &CertificateSpec,
    pod: &WorkloadIdentity,
) -> Result<(String, Option<Vec<Usage>>), String> {
    let template = SigningParameters::new(spec, pod)?.template;
    let usages = templates::carried(&template, spec);
    Ok((template, usages))
}
