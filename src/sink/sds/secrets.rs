//! Which secrets there are, by which names, and what is in them. Pure.

use crate::credential::Current;
use crate::model::{Failure, KeyEncoding, SecretNames, fingerprint, shown};
use crate::proto::xds::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, DataSource, Secret, TlsCertificate, data_source, secret,
};
use crate::sink::workload_api::trust_domain;
use crate::x509::pem;
use prost::Message;
use prost_types::Any;
use tonic::Status;

/// The type of every resource of SDS.
pub(super) const TYPE_URL: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

/// A secret, encoded.
#[derive(Clone)]
pub(super) struct NamedSecret {
    pub(super) name: String,
    /// Depends on the secret only, so that it is the same after a restart.
    pub(super) version: String,
    pub(super) resource: Any,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Certificate,
    TrustBundle,
}

impl SecretNames {
    /// The secrets of these names; with none, all of them. It is an error if one is not known.
    pub(super) fn secrets(&self, names: &[String], current: &Current) -> Result<Vec<NamedSecret>, Status> {
        let id = current.credential.facts.spiffe_id();
        let domain = id.map(trust_domain);
        if names.is_empty() {
            let of_certificate = id.unwrap_or(&self.certificate);
            let of_trust_bundle = domain.unwrap_or(&self.trust_bundle);
            return Ok(vec![
                secret(of_certificate, Kind::Certificate, current)?,
                secret(of_trust_bundle, Kind::TrustBundle, current)?,
            ]);
        }
        let secret_of = |name: &String| {
            let kind = if Some(name.as_str()) == id || *name == self.certificate {
                Kind::Certificate
            } else if Some(name.as_str()) == domain || [&self.trust_bundle, &self.all_bundles].contains(&name)
            {
                Kind::TrustBundle
            } else {
                return Err(self.unknown(name, id));
            };
            secret(name, kind, current)
        };
        names.iter().map(secret_of).collect()
    }

    fn unknown(&self, name: &str, id: Option<&str>) -> Status {
        let Self { certificate, trust_bundle, all_bundles } = self;
        let more = id.map(|id| format!(", {id} and {}", trust_domain(id))).unwrap_or_default();
        Status::invalid_argument(format!(
            "there is no secret {}; accepted: {certificate}, {trust_bundle}, {all_bundles}{more}",
            shown(name)
        ))
    }
}

fn secret(name: &str, kind: Kind, current: &Current) -> Result<NamedSecret, Status> {
    let Current { credential, trust } = current;
    let anchors = || trust.anchors.iter().map(Vec::as_slice);
    let (contents, version) = match kind {
        Kind::Certificate => {
            let key = credential.key.to_pem(KeyEncoding::Pkcs8);
            let key =
                key.map_err(|error| Status::internal(Failure::permanent(error.to_string()).to_string()))?;
            let certificate = TlsCertificate {
                certificate_chain: Some(inline(pem::certificates(credential.chain()))),
                private_key: Some(inline(key.to_vec())),
            };
            let chain: Vec<&[u8]> = credential.chain().collect();
            (secret::Type::TlsCertificate(certificate), fingerprint(&chain))
        }
        Kind::TrustBundle if trust.anchors.is_empty() => {
            return Err(Status::unavailable(
                "the signer named no trust anchors: Envoy must have them from somewhere else",
            ));
        }
        Kind::TrustBundle => {
            let trusted_ca = Some(inline(pem::certificates(anchors())));
            let context = CertificateValidationContext { trusted_ca, crl: None };
            let anchors: Vec<&[u8]> = anchors().collect();
            (secret::Type::ValidationContext(context), fingerprint(&anchors))
        }
    };
    let secret = Secret { name: name.to_owned(), r#type: Some(contents) };
    let resource = Any { type_url: TYPE_URL.to_owned(), value: secret.encode_to_vec() };
    Ok(NamedSecret { name: name.to_owned(), version, resource })
}

fn inline(bytes: Vec<u8>) -> DataSource {
    DataSource { specifier: Some(data_source::Specifier::InlineBytes(bytes)) }
}
