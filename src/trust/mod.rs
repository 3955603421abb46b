//! Trust bundles: the anchors that a workload trusts, apart from its own credential.
//!
//! It comes from the signer's answer, or from [`sources`] that the operator names. A trust bundle can change without an issuance:
//! then the sinks hand over the current credential with the new trust bundle.

#[cfg(feature = "kubernetes")]
mod cluster_trust_bundle;
#[cfg(feature = "kubernetes")]
mod config_map;
mod crl;
mod file;
mod metrics;
mod overlap;
mod pins;
mod reader;
mod sources;
mod spiffe_bundle;

pub(crate) use crl::{CrlMetrics, Crls, VolumeCrls};
pub use crl::{CrlOptions, CrlSource, CrlUrl, Host};
pub(crate) use metrics::TrustMetrics;
pub(crate) use overlap::{Composed, Named, Overlap, anchor_id, compose, was_named_by_signer};
pub(crate) use pins::read as read_pinned;
pub use pins::{Pin, PinError, Pins};
pub(crate) use sources::{FollowedSource, TrustSources, joined, joined_within, read_within};

use crate::model::TrustDomain;
use crate::x509::Crl;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Trust anchors, DER: roots, or intermediates that are trusted like roots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustBundle {
    /// The certificates; empty if the signer names none, as with ACME.
    pub anchors: Vec<Vec<u8>>,
    /// The anchors of other trust domains, apart: each may speak for its own trust domain alone.
    pub federated: BTreeMap<TrustDomain, Vec<Vec<u8>>>,
    /// The CRLs of its CAs, for a volume that asks for them: `crl-file`.
    pub crls: Vec<Arc<Crl>>,
}
