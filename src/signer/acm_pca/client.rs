//! The calls to AWS Private CA: each within its quota, repeated where that helps, counted, its errors sorted.

use super::arn::AuthorityArn;
use super::errors::{CallError, Class};
use super::metrics::PcaMetrics;
use super::note::SavedRequest;
use super::quota::{CallKind, Limiter, Urgency};
use crate::model::jitter;
use crate::platform::Backoff;
use aws_sdk_acmpca::Client;
use aws_sdk_acmpca::config::http::HttpResponse;
use aws_sdk_acmpca::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_acmpca::primitives::Blob;
use aws_sdk_acmpca::types::{
    CertificateAuthority, RevocationReason, SigningAlgorithm, Validity, ValidityPeriodType,
};
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long one call is repeated while it is throttled or fails for a passing reason. The volume's own retries go on from there.
const RETRY_FOR: Duration = Duration::from_secs(45);
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));

/// One CA, as one caller may use it.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) client: Client,
    pub(crate) limiter: Arc<Limiter>,
    pub(crate) metrics: PcaMetrics,
    pub(crate) authority: AuthorityArn,
    pub(crate) urgency: Urgency,
    /// What spreads this caller's retries apart from others'.
    pub(crate) seed: String,
}

impl Api {
    /// IssueCertificate: the certificate's ARN.
    pub(crate) async fn issue(
        &self,
        csr_pem: &[u8],
        template: &str,
        note: &SavedRequest,
    ) -> Result<String, CallError> {
        let validity = Validity::builder()
            .value(note.not_after.as_second())
            .r#type(ValidityPeriodType::Absolute)
            .build()
            .map_err(|error| refused(CallKind::Issue, &error))?;
        let output = self
            .call(CallKind::Issue, || {
                self.client
                    .issue_certificate()
                    .certificate_authority_arn(self.authority.as_str())
                    .csr(Blob::new(csr_pem))
                    .signing_algorithm(SigningAlgorithm::from(note.algorithm.as_str()))
                    .template_arn(template)
                    .validity(validity.clone())
                    .idempotency_token(note.idempotency_token())
                    .send()
            })
            .await?;
        output.certificate_arn.ok_or_else(|| refused(CallKind::Issue, &"the answer names no certificate"))
    }

    /// GetCertificate: the leaf and its chain up to the root, PEM.
    pub(crate) async fn certificate(&self, arn: &str) -> Result<Vec<u8>, CallError> {
        let output = self
            .call(CallKind::Get, || {
                let call = self.client.get_certificate();
                call.certificate_authority_arn(self.authority.as_str()).certificate_arn(arn).send()
            })
            .await?;
        // AWS leaves out the line break at the end of each part.
        let parts = [output.certificate, output.certificate_chain];
        Ok(parts.into_iter().flatten().collect::<Vec<_>>().join("\n").into_bytes())
    }

    /// DescribeCertificateAuthority
    pub(crate) async fn describe(&self) -> Result<CertificateAuthority, CallError> {
        let output = self
            .call(CallKind::Describe, || {
                let call = self.client.describe_certificate_authority();
                call.certificate_authority_arn(self.authority.as_str()).send()
            })
            .await?;
        output.certificate_authority.ok_or_else(|| refused(CallKind::Describe, &"the answer is empty"))
    }

    /// GetCertificateAuthorityCertificate: the CA's own certificate, PEM.
    pub(crate) async fn authority_certificate(&self) -> Result<Vec<u8>, CallError> {
        let kind = CallKind::AuthorityCertificate;
        let output = self
            .call(kind, || {
                let call = self.client.get_certificate_authority_certificate();
                call.certificate_authority_arn(self.authority.as_str()).send()
            })
            .await?;
        output.certificate.map(String::into_bytes).ok_or_else(|| refused(kind, &"the answer is empty"))
    }

    /// RevokeCertificate
    pub(crate) async fn revoke(&self, serial: &str, reason: RevocationReason) -> Result<(), CallError> {
        let call = || {
            let call = self.client.revoke_certificate().certificate_authority_arn(self.authority.as_str());
            call.certificate_serial(serial).revocation_reason(reason.clone()).send()
        };
        self.call(CallKind::Revoke, call).await.map(drop)
    }

    /// Makes one call, within its quota, as often as it takes within [`RETRY_FOR`].
    async fn call<T, E, F>(&self, kind: CallKind, send: impl Fn() -> F) -> Result<T, CallError>
    where
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
        E: Error + ProvideErrorMetadata + Send + Sync + 'static,
    {
        let lane = self.limiter.lane(&self.authority.account, &self.authority.region, kind);
        let mut since_passing: Option<Instant> = None;
        for attempt in 1_u32.. {
            self.metrics.waited(kind, lane.pass(self.urgency).await);
            let error = match send().await {
                Ok(output) => {
                    lane.succeeded();
                    self.metrics.call(kind.as_str(), "ok");
                    return Ok(output);
                }
                Err(error) => CallError::of(kind.as_str(), error),
            };
            self.metrics.call(kind.as_str(), &error.code);
            match error.class {
                Class::Throttled => lane.throttled(),
                _ => lane.succeeded(),
            }
            let began = *since_passing.get_or_insert_with(Instant::now);
            let passing = matches!(error.class, Class::Throttled | Class::Transient);
            if !passing || began.elapsed() > RETRY_FOR {
                return Err(error);
            }
            tracing::debug!(call = kind.as_str(), %error, attempt, "repeating a call to AWS");
            let jitter = jitter(&self.seed, &attempt.to_be_bytes());
            tokio::time::sleep(BACKOFF.pause(attempt - 1, jitter)).await;
        }
        Err(refused(kind, &"too many attempts"))
    }
}

fn refused(kind: CallKind, why: &impl ToString) -> CallError {
    CallError::local(kind.as_str(), why.to_string())
}
