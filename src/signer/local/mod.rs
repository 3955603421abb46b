//! The CA inside this process: for the demo, for tests, for development.

mod files;

use super::{SignError, SignedChain, Signer, SigningRequest};
use crate::attributes::{Attributes, KeyAlgorithm, SignerKind, Subject, SubjectFields};
use crate::clock::Clock;
use crate::x509::certificate::{self, Template};
use crate::x509::extensions::{
    BASIC_CONSTRAINTS, CERT_SIGN, CRL_SIGN, EXTENDED_KEY_USAGE, KEY_USAGE, SUBJECT_ALT_NAME,
    basic_constraints, extension, key_usage,
};
use crate::x509::{KeyError, PrivateKey, name, pem, signature};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use const_oid::ObjectIdentifier;
pub use files::LocalCaError;
use futures_util::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use std::sync::Arc;
use std::time::Duration;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer;

/// How long the root of an ephemeral CA lasts: longer than any process.
const EPHEMERAL_LIFETIME: SignedDuration = SignedDuration::from_hours(10 * 365 * 24);

/// The extensions that are taken over from a request. Nothing else in a request has a say.
const HONOURED: [ObjectIdentifier; 4] = [SUBJECT_ALT_NAME, KEY_USAGE, EXTENDED_KEY_USAGE, BASIC_CONSTRAINTS];

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
        let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256)?;
        let not_before = whole_second(clock.now());
        let not_after = not_before.saturating_add(EPHEMERAL_LIFETIME).unwrap_or(Timestamp::MAX);
        let subject = name::encode(&Subject::Fields(SubjectFields {
            common_name: Some("certlet local CA".to_owned()),
            organizations: vec!["certlet".to_owned()],
            ..SubjectFields::default()
        }));
        let key_id = certificate::key_id(key.spki_der());
        let root = Template {
            serial: &serial()?,
            issuer: &subject,
            not_before,
            not_after,
            subject: &subject,
            spki: key.spki_der(),
            extensions: &[
                basic_constraints(true),
                key_usage(CERT_SIGN | CRL_SIGN),
                certificate::subject_key_id(&key_id),
            ],
        };
        let root = root.sign(&key)?;
        Ok(Self {
            clock,
            key,
            subject,
            key_id: Some(key_id),
            not_after,
            may_issue_cas: true,
            intermediates: Vec::new(),
            anchor: pem::certificates([root.as_slice()]),
        })
    }

    /// The trust anchor, PEM.
    pub fn anchor_pem(&self) -> &[u8] {
        &self.anchor
    }

    fn issue(&self, csr: &[u8], attributes: &Attributes) -> Result<SignedChain, SignError> {
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
        let (not_after, remark) = self.end_of_validity(not_before, attributes.duration);

        let mut extensions = request.extensions;
        if !request.has_basic_constraints {
            extensions.push(basic_constraints(false));
        }
        extensions.push(certificate::subject_key_id(&certificate::key_id(request.spki)));
        extensions.extend(self.key_id.as_deref().map(certificate::authority_key_id));
        let failed = |error: KeyError| SignError::Transient { reason: format!("local CA: {error}") };
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
        Ok(SignedChain { chain, ca: Some(self.anchor.clone()), remark })
    }

    /// The end that was asked for, in whole seconds, but not after the CA's own: nobody could verify it then.
    fn end_of_validity(&self, not_before: Timestamp, duration: Duration) -> (Timestamp, Option<String>) {
        // A lifetime below a second is rounded up: a certificate has no shorter one.
        let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX).max(1);
        let asked = not_before.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX);
        if asked <= self.not_after {
            return (asked, None);
        }
        let remark = format!(
            "duration: the lifetime was cut short, as the local CA itself expires at {}",
            self.not_after
        );
        (self.not_after, Some(remark))
    }
}

impl Signer for LocalCa {
    fn kind(&self) -> SignerKind {
        SignerKind::Local
    }

    fn is_slow(&self) -> bool {
        false
    }

    fn sign<'a>(&'a self, request: &'a SigningRequest<'a>) -> BoxFuture<'a, Result<SignedChain, SignError>> {
        Box::pin(async move { self.issue(request.csr_der, request.attributes) })
    }
}

/// What is taken from a certificate signing request.
struct Request<'a> {
    subject: &'a [u8],
    spki: &'a [u8],
    extensions: Vec<Vec<u8>>,
    has_basic_constraints: bool,
    is_ca: bool,
}

impl<'a> Request<'a> {
    /// Parses a request and checks that it is signed by the key it names.
    fn parse(der: &'a [u8]) -> Result<Self, SignError> {
        let unreadable = |_| refused("the certificate signing request does not parse");
        let (_, request) = X509CertificationRequest::from_der(der).map_err(unreadable)?;
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
                parsed.extensions.push(extension(oid, asked.critical, asked.value));
            }
        }
        Ok(parsed)
    }
}

fn refused(reason: &str) -> SignError {
    SignError::Permanent { reason: reason.to_owned() }
}

/// 128 random bits (RFC 5280 section 4.1.2.2 allows 159).
fn serial() -> Result<[u8; 16], KeyError> {
    let mut serial = [0; 16];
    SystemRandom::new().fill(&mut serial).map_err(|_| KeyError::Signing)?;
    Ok(serial)
}

fn whole_second(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

#[cfg(test)]
mod tests;
