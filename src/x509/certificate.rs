//! Writing certificates (RFC 5280 section 4.1).

use super::asn1::{self, tag};
use super::extensions::{self, AUTHORITY_KEY_ID, SUBJECT_KEY_ID};
use super::key::{KeyError, PrivateKey};
use aws_lc_rs::digest::{SHA256, digest};
use jiff::Timestamp;

/// Everything a certificate says; names, key and extensions are DER.
pub(crate) struct Template<'a> {
    /// Big-endian, not zero.
    pub(crate) serial: &'a [u8],
    pub(crate) issuer: &'a [u8],
    pub(crate) not_before: Timestamp,
    pub(crate) not_after: Timestamp,
    pub(crate) subject: &'a [u8],
    pub(crate) spki: &'a [u8],
    pub(crate) extensions: &'a [Vec<u8>],
}

impl Template<'_> {
    /// The certificate, signed by the issuer's key, DER.
    pub(crate) fn sign(&self, issuer: &PrivateKey) -> Result<Vec<u8>, KeyError> {
        let algorithm = issuer.signature_algorithm();
        let version = asn1::tlv(tag::CONTEXT_0, &[&asn1::unsigned(&[2])]);
        let validity = asn1::sequence(&[&asn1::time(self.not_before), &asn1::time(self.not_after)]);
        let extensions = asn1::tlv(tag::CONTEXT_3, &[&asn1::sequence_of(self.extensions)]);
        let to_be_signed = asn1::sequence(&[
            &version,
            &asn1::unsigned(self.serial),
            &algorithm,
            self.issuer,
            &validity,
            self.subject,
            self.spki,
            &extensions,
        ]);
        let signature = issuer.sign(&to_be_signed)?;
        Ok(asn1::sequence(&[&to_be_signed, &algorithm, &asn1::bit_string(&signature)]))
    }
}

/// A key identifier: the leftmost 160 bits of the SHA-256 of the public key (RFC 7093 section 2, method 1).
pub(crate) fn key_id(public_key: &[u8]) -> Vec<u8> {
    digest(&SHA256, public_key).as_ref()[..20].to_vec()
}

/// The extension that names the subject's key.
pub(crate) fn subject_key_id(id: &[u8]) -> Vec<u8> {
    extensions::extension(&SUBJECT_KEY_ID, false, &asn1::octet_string(id))
}

/// The extension that names the issuer's key.
pub(crate) fn authority_key_id(id: &[u8]) -> Vec<u8> {
    let key_identifier = asn1::tlv(tag::CONTEXT_0_PRIMITIVE, &[id]);
    extensions::extension(&AUTHORITY_KEY_ID, false, &asn1::sequence(&[&key_identifier]))
}
