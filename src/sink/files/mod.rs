//! Files: a credential and its trust bundle as PEM and PKCS#12. Pure.

mod asn1;
mod pkcs12;

use crate::credential::Credential;
use crate::model::{CertificateSpec, Failure, FailureKind};
use crate::store::NewFile;
use crate::trust::TrustBundle;
use crate::x509::{self, KeyError, PemError, PrivateKey, VerifiedChain, pem};
use thiserror::Error;
use zeroize::Zeroizing;

/// Mode of files that everybody in the pod can read.
const PUBLIC: u32 = 0o444;

/// Encodes a credential and its trust bundle into the files that the spec names. Files with the private key are 0400, or
/// 0440 and `group`'s.
///
/// Without trust anchors (ACME names none) the CA file is there and empty, as cert-manager's driver writes it: pods mount
/// or open the path whatever the issuer. A PKCS#12 file takes about a millisecond of computing, on purpose; the others
/// take microseconds.
pub(crate) fn encode(
    credential: &Credential,
    trust: &TrustBundle,
    spec: &CertificateSpec,
    group: Option<u32>,
) -> Result<Vec<NewFile>, EncodeError> {
    let chain = pem::certificates(credential.chain());
    let key = credential.key.to_pem(spec.key.encoding)?;
    let anchors = pem::certificates(trust.anchors.iter().map(Vec::as_slice));

    let names = &spec.files;
    let public = |name: &String, contents| NewFile {
        name: name.clone(),
        contents: Zeroizing::new(contents),
        mode: PUBLIC,
        group: None,
    };
    let secret = |name: &String, contents| NewFile {
        name: name.clone(),
        contents,
        mode: if group.is_some() { 0o440 } else { 0o400 },
        group,
    };
    let mut files = Vec::with_capacity(5);
    if let Some(name) = &names.combined {
        let mut both = Zeroizing::new(Vec::with_capacity(key.len() + chain.len()));
        both.extend_from_slice(&key);
        both.extend_from_slice(&chain);
        files.push(secret(name, both));
    }
    if let Some(keystore) = &names.pkcs12 {
        let keystore_der = pkcs12::encode(credential, trust, &keystore.password)?;
        files.push(secret(&keystore.file, Zeroizing::new(keystore_der)));
    }
    files.push(public(&names.certificate, chain));
    files.push(secret(&names.private_key, key));
    files.push(public(&names.ca, anchors));
    Ok(files)
}

/// Reads back what [`encode`] has written: key, chain and trust anchors, PEM. They were verified before they were written.
pub(crate) fn decode(
    key: &[u8],
    chain: &[u8],
    anchors: &[u8],
) -> Result<(Credential, TrustBundle), DecodeError> {
    let key = PrivateKey::from_pem(key)?;
    let ders = |text| pem::blocks(text).map(|blocks| blocks.iter().map(|block| block.der.to_vec()).collect());
    let mut chain_ders: Vec<Vec<u8>> = ders(chain)?;
    let facts = x509::facts_of_pem(chain).ok_or(DecodeError::Certificate)?;
    let intermediates = chain_ders.split_off(1);
    let leaf = chain_ders.remove(0);
    let anchors = if anchors.trim_ascii().is_empty() { Vec::new() } else { ders(anchors)? };
    let chain = VerifiedChain { leaf, intermediates, trust_anchors: Vec::new(), facts, warning: None };
    Ok((Credential::new(key, chain), TrustBundle { anchors }))
}

/// Why a credential could not be encoded.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum EncodeError {
    /// The private key file.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The PKCS#12 file.
    #[error("encrypting the PKCS#12 keystore failed in the cryptographic library")]
    Pkcs12,
}

impl From<EncodeError> for Failure {
    fn from(error: EncodeError) -> Self {
        Self::new(FailureKind::Internal, error.to_string())
    }
}

/// Why files could not be read back. They stay as they are.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum DecodeError {
    /// The private key.
    #[error("the stored private key cannot be read: {0}")]
    Key(#[from] KeyError),
    /// Chain or trust anchors.
    #[error("a stored certificate is not PEM: it {0}")]
    Pem(#[from] PemError),
    /// The leaf.
    #[error("the stored leaf is not an X.509 certificate")]
    Certificate,
}

impl From<DecodeError> for Failure {
    fn from(error: DecodeError) -> Self {
        Self::new(FailureKind::Internal, error.to_string())
    }
}

#[cfg(test)]
mod tests;
