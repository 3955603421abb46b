//! The CA inside this process: for the demo, for tests, for development.

mod request;
mod root;

use super::{IssuedCertificate, RequestId, SignedChain, Signer, SignerNotification, SigningRequest};
use crate::model::{CertificateSpec, Failure, KeyAlgorithm, SignerKind};
use crate::platform::Clock;
use crate::x509::certificate::{self, Template};
use crate::x509::extensions::basic_constraints;
use crate::x509::{KeyError, PrivateKey, pem, timestamp};
use aws_lc_rs::rand;
use const_oid::db::rfc5280::ID_CE_BASIC_CONSTRAINTS;
use futures_util::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use request::Request;
use root::root;
use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use x509_cert::ext::Extension;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer;
use zeroize::Zeroizing;

/// A certificate authority with its key in memory.
pub struct LocalCa {
    clock: Arc<dyn Clock>,
    key: PrivateKey,
    /// The CA's subject, DER.
    subject: Vec<u8>,
    /// The CA's subject key identifier, if it has one.
    key_id: Option<Vec<u8>>,
    not_after: Timestamp,
    /// Whether the CA's path length constraint lets it issue CAs.
    may_issue_cas: bool,
    /// PEM certificates between leaf and root, without either.
    intermediates: Vec<u8>,
    /// PEM of the trust anchor.
    anchor: Vec<u8>,
}

/// Why the local CA cannot be used. The message names the file.
#[derive(Debug, Error)]
#[error("local CA: {0}")]
pub struct LocalCaError(String);

impl LocalCa {
    /// A CA with a new ECDSA P-256 root, which exists only while this process runs.
    pub fn ephemeral(clock: Arc<dyn Clock>) -> Result<Self, LocalCaError> {
        let failed = |error: &dyn Display| LocalCaError(error.to_string());
        let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).map_err(|error| failed(&error))?;
        let root = root(&key, clock.now()).map_err(|error| failed(&error))?;
        Self::from_chain(&[root], key, clock).map_err(|reason| failed(&format!("the root {reason}")))
    }

    /// A CA from PEM files. The first file has its certificate and, if that is not the root, the certificates up to the root.
    /// The second file has its unencrypted private key.
    pub fn from_files(certificate: &Path, key: &Path, clock: Arc<dyn Clock>) -> Result<Self, LocalCaError> {
        let wrong = |reason: &dyn Display| LocalCaError(format!("{} {reason}", certificate.display()));
        let blocks =
            pem::blocks(&read(certificate)?).map_err(|error| wrong(&format!("is not PEM: it {error}")))?;
        let found = blocks.iter().filter(|block| block.label == "CERTIFICATE");
        let chain: Vec<_> = found.map(|block| block.der.to_vec()).collect();
        let pair = PrivateKey::from_pem(&read(key)?)
            .map_err(|error| LocalCaError(format!("{}: {error}", key.display())))?;
        Self::from_chain(&chain, pair, clock).map_err(|reason| wrong(&reason))
    }

    /// A CA from its certificate, the certificates up to the root, and its key. An error says what is wrong with the
    /// certificates.
    fn from_chain(chain: &[Vec<u8>], key: PrivateKey, clock: Arc<dyn Clock>) -> Result<Self, String> {
        let no_certificate = || "does not begin with an X.509 certificate (a CERTIFICATE block)".to_owned();
        let parsed: Option<Vec<_>> = chain.iter().map(|der| parse(der)).collect();
        let parsed = parsed.ok_or_else(no_certificate)?;
        let (Some(ca), Some(top)) = (parsed.first(), parsed.last()) else { return Err(no_certificate()) };
        if ca.public_key().raw != key.spki_der() {
            return Err("is not the certificate of the CA's key".to_owned());
        }
        let may_sign = ca.key_usage().ok().flatten().is_none_or(|usage| usage.value.key_cert_sign());
        if !ca.is_ca() || !may_sign {
            return Err("is not a CA certificate; it needs basic constraints CA:TRUE and, if it has a key usage, certificate \
                        signing"
                .to_owned());
        }
        let (not_before, not_after) =
            (timestamp(ca.validity().not_before), timestamp(ca.validity().not_after));
        if !(not_before..not_after).contains(&clock.now()) {
            return Err(format!("is valid from {not_before} to {not_after}, not now"));
        }
        if parsed.windows(2).any(|pair| pair[0].issuer().as_raw() != pair[1].subject().as_raw()) {
            return Err(
                "is not a chain: each certificate must be followed by the one that issued it".to_owned()
            );
        }
        let path_length = ca.basic_constraints().ok().flatten().and_then(|it| it.value.path_len_constraint);
        // The last certificate is the anchor. If it is not self-signed, peers need it in the chain too.
        let below = chain.len() - usize::from(top.issuer().as_raw() == top.subject().as_raw());
        Ok(Self {
            clock,
            subject: ca.subject().as_raw().to_vec(),
            key_id: key_id(ca),
            not_after,
            may_issue_cas: path_length != Some(0),
            intermediates: pem::certificates(chain[..below].iter().map(Vec::as_slice)),
            anchor: pem::certificates(chain.last().map(Vec::as_slice)),
            key,
        })
    }

    /// The trust anchor, PEM.
    pub fn anchor_pem(&self) -> &[u8] {
        &self.anchor
    }

    fn issue(&self, csr: &[u8], attributes: &CertificateSpec) -> Result<SignedChain, Failure> {
        let request = Request::parse(csr)?;
        if request.is_ca && !self.may_issue_cas {
            return Err(Failure::permanent(
                "is-ca: the path length of the local CA's certificate does not allow it to issue CAs",
            ));
        }
        let now = self.clock.now();
        // A certificate has whole seconds.
        let not_before = Timestamp::from_second(now.as_second()).unwrap_or(now);
        if not_before >= self.not_after {
            return Err(Failure::permanent(format!(
                "the local CA expired at {}: replace it and restart",
                self.not_after
            )));
        }
        let (not_after, warning) = self.end_of_validity(not_before, attributes.duration);

        let mut extensions = request.extensions;
        let failed = |error: KeyError| Failure::transient(format!("local CA: {error}"));
        let encoded = |extension: der::Result<Extension>| extension.map_err(|error| failed(error.into()));
        if extensions.iter().all(|extension| extension.extn_id != ID_CE_BASIC_CONSTRAINTS) {
            extensions.push(encoded(basic_constraints(false))?);
        }
        extensions.push(encoded(certificate::subject_key_id(&certificate::key_id(request.spki)))?);
        if let Some(id) = &self.key_id {
            extensions.push(encoded(certificate::authority_key_id(id))?);
        }
        // rcgen is not used here, because it cannot copy a subject that repeats an attribute type.
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
        Ok(SignedChain { chain, ca: Some(self.anchor.clone()), warning, template_usages: &[] })
    }

    /// The requested end in whole seconds, cut to the CA's own end. After that end nobody could verify the certificate.
    fn end_of_validity(&self, not_before: Timestamp, duration: Duration) -> (Timestamp, Option<String>) {
        // The shortest validity of a certificate is one second.
        let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX).max(1);
        let requested =
            not_before.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX);
        if requested <= self.not_after {
            return (requested, None);
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

/// Does nothing: this signer answers at once and keeps nothing.
impl SignerNotification for LocalCa {
    fn next_completed(&self) -> BoxFuture<'_, RequestId> {
        Box::pin(std::future::pending())
    }

    fn in_use(&self, _issued: &IssuedCertificate<'_>) {}

    fn removed(&self, _issued: &IssuedCertificate<'_>) {}
}

/// 128 random bits (RFC 5280 section 4.1.2.2 allows 159).
fn serial() -> Result<[u8; 16], KeyError> {
    let mut serial = [0; 16];
    rand::fill(&mut serial).map_err(|_| KeyError::Library("making a serial number".to_owned()))?;
    Ok(serial)
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, LocalCaError> {
    let read = std::fs::read(path).map(Zeroizing::new);
    read.map_err(|error| LocalCaError(format!("{}: {error}", path.display())))
}

fn parse(der: &[u8]) -> Option<X509Certificate<'_>> {
    let (rest, certificate) = X509Certificate::from_der(der).ok()?;
    rest.is_empty().then_some(certificate)
}

fn key_id(ca: &X509Certificate<'_>) -> Option<Vec<u8>> {
    ca.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
        _ => None,
    })
}

#[cfg(test)]
mod tests;
