//! What a volume asks of AWS Private CA.

use super::arn::AuthorityArn;
use super::templates;
use crate::model::{CertificateSpec, PcaCaller, PcaRequest, WorkloadIdentity};

/// What a volume asks of AWS Private CA.
pub(super) struct CaRequest<'a> {
    pub(super) pca: &'a PcaRequest,
    pub(super) authority: AuthorityArn,
    pub(super) template: String,
    pub(super) algorithm: Option<&'a str>,
    /// What sets it apart from callers who may do other things; empty: the driver itself.
    pub(super) caller: String,
}

impl<'a> CaRequest<'a> {
    pub(super) fn of(attributes: &'a CertificateSpec, pod: &WorkloadIdentity) -> Result<Self, String> {
        let missing = || "certificate-authority-arn: missing; accepted: the ARN of a private CA".to_owned();
        let pca = attributes.signer.acm_pca().ok_or_else(missing)?;
        let authority = AuthorityArn::parse(&pca.certificate_authority_arn).ok_or_else(missing)?;
        let template = templates::choose(attributes, &authority)?;
        Ok(Self {
            pca,
            authority,
            template,
            algorithm: pca.signing_algorithm.as_deref(),
            caller: match &pca.caller {
                PcaCaller::Driver => String::new(),
                PcaCaller::Role(role) => role.clone(),
                // Each service account has a role of its own, or none.
                PcaCaller::PodIdentity => format!("pod-identity {}", pod.account()),
            },
        })
    }
}

/// The template that a volume's certificate would be issued with, for `certlet policy check`.
pub fn template_of(attributes: &CertificateSpec, pod: &WorkloadIdentity) -> Result<String, String> {
    CaRequest::of(attributes, pod).map(|ca_request| ca_request.template)
}
