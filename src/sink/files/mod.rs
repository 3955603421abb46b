//! Files: a credential and its trust bundle as PEM and PKCS#12. Pure.

mod asn1;
mod federated;
mod layout;
mod legacy_cipher;
mod pkcs12;

pub(crate) use layout::read;

use super::Access;
use crate::credential::Credential;
use crate::model::{
    CertificateSpec, Failure, FailureKind, KeyEncoding, KeystorePassword, Truststore, fingerprint,
};
use crate::store::NewFile;
use crate::trust::TrustBundle;
use crate::x509::{Crl, KeyError, PemError, crls_to_pem, pem};
use aws_lc_rs::error::Unspecified;
use secrecy::{ExposeSecret, SecretString};
use std::sync::Arc;
use thiserror::Error;
use zeroize::Zeroizing;

/// The password of Java's own truststore, for one whose volume names none. It protects nothing: the anchors are in a file of the
/// same volume.
const DEFAULT_PASSWORD: &str = "changeit";

/// Encodes a credential and its trust bundle into the files that the spec names, but for the file of CRLs, which volumes share. Everybody in the pod can read the public
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
    let names = &spec.files;
    let pems = Pems::of(credential, trust, spec.key.encoding)?;
    let access = Access::new(spec, group);
    let file = |name: &str, Contents { bytes, is_secret }| {
        let (mode, (owner, group)) =
            if is_secret { (access.key_mode(), access.owners()) } else { (0o444, (None, None)) };
        NewFile { name: name.to_owned(), contents: bytes, mode, owner, group, shared: None }
    };
    let mut files = Vec::with_capacity(5);
    if let Some(name) = &names.combined {
        files.push(file(name, Contents::secret(pems.combined())));
    }
    if let Some(keystore) = &names.pkcs12 {
        let keystore_der = pkcs12::encode(credential, trust, keystore, password)?;
        files.push(file(&keystore.file, Contents::secret(Zeroizing::new(keystore_der))));
    }
    if let Some(KeystorePassword::File(name)) = &names.password {
        files.push(file(name, Contents::secret(Zeroizing::new(password.as_bytes().to_vec()))));
    }
    if let Some(Truststore { file: name, profile }) = &names.truststore {
        let truststore = pkcs12::encode_anchors(trust, *profile, password)?;
        files.push(file(name, Contents::public(truststore)));
    }
    let of_layout = layout::encode(&names.layout, credential, pems, &trust.crls)?;
    files.extend(of_layout.into_iter().map(|(name, contents)| file(&name, contents)));
    if spec.federated.is_some() {
        let federated = federated::encode(&names.layout, credential, trust);
        files.extend(federated.into_iter().map(|(name, contents)| file(&name, contents)));
    }
    Ok(files)
}

/// CRLs, PEM.
pub(crate) fn crls_pem(crls: &[Arc<Crl>]) -> Vec<u8> {
    crls_to_pem(crls.iter().map(Arc::as_ref))
}

/// A name that depends on the CRLs only.
pub(crate) fn name_of_crls(crls: &[Arc<Crl>]) -> String {
    let digests: Vec<&[u8]> = crls.iter().map(|crl| crl.digest().as_slice()).collect();
    fingerprint(&digests)
}

/// What is in a file, and whether a key or a password is.
struct Contents {
    bytes: Zeroizing<Vec<u8>>,
    is_secret: bool,
}

impl Contents {
    fn secret(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self { bytes, is_secret: true }
    }

    fn public(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: Zeroizing::new(bytes.into()), is_secret: false }
    }
}

/// Key, chain and trust anchors, PEM.
struct Pems {
    key: Zeroizing<Vec<u8>>,
    chain: Vec<u8>,
    /// Empty without anchors.
    anchors: Vec<u8>,
}

impl Pems {
    fn of(credential: &Credential, trust: &TrustBundle, encoding: KeyEncoding) -> Result<Self, KeyError> {
        Ok(Self {
            key: credential.key.to_pem(encoding)?,
            chain: pem::certificates(credential.chain()),
            anchors: pem::certificates(trust.anchors.iter().map(Vec::as_slice)),
        })
    }

    /// The key, then the chain.
    fn combined(&self) -> Zeroizing<Vec<u8>> {
        let mut both = Zeroizing::new(Vec::with_capacity(self.key.len() + self.chain.len()));
        both.extend_from_slice(&self.key);
        both.extend_from_slice(&self.chain);
        both
    }
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
    /// A leaf without a SPIFFE ID, in the layout `spiffe`.
    #[error("the certificate has no SPIFFE ID, which names the trust bundle's file in the layout spiffe")]
    NoTrustDomain,
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        Self::new(FailureKind::Internal, error.to_string())
    }
}

#[cfg(test)]
mod tests;
