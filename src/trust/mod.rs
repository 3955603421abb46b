//! Trust bundles: the anchors that a workload trusts, apart from its own credential.
//!
//! The one source today is the signer's answer. A trust bundle changes without an issuance: the sinks hand over the
//! current credential with the new trust bundle.

/// Trust anchors, DER: roots, or intermediates that are trusted like roots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustBundle {
    /// The certificates; none where the signer names none (ACME, say).
    pub anchors: Vec<Vec<u8>>,
}
