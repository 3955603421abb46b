//! The parameters of one signing with AWS Private CA.

use super::templates;
use crate::model::{Arn, CertificateSpec, PcaCaller, PcaRequest, WorkloadIdentity, fingerprint};

/// The parameters of one signing with AWS Private CA.
pub(super) struct SigningParameters<'a> {
    pub(super) pca: &'a PcaRequest,
    /// The ARN of the template.
    pub(super) template: String,
    /// Distinguishes callers that can have different permissions; empty for the driver itself.
    pub(super) caller: String,
}

impl<'a> SigningParameters<'a> {
    pub(super) fn new(spec: &'a CertificateSpec, pod: &WorkloadIdentity) -> Result<Self, String> {
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

    /// The ARN of the private CA.
    pub(super) fn authority(&self) -> &'a Arn {
        &self.pca.certificate_authority_arn
    }

    /// Identifies these parameters and a certificate signing request in a checkpoint.
    pub(super) fn fingerprint(&self, csr_der: &[u8]) -> String {
        let [authority, template, caller] =
            [self.authority().as_str(), &self.template, &self.caller].map(str::as_bytes);
        fingerprint(&[authority, template, caller, csr_der])
    }
}

/// The ARN of the template that a certificate of this spec is issued with, for `certlet policy check`.
pub fn template_of(spec: &CertificateSpec, pod: &WorkloadIdentity) -> Result<String, String> {
    SigningParameters::new(spec, pod).map(|parameters| parameters.template)
}
