//! Trust bundles: the anchors that a workload trusts, apart from its own credential.
//!
//! Today the signer's answer is the only source. A trust bundle can change without an issuance: then the sinks hand
//! over the current credential with the new trust bundle.

mod pins;

pub(crate) use pins::read as read_pinned;
pub use pins::{Pin, PinError, Pins};

/// Trust anchors, DER: roots, or intermediates that are trusted like roots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustBundle {
    /// The certificates; empty if the signer names none, as with ACME.
    pub anchors: Vec<Vec<u8>>,
}
