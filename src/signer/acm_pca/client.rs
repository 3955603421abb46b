//! The calls to AWS Private CA: rate limited, retried and counted.

use super::checkpoint::IssueCheckpoint;
use super::errors::{CallError, ErrorKind};
use super::metrics::PcaMetrics;
use super::quota::{CallKind, Caller, Limiter};
use crate::model::{Arn, jitter};
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

/// How long one call is retried after its first failure. After that the caller of the signer retries.
const MAX_RETRY_TIME: Duration = Duration::from_secs(45);
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));

/// The API for one CA and one caller.
pub(crate) struct Api {
    pub(crate) client: Client,
    pub(crate) limiter: Arc<Limiter>,
    pub(crate) metrics: PcaMetrics,
    pub(crate) authority: Arn,
    pub(crate) caller: Caller,
    /// Spreads the retries of different callers.
    pub(crate) seed: String,
}

impl Api {
    /// IssueCertificate: returns the certificate's ARN.
    pub(crate) async fn issue(
        &self,
        csr_pem: &[u8],
        template: &str,
        checkpoint: &IssueCheckpoint,
    ) -> Result<String, CallError> {
        let validity = Validity::builder()
            .value(checkpoint.not_after.as_second())
            .r#type(ValidityPeriodType::Absolute)
            .build()
            .map_err(|error| CallError::response(CallKind::Issue.as_str(), &error.to_string()))?;
        let output = self
            .call(CallKind::Issue, || {
                self.client
                    .issue_certificate()
                    .certificate_authority_arn(self.authority.as_str())
                    .csr(Blob::new(csr_pem))
                    .signing_algorithm(SigningAlgorithm::from(checkpoint.algorithm.as_str()))
                    .template_arn(template)
                    .validity(validity.clone())
                    .idempotency_token(checkpoint.idempotency_token())
                    .send()
            })
            .await?;
        required(output.certificate_arn, CallKind::Issue)
    }

    /// GetCertificate: returns the leaf and its chain up to the root, PEM.
    pub(crate) async fn certificate(&self, arn: &str) -> Result<Vec<u8>, CallError> {
        let output = self
            .call(CallKind::Get, || {
                let call = self.client.get_certificate();
                call.certificate_authority_arn(self.authority.as_str()).certificate_arn(arn).send()
            })
            .await?;
        // AWS omits the line break at the end of each part.
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
        required(output.certificate_authority, CallKind::Describe)
    }

    /// GetCertificateAuthorityCertificate: returns the CA's own certificate, PEM.
    pub(crate) async fn authority_certificate(&self) -> Result<Vec<u8>, CallError> {
        let output = self
            .call(CallKind::AuthorityCertificate, || {
                let call = self.client.get_certificate_authority_certificate();
                call.certificate_authority_arn(self.authority.as_str()).send()
            })
            .await?;
        required(output.certificate, CallKind::AuthorityCertificate).map(String::into_bytes)
    }

    /// RevokeCertificate
    pub(crate) async fn revoke(&self, serial: &str, reason: &RevocationReason) -> Result<(), CallError> {
        let call = || {
            let call = self.client.revoke_certificate().certificate_authority_arn(self.authority.as_str());
            call.certificate_serial(serial).revocation_reason(reason.clone()).send()
        };
        self.call(CallKind::Revoke, call).await.map(drop)
    }

    /// Makes one call within its quota. Retries it for [`MAX_RETRY_TIME`] if it is throttled or fails transiently.
    async fn call<T, E, F>(&self, kind: CallKind, send: impl Fn() -> F) -> Result<T, CallError>
    where
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
        E: Error + ProvideErrorMetadata + Send + Sync + 'static,
    {
        let lane = self.limiter.lane(self.authority.account(), self.authority.region(), kind);
        let mut first_failure = None;
        let mut attempt = 0_u32;
        loop {
            self.metrics.waited(kind, lane.acquire(&self.caller).await);
            let answer = send().await.map_err(|error| CallError::from_sdk(kind.as_str(), error));
            self.metrics.call(kind.as_str(), answer.as_ref().err().map_or("ok", |error| &error.code));
            match &answer {
                Err(error) if error.kind == ErrorKind::Throttled => lane.throttled(),
                _ => lane.succeeded(),
            }
            let error = match answer {
                Err(error) if matches!(error.kind, ErrorKind::Throttled | ErrorKind::Transient) => error,
                answer => return answer,
            };
            if first_failure.get_or_insert_with(Instant::now).elapsed() > MAX_RETRY_TIME {
                return Err(error);
            }
            attempt += 1;
            tracing::debug!(call = kind.as_str(), %error, attempt, "retrying a call to AWS");
            let jitter = jitter(&self.seed, &attempt.to_be_bytes());
            tokio::time::sleep(BACKOFF.pause(attempt - 1, jitter)).await;
        }
    }
}

fn required<T>(value: Option<T>, kind: CallKind) -> Result<T, CallError> {
    value.ok_or_else(|| CallError::response(kind.as_str(), "the answer is empty"))
}
