//! Checking signatures on certificates and requests.

use aws_lc_rs::signature::{self as aws, UnparsedPublicKey, VerificationAlgorithm};
use thiserror::Error;
use x509_parser::asn1_rs::{BitString, Oid};
use x509_parser::oid_registry as oid;
use x509_parser::public_key::PublicKey;
use x509_parser::signature_algorithm::RsaSsaPssParams;
use x509_parser::x509::{AlgorithmIdentifier, SubjectPublicKeyInfo};

/// Why a signature is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum SignatureError {
    /// SHA-1, DSA, other curves.
    #[error("it is signed with an algorithm that is not accepted ({0})")]
    Unsupported(String),
    /// An RSA key that is too small to be trusted, or larger than anybody needs.
    #[error("it is signed with an RSA key of {0} bits; accepted are 2048 to 8192")]
    KeySize(usize),
    /// The signature is not one by this key over this message.
    #[error("the signature does not verify")]
    Wrong,
}

/// Whether `signature` is one over `message` by the holder of `key`.
///
/// x509-parser's own check knows neither P-521 nor ECDSA with SHA-512.
pub(crate) fn verify(
    key: &SubjectPublicKeyInfo<'_>,
    algorithm: &AlgorithmIdentifier<'_>,
    signature: &BitString<'_>,
    message: &[u8],
) -> Result<(), SignatureError> {
    let accepted = accepted_algorithm(key, algorithm)
        .ok_or_else(|| SignatureError::Unsupported(algorithm.algorithm.to_id_string()))?;
    if signature.unused_bits != 0 {
        return Err(SignatureError::Wrong);
    }
    UnparsedPublicKey::new(accepted, &key.subject_public_key.data)
        .verify(message, &signature.data)
        .map_err(|_| odd_size(key).map_or(SignatureError::Wrong, SignatureError::KeySize))
}

/// The size of an RSA key that no algorithm here takes, in bits.
fn odd_size(key: &SubjectPublicKeyInfo<'_>) -> Option<usize> {
    match key.parsed() {
        Ok(PublicKey::RSA(key)) => Some(key.key_size()).filter(|bits| !(2048..=8192).contains(bits)),
        _ => None,
    }
}

fn accepted_algorithm(
    key: &SubjectPublicKeyInfo<'_>,
    algorithm: &AlgorithmIdentifier<'_>,
) -> Option<&'static dyn VerificationAlgorithm> {
    let signed_with = &algorithm.algorithm;
    let family = &key.algorithm.algorithm;
    if *family == oid::OID_PKCS1_RSAENCRYPTION && *signed_with == oid::OID_PKCS1_RSASSAPSS {
        let parameters = RsaSsaPssParams::try_from(algorithm.parameters.as_ref()?).ok()?;
        find(&PSS_BY_HASH, parameters.hash_algorithm_oid())
    } else if *family == oid::OID_PKCS1_RSAENCRYPTION {
        find(&RSA, signed_with)
    } else if *family == oid::OID_KEY_TYPE_EC_PUBLIC_KEY {
        let curve = key.algorithm.parameters.as_ref()?.as_oid().ok()?;
        let column = find(&ECDSA_HASHES, signed_with)?;
        find(&ECDSA_BY_CURVE, &curve).map(|on_curve| on_curve[column])
    } else if *family == oid::OID_SIG_ED25519 && *signed_with == oid::OID_SIG_ED25519 {
        Some(&aws::ED25519)
    } else {
        None
    }
}

/// What stands for an object identifier in a table.
fn find<T: Copy>(table: &[(Oid<'static>, T)], oid: &Oid<'_>) -> Option<T> {
    table.iter().find(|(of, _)| of == oid).map(|(_, value)| *value)
}

type Algorithm = &'static dyn VerificationAlgorithm;

static RSA: [(Oid<'static>, Algorithm); 3] = [
    (oid::OID_PKCS1_SHA256WITHRSA, &aws::RSA_PKCS1_2048_8192_SHA256),
    (oid::OID_PKCS1_SHA384WITHRSA, &aws::RSA_PKCS1_2048_8192_SHA384),
    (oid::OID_PKCS1_SHA512WITHRSA, &aws::RSA_PKCS1_2048_8192_SHA512),
];

static PSS_BY_HASH: [(Oid<'static>, Algorithm); 3] = [
    (oid::OID_NIST_HASH_SHA256, &aws::RSA_PSS_2048_8192_SHA256),
    (oid::OID_NIST_HASH_SHA384, &aws::RSA_PSS_2048_8192_SHA384),
    (oid::OID_NIST_HASH_SHA512, &aws::RSA_PSS_2048_8192_SHA512),
];

/// The columns of [`ECDSA_BY_CURVE`].
static ECDSA_HASHES: [(Oid<'static>, usize); 3] = [
    (oid::OID_SIG_ECDSA_WITH_SHA256, 0),
    (oid::OID_SIG_ECDSA_WITH_SHA384, 1),
    (oid::OID_SIG_ECDSA_WITH_SHA512, 2),
];

static ECDSA_BY_CURVE: [(Oid<'static>, [Algorithm; 3]); 3] = [
    (
        oid::OID_EC_P256,
        [&aws::ECDSA_P256_SHA256_ASN1, &aws::ECDSA_P256_SHA384_ASN1, &aws::ECDSA_P256_SHA512_ASN1],
    ),
    (
        oid::OID_NIST_EC_P384,
        [&aws::ECDSA_P384_SHA256_ASN1, &aws::ECDSA_P384_SHA384_ASN1, &aws::ECDSA_P384_SHA512_ASN1],
    ),
    (
        oid::OID_NIST_EC_P521,
        [&aws::ECDSA_P521_SHA256_ASN1, &aws::ECDSA_P521_SHA384_ASN1, &aws::ECDSA_P521_SHA512_ASN1],
    ),
];
