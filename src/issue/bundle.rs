//! What an issuance yields.

use super::verify::VerifiedChain;
use crate::x509::PrivateKey;
use jiff::Timestamp;

/// A private key and the certificates that go with it: verified, in memory, zeroized on drop.
#[derive(Debug)]
pub struct Bundle {
    /// The private key whose public half the leaf certifies.
    pub key: PrivateKey,
    /// The leaf, DER.
    pub leaf: Vec<u8>,
    /// Intermediates from the leaf's issuer upwards, DER; a self-signed root is never among them.
    pub intermediates: Vec<Vec<u8>>,
    /// Trust anchors, DER; empty when the signer names none (ACME, say).
    pub trust_anchors: Vec<Vec<u8>>,
    /// What people and the renewal queue want to know of the leaf.
    pub facts: CertificateFacts,
}

impl Bundle {
    /// Puts a key and the chain that was verified for it together.
    pub fn new(key: PrivateKey, chain: VerifiedChain) -> Self {
        let VerifiedChain { leaf, intermediates, trust_anchors, facts, remark: _ } = chain;
        Self { key, leaf, intermediates, trust_anchors, facts }
    }
}

/// The leaf's facts, free of secrets.
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
