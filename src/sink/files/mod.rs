//! Files: a credential and its trust bundle as PEM and PKCS#12. Pure.

mod asn1;
mod legacy_cipher;
mod pkcs12;

use super::Access;
use crate::credential::Credential;
use crate::model::{CertificateSpec, Failure, FailureKind, KeystorePassword, Truststore};
use crate::store::NewFile;
use crate::trust::TrustBundle;
use crate::x509::{self, KeyError, PemError, PrivateKey, pem};
use aws_lc_rs::error::Unspecified;
use secrecy::{ExposeSecret, SecretString};
use std::sync::Arc;
use thiserror::Error;
use zeroize::Zeroizing;

/// The password of Java's own truststore, for one whose volume names none. It protects nothing: the anchors are in a file of the
/// same volume.
const DEFAULT_PASSWORD: &str = "changeit";

/// Encodes a credential and its trust bundle into the files that the spec names. Everybody in the pod can read the public
/// files (0444); [`Access`] says who may read those with the private key.
///
/// Without trust anchors (an ACME issuer has none) the CA file is empty, as with cert-manager's csi-driver: pods open the
/// path whatever the issuer is. A PKCS#12 file takes about a millisecond, because of its key derivation; the others take
/// microseconds.
pub(crate) fn encode(
    credential: &Credential,
    trust: &TrustBundle,
    spec: &CertificateSpec,
    group: Option<u32>,
    password: Option<&SecretString>,
) -> Result<Vec<NewFile>, FileError> {
    let password = password.map_or(DEFAULT_PASSWORD, ExposeSecret::expose_secret);
    let chain = Zeroizing::new(pem::certificates(credential.chain()));
    let key = credential.key.to_pem(spec.key.encoding)?;
    let anchors = Zeroizing::new(pem::certificates(trust.anchors.iter().map(Vec::as_slice)));

    let names = &spec.files;
    let access = Access::new(spec, group);
    let public = (0o444, (None, None));
    let secret = (access.key_mode(), access.owners());
    let file = |name: &String, contents, (mode, (owner, group))| NewFile {
        name: name.clone(),
        contents,
        mode,
        owner,
        group,
    };
    let mut files = Vec::with_capacity(5);
    if let Some(name) = &names.combined {
        let mut both = Zeroizing::new(Vec::with_capacity(key.len() + chain.len()));
        both.extend_from_slice(&key);
        both.extend_from_slice(&chain);
        files.push(file(name, both, secret));
    }
    if let Some(keystore) = &names.pkcs12 {
        let keystore_der = pkcs12::encode(credential, trust, keystore, password)?;
        files.push(file(&keystore.file, Zeroizing::new(keystore_der), secret));
    }
    if let Some(KeystorePassword::File(name)) = &names.password {
        files.push(file(name, Zeroizing::new(password.as_bytes().to_vec()), secret));
    }
    if let Some(Truststore { file: name, profile }) = &names.truststore {
        let truststore = pkcs12::encode_anchors(trust, *profile, password)?;
        files.push(file(name, Zeroizing::new(truststore), public));
    }
    files.push(file(&names.certificate, chain, public));
    files.push(file(&names.private_key, key, secret));
    files.push(file(&names.ca, anchors, public));
    Ok(files)
}

/// Reads back what [`encode`] has written: key, chain and trust anchors, PEM. They were verified before they were written.
pub(crate) fn decode(
    key: &[u8],
    chain: &[u8],
    anchors: &[u8],
) -> Result<(Credential, TrustBundle), FileError> {
    let key = PrivateKey::from_pem(key).map_err(FileError::StoredKey)?;
    let ders = |text| pem::blocks(text).map(|blocks| blocks.iter().map(|block| block.der.to_vec()).collect());
    let mut chain_ders: Vec<Vec<u8>> = ders(chain)?;
    let facts = Arc::new(x509::facts_of_pem(chain).ok_or(FileError::StoredLeaf)?);
    let intermediates = chain_ders.split_off(1);
    let leaf = chain_ders.remove(0);
    let anchors = if anchors.trim_ascii().is_empty() { Vec::new() } else { ders(anchors)? };
    Ok((Credential { key, leaf, intermediates, facts }, TrustBundle { anchors }))
}

/// Why files could not be encoded or read back. The files in the volume stay as they are.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum FileError {
    /// Encoding the private key file.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Encrypting the PKCS#12 file.
    #[error("encrypting the PKCS#12 keystore failed in the cryptographic library")]
    Encryption(#[from] Unspecified),
    /// Encoding the PKCS#12 file.
    #[error("encoding the PKCS#12 keystore failed: {0}")]
    Encoding(#[from] der::Error),
    /// The stored private key.
    #[error("the stored private key cannot be read: {0}")]
    StoredKey(KeyError),
    /// Stored chain or trust anchors.
    #[error("a stored certificate is not PEM: it {0}")]
    StoredPem(#[from] PemError),
    /// The stored leaf.
    #[error("the stored leaf is not an X.509 certificate")]
    StoredLeaf,
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        Self::new(FailureKind::Internal, error.to_string())
    }
}

#[cfg(test)]
mod tests;
