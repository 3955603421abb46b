//! Which secrets there are, by which names, and what is in them. Pure.

use crate::credential::Current;
use crate::model::{KeyEncoding, SecretNames, TrustDomain, fingerprint, shown, shown_list};
use crate::proto::xds::envoy::extensions::transport_sockets::tls::v3::spiffe_cert_validator_config;
use crate::proto::xds::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, DataSource, Secret, SpiffeCertValidatorConfig, TlsCertificate,
    TypedExtensionConfig, data_source, secret,
};
use crate::sink::files::crls_pem;
use crate::sink::trust_domains::{federated, trust_domain_id, trust_domain_name};
use crate::x509::pem;
use prost::Message;
use prost_types::Any;
use tonic::Status;

/// The type of every resource of SDS.
pub(in crate::sink) const TYPE_URL: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
/// Envoy's validator that verifies a peer by the anchors of the trust domain in the peer's SPIFFE ID.
pub(in crate::sink) const SPIFFE_VALIDATOR: &str = "envoy.tls.cert_validator.spiffe";
/// The type of its configuration.
pub(in crate::sink) const SPIFFE_VALIDATOR_TYPE: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig";

/// A secret that a client asks for. It holds no key: it is encoded only to be sent.
#[derive(Clone, Debug)]
pub(super) struct NamedSecret {
    pub(super) name: String,
    /// Depends on the secret only, so that it is the same after a restart.
    pub(super) version: String,
    kind: Kind,
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Certificate,
    /// That of the credential's own trust domain.
    TrustBundle,
    /// Those of all trust domains, by Envoy's validator for SPIFFE. Without federated ones it is the own one alone.
    AllTrustBundles,
    /// That of another trust domain, by Envoy's validator for SPIFFE: its anchors speak for no other trust domain.
    Federated(TrustDomain),
}

impl SecretNames {
    /// The secrets of these names; with none, all of them. It is an error if one is not known.
    pub(super) fn secrets(&self, names: &[String], current: &Current) -> Result<Vec<NamedSecret>, Status> {
        let id = current.credential.facts.spiffe_id();
        let domain = id.map(trust_domain_id);
        if names.is_empty() {
            let of_certificate = id.unwrap_or(&self.certificate);
            let of_trust_bundle = domain.unwrap_or(&self.trust_bundle);
            let own = [(of_certificate, Kind::Certificate), (of_trust_bundle, Kind::TrustBundle)];
            let own = own.into_iter().map(|(name, kind)| NamedSecret::new(name, kind, current));
            let others = federated(current)
                .map(|(domain, _)| NamedSecret::new(&domain.id(), Kind::Federated(domain.clone()), current));
            return own.chain(others).collect();
        }
        let secret_of = |name: &String| {
            let kind = if Some(name.as_str()) == id || *name == self.certificate {
                Kind::Certificate
            } else if Some(name.as_str()) == domain || *name == self.trust_bundle {
                Kind::TrustBundle
            } else if *name == self.all_bundles {
                Kind::AllTrustBundles
            } else if let Some((other, _)) = federated(current).find(|(other, _)| other.id() == *name) {
                Kind::Federated(other.clone())
            } else {
                return Err(self.unknown(name, current));
            };
            NamedSecret::new(name, kind, current)
        };
        names.iter().map(secret_of).collect()
    }

    fn unknown(&self, name: &str, current: &Current) -> Status {
        let Self { certificate, trust_bundle, all_bundles } = self;
        let id = current.credential.facts.spiffe_id();
        let own = id.into_iter().flat_map(|id| [id.to_owned(), trust_domain_id(id).to_owned()]);
        let federated = federated(current).map(|(domain, _)| domain.id());
        let known = [certificate, trust_bundle, all_bundles].map(ToOwned::to_owned).into_iter();
        let known: Vec<String> = known.chain(own).chain(federated).collect();
        Status::invalid_argument(format!(
            "there is no secret {}; accepted: {}",
            shown(name),
            shown_list(&known, ", ")
        ))
    }
}

impl NamedSecret {
    /// It is an error if there is nothing to send.
    fn new(name: &str, kind: Kind, current: &Current) -> Result<Self, Status> {
        let Current { credential, trust } = current;
        if kind != Kind::Certificate && trust.anchors.is_empty() {
            return Err(Status::unavailable(
                "the signer named no trust anchors: Envoy must have them from somewhere else",
            ));
        }
        let kind = match kind {
            Kind::AllTrustBundles if federated(current).next().is_none() => Kind::TrustBundle,
            kind => kind,
        };
        let version = match &kind {
            Kind::Certificate => fingerprint(&credential.chain().collect::<Vec<_>>()),
            Kind::TrustBundle => {
                let crls = trust.crls.iter().map(|crl| crl.digest().as_slice());
                fingerprint(&trust.anchors.iter().map(Vec::as_slice).chain(crls).collect::<Vec<_>>())
            }
            Kind::AllTrustBundles | Kind::Federated(_) => {
                let of_domain = |(domain, anchors): (&'_ str, &'_ [Vec<u8>])| {
                    [vec![domain.as_bytes().to_vec()], anchors.to_vec()].concat()
                };
                let parts: Vec<Vec<u8>> = kind.trust_domains(current).flat_map(of_domain).collect();
                fingerprint(&parts.iter().map(Vec::as_slice).collect::<Vec<_>>())
            }
        };
        Ok(Self { name: name.to_owned(), version, kind })
    }

    /// The secret as it is sent.
    pub(super) fn encoded(&self, current: &Current) -> Result<Any, Status> {
        let Current { credential, trust } = current;
        let contents = match &self.kind {
            Kind::Certificate => {
                let key = credential.key.to_pem(KeyEncoding::Pkcs8);
                let key = key.map_err(|error| Status::internal(error.to_string()))?;
                secret::Type::TlsCertificate(TlsCertificate {
                    certificate_chain: Some(inline(pem::certificates(credential.chain()))),
                    private_key: Some(inline(key.to_vec())),
                })
            }
            Kind::TrustBundle => secret::Type::ValidationContext(CertificateValidationContext {
                trusted_ca: Some(anchors(&trust.anchors)),
                crl: (!trust.crls.is_empty()).then(|| inline(crls_pem(&trust.crls))),
                ..CertificateValidationContext::default()
            }),
            kind => {
                let trust_domains = kind.trust_domains(current);
                let trust_domains =
                    trust_domains.map(|(name, of_domain)| spiffe_cert_validator_config::TrustDomain {
                        name: name.to_owned(),
                        trust_bundle: Some(anchors(of_domain)),
                    });
                let config = SpiffeCertValidatorConfig { trust_domains: trust_domains.collect() };
                let typed_config =
                    Any { type_url: SPIFFE_VALIDATOR_TYPE.to_owned(), value: config.encode_to_vec() };
                secret::Type::ValidationContext(CertificateValidationContext {
                    custom_validator_config: Some(TypedExtensionConfig {
                        name: SPIFFE_VALIDATOR.to_owned(),
                        typed_config: Some(typed_config),
                    }),
                    ..CertificateValidationContext::default()
                })
            }
        };
        let secret = Secret { name: self.name.clone(), r#type: Some(contents) };
        Ok(Any { type_url: TYPE_URL.to_owned(), value: secret.encode_to_vec() })
    }
}

impl Kind {
    /// The trust domains of Envoy's validator for SPIFFE, with their anchors.
    fn trust_domains<'a>(&self, current: &'a Current) -> impl Iterator<Item = (&'a str, &'a [Vec<u8>])> {
        let own = current.credential.facts.spiffe_id().filter(|_| *self == Self::AllTrustBundles);
        let own = own.map(|id| (trust_domain_name(id), current.trust.anchors.as_slice()));
        let others = federated(current).filter(move |(domain, _)| match self {
            Self::Federated(only) => only == *domain,
            Self::AllTrustBundles => true,
            Self::Certificate | Self::TrustBundle => false,
        });
        own.into_iter().chain(others.map(|(domain, anchors)| (domain.as_str(), anchors)))
    }
}

fn anchors(ders: &[Vec<u8>]) -> DataSource {
    inline(pem::certificates(ders.iter().map(Vec::as_slice)))
}

fn inline(bytes: Vec<u8>) -> DataSource {
    DataSource { specifier: Some(data_source::Specifier::InlineBytes(bytes)) }
}
