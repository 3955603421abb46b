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
