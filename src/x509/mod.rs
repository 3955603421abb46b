//! The wire formats beneath `issue`, `signer` and `delivery`: DER, PEM, names, extensions, certificates, keys.
//!
//! Nothing here decides anything: what a volume asks for comes in as [`crate::attributes`], what is acceptable is
//! judged in [`crate::issue`]. Reading is x509-parser's work. Writing is done here, byte by byte, because a request
//! has to carry a subject exactly as asked (attribute types that repeat, an order that is kept), and because a
//! library's buffers of key bytes would not be zeroized.

use jiff::Timestamp;
use std::fmt::Write;
use x509_parser::time::ASN1Time;

pub(crate) mod asn1;
pub(crate) mod certificate;
pub(crate) mod extensions;
pub(crate) mod key;
pub(crate) mod name;
pub(crate) mod pem;
pub(crate) mod signature;
#[cfg(test)]
pub(crate) mod testing;

/// Lower-case hexadecimal, without separators.
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

pub use extensions::ExtensionError;
pub use key::{KeyError, PrivateKey};
pub use pem::PemError;

/// A serial number, an INTEGER's bytes, as openssl shows it and AWS takes it: lower-case hexadecimal.
pub(crate) fn serial_number(bytes: &[u8]) -> String {
    // A leading zero byte only says that the number is positive.
    match bytes {
        [0, rest @ ..] if !rest.is_empty() => hex(rest),
        _ => hex(bytes),
    }
}

/// A time of a certificate. "No end" is 99991231235959Z (RFC 5280 section 4.1.2.5), a day later than what [`Timestamp`] holds:
/// what lies beyond its ends is one of them.
pub(crate) fn timestamp(time: ASN1Time) -> Timestamp {
    let seconds = time.timestamp();
    Timestamp::from_second(seconds).unwrap_or(if seconds < 0 { Timestamp::MIN } else { Timestamp::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_number_has_no_byte_that_only_makes_it_positive() {
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
