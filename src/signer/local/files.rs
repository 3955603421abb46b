//! A CA from its certificates and its key.

use super::LocalCa;
use crate::platform::Clock;
use crate::x509::{PrivateKey, pem, timestamp};
use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;
use thiserror::Error;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer;
use zeroize::Zeroizing;

/// Why the local CA cannot be used. It names the file.
#[derive(Debug, Error)]
#[error("local CA: {0}")]
pub struct LocalCaError(pub(super) String);

impl LocalCa {
    /// A CA from PEM files: its certificate, followed by what leads up to the root where it is not the root itself, and
    /// its unencrypted private key.
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

    /// A CA from its certificate, those that lead up to the root, and its key. An error says what is wrong with the
    /// certificates.
    pub(super) fn from_chain(
        chain: &[Vec<u8>],
        key: PrivateKey,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, String> {
        let no_certificate = || "does not begin with an X.509 certificate (a CERTIFICATE block)".to_owned();
        let parsed: Option<Vec<_>> = chain.iter().map(|der| parse(der)).collect();
        let parsed = parsed.ok_or_else(no_certificate)?;
        let (Some(ca), Some(top)) = (parsed.first(), parsed.last()) else { return Err(no_certificate()) };
        if ca.public_key().raw != key.spki_der() {
            return Err("is not the certificate of the CA's key".to_owned());
        }
        let may_sign = ca.key_usage().ok().flatten().is_none_or(|usage| usage.value.key_cert_sign());
        if !ca.is_ca() || !may_sign {
            return Err("is not a CA's; it needs basic constraints CA:TRUE and, where it has a key usage, certificate \
                        signing in it"
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
        // The last one is as far up as we know, and so the anchor. Peers need what is not self-signed besides.
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
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, LocalCaError> {
    let read = std::fs::read(path).map(Zeroizing::new);
    read.map_err(|error| LocalCaError(format!("{}: {error}", path.display())))
}

fn parse(der: &[u8]) -> Option<X509Certificate<'_>> {
    X509Certificate::from_der(der)
        .ok()
        .filter(|(rest, _)| rest.is_empty())
        .map(|(_, certificate)| certificate)
}

fn key_id(ca: &X509Certificate<'_>) -> Option<Vec<u8>> {
    ca.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
        _ => None,
    })
}
