//! X.509: keys, requests, certificates, names, extensions, PEM. Reads with x509-parser, writes with x509-cert.
//!
//! rcgen makes only the root of the local CA: it cannot repeat an attribute type in a subject, and a request must have
//! exactly the subject of the spec.

use crate::model::hex;
use jiff::Timestamp;
use x509_parser::time::ASN1Time;

pub(crate) mod certificate;
mod crl;
mod csr;
pub(crate) mod extensions;
pub(crate) mod key;
pub(crate) mod name;
pub(crate) mod pem;
#[cfg(feature = "kubernetes")]
pub(crate) mod received;
pub(crate) mod signature;
#[cfg(test)]
pub(crate) mod testing;
mod verify;

pub use crl::{Crl, CrlError};
pub(crate) use crl::{CrlSigner, distribution_points, to_pem as crls_to_pem};
pub use csr::{RequestError, csr};
pub(crate) use csr::{is_csr_for, names_len};
pub use key::{KeyError, PrivateKey};
pub use pem::PemError;
pub use verify::{Addition, MAX_CHAIN_BYTES, Part, SignerAnswer, VerifiedChain, VerifyError, verify};
pub(crate) use verify::{
    Anchors, Candidate, Lead, MAX_ANCHORS_BYTES, MAX_NAMES_BYTES, facts_of_pem, lead, subject_of,
    usable_anchors, usable_certificates,
};

/// A serial number from the bytes of its INTEGER: lower-case hexadecimal, the form that openssl and AWS use.
pub(crate) fn serial_number(bytes: &[u8]) -> String {
    // A leading zero byte only says that the number is positive.
    match bytes {
        [0, rest @ ..] if !rest.is_empty() => hex(rest),
        _ => hex(bytes),
    }
}

/// A time of a certificate, limited to the range of [`Timestamp`]. "No well-defined expiration" is 99991231235959Z (RFC 5280
/// section 4.1.2.5), which is a day later than [`Timestamp::MAX`].
pub(crate) fn timestamp(time: ASN1Time) -> Timestamp {
    let seconds = time.timestamp();
    Timestamp::from_second(seconds).unwrap_or(if seconds < 0 { Timestamp::MIN } else { Timestamp::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_number_has_no_leading_zero_byte() {
        assert_eq!(serial_number(&[0, 0x89, 1]), "8901");
        assert_eq!(serial_number(&[0x7f, 0]), "7f00");
        assert_eq!(serial_number(&[0]), "00");
    }

    #[test]
    fn a_certificate_without_an_end_has_not_ended() {
        let without_end = ASN1Time::from_timestamp(253_402_300_799).unwrap();
        assert_eq!(timestamp(without_end), Timestamp::MAX);
        assert_eq!(timestamp(ASN1Time::from_timestamp(7).unwrap()), Timestamp::from_second(7).unwrap());
    }
}
