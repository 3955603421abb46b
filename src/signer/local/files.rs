//! A CA from a pair of files.

use super::LocalCa;
use crate::clock::Clock;
use crate::x509::{KeyError, PemError, PrivateKey, pem, timestamp};
use jiff::Timestamp;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer;
use zeroize::Zeroizing;

impl LocalCa {
    /// A CA from PEM files: its certificate, followed by what leads up to the root where it is not the root itself, and
    /// its unencrypted private key.
    pub fn from_files(certificate: &Path, key: &Path, clock: Arc<dyn Clock>) -> Result<Self, LocalCaError> {
        let chain = certificates(certificate, &read(certificate)?)?;
        let pair = PrivateKey::from_pem(&read(key)?)
            .map_err(|source| LocalCaError::Key { path: key.to_owned(), source })?;
        let ca = parse(certificate, &chain[0])?;
        if ca.public_key().raw != pair.spki_der() {
            return Err(LocalCaError::Mismatch { certificate: certificate.to_owned(), key: key.to_owned() });
        }
        let not_after = check(certificate, &ca, clock.now())?;

        let parsed: Vec<_> = chain.iter().map(|der| parse(certificate, der)).collect::<Result<_, _>>()?;
        if parsed.windows(2).any(|pair| pair[0].issuer().as_raw() != pair[1].subject().as_raw()) {
            return Err(LocalCaError::NotAChain { path: certificate.to_owned() });
        }
        // The last one is as far up as we know, and so the anchor. Peers need what is not self-signed besides.
        let is_root = parsed.last().is_some_and(|top| top.issuer().as_raw() == top.subject().as_raw());
        let below = chain.len() - usize::from(is_root);
        Ok(Self {
            clock,
            subject: ca.subject().as_raw().to_vec(),
            key_id: key_id(&ca),
            not_after,
            may_issue_cas: path_length(&ca) != Some(0),
            intermediates: pem::certificates(chain[..below].iter().map(Vec::as_slice)),
            anchor: pem::certificates(chain.last().map(Vec::as_slice)),
            key: pair,
        })
    }
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, LocalCaError> {
    std::fs::read(path)
        .map(Zeroizing::new)
        .map_err(|source| LocalCaError::Unreadable { path: path.to_owned(), source })
}

/// The DER of every certificate in the file; there is at least one.
fn certificates(path: &Path, text: &[u8]) -> Result<Vec<Vec<u8>>, LocalCaError> {
    let blocks =
        pem::blocks(text).map_err(|source| LocalCaError::NotPem { path: path.to_owned(), source })?;
    let found: Vec<_> =
        blocks.iter().filter(|block| block.label == "CERTIFICATE").map(|block| block.der.to_vec()).collect();
    if found.is_empty() { Err(LocalCaError::NoCertificate { path: path.to_owned() }) } else { Ok(found) }
}

fn parse<'a>(path: &Path, der: &'a [u8]) -> Result<X509Certificate<'a>, LocalCaError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(LocalCaError::NoCertificate { path: path.to_owned() }),
    }
}

/// It is a CA that may sign certificates, and now. Gives the end of its validity.
fn check(path: &Path, ca: &X509Certificate<'_>, now: Timestamp) -> Result<Timestamp, LocalCaError> {
    let may_sign = ca.key_usage().ok().flatten().is_none_or(|usage| usage.value.key_cert_sign());
    if !ca.is_ca() || !may_sign {
        return Err(LocalCaError::NotACa { path: path.to_owned() });
    }
    let (not_before, not_after) = (timestamp(ca.validity().not_before), timestamp(ca.validity().not_after));
    if now < not_before || now >= not_after {
        return Err(LocalCaError::NotValidNow { path: path.to_owned(), not_before, not_after });
    }
    Ok(not_after)
}

fn path_length(ca: &X509Certificate<'_>) -> Option<u32> {
    ca.basic_constraints().ok().flatten().and_then(|constraints| constraints.value.path_len_constraint)
}

fn key_id(ca: &X509Certificate<'_>) -> Option<Vec<u8>> {
    ca.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
        _ => None,
    })
}

/// Why the local CA cannot be used.
#[derive(Debug, Error)]
pub enum LocalCaError {
    /// A file cannot be read.
    #[error("local CA: {}: {source}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The certificate file is not PEM.
    #[error("local CA: {} is not PEM: it {source}", .path.display())]
    NotPem {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: PemError,
    },
    /// The certificate file holds no X.509 certificate.
    #[error("local CA: {} does not begin with an X.509 certificate (a CERTIFICATE block)", .path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// The certificates in the file are not one chain.
    #[error("local CA: {} is not a chain: each certificate must be followed by the one that issued it", .path.display())]
    NotAChain {
        /// The file.
        path: PathBuf,
    },
    /// The key file does not hold a key that we use.
    #[error("local CA: {}: {source}", .path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: KeyError,
    },
    /// Certificate and key are not a pair.
    #[error("local CA: {} is not the key of the certificate {}", .key.display(), .certificate.display())]
    Mismatch {
        /// The certificate file.
        certificate: PathBuf,
        /// The key file.
        key: PathBuf,
    },
    /// The certificate may not sign certificates.
    #[error(
        "local CA: the certificate {} is not a CA's; it needs basic constraints CA:TRUE and, where it has a key \
         usage, certificate signing in it",
        .path.display()
    )]
    NotACa {
        /// The certificate file.
        path: PathBuf,
    },
    /// The certificate has expired, or is not valid yet.
    #[error("local CA: the certificate {} is valid from {not_before} to {not_after}, not now", .path.display())]
    NotValidNow {
        /// The certificate file.
        path: PathBuf,
        /// Start of validity.
        not_before: Timestamp,
        /// End of validity.
        not_after: Timestamp,
    },
    /// The root of an ephemeral CA could not be made.
    #[error("local CA: {0}")]
    Root(#[from] KeyError),
}
