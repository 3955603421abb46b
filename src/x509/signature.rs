//! Checking signatures on certificates and requests.

use crate::model::{KeyAlgorithm, clipped};
use aws_lc_rs::signature::{self as aws, UnparsedPublicKey, VerificationAlgorithm};
use const_oid::ObjectIdentifier;
use const_oid::db::rfc5912::{
    ECDSA_WITH_SHA_256, ECDSA_WITH_SHA_384, ECDSA_WITH_SHA_512, ID_EC_PUBLIC_KEY, ID_RSASSA_PSS, ID_SHA_256,
    ID_SHA_384, ID_SHA_512, RSA_ENCRYPTION, SECP_256_R_1, SECP_384_R_1, SECP_521_R_1,
    SHA_256_WITH_RSA_ENCRYPTION, SHA_384_WITH_RSA_ENCRYPTION, SHA_512_WITH_RSA_ENCRYPTION,
};
use const_oid::db::rfc8410::ID_ED_25519;
use thiserror::Error;
use x509_parser::asn1_rs::{BitString, Oid};
use x509_parser::public_key::PublicKey;
use x509_parser::signature_algorithm::RsaSsaPssParams;
use x509_parser::x509::{AlgorithmIdentifier, SubjectPublicKeyInfo};

/// Bytes of an object identifier that are kept: all known ones are shorter.
const MAX_OID_BYTES: usize = 80;

/// Why a signature is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum SignatureError {
    /// The algorithm is SHA-1, DSA, another curve or unknown.
    #[error("it is signed with an algorithm that is not accepted ({0})")]
    Unsupported(String),
    /// An RSA key that is too small or too large: its size in bits.
    #[error(
        "it is signed with an RSA key of {0} bits; accepted are {least} to {most}",
        least = KeyAlgorithm::RSA_BITS.start(),
        most = KeyAlgorithm::RSA_BITS.end()
    )]
    KeySize(usize),
    /// The signature is not by this key over this message.
    #[error("the signature does not verify")]
    Wrong,
}

/// Checks that `signature` over `message` is by the holder of `key`.
///
/// x509-parser's own check knows neither P-521 nor ECDSA with SHA-512.
pub(crate) fn verify(
    key: &SubjectPublicKeyInfo<'_>,
    algorithm: &AlgorithmIdentifier<'_>,
    signature: &BitString<'_>,
    message: &[u8],
) -> Result<(), SignatureError> {
    let accepted = accepted_algorithm(key, algorithm).ok_or_else(|| {
        SignatureError::Unsupported(clipped(&algorithm.algorithm.to_id_string(), MAX_OID_BYTES))
    })?;
    if signature.unused_bits != 0 {
        return Err(SignatureError::Wrong);
    }
    UnparsedPublicKey::new(accepted, &key.subject_public_key.data)
        .verify(message, &signature.data)
        .map_err(|_| unaccepted_size(key).map_or(SignatureError::Wrong, SignatureError::KeySize))
}

/// The size of an RSA key in bits, if no algorithm below accepts it.
fn unaccepted_size(key: &SubjectPublicKeyInfo<'_>) -> Option<usize> {
    match key.parsed() {
        Ok(PublicKey::RSA(key)) => Some(key.key_size()).filter(|bits| !is_accepted_size(*bits)),
        _ => None,
    }
}

fn is_accepted_size(bits: usize) -> bool {
    u16::try_from(bits).is_ok_and(|bits| KeyAlgorithm::RSA_BITS.contains(&bits))
}

fn accepted_algorithm(
    key: &SubjectPublicKeyInfo<'_>,
    algorithm: &AlgorithmIdentifier<'_>,
) -> Option<&'static dyn VerificationAlgorithm> {
    let id = |oid: &Oid<'_>| ObjectIdentifier::from_bytes(oid.as_bytes()).ok();
    Some(match (id(&key.algorithm.algorithm)?, id(&algorithm.algorithm)?) {
        (RSA_ENCRYPTION, SHA_256_WITH_RSA_ENCRYPTION) => &aws::RSA_PKCS1_2048_8192_SHA256,
        (RSA_ENCRYPTION, SHA_384_WITH_RSA_ENCRYPTION) => &aws::RSA_PKCS1_2048_8192_SHA384,
        (RSA_ENCRYPTION, SHA_512_WITH_RSA_ENCRYPTION) => &aws::RSA_PKCS1_2048_8192_SHA512,
        (RSA_ENCRYPTION, ID_RSASSA_PSS) => {
            let parameters = RsaSsaPssParams::try_from(algorithm.parameters.as_ref()?).ok()?;
            match id(parameters.hash_algorithm_oid())? {
                ID_SHA_256 => &aws::RSA_PSS_2048_8192_SHA256,
                ID_SHA_384 => &aws::RSA_PSS_2048_8192_SHA384,
                ID_SHA_512 => &aws::RSA_PSS_2048_8192_SHA512,
                _ => return None,
            }
        }
        (ID_EC_PUBLIC_KEY, signed_with) => {
            let curve = key.algorithm.parameters.as_ref()?.as_oid().ok()?;
            match (id(&curve)?, signed_with) {
                (SECP_256_R_1, ECDSA_WITH_SHA_256) => &aws::ECDSA_P256_SHA256_ASN1,
                (SECP_256_R_1, ECDSA_WITH_SHA_384) => &aws::ECDSA_P256_SHA384_ASN1,
                (SECP_256_R_1, ECDSA_WITH_SHA_512) => &aws::ECDSA_P256_SHA512_ASN1,
                (SECP_384_R_1, ECDSA_WITH_SHA_256) => &aws::ECDSA_P384_SHA256_ASN1,
                (SECP_384_R_1, ECDSA_WITH_SHA_384) => &aws::ECDSA_P384_SHA384_ASN1,
                (SECP_384_R_1, ECDSA_WITH_SHA_512) => &aws::ECDSA_P384_SHA512_ASN1,
                (SECP_521_R_1, ECDSA_WITH_SHA_256) => &aws::ECDSA_P521_SHA256_ASN1,
                (SECP_521_R_1, ECDSA_WITH_SHA_384) => &aws::ECDSA_P521_SHA384_ASN1,
                (SECP_521_R_1, ECDSA_WITH_SHA_512) => &aws::ECDSA_P521_SHA512_ASN1,
                _ => return None,
            }
        }
        (ID_ED_25519, ID_ED_25519) => &aws::ED25519,
        _ => return None,
    })
}
