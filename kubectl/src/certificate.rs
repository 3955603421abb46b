//! What the certificate of a CertificateRequest says.

use base64ct::{Base64, Encoding};
use jiff::Timestamp;
use x509_parser::extensions::GeneralName;
use x509_parser::pem::parse_x509_pem;

/// Facts of a leaf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Certificate {
    pub(crate) not_before: Timestamp,
    pub(crate) not_after: Timestamp,
    /// Alternative names as `certlet status` writes them, or else the subject.
    pub(crate) names: String,
}

/// Reads `status.certificate`; none: there is none, or it is no certificate.
pub(crate) fn read(base64: &str) -> Option<Certificate> {
    let chain = Base64::decode_vec(base64).ok()?;
    let (_, block) = parse_x509_pem(&chain).ok()?;
    let leaf = block.parse_x509().ok()?;
    let at = |seconds| Timestamp::from_second(seconds).ok();
    let sans = leaf.subject_alternative_name().ok().flatten();
    let sans: Vec<String> =
        sans.map(|sans| sans.value.general_names.iter().filter_map(san).collect()).unwrap_or_default();
    Some(Certificate {
        not_before: at(leaf.validity().not_before.timestamp())?,
        not_after: at(leaf.validity().not_after.timestamp())?,
        names: if sans.is_empty() { leaf.subject().to_string() } else { sans.join(",") },
    })
}

fn san(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(format!("DNS:{name}")),
        GeneralName::URI(uri) => Some(format!("URI:{uri}")),
        GeneralName::RFC822Name(address) => Some(format!("email:{address}")),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(std::net::IpAddr::from);
            let address = v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(std::net::IpAddr::from));
            address.ok().map(|address| format!("IP:{address}"))
        }
        _ => None,
    }
}
