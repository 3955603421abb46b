//! The CA inside this process: for the demo, for tests, for development.

mod files;

use super::{IssuedCertificate, RequestId, SignedChain, Signer, SignerNotification, SigningRequest};
use crate::model::{CertificateSpec, Failure, KeyAlgorithm, SignerKind};
use crate::platform::Clock;
use crate::x509::certificate::{self, Template};
use crate::x509::extensions::basic_constraints;
use crate::x509::{KeyError, PrivateKey, pem, signature};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use const_oid::ObjectIdentifier;
use const_oid::db::rfc5280::{
    ID_CE_BASIC_CONSTRAINTS, ID_CE_EXT_KEY_USAGE, ID_CE_KEY_USAGE, ID_CE_SUBJECT_ALT_NAME,
};
use der::asn1::OctetString;
pub use files::LocalCaError;
use futures_util::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyIdMethod, KeyUsagePurpose};
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;
use x509_cert::ext::Extension;
use x509_cert::spki::SubjectPublicKeyInfoRef;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer;

/// How long the root of an ephemeral CA lasts: longer than any process.
const EPHEMERAL_LIFETIME: Duration = Duration::from_hours(10 * 365 * 24);

/// The extensions that are taken over from a request. Nothing else in a request has a say.
const HONOURED: [ObjectIdentifier; 4] =
    [ID_CE_SUBJECT_ALT_NAME, ID_CE_KEY_USAGE, ID_CE_EXT_KEY_USAGE, ID_CE_BASIC_CONSTRAINTS];

/// A certificate authority with its key in memory.
pub struct LocalCa {
    clock: Arc<dyn Clock>,
    key: PrivateKey,
    /// The CA's subject, DER.
    subject: Vec<u8>,
    /// The CA's subject key identifier, where it has one.
    key_id: Option<Vec<u8>>,
    not_after: Timestamp,
    /// Whether the CA's path length constraint lets it issue CAs.
    may_issue_cas: bool,
    /// PEM of what leads from the leaf to the root, without either.
    intermediates: Vec<u8>,
    /// PEM of the trust anchor.
    anchor: Vec<u8>,
}

impl LocalCa {
    /// A CA with an ECDSA P-256 root made here and now; it goes with the process.
    pub fn ephemeral(clock: Arc<dyn Clock>) -> Result<Self, LocalCaError> {
        let failed = |error: &dyn Display| LocalCaError(error.to_string());
        let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).map_err(|error| failed(&error))?;
        let root = root(&key, clock.now()).map_err(|error| failed(&error))?;
        Self::from_chain(&[root], key, clock).map_err(|reason| failed(&format!("the root {reason}")))
    }

    /// The trust anchor, PEM.
    pub fn anchor_pem(&self) -> &[u8] {
        &self.anchor
    }

    fn issue(&self, csr: &[u8], attributes: &CertificateSpec) -> Result<SignedChain, Failure> {
        let request = Request::parse(csr)?;
        if request.is_ca && !self.may_issue_cas {
            return Err(refused(
                "is-ca: the path length of the local CA's certificate does not allow it to issue CAs",
            ));
        }
        let not_before = whole_second(self.clock.now());
        if not_before >= self.not_after {
            return Err(refused(&format!(
                "the local CA expired at {}: replace it and restart",
                self.not_after
            )));
        }
        let (not_after, warning) = self.end_of_validity(not_before, attributes.duration);

        let mut extensions = request.extensions;
        let failed = |error: KeyError| Failure::transient(format!("local CA: {error}"));
        let encoded = |extension: der::Result<Extension>| extension.map_err(|error| failed(error.into()));
        if !request.has_basic_constraints {
            extensions.push(encoded(basic_constraints(false))?);
        }
        extensions.push(encoded(certificate::subject_key_id(&certificate::key_id(request.spki)))?);
        if let Some(id) = &self.key_id {
            extensions.push(encoded(certificate::authority_key_id(id))?);
        }
        // Not by rcgen: it cannot copy a subject that repeats an attribute type.
        let leaf = Template {
            serial: &serial().map_err(failed)?,
            issuer: &self.subject,
            not_before,
            not_after,
            subject: request.subject,
            spki: request.spki,
            extensions: &extensions,
        };
        let mut chain = pem::certificates([leaf.sign(&self.key).map_err(failed)?.as_slice()]);
        chain.extend_from_slice(&self.intermediates);
        Ok(SignedChain { chain, ca: Some(self.anchor.clone()), warning })
    }

    /// The end that was asked for, in whole seconds, but not after the CA's own: nobody could verify it then.
    fn end_of_validity(&self, not_before: Timestamp, duration: Duration) -> (Timestamp, Option<String>) {
        // A lifetime below a second is rounded up: a certificate has no shorter one.
        let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX).max(1);
        let asked = not_before.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX);
        if asked <= self.not_after {
            return (asked, None);
        }
        let warning = format!(
            "duration: the lifetime was cut short, as the local CA itself expires at {}",
            self.not_after
        );
        (self.not_after, Some(warning))
    }
}

impl Signer for LocalCa {
    fn kind(&self) -> SignerKind {
        SignerKind::Local
    }

    fn is_resumable(&self) -> bool {
        false
    }

    fn needs_token(&self, _spec: &CertificateSpec) -> bool {
        false
    }

    fn describe(&self, checkpoint: &str) -> String {
        checkpoint.to_owned()
    }

    fn sign<'a>(&'a self, request: &'a SigningRequest<'a>) -> BoxFuture<'a, Result<SignedChain, Failure>> {
        Box::pin(async move { self.issue(request.csr_der, request.spec) })
    }
}

/// It answers at once and keeps nothing: there is nothing to tell, and nothing to be told.
impl SignerNotification for LocalCa {
    fn next_completed(&self) -> BoxFuture<'_, RequestId> {
        Box::pin(std::future::pending())
    }

    fn in_use(&self, _issued: &IssuedCertificate<'_>) {}

    fn removed(&self, _issued: &IssuedCertificate<'_>) {}
}

/// What is taken from a certificate signing request.
struct Request<'a> {
    subject: &'a [u8],
    spki: &'a [u8],
    extensions: Vec<Extension>,
    has_basic_constraints: bool,
    is_ca: bool,
}

impl<'a> Request<'a> {
    /// Parses a request and checks that it is signed by the key it names.
    fn parse(der: &'a [u8]) -> Result<Self, Failure> {
        let unreadable = || refused("the certificate signing request does not parse");
        let (_, request) = X509CertificationRequest::from_der(der).map_err(|_| unreadable())?;
        let info = &request.certification_request_info;
        signature::verify(
            &info.subject_pki,
            &request.signature_algorithm,
            &request.signature_value,
            info.raw,
        )
        .map_err(|error| refused(&format!("the certificate signing request is refused: {error}")))?;

        let mut parsed = Self {
            subject: info.subject.as_raw(),
            spki: info.subject_pki.raw,
            extensions: Vec::new(),
            has_basic_constraints: false,
            is_ca: false,
        };
        for attribute in info.iter_attributes() {
            let ParsedCriAttribute::ExtensionRequest(requested) = attribute.parsed_attribute() else {
                continue;
            };
            for asked in &requested.extensions {
                let dotted = asked.oid.to_id_string();
                let Some(oid) = HONOURED.iter().find(|oid| oid.to_string() == dotted) else { continue };
                match asked.parsed_extension() {
                    ParsedExtension::ParseError { .. } => {
                        return Err(refused(&format!(
                            "the certificate signing request's extension {dotted} does not parse"
                        )));
                    }
                    ParsedExtension::BasicConstraints(constraints) => {
                        parsed.has_basic_constraints = true;
                        parsed.is_ca = constraints.ca;
                    }
                    _ => {}
                }
                let extn_value = OctetString::new(asked.value).map_err(|_| unreadable())?;
                parsed.extensions.push(Extension { extn_id: *oid, critical: asked.critical, extn_value });
            }
        }
        Ok(parsed)
    }
}

/// Lets rcgen sign with a key without a copy of it: a `rcgen::KeyPair` holds one that is not zeroized.
struct RootKey<'a> {
    key: &'a PrivateKey,
    public_key: Vec<u8>,
}

impl rcgen::PublicKeyData for RootKey<'_> {
    fn der_bytes(&self) -> &[u8] {
        &self.public_key
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for RootKey<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.key.sign(message).map_err(|_| rcgen::Error::RemoteKeyError)
    }
}

/// A root for an ECDSA P-256 key, DER.
fn root(key: &PrivateKey, now: Timestamp) -> Result<Vec<u8>, rcgen::Error> {
    let failed = |_| rcgen::Error::RemoteKeyError;
    let mut params = CertificateParams::default();
    params.serial_number = Some(serial().map_err(|_| rcgen::Error::RemoteKeyError)?.to_vec().into());
    let seconds = u64::try_from(now.as_second()).unwrap_or_default();
    params.not_before = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds);
    params.not_after = params.not_before + EPHEMERAL_LIFETIME;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "certlet");
    params.distinguished_name.push(DnType::CommonName, "certlet local CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.key_identifier_method = KeyIdMethod::PreSpecified(certificate::key_id(key.spki_der()));
    let public_key = SubjectPublicKeyInfoRef::try_from(key.spki_der()).map_err(failed)?;
    let public_key = public_key.subject_public_key.raw_bytes().to_vec();
    Ok(params.self_signed(&RootKey { key, public_key })?.der().to_vec())
}

fn refused(reason: &str) -> Failure {
    Failure::permanent(reason.to_owned())
}

/// 128 random bits (RFC 5280 section 4.1.2.2 allows 159).
fn serial() -> Result<[u8; 16], KeyError> {
    let mut serial = [0; 16];
    SystemRandom::new()
        .fill(&mut serial)
        .map_err(|_| KeyError::Library("making a serial number".to_owned()))?;
    Ok(serial)
}

fn whole_second(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

#[cfg(test)]
mod tests;
