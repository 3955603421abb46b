//! The PKCS#12 keystore (RFC 7292), as OpenSSL 3 and Java 17 write and read it: PBES2 with AES-256-CBC and
//! HMAC-SHA-256, and a SHA-256 MAC.
//!
//! It is written here and not by a library, so that no copy of the key stays in memory: the only plaintext is one buffer,
//! which is encrypted in place.

use super::FileError;
use super::asn1::{CONTEXT_0, CONTEXT_0_PRIMITIVE, octet_string, sequence, set_of, tlv};
use crate::credential::Credential;
use crate::trust::TrustBundle;
use crate::x509::certificate::key_id;
use aws_lc_rs::cipher::{
    AES_256, AES_256_KEY_LEN, EncryptionContext, PaddedBlockEncryptingKey, UnboundCipherKey,
};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::rand::{SystemRandom, generate};
use aws_lc_rs::{digest, hmac, pbkdf2};
use const_oid::ObjectIdentifier;
use const_oid::db::rfc2985::{PKCS_9_AT_FRIENDLY_NAME, PKCS_9_AT_LOCAL_KEY_ID};
use const_oid::db::rfc5280::ANY_EXTENDED_KEY_USAGE;
use const_oid::db::rfc5911::{ID_AES_256_CBC, ID_DATA, ID_ENCRYPTED_DATA, ID_PBKDF_2};
use const_oid::db::rfc5912::ID_SHA_256;
use const_oid::db::rfc6268::ID_HMAC_WITH_SHA_256;
use der::asn1::Null;
use der::{Encode, Tag};
use secrecy::{ExposeSecret, SecretString};
use std::num::NonZeroU32;
use zeroize::Zeroizing;

const SHROUDED_KEY_BAG: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.12.10.1.2");
const CERTIFICATE_BAG: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.12.10.1.3");
const X509_CERTIFICATE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.22.1");
/// Oracle's `trustedKeyUsage`: Java trusts only a certificate that has this attribute.
const TRUSTED_KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.113894.746875.1.1");
const PBES2: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.5.13");

/// OpenSSL's default. More rounds would protect nothing and slow down every issuance: the password is in the pod's
/// manifest, and the key is also in an unencrypted file of the same volume.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(2048).unwrap();

/// The alias of the key, and of the certificates that go with it.
const KEY_ALIAS: &str = "certificate";
/// The alias of the first trust anchor; the others are numbered from `ca-2`.
const ANCHOR_ALIAS: &str = "ca";

/// Key, chain and trust anchors in one keystore.
pub(super) fn encode(
    credential: &Credential,
    trust: &TrustBundle,
    password: &SecretString,
) -> Result<Vec<u8>, FileError> {
    let password = password.expose_secret();
    let key_id = key_id(credential.key.spki_der());
    let key_attributes =
        [friendly_name(KEY_ALIAS)?, attribute(PKCS_9_AT_LOCAL_KEY_ID, octet_string(&key_id)?)?];

    let mut certificates = Vec::new();
    for (index, der) in credential.chain().enumerate() {
        // The identifier ties the leaf to the key; the others are found by their names.
        certificates.push(certificate_bag(der, if index == 0 { &key_attributes } else { &[] })?);
    }
    for (index, der) in trust.anchors.iter().enumerate() {
        let alias =
            if index == 0 { ANCHOR_ALIAS.to_owned() } else { format!("{ANCHOR_ALIAS}-{}", index + 1) };
        let trusted = attribute(TRUSTED_KEY_USAGE, ANY_EXTENDED_KEY_USAGE.to_der()?)?;
        certificates.push(certificate_bag(der, &[friendly_name(&alias)?, trusted])?);
    }

    // Spare capacity for the padding: growing would leave a copy of the key behind.
    let mut key =
        Zeroizing::new(Vec::with_capacity(credential.key.to_pkcs8_der().len() + AES_256.block_len()));
    key.extend_from_slice(credential.key.to_pkcs8_der());
    let scheme = encrypt(password, &mut key)?;
    let key = sequence(&[scheme, octet_string(&key)?])?;
    let keys = sequence(&[bag(SHROUDED_KEY_BAG, &key, &key_attributes)?])?;

    let mut certificates = sequence(&certificates)?;
    let scheme = encrypt(password, &mut certificates)?;
    let encrypted = tlv(CONTEXT_0_PRIMITIVE, &certificates)?;
    let encrypted = sequence(&[0_u8.to_der()?, sequence(&[ID_DATA.to_der()?, scheme, encrypted])?])?;

    let contents =
        sequence(&[content(ID_ENCRYPTED_DATA, &encrypted)?, content(ID_DATA, &octet_string(&keys)?)?])?;
    let mac = mac_data(password, &contents)?;
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

fn random() -> Result<[u8; 16], Unspecified> {
    Ok(generate(&SystemRandom::new())?.expose())
}

/// Encrypts in place by PBES2 (RFC 8018 section 6.2). Returns the `AlgorithmIdentifier`.
fn encrypt(password: &str, in_out: &mut Vec<u8>) -> Result<Vec<u8>, FileError> {
    let (salt, iv) = (random()?, random()?);
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

/// `MacData` over the authenticated safe.
fn mac_data(password: &str, contents: &[u8]) -> Result<Vec<u8>, FileError> {
    let salt = random()?;
    let key = mac_key(password, &salt);
    let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_ref()), contents);
    let digest = sequence(&[with_oid(ID_SHA_256, Null.to_der()?)?, octet_string(mac.as_ref())?])?;
    Ok(sequence(&[digest, octet_string(&salt)?, ITERATIONS.get().to_der()?])?)
}

/// The MAC key (RFC 7292 appendix B.2) with SHA-256 and purpose 3: `H^r(D || S || P)`, with salt and password repeated
/// up to whole blocks. One block is enough, because the key is as long as one hash.
fn mac_key(password: &str, salt: &[u8; 16]) -> Zeroizing<[u8; 32]> {
    const BLOCK: usize = 64;
    const MAC_PURPOSE: u8 = 3;
    let mut password = big_endian_utf16(password);
    password.extend_from_slice(&[0, 0]);
    let length = BLOCK * password.len().div_ceil(BLOCK);
    let mut input = Zeroizing::new(Vec::with_capacity(2 * BLOCK + length));
    input.extend_from_slice(&[MAC_PURPOSE; BLOCK]);
    input.extend(salt.iter().cycle().take(BLOCK));
    input.extend(password.iter().cycle().take(length));

    let mut key = Zeroizing::new([0; 32]);
    key.copy_from_slice(digest::digest(&digest::SHA256, &input).as_ref());
    for _ in 1..ITERATIONS.get() {
        let next = digest::digest(&digest::SHA256, key.as_ref());
        key.copy_from_slice(next.as_ref());
    }
    key
}
