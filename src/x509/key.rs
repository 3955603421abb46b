//! Private keys.

use super::asn1;
use super::pem::{self, PemError};
use crate::attributes::{KeyAlgorithm, KeyEncoding};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1_SIGNING,
    EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use const_oid::ObjectIdentifier;
use der::Encode;
use pkcs8::PrivateKeyInfoRef;
use sec1::{EcParameters, EcPrivateKey};
use std::fmt;
use thiserror::Error;
use zeroize::Zeroizing;

const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const P521: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.35");
const SHA256_WITH_RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11");
const ECDSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
const ECDSA_WITH_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");
const ECDSA_WITH_SHA512: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.4");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

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
        let failed = |_| KeyError::Generation { algorithm };
        let rsa = |size| RsaKeyPair::generate(size).map(Pair::Rsa).map_err(failed);
        let ecdsa = |curve| EcdsaKeyPair::generate(curve).map(Pair::Ecdsa).map_err(failed);
        let pair = match algorithm {
            KeyAlgorithm::Rsa2048 => rsa(KeySize::Rsa2048)?,
            KeyAlgorithm::Rsa3072 => rsa(KeySize::Rsa3072)?,
            KeyAlgorithm::Rsa4096 => rsa(KeySize::Rsa4096)?,
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
            match block.label.as_str() {
                "PRIVATE KEY" => return Self::from_pkcs8_der(&block.der),
                "RSA PRIVATE KEY" => {
                    return Self::from_rsa(RsaKeyPair::from_der(&block.der).map_err(rejected)?);
                }
                "EC PRIVATE KEY" => return Self::from_ec_der(&block.der),
                "ENCRYPTED PRIVATE KEY" => return Err(KeyError::Encrypted),
                // `openssl ecparam -genkey` writes an EC PARAMETERS block first, and combined files hold certificates.
                _ => {}
            }
        }
        Err(KeyError::NoKey)
    }

    /// Reads a PKCS#8 key (RFC 5958), DER.
    pub fn from_pkcs8_der(der: &[u8]) -> Result<Self, KeyError> {
        const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
        const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
        let info = PrivateKeyInfoRef::try_from(der)
            .map_err(|error| KeyError::Rejected { reason: format!("not PKCS#8: {error}") })?;
        match info.algorithm.oid {
            RSA => Self::from_rsa(RsaKeyPair::from_pkcs8(der).map_err(rejected)?),
            EC => Self::from_ec_der(der),
            ED25519 => {
                let pair = Ed25519KeyPair::from_pkcs8(der).map_err(rejected)?;
                Self::from_pair(KeyAlgorithm::Ed25519, Pair::Ed25519(pair))
            }
            other => Err(KeyError::Unsupported { what: format!("algorithm {other}") }),
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

    /// The key as one PEM block. [`KeyEncoding::Pkcs1`] means the algorithm's own form, as for cert-manager:
    /// PKCS#1 for RSA, SEC 1 for ECDSA, and PKCS#8 for Ed25519, which has no other.
    pub fn to_pem(&self, encoding: KeyEncoding) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        match (encoding, &self.pair) {
            (KeyEncoding::Pkcs8, _) | (KeyEncoding::Pkcs1, Pair::Ed25519(_)) => {
                Ok(secret_pem("PRIVATE KEY", &self.pkcs8))
            }
            (KeyEncoding::Pkcs1, Pair::Rsa(_)) => Ok(secret_pem("RSA PRIVATE KEY", self.algorithms_own()?)),
            (KeyEncoding::Pkcs1, Pair::Ecdsa(_)) => {
                let mut key =
                    EcPrivateKey::try_from(self.algorithms_own()?).map_err(|_| KeyError::Encoding)?;
                // Inside PKCS#8 the curve stands outside; alone, the key has to name it.
                key.parameters = self.curve().map(EcParameters::NamedCurve);
                let der = Zeroizing::new(key.to_der().map_err(|_| KeyError::Encoding)?);
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
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
                    .map_err(|_| KeyError::Signing)?;
                Ok(signature)
            }
            Pair::Ecdsa(pair) => {
                pair.sign(&random, message).map(|it| it.as_ref().to_vec()).map_err(|_| KeyError::Signing)
            }
            Pair::Ed25519(pair) => {
                pair.try_sign(message).map(|it| it.as_ref().to_vec()).map_err(|_| KeyError::Signing)
            }
        }
    }

    /// The `AlgorithmIdentifier` of the signatures this key makes, DER. Every RSA key signs with SHA-256, as Go does.
    pub(crate) fn signature_algorithm(&self) -> Vec<u8> {
        match self.algorithm {
            KeyAlgorithm::Rsa2048 | KeyAlgorithm::Rsa3072 | KeyAlgorithm::Rsa4096 => {
                asn1::sequence(&[&asn1::oid(&SHA256_WITH_RSA), &asn1::null()])
            }
            KeyAlgorithm::EcdsaP256 => asn1::sequence(&[&asn1::oid(&ECDSA_WITH_SHA256)]),
            KeyAlgorithm::EcdsaP384 => asn1::sequence(&[&asn1::oid(&ECDSA_WITH_SHA384)]),
            KeyAlgorithm::EcdsaP521 => asn1::sequence(&[&asn1::oid(&ECDSA_WITH_SHA512)]),
            KeyAlgorithm::Ed25519 => asn1::sequence(&[&asn1::oid(&ED25519)]),
        }
    }

    fn from_rsa(pair: RsaKeyPair) -> Result<Self, KeyError> {
        let algorithm = match pair.public_modulus_len() {
            256 => KeyAlgorithm::Rsa2048,
            384 => KeyAlgorithm::Rsa3072,
            512 => KeyAlgorithm::Rsa4096,
            other => {
                return Err(KeyError::Unsupported { what: format!("an RSA modulus of {} bits", other * 8) });
            }
        };
        Self::from_pair(algorithm, Pair::Rsa(pair))
    }

    /// SEC 1 or PKCS#8.
    fn from_ec_der(der: &[u8]) -> Result<Self, KeyError> {
        let curves = [
            (KeyAlgorithm::EcdsaP256, &ECDSA_P256_SHA256_ASN1_SIGNING),
            (KeyAlgorithm::EcdsaP384, &ECDSA_P384_SHA384_ASN1_SIGNING),
            (KeyAlgorithm::EcdsaP521, &ECDSA_P521_SHA512_ASN1_SIGNING),
        ];
        for (algorithm, curve) in curves {
            if let Ok(pair) = EcdsaKeyPair::from_private_key_der(curve, der) {
                return Self::from_pair(algorithm, Pair::Ecdsa(pair));
            }
        }
        Err(KeyError::Unsupported { what: "this elliptic curve key".to_owned() })
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
        let pkcs8 = Zeroizing::new(pkcs8.map_err(|_| KeyError::Encoding)?);
        let spki = spki.map_err(|_| KeyError::Encoding)?.as_ref().to_vec();
        Ok(Self { algorithm, pair, pkcs8, spki })
    }

    /// The algorithm's own structure inside PKCS#8: `RSAPrivateKey` or `ECPrivateKey`.
    fn algorithms_own(&self) -> Result<&[u8], KeyError> {
        let info = PrivateKeyInfoRef::try_from(self.pkcs8.as_slice()).map_err(|_| KeyError::Encoding)?;
        Ok(info.private_key.as_bytes())
    }

    fn curve(&self) -> Option<ObjectIdentifier> {
        match self.algorithm {
            KeyAlgorithm::EcdsaP256 => Some(P256),
            KeyAlgorithm::EcdsaP384 => Some(P384),
            KeyAlgorithm::EcdsaP521 => Some(P521),
            _ => None,
        }
    }
}

fn secret_pem(label: &str, der: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(Vec::with_capacity(pem::encoded_len(label, der)));
    pem::encode_into(&mut out, label, der);
    out
}

fn rejected(error: aws_lc_rs::error::KeyRejected) -> KeyError {
    KeyError::Rejected { reason: error.to_string() }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({:?}, redacted)", self.algorithm)
    }
}

/// What can be wrong with a private key. No message holds a byte of one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum KeyError {
    /// The cryptographic library failed.
    #[error("making a {algorithm:?} key failed in the cryptographic library")]
    Generation {
        /// What was to be made.
        algorithm: KeyAlgorithm,
    },
    /// The file is not PEM.
    #[error("the private key is not PEM: it {0}")]
    Pem(#[from] PemError),
    /// The file is PEM and holds something else.
    #[error(
        "the file holds no private key; accepted are the PEM blocks PRIVATE KEY, RSA PRIVATE KEY and EC PRIVATE KEY"
    )]
    NoKey,
    /// The key needs a password.
    #[error("the private key is encrypted; only unencrypted keys are accepted")]
    Encrypted,
    /// An algorithm, a size or a curve that certlet does not use.
    #[error(
        "{what} is not supported; accepted are RSA 2048, 3072 and 4096, ECDSA P-256, P-384 and P-521, and Ed25519"
    )]
    Unsupported {
        /// What it is.
        what: String,
    },
    /// The key contradicts itself, does not parse, or is too weak.
    #[error("the private key was rejected: {reason}")]
    Rejected {
        /// What the cryptographic library says.
        reason: String,
    },
    /// The key could not be written in the encoding asked for.
    #[error("encoding the private key failed")]
    Encoding,
    /// The key could not sign.
    #[error("signing failed in the cryptographic library")]
    Signing,
}

#[cfg(test)]
mod tests;
