//! Whole volumes, from the author's attributes to the certificate spec.

mod accepted;
mod csi_driver_spiffe;
mod names;
mod peer;
mod refused;
mod size;
mod spiffe;
#[path = "../../../tests/support/spiffe_ids.rs"]
pub(super) mod spiffe_ids;
mod trust;

use super::{AttributeError, AttributeErrors, OperatorDefaults, VolumeContext, rows};
use crate::model::{
    CertificateSpec, Dialect, IssuerRef, KeyAlgorithm, KeyEncoding, KeySpec, KeystorePassword, Subject,
    SubjectFields, Usage, WorkloadIdentity,
};

fn pod() -> WorkloadIdentity {
    WorkloadIdentity {
        namespace: "shop".into(),
        name: "cart-0".into(),
        uid: "b8f1".into(),
        service_account: "cart".into(),
    }
}

fn parse(attributes: &[(&str, &str)]) -> Result<CertificateSpec, AttributeErrors> {
    let raw = attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    super::parse(&raw, &pod(), &OperatorDefaults::default())
}

fn with_prefix(prefix: &str, attributes: &[(&str, &str)]) -> Result<CertificateSpec, AttributeErrors> {
    let mut full: Vec<_> =
        attributes.iter().map(|(name, value)| (format!("{prefix}/{name}"), *value)).collect();
    if !attributes.iter().any(|(name, _)| *name == "issuer-name" || *name == "signer") {
        full.push((format!("{prefix}/issuer-name"), "ca"));
    }
    parse(&full.iter().map(|(key, value)| (key.as_str(), *value)).collect::<Vec<_>>())
}

fn certlet(attributes: &[(&str, &str)]) -> Result<CertificateSpec, AttributeErrors> {
    with_prefix("csi.certlet.io", attributes)
}

fn cert_manager(attributes: &[(&str, &str)]) -> Result<CertificateSpec, AttributeErrors> {
    with_prefix("csi.cert-manager.io", attributes)
}
