//! Which secrets there are, by which names, and what is in them. Pure.

use crate::credential::Current;
use crate::model::{KeyEncoding, SecretNames, fingerprint, shown};
use crate::proto::xds::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, DataSource, Secret, TlsCertificate, data_source, secret,
};
use crate::sink::workload_api::trust_domain;
use crate::trust::TrustBundle;
use crate::x509::pem;
use prost::Message;
use prost_types::Any;
use tonic::Status;

/// The type of every resource of SDS.
pub(in crate::sink) const TYPE_URL: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

/// A secret that a client asks for. It holds no key: it is encoded only to be sent.
#[derive(Clone, Debug)]
pub(super) struct NamedSecret {
    pub(super) name: String,
    /// Depends on the secret only, so that it is the same after a restart.
    pub(super) version: String,
    kind: Kind,
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
                NamedSecret::new(of_certificate, Kind::Certificate, current)?,
                NamedSecret::new(of_trust_bundle, Kind::TrustBundle, current)?,
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
            NamedSecret::new(name, kind, current)
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

impl NamedSecret {
    /// It is an error if there is nothing to send.
    fn new(name: &str, kind: Kind, Current { credential, trust }: &Current) -> Result<Self, Status> {
        let version = match kind {
            Kind::Certificate => fingerprint(&credential.chain().collect::<Vec<_>>()),
            Kind::TrustBundle if trust.anchors.is_empty() => {
                return Err(Status::unavailable(
                    "the signer named no trust anchors: Envoy must have them from somewhere else",
                ));
            }
            Kind::TrustBundle => fingerprint(&anchors(trust).collect::<Vec<_>>()),
        };
        Ok(Self { name: name.to_owned(), version, kind })
    }

    /// The secret as it is sent.
    pub(super) fn encoded(&self, Current { credential, trust }: &Current) -> Result<Any, Status> {
        let contents = match self.kind {
            Kind::Certificate => {
                let key = credential.key.to_pem(KeyEncoding::Pkcs8);
                let key = key.map_err(|error| Status::internal(error.to_string()))?;
                secret::Type::TlsCertificate(TlsCertificate {
                    certificate_chain: Some(inline(pem::certificates(credential.chain()))),
                    private_key: Some(inline(key.to_vec())),
                })
            }
            Kind::TrustBundle => {
                let trusted_ca = Some(inline(pem::certificates(anchors(trust))));
                secret::Type::ValidationContext(CertificateValidationContext { trusted_ca, crl: None })
            }
        };
        let secret = Secret { name: self.name.clone(), r#type: Some(contents) };
        Ok(Any { type_url: TYPE_URL.to_owned(), value: secret.encode_to_vec() })
    }
}

fn anchors(trust: &TrustBundle) -> impl Iterator<Item = &[u8]> {
    trust.anchors.iter().map(Vec::as_slice)
}

fn inline(bytes: Vec<u8>) -> DataSource {
    DataSource { specifier: Some(data_source::Specifier::InlineBytes(bytes)) }
}
