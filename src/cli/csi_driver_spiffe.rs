//! The flags of csi-driver-spiffe that certlet has only to replace it. Its other flags are those of certlet under two names.

use super::values;
use crate::attributes::{OptionalAttribute, SvidDefaults, file_name, is_annotation};
use crate::model::PemFiles;
use clap::Args;
use std::collections::BTreeMap;
use std::time::Duration;
use thiserror::Error;

/// Annotations that begin so are the driver's own.
const OWN_ANNOTATIONS: &str = "spiffe.csi.cert-manager.io";

/// How certlet serves the volumes of csi-driver-spiffe.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "SPIFFE")]
pub struct CsiDriverSpiffeArgs {
    /// Duration of certificates with a SPIFFE ID, for volumes that name none. An approver may ask for exactly this one.
    #[arg(long, env = "CERTLET_CERTIFICATE_REQUEST_DURATION", value_name = "DURATION", default_value = "1h", value_parser = values::duration)]
    pub certificate_request_duration: Duration,

    /// Annotations of the CertificateRequests for volumes of spiffe.csi.cert-manager.io/, as KEY=VALUE. Can be given several times.
    /// Those that begin with spiffe.csi.cert-manager.io are left out, with a warning.
    #[arg(
        long,
        env = "CERTLET_EXTRA_CERTIFICATE_REQUEST_ANNOTATIONS",
        value_name = "ANNOTATIONS",
        value_parser = values::annotations
    )]
    pub extra_certificate_request_annotations: Vec<BTreeMap<String, String>>,

    /// File of the certificate in volumes of spiffe.csi.cert-manager.io/.
    #[arg(long, env = "CERTLET_FILE_NAME_CERTIFICATE", value_name = "NAME", default_value = "tls.crt")]
    pub file_name_certificate: String,

    /// File of the private key in volumes of spiffe.csi.cert-manager.io/.
    #[arg(long, env = "CERTLET_FILE_NAME_KEY", value_name = "NAME", default_value = "tls.key")]
    pub file_name_key: String,

    /// File of the trust anchors in volumes of spiffe.csi.cert-manager.io/. They have it only if the operator gives the anchors.
    #[arg(long, env = "CERTLET_FILE_NAME_CA", value_name = "NAME", default_value = "ca.crt")]
    pub file_name_ca: String,

    /// Attributes besides fs-group that volumes of spiffe.csi.cert-manager.io/ may have: duration, renew-before, dns-names. The
    /// approver has to allow them too, by flags of its own.
    #[arg(long, env = "CERTLET_SPIFFE_ATTRIBUTES", value_name = "NAMES", value_delimiter = ',', value_parser = values::optional_attribute)]
    pub spiffe_attributes: Vec<OptionalAttribute>,
}

/// A flag for the volumes of csi-driver-spiffe that cannot work.
#[derive(Debug, Error)]
pub enum CsiDriverSpiffeError {
    /// A name of a file.
    #[error("{flag}: {name:?} {problem}; accepted: a plain file name, different from the other file names")]
    FileName {
        /// The flag.
        flag: &'static str,
        /// The name.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// A key of an annotation.
    #[error(
        "--extra-certificate-request-annotations: {0:?} is no key of an annotation; accepted: a name such as example.org/team, with at \
         most 63 letters, digits, `-`, `_` and `.` after the slash"
    )]
    Annotation(String),
}

impl CsiDriverSpiffeArgs {
    /// What the flags give to volumes. With `has_anchors`, there is a file of the trust anchors.
    pub(super) fn defaults(self, has_anchors: bool) -> Result<SvidDefaults, CsiDriverSpiffeError> {
        let files = self.files(has_anchors)?;
        let mut annotations: BTreeMap<_, _> =
            self.extra_certificate_request_annotations.into_iter().flatten().collect();
        for key in annotations.extract_if(.., |key, _| key.starts_with(OWN_ANNOTATIONS)).map(|(key, _)| key) {
            tracing::warn!(
                key,
                "--extra-certificate-request-annotations: left out, because keys that begin with {OWN_ANNOTATIONS} are the driver's"
            );
        }
        if let Some(key) = annotations.keys().find(|key| !is_annotation(key)) {
            return Err(CsiDriverSpiffeError::Annotation(key.clone()));
        }
        let attributes = self.spiffe_attributes.into_iter().collect();
        Ok(SvidDefaults { duration: self.certificate_request_duration, annotations, files, attributes })
    }

    /// The names of the files. An empty one is the default.
    fn files(&self, has_anchors: bool) -> Result<PemFiles, CsiDriverSpiffeError> {
        let named = |flag, given: &str, default: &str, others: &[&String]| {
            let name = if given.is_empty() { default } else { given };
            let fault = |problem| CsiDriverSpiffeError::FileName { flag, name: name.to_owned(), problem };
            let name = file_name(name).map_err(fault)?;
            if others.contains(&&name) {
                return Err(fault("is also another file".to_owned()));
            }
            Ok(name)
        };
        let certificate = named("--file-name-certificate", &self.file_name_certificate, "tls.crt", &[])?;
        let private_key = named("--file-name-key", &self.file_name_key, "tls.key", &[&certificate])?;
        let ca = named("--file-name-ca", &self.file_name_ca, "ca.crt", &[&certificate, &private_key])?;
        Ok(PemFiles { certificate, private_key, ca: has_anchors.then_some(ca) })
    }
}
