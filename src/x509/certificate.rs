//! Issuing certificates (RFC 5280 section 4.1).
//!
//! Only the builder of x509-cert can make its `TbsCertificate`, and the builder needs the `sha1` crate. So the two outer
//! structures are declared here; their fields are x509-cert's.

use super::key::{KeyError, PrivateKey};
use aws_lc_rs::digest::{SHA256, digest};
use der::asn1::{AnyRef, BitString, OctetString};
use der::{DateTime, Decode, Encode, Sequence};
use jiff::Timestamp;
use x509_cert::certificate::Version;
use x509_cert::ext::pkix::{AuthorityKeyIdentifier, SubjectKeyIdentifier};
use x509_cert::ext::{Extension, ToExtension};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::AlgorithmIdentifierOwned;
use x509_cert::time::{Time, Validity};

/// The contents of a certificate. Names and key are DER, so that they are copied byte by byte.
pub(crate) struct Template<'a> {
    /// Big-endian, not zero.
    pub(crate) serial: &'a [u8],
    pub(crate) issuer: &'a [u8],
    pub(crate) not_before: Timestamp,
    pub(crate) not_after: Timestamp,
    pub(crate) subject: &'a [u8],
    pub(crate) spki: &'a [u8],
    /// Without extensions the certificate is of version 1.
    pub(crate) extensions: &'a [Extension],
}

#[derive(Sequence)]
struct TbsCertificate<'a> {
    #[asn1(context_specific = "0", default = "Default::default")]
    version: Version,
    serial: SerialNumber,
    algorithm: AlgorithmIdentifierOwned,
    issuer: AnyRef<'a>,
    validity: Validity,
    subject: AnyRef<'a>,
    spki: AnyRef<'a>,
    #[asn1(context_specific = "3", tag_mode = "EXPLICIT", optional = "true")]
    extensions: Option<Vec<Extension>>,
}

#[derive(Sequence)]
struct Certificate<'a> {
    signed: TbsCertificate<'a>,
    algorithm: AlgorithmIdentifierOwned,
    signature: BitString,
}

impl Template<'_> {
    /// The certificate, signed by the issuer's key, DER.
    pub(crate) fn sign(&self, issuer: &PrivateKey) -> Result<Vec<u8>, KeyError> {
        let has_extensions = !self.extensions.is_empty();
        let signed = TbsCertificate {
            version: if has_extensions { Version::V3 } else { Version::V1 },
            serial: SerialNumber::new(self.serial)?,
            algorithm: issuer.signature_algorithm(),
            issuer: AnyRef::from_der(self.issuer)?,
            validity: Validity::new(time(self.not_before)?, time(self.not_after)?),
            subject: AnyRef::from_der(self.subject)?,
            spki: AnyRef::from_der(self.spki)?,
            extensions: has_extensions.then(|| self.extensions.to_vec()),
        };
        let signature = BitString::from_bytes(&issuer.sign(&signed.to_der()?)?)?;
        Ok(Certificate { signed, algorithm: issuer.signature_algorithm(), signature }.to_der()?)
    }
}

/// A time in whole seconds: `UTCTime` up to 2049, `GeneralizedTime` from 2050 (RFC 5280 section 4.1.2.5).
fn time(at: Timestamp) -> der::Result<Time> {
    let seconds = u64::try_from(at.as_second()).unwrap_or_default();
    DateTime::from_unix_duration(std::time::Duration::from_secs(seconds)).map(Time::from)
}

/// A key identifier: the leftmost 160 bits of the SHA-256 of the public key (RFC 7093 section 2, method 1).
pub(crate) fn key_id(public_key: &[u8]) -> Vec<u8> {
    digest(&SHA256, public_key).as_ref()[..20].to_vec()
}

/// The extension that names the subject's key.
pub(crate) fn subject_key_id(id: &[u8]) -> der::Result<Extension> {
    SubjectKeyIdentifier(OctetString::new(id)?).to_extension(&Name::default(), &[])
}

/// The extension that names the issuer's key.
pub(crate) fn authority_key_id(id: &[u8]) -> der::Result<Extension> {
    let id = AuthorityKeyIdentifier { key_identifier: Some(OctetString::new(id)?), ..Default::default() };
    id.to_extension(&Name::default(), &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn years_from_2050_are_generalized_time() {
        let encoded = |text: &str| time(text.parse().unwrap()).unwrap().to_der().unwrap();
        assert_eq!(encoded("2049-12-31T23:59:59Z"), b"\x17\x0d491231235959Z");
        assert_eq!(encoded("2050-01-01T00:00:00Z"), b"\x18\x0f20500101000000Z");
    }
}
