//! Trust bundles: the anchors that a workload trusts, apart from its own credential.
//!
//! The one source today is the signer's answer. A bundle changes without an issuance: the sinks hand over the current
//! credential with the new bundle.

/// Trust anchors, DER: a root each, or what stands for one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustBundle {
    /// The certificates; none where the signer names none (ACME, say).
    pub anchors: Vec<Vec<u8>>,
}
