//! The PKCS#12 keystore (RFC 7292), in two profiles. The modern one is what OpenSSL 3 and Java 17 write and read: PBES2 with
//! AES-256-CBC and HMAC-SHA-256, and a SHA-256 MAC. The legacy one is what cert-manager's csi-driver writes, and what Java 8 before
//! 8u301 reads: 40 bits of RC2 for the certificates, triple DES for the key, and a SHA-1 MAC.
//!
//! It is written here and not by a library, so that no copy of the key stays in memory: the only plaintext is one buffer,
//! which is encrypted in place.

use super::FileError;
use super::asn1::{CONTEXT_0, CONTEXT_0_PRIMITIVE, octet_string, sequence, set_of, tlv};
use super::legacy_cipher::{self, LegacyCipher};
use crate::credential::Credential;
use crate::model::{Pkcs12, Pkcs12Profile};
use crate::trust::TrustBundle;
use crate::x509::certificate::key_id;
use aws_lc_rs::cipher::{
    AES_256, AES_256_KEY_LEN, EncryptionContext, PaddedBlockEncryptingKey, UnboundCipherKey,
};
use aws_lc_rs::digest::{self, Algorithm, SHA1_FOR_LEGACY_USE_ONLY as SHA1, SHA256};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hmac::{self, HMAC_SHA1_FOR_LEGACY_USE_ONLY as HMAC_SHA1};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::{pbkdf2, rand};
use const_oid::ObjectIdentifier;
use const_oid::db::rfc2985::{PKCS_9_AT_FRIENDLY_NAME, PKCS_9_AT_LOCAL_KEY_ID};
use const_oid::db::rfc5280::ANY_EXTENDED_KEY_USAGE;
use const_oid::db::rfc5911::{ID_AES_256_CBC, ID_DATA, ID_ENCRYPTED_DATA, ID_PBKDF_2};
use const_oid::db::rfc5912::{ID_SHA_1, ID_SHA_256};
use const_oid::db::rfc6268::ID_HMAC_WITH_SHA_256;
use der::asn1::Null;
use der::{Encode, Tag};
use std::num::NonZeroU32;
use zeroize::Zeroizing;

const SHROUDED_KEY_BAG: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.12.10.1.2");
const CERTIFICATE_BAG: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.12.10.1.3");
const X509_CERTIFICATE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.22.1");
/// Oracle's `trustedKeyUsage`: Java trusts only a certificate that has this attribute.
const TRUSTED_KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.113894.746875.1.1");
/// `pbeWithSHAAnd3-KeyTripleDES-CBC` (RFC 7292 appendix C).
const TRIPLE_DES: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.12.1.3");
/// `pbewithSHAAnd40BitRC2-CBC` (RFC 7292 appendix C).
const RC2_40: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.12.1.6");
const PBES2: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.5.13");

/// OpenSSL's default. More rounds would protect nothing and slow down every issuance: the key is also in an
/// unencrypted file of the same volume.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(2048).unwrap();

/// The alias of the first trust anchor; the others are numbered from `ca-2`.
const ANCHOR_ALIAS: &str = "ca";

/// Key, chain and, if the keystore is to hold them, trust anchors.
pub(super) fn encode(
    credential: &Credential,
    trust: &TrustBundle,
    keystore: &Pkcs12,
    password: &str,
) -> Result<Vec<u8>, FileError> {
    let profile = keystore.profile;
    // It ties the leaf to the key. Readers compare it within the keystore only.
    let key_id = key_id(credential.key.spki_der());
    let mut key_attributes = vec![attribute(PKCS_9_AT_LOCAL_KEY_ID, octet_string(&key_id)?)?];
    if let Some(alias) = &keystore.alias {
        key_attributes.push(friendly_name(alias)?);
    }
    let mut certificates = Vec::new();
    for (index, der) in credential.chain().enumerate() {
        // The other certificates are found by their names.
        certificates.push(certificate_bag(der, if index == 0 { &key_attributes } else { &[] })?);
    }
    if keystore.has_anchors {
        certificates.extend(anchors(trust)?);
    }

    // Spare capacity for the padding: growing would leave a copy of the key behind.
    let mut key =
        Zeroizing::new(Vec::with_capacity(credential.key.to_pkcs8_der().len() + AES_256.block_len()));
    key.extend_from_slice(credential.key.to_pkcs8_der());
    let scheme = encrypt(profile, LegacyCipher::TripleDes, password, &mut key)?;
    let key = sequence(&[scheme, octet_string(&key)?])?;
    let keys = sequence(&[bag(SHROUDED_KEY_BAG, &key, &key_attributes)?])?;
    store(profile, password, &certificates, Some(&keys))
}

/// Trust anchors alone.
pub(super) fn encode_anchors(
    trust: &TrustBundle,
    profile: Pkcs12Profile,
    password: &str,
) -> Result<Vec<u8>, FileError> {
    store(profile, password, &anchors(trust)?, None)
}

/// The bags of the trust anchors.
fn anchors(trust: &TrustBundle) -> der::Result<Vec<Vec<u8>>> {
    let bag = |(index, der): (usize, &Vec<u8>)| {
        let alias =
            if index == 0 { ANCHOR_ALIAS.to_owned() } else { format!("{ANCHOR_ALIAS}-{}", index + 1) };
        let trusted = attribute(TRUSTED_KEY_USAGE, ANY_EXTENDED_KEY_USAGE.to_der()?)?;
        certificate_bag(der, &[friendly_name(&alias)?, trusted])
    };
    trust.anchors.iter().enumerate().map(bag).collect()
}

/// The keystore of these bags. `keys` are encrypted already.
fn store(
    profile: Pkcs12Profile,
    password: &str,
    certificates: &[Vec<u8>],
    keys: Option<&Vec<u8>>,
) -> Result<Vec<u8>, FileError> {
    let mut certificates = sequence(certificates)?;
    let scheme = encrypt(profile, LegacyCipher::Rc2, password, &mut certificates)?;
    let encrypted = tlv(CONTEXT_0_PRIMITIVE, &certificates)?;
    let encrypted = sequence(&[0_u8.to_der()?, sequence(&[ID_DATA.to_der()?, scheme, encrypted])?])?;
    let mut parts = vec![content(ID_ENCRYPTED_DATA, &encrypted)?];
    if let Some(keys) = keys {
        parts.push(content(ID_DATA, &octet_string(keys)?)?);
    }
    let contents = sequence(&parts)?;
    let mac = mac_data(profile, password, &contents)?;
    Ok(sequence(&[3_u8.to_der()?, content(ID_DATA, &octet_string(&contents)?)?, mac])?)
}

/// `ContentInfo`.
fn content(oid: ObjectIdentifier, content: &[u8]) -> der::Result<Vec<u8>> {
    with_oid(oid, tlv(CONTEXT_0, content)?)
}

/// `SafeBag`.
fn bag(oid: ObjectIdentifier, value: &[u8], attributes: &[Vec<u8>]) -> der::Result<Vec<u8>> {
    let attributes = if attributes.is_empty() { Vec::new() } else { set_of(attributes.to_vec())? };
    sequence(&[oid.to_der()?, tlv(CONTEXT_0, value)?, attributes])
}

fn certificate_bag(der: &[u8], attributes: &[Vec<u8>]) -> der::Result<Vec<u8>> {
    bag(CERTIFICATE_BAG, &content(X509_CERTIFICATE, &octet_string(der)?)?, attributes)
}

fn attribute(oid: ObjectIdentifier, value: Vec<u8>) -> der::Result<Vec<u8>> {
    with_oid(oid, set_of(vec![value])?)
}

fn friendly_name(alias: &str) -> der::Result<Vec<u8>> {
    attribute(PKCS_9_AT_FRIENDLY_NAME, tlv(Tag::BmpString, &big_endian_utf16(alias))?)
}

/// A `SEQUENCE` of an identifier and one value, such as `AlgorithmIdentifier`.
fn with_oid(oid: ObjectIdentifier, value: Vec<u8>) -> der::Result<Vec<u8>> {
    sequence(&[oid.to_der()?, value])
}

fn big_endian_utf16(text: &str) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(Vec::with_capacity(2 * text.len() + 2));
    out.extend(text.encode_utf16().flat_map(u16::to_be_bytes));
    out
}

fn random<const N: usize>() -> Result<[u8; N], Unspecified> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes)?;
    Ok(bytes)
}

/// Encrypts in place. Returns the `AlgorithmIdentifier`.
fn encrypt(
    profile: Pkcs12Profile,
    legacy: LegacyCipher,
    password: &str,
    in_out: &mut Vec<u8>,
) -> Result<Vec<u8>, FileError> {
    match profile {
        Pkcs12Profile::Modern => encrypt_modern(password, in_out),
        Pkcs12Profile::Legacy => encrypt_legacy(legacy, password, in_out),
    }
}

/// PBES2 (RFC 8018 section 6.2).
fn encrypt_modern(password: &str, in_out: &mut Vec<u8>) -> Result<Vec<u8>, FileError> {
    let (salt, iv) = (random::<16>()?, random::<16>()?);
    let mut key = Zeroizing::new([0; AES_256_KEY_LEN]);
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ITERATIONS, &salt, password.as_bytes(), key.as_mut());
    let key = PaddedBlockEncryptingKey::cbc_pkcs7(UnboundCipherKey::new(&AES_256, key.as_ref())?)?;
    key.less_safe_encrypt(in_out, EncryptionContext::Iv128(FixedLength::from(iv)))?;

    let prf = with_oid(ID_HMAC_WITH_SHA_256, Null.to_der()?)?;
    let derivation = sequence(&[octet_string(&salt)?, ITERATIONS.get().to_der()?, prf])?;
    let derivation = with_oid(ID_PBKDF_2, derivation)?;
    let cipher = with_oid(ID_AES_256_CBC, octet_string(&iv)?)?;
    Ok(with_oid(PBES2, sequence(&[derivation, cipher])?)?)
}

/// RFC 7292 appendix C.
fn encrypt_legacy(cipher: LegacyCipher, password: &str, in_out: &mut Vec<u8>) -> Result<Vec<u8>, FileError> {
    let salt = random::<8>()?;
    let derivation = Derivation { digest: &SHA1, password, salt: &salt, iterations: ITERATIONS };
    let key = derivation.derive(Purpose::Key, cipher.key_len());
    let iv = derivation.derive(Purpose::Iv, legacy_cipher::BLOCK);
    let iv = iv.first_chunk().copied().ok_or(Unspecified)?;
    cipher.encrypt(&key, iv, in_out)?;
    let oid = match cipher {
        LegacyCipher::Rc2 => RC2_40,
        LegacyCipher::TripleDes => TRIPLE_DES,
    };
    Ok(with_oid(oid, sequence(&[octet_string(&salt)?, ITERATIONS.get().to_der()?])?)?)
}

/// `MacData` over the authenticated safe.
fn mac_data(profile: Pkcs12Profile, password: &str, contents: &[u8]) -> Result<Vec<u8>, FileError> {
    let sign = |algorithm, key: &[u8]| hmac::sign(&hmac::Key::new(algorithm, key), contents);
    match profile {
        Pkcs12Profile::Modern => {
            let salt = random::<16>()?;
            let derivation = Derivation { digest: &SHA256, password, salt: &salt, iterations: ITERATIONS };
            let mac = sign(hmac::HMAC_SHA256, &derivation.derive(Purpose::Mac, SHA256.output_len()));
            let digest = sequence(&[with_oid(ID_SHA_256, Null.to_der()?)?, octet_string(mac.as_ref())?])?;
            Ok(sequence(&[digest, octet_string(&salt)?, ITERATIONS.get().to_der()?])?)
        }
        // One iteration, which is not written because it is the default.
        Pkcs12Profile::Legacy => {
            let salt = random::<8>()?;
            let derivation = Derivation { digest: &SHA1, password, salt: &salt, iterations: NonZeroU32::MIN };
            let mac = sign(HMAC_SHA1, &derivation.derive(Purpose::Mac, SHA1.output_len()));
            let digest = sequence(&[sequence(&[ID_SHA_1.to_der()?])?, octet_string(mac.as_ref())?])?;
            Ok(sequence(&[digest, octet_string(&salt)?])?)
        }
    }
}

/// What is derived from a password (RFC 7292 appendix B.3). The numbers are the RFC's.
#[derive(Clone, Copy, Debug)]
enum Purpose {
    Key = 1,
    Iv = 2,
    Mac = 3,
}

/// The key derivation of RFC 7292 appendix B.2, for digests with blocks of 64 bytes.
struct Derivation<'a> {
    digest: &'static Algorithm,
    password: &'a str,
    salt: &'a [u8],
    iterations: NonZeroU32,
}

impl Derivation<'_> {
    /// So many bytes.
    fn derive(&self, purpose: Purpose, length: usize) -> Zeroizing<Vec<u8>> {
        const BLOCK: usize = 64;
        let mut password = big_endian_utf16(self.password);
        password.extend_from_slice(&[0, 0]);
        let repeated = BLOCK * password.len().div_ceil(BLOCK);
        // I in the RFC: salt and password, each repeated up to whole blocks.
        let mut input = Zeroizing::new(Vec::with_capacity(BLOCK + repeated));
        input.extend(self.salt.iter().cycle().take(BLOCK));
        input.extend(password.iter().cycle().take(repeated));

        let mut derived = Zeroizing::new(Vec::with_capacity(length + self.digest.output_len()));
        loop {
            let mut context = digest::Context::new(self.digest);
            context.update(&[purpose as u8; BLOCK]);
            context.update(&input);
            let mut hash = context.finish();
            for _ in 1..self.iterations.get() {
                hash = digest::digest(self.digest, hash.as_ref());
            }
            derived.extend_from_slice(hash.as_ref());
            if derived.len() >= length {
                derived.truncate(length);
                return derived;
            }
            for block in input.chunks_exact_mut(BLOCK) {
                add_one_and(block, hash.as_ref());
            }
        }
    }
}

/// Adds one and a number, which is repeated up to the length of the block, to a block. All are big-endian, and the carry is lost.
fn add_one_and(block: &mut [u8], number: &[u8]) {
    let length = block.len();
    let mut carry = 1_u16;
    let repeated = number.iter().cycle().take(length).collect::<Vec<_>>();
    for (byte, other) in block.iter_mut().rev().zip(repeated.into_iter().rev()) {
        let sum = u16::from(*byte) + u16::from(*other) + carry;
        let [high, low] = sum.to_be_bytes();
        (*byte, carry) = (low, u16::from(high));
    }
}
