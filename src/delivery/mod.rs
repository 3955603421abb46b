//! A bundle, encoded into the files a pod reads. Pure.

mod pkcs12;

use crate::attributes::{Files, KeyEncoding};
use crate::issue::Bundle;
use crate::x509::{KeyError, pem};
use thiserror::Error;
use zeroize::Zeroizing;

/// One file of a delivery.
#[derive(Clone)]
pub struct DeliveredFile {
    /// A plain file name.
    pub name: String,
    /// What it holds.
    pub contents: Zeroizing<Vec<u8>>,
    /// Whether it holds the private key, and so is readable by owner (and fsGroup) only.
    pub secret: bool,
}

/// Encodes a bundle into the files that the volume names.
///
/// Without trust anchors (ACME names none) the CA file is there and empty, as cert-manager's driver leaves it: pods
/// mount or open the path whatever the issuer. A PKCS#12 file takes about a millisecond of computing, on purpose; the
/// others take microseconds.
pub fn encode(
    bundle: &Bundle,
    files: &Files,
    encoding: KeyEncoding,
) -> Result<Vec<DeliveredFile>, DeliveryError> {
    let chain = pem::certificates(chain(bundle));
    let key = bundle.key.to_pem(encoding)?;
    let anchors = pem::certificates(bundle.trust_anchors.iter().map(Vec::as_slice));

    let mut delivered = Vec::with_capacity(5);
    let mut deliver = |name: &String, contents, secret| {
        delivered.push(DeliveredFile { name: name.clone(), contents, secret });
    };
    if let Some(name) = &files.combined {
        let mut both = Zeroizing::new(Vec::with_capacity(key.len() + chain.len()));
        both.extend_from_slice(&key);
        both.extend_from_slice(&chain);
        deliver(name, both, true);
    }
    if let Some(keystore) = &files.pkcs12 {
        deliver(&keystore.file, Zeroizing::new(pkcs12::encode(bundle, &keystore.password)?), true);
    }
    deliver(&files.certificate, Zeroizing::new(chain), false);
    deliver(&files.private_key, key, true);
    deliver(&files.ca, Zeroizing::new(anchors), false);
    Ok(delivered)
}

/// Leaf, then intermediates.
fn chain(bundle: &Bundle) -> impl Iterator<Item = &[u8]> {
    std::iter::once(&bundle.leaf).chain(&bundle.intermediates).map(Vec::as_slice)
}

/// Why a bundle could not be encoded.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DeliveryError {
    /// The private key file.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The PKCS#12 file.
    #[error("encrypting the PKCS#12 keystore failed in the cryptographic library")]
    Pkcs12,
}

#[cfg(test)]
mod tests;
