//! The result of an issuance.

use crate::model::CertificateFacts;
use crate::x509::PrivateKey;

/// A private key and the certificates that belong to it: verified, in memory, zeroized on drop.
#[derive(Debug)]
pub struct Credential {
    /// The private key whose public half the leaf certifies.
    pub key: PrivateKey,
    /// The leaf, DER.
    pub leaf: Vec<u8>,
    /// Intermediates from the leaf's issuer upwards, DER; a self-signed root is never among them.
    pub intermediates: Vec<Vec<u8>>,
    /// Facts of the leaf.
    pub facts: CertificateFacts,
}

impl Credential {
    /// Leaf, then intermediates, DER.
    pub(crate) fn chain(&self) -> impl Iterator<Item = &[u8]> {
        std::iter::once(&self.leaf).chain(&self.intermediates).map(Vec::as_slice)
    }
}
