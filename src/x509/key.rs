//! Private keys.

mod rsa;

use super::pem::{self, PemError};
use crate::model::{KeyAlgorithm, KeyEncoding};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1_SIGNING,
    EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use const_oid::ObjectIdentifier;
use const_oid::db::rfc5912::{
    ECDSA_WITH_SHA_256, ECDSA_WITH_SHA_384, ECDSA_WITH_SHA_512, ID_EC_PUBLIC_KEY, RSA_ENCRYPTION,
    SECP_256_R_1, SECP_384_R_1, SECP_521_R_1, SHA_256_WITH_RSA_ENCRYPTION,
};
use const_oid::db::rfc8410::ID_ED_25519;
use der::asn1::Any;
use der::{Decode, Encode};
use pkcs8::PrivateKeyInfoRef;
use sec1::{EcParameters, EcPrivateKey};
use std::fmt;
use thiserror::Error;
use x509_cert::spki::AlgorithmIdentifierOwned;
use zeroize::Zeroizing;

/// The supported elliptic curves: how to sign with each, its identifier, and the identifier of its signatures.
static CURVES: [(KeyAlgorithm, &EcdsaSigningAlgorithm, ObjectIdentifier, ObjectIdentifier); 3] = [
    (KeyAlgorithm::EcdsaP256, &ECDSA_P256_SHA256_ASN1_SIGNING, SECP_256_R_1, ECDSA_WITH_SHA_256),
    (KeyAlgorithm::EcdsaP384, &ECDSA_P384_SHA384_ASN1_SIGNING, SECP_384_R_1, ECDSA_WITH_SHA_384),
    (KeyAlgorithm::EcdsaP521, &ECDSA_P521_SHA512_ASN1_SIGNING, SECP_521_R_1, ECDSA_WITH_SHA_512),
];

/// A private key, zeroized on drop.
pub struct PrivateKey {
    algorithm: KeyAlgorithm,
    pair: Pair,
    pkcs8: Zeroizing<Vec<u8>>,
    spki: Vec<u8>,
}

/// The parsed key. AWS-LC cleanses its memory when it frees it.
enum Pair {
    Rsa(RsaKeyPair),
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl PrivateKey {
    /// Makes a key. Blocks: tens of microseconds for P-256, P-384 and Ed25519, up to seconds for RSA.
    pub fn generate(algorithm: KeyAlgorithm) -> Result<Self, KeyError> {
        let failed = |_| KeyError::Library(format!("making a {algorithm:?} key"));
        let rsa_of = |size| RsaKeyPair::generate(size).map(Pair::Rsa).map_err(failed);
        let ecdsa = |curve| EcdsaKeyPair::generate(curve).map(Pair::Ecdsa).map_err(failed);
        let pair = match algorithm {
            KeyAlgorithm::Rsa(2048) => rsa_of(KeySize::Rsa2048)?,
            KeyAlgorithm::Rsa(3072) => rsa_of(KeySize::Rsa3072)?,
            KeyAlgorithm::Rsa(4096) => rsa_of(KeySize::Rsa4096)?,
            KeyAlgorithm::Rsa(8192) => rsa_of(KeySize::Rsa8192)?,
            KeyAlgorithm::Rsa(bits) => {
                let der = rsa::generate(bits).map_err(failed)?;
                return Self::from_rsa(RsaKeyPair::from_der(&der).map_err(rejected)?);
            }
            KeyAlgorithm::EcdsaP256 => ecdsa(&ECDSA_P256_SHA256_ASN1_SIGNING)?,
            KeyAlgorithm::EcdsaP384 => ecdsa(&ECDSA_P384_SHA384_ASN1_SIGNING)?,
            KeyAlgorithm::EcdsaP521 => ecdsa(&ECDSA_P521_SHA512_ASN1_SIGNING)?,
            KeyAlgorithm::Ed25519 => Ed25519KeyPair::generate().map(Pair::Ed25519).map_err(failed)?,
        };
        Self::from_pair(algorithm, pair)
    }

    /// Reads the first private key of a PEM file: PKCS#1, SEC 1 or PKCS#8, unencrypted.
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        for block in pem::blocks(pem)? {
            let der = &block.der;
            return match block.label.as_str() {
                "PRIVATE KEY" => Self::from_pkcs8_der(der),
                "RSA PRIVATE KEY" => Self::from_rsa(RsaKeyPair::from_der(der).map_err(rejected)?),
                "EC PRIVATE KEY" => Self::from_ec_der(der),
                "ENCRYPTED PRIVATE KEY" => Err(KeyError::Encrypted),
                // `openssl ecparam -genkey` writes an EC PARAMETERS block first, and combined files hold certificates.
                _ => continue,
            };
        }
        Err(KeyError::NoKey)
    }

    /// Reads a PKCS#8 key (RFC 5958), DER.
    pub fn from_pkcs8_der(der: &[u8]) -> Result<Self, KeyError> {
        let info = PrivateKeyInfoRef::try_from(der)
            .map_err(|error| KeyError::Rejected(format!("not PKCS#8: {error}")))?;
        match info.algorithm.oid {
            RSA_ENCRYPTION => Self::from_rsa(RsaKeyPair::from_pkcs8(der).map_err(rejected)?),
            ID_EC_PUBLIC_KEY => Self::from_ec_der(der),
            ID_ED_25519 => {
                let pair = Ed25519KeyPair::from_pkcs8(der).map_err(rejected)?;
                Self::from_pair(KeyAlgorithm::Ed25519, Pair::Ed25519(pair))
            }
            other => Err(KeyError::Unsupported(format!("algorithm {other}"))),
        }
    }

    /// The algorithm.
    pub fn algorithm(&self) -> KeyAlgorithm {
        self.algorithm
    }

    /// The public half: `SubjectPublicKeyInfo` (RFC 5280 section 4.1.2.7), DER.
    pub fn spki_der(&self) -> &[u8] {
        &self.spki
    }

    /// The key in PKCS#8 (RFC 5958), DER.
    pub fn to_pkcs8_der(&self) -> &[u8] {
        &self.pkcs8
    }

    /// The key as one PEM block. [`KeyEncoding::Pkcs1`] means the algorithm's own form, as in cert-manager: PKCS#1 for RSA,
    /// SEC 1 for ECDSA. Ed25519 has no form of its own, so it is PKCS#8.
    pub fn to_pem(&self, encoding: KeyEncoding) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        match (encoding, &self.pair) {
            (KeyEncoding::Pkcs8, _) | (KeyEncoding::Pkcs1, Pair::Ed25519(_)) => {
                Ok(secret_pem("PRIVATE KEY", &self.pkcs8))
            }
            (KeyEncoding::Pkcs1, Pair::Rsa(_)) => Ok(secret_pem("RSA PRIVATE KEY", self.inner_der()?)),
            (KeyEncoding::Pkcs1, Pair::Ecdsa(_)) => {
                let mut key = EcPrivateKey::from_der(self.inner_der()?)?;
                // PKCS#8 names the curve beside the key. A SEC 1 key must name its curve itself.
                key.parameters = self.curve().map(|(curve, _)| EcParameters::NamedCurve(curve));
                let der = Zeroizing::new(key.to_der()?);
                Ok(secret_pem("EC PRIVATE KEY", &der))
            }
        }
    }

    /// Signs `message` with [`Self::signature_algorithm`].
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).map(|()| signature)
            }
            Pair::Ecdsa(pair) => pair.sign(&random, message).map(|signature| signature.as_ref().to_vec()),
            Pair::Ed25519(pair) => pair.try_sign(message).map(|signature| signature.as_ref().to_vec()),
        }
        .map_err(|_| KeyError::Library("signing".to_owned()))
    }

    /// The `AlgorithmIdentifier` of the signatures this key makes. Every RSA key signs with SHA-256, as Go does.
    pub(crate) fn signature_algorithm(&self) -> AlgorithmIdentifierOwned {
        let (oid, parameters) = match self.pair {
            Pair::Rsa(_) => (SHA_256_WITH_RSA_ENCRYPTION, Some(Any::null())),
            _ => (self.curve().map_or(ID_ED_25519, |(_, signature)| signature), None),
        };
        AlgorithmIdentifierOwned { oid, parameters }
    }

    /// The identifiers of its curve and of its signatures; `None` if it is not an ECDSA key.
    fn curve(&self) -> Option<(ObjectIdentifier, ObjectIdentifier)> {
        CURVES.iter().find(|curve| curve.0 == self.algorithm).map(|curve| (curve.2, curve.3))
    }

    fn from_rsa(pair: RsaKeyPair) -> Result<Self, KeyError> {
        let modulus = pair.public_key().modulus();
        let modulus = modulus.big_endian_without_leading_zero();
        let unused = modulus.first().map_or(0, |first| first.leading_zeros());
        let bits = (8 * modulus.len()).saturating_sub(unused as usize);
        match u16::try_from(bits) {
            Ok(bits) if KeyAlgorithm::RSA_BITS.contains(&bits) => {
                Self::from_pair(KeyAlgorithm::Rsa(bits), Pair::Rsa(pair))
            }
            _ => Err(KeyError::Unsupported(format!("an RSA modulus of {bits} bits"))),
        }
    }

    /// SEC 1 or PKCS#8.
    fn from_ec_der(der: &[u8]) -> Result<Self, KeyError> {
        for (algorithm, curve, ..) in &CURVES {
            if let Ok(pair) = EcdsaKeyPair::from_private_key_der(curve, der) {
                return Self::from_pair(*algorithm, Pair::Ecdsa(pair));
            }
        }
        Err(KeyError::Unsupported("this elliptic curve key".to_owned()))
    }

    fn from_pair(algorithm: KeyAlgorithm, pair: Pair) -> Result<Self, KeyError> {
        let pkcs8 = match &pair {
            Pair::Rsa(pair) => AsDer::<Pkcs8V1Der<'static>>::as_der(pair).map(|der| der.as_ref().to_vec()),
            Pair::Ecdsa(pair) => pair.to_pkcs8v1().map(|der| der.as_ref().to_vec()),
            // Version 1, without the public key: OpenSSL before 3.2 and older JDKs do not read version 2.
            Pair::Ed25519(pair) => pair.to_pkcs8v1().map(|der| der.as_ref().to_vec()),
        };
        let spki = match &pair {
            Pair::Rsa(pair) => AsDer::<PublicKeyX509Der<'static>>::as_der(pair.public_key()),
            Pair::Ecdsa(pair) => AsDer::<PublicKeyX509Der<'static>>::as_der(pair.public_key()),
            Pair::Ed25519(pair) => AsDer::<PublicKeyX509Der<'static>>::as_der(pair.public_key()),
        };
        let failed = |_| KeyError::Library("encoding the private key".to_owned());
        let pkcs8 = Zeroizing::new(pkcs8.map_err(failed)?);
        let spki = spki.map_err(failed)?.as_ref().to_vec();
        Ok(Self { algorithm, pair, pkcs8, spki })
    }

    /// The algorithm's own structure inside PKCS#8: `RSAPrivateKey` or `ECPrivateKey`.
    fn inner_der(&self) -> Result<&[u8], KeyError> {
        let info = PrivateKeyInfoRef::try_from(self.pkcs8.as_slice())
            .map_err(|_| KeyError::Library("encoding the private key".to_owned()))?;
        Ok(info.private_key.as_bytes())
    }
}

fn secret_pem(label: &str, der: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(Vec::with_capacity(pem::encoded_len(label, der)));
    pem::encode_into(&mut out, label, der);
    out
}

fn rejected(error: aws_lc_rs::error::KeyRejected) -> KeyError {
    KeyError::Rejected(error.to_string())
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({:?}, redacted)", self.algorithm)
    }
}

/// What can be wrong with a private key. No message shows any part of a key.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum KeyError {
    /// The cryptographic library failed: the operation.
    #[error("{0} failed in the cryptographic library")]
    Library(String),
    /// The file is not PEM.
    #[error("the private key is not PEM: it {0}")]
    Pem(#[from] PemError),
    /// The file is PEM but holds no private key.
    #[error(
        "the file holds no private key; accepted are the PEM blocks PRIVATE KEY, RSA PRIVATE KEY and EC PRIVATE KEY"
    )]
    NoKey,
    /// The key needs a password.
    #[error("the private key is encrypted; only unencrypted keys are accepted")]
    Encrypted,
    /// An algorithm, a size or a curve that certlet does not use.
    #[error("{0} is not supported; accepted are {accepted}", accepted = KeyAlgorithm::READ)]
    Unsupported(String),
    /// The key contradicts itself, does not parse, or is too weak.
    #[error("the private key was rejected: {0}")]
    Rejected(String),
    /// The key, or what it is to sign, cannot be encoded.
    #[error("encoding failed: {0}")]
    Encoding(#[from] der::Error),
}

#[cfg(test)]
mod tests;
