//! The certificate in the files of a volume.

use jiff::Timestamp;
use std::error::Error;
use std::fs;
use std::path::Path;
use x509_parser::pem::Pem;

/// Serial number and end of validity of a leaf certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Serial number, hexadecimal.
    pub serial: String,
    /// End of validity.
    pub not_after: Timestamp,
}

/// The first certificate in the volume's `tls.crt`.
pub fn leaf(volume: &Path) -> Result<Leaf, Box<dyn Error + Send + Sync>> {
    let chain = fs::read(volume.join("tls.crt"))?;
    let first = Pem::iter_from_buffer(&chain).next().ok_or("tls.crt holds no certificate")??;
    let leaf = first.parse_x509()?;
    // DER adds a leading zero byte if the highest bit is set.
    let serial = leaf.raw_serial();
    let serial = serial.strip_prefix(&[0]).filter(|rest| !rest.is_empty()).unwrap_or(serial);
    // The "no expiry" date of RFC 5280 is after the largest `Timestamp`.
    let not_after = Timestamp::from_second(leaf.validity().not_after.timestamp()).unwrap_or(Timestamp::MAX);
    Ok(Leaf { serial: base16ct::lower::encode_string(serial), not_after })
}
