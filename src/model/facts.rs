//! The facts of a certificate that people and the renewal queue need.

use jiff::Timestamp;

/// Facts of a leaf certificate. None of them is secret.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct CertificateFacts {
    /// Serial number, lower-case hexadecimal without separators.
    pub serial: String,
    /// Subject as an RFC 4514 string; empty when the subject is empty.
    pub subject: String,
    /// Subject alternative names, as `DNS:`, `URI:` and `IP:` strings.
    pub sans: Vec<String>,
    /// Start of validity.
    pub not_before: Timestamp,
    /// End of validity.
    pub not_after: Timestamp,
}

impl CertificateFacts {
    /// The SPIFFE ID: the certificate's only URI, if its scheme is `spiffe` (the X.509-SVID standard, section 2).
    pub(crate) fn spiffe_id(&self) -> Option<&str> {
        let mut uris = self.sans.iter().filter_map(|name| name.strip_prefix("URI:"));
        let only = uris.next().filter(|_| uris.next().is_none());
        only.filter(|uri| uri.starts_with("spiffe://"))
    }
}
