//! Parses `volumeAttributes` once, at the publish, into one typed [`CertificateSpec`](crate::model::CertificateSpec).
//!
//! There are three attribute prefixes. `csi.cert-manager.io/` has the meaning and defaults of cert-manager's csi-driver,
//! `spiffe.csi.cert-manager.io/` those of csi-driver-spiffe. `csi.certlet.io/` has the names of the first, more attributes, and
//! current defaults. Everything here is pure: no clock, no file, no network.
//!
//! [`VolumeContext::parse`] splits the kubelet's part of a publish from the author's part, which [`parse()`] reads.
//! `fields` sorts the attributes by name and reads single ones, by the rules in `rows` and with the checks in `values`;
//! `parse`, `svid`, `files`, `trust` and `federation` combine them; `size` limits the names as a whole, and `token_claims` compares the pod with its tokens.
//! What the operator's flags give to volumes is in `defaults`, and what a file of classes gives is in `classes`. `reference` generates docs/attributes.md from the same table.

mod classes;
mod context;
mod defaults;
mod errors;
mod federation;
mod fields;
mod files;
mod parse;
mod passwords;
mod reference;
mod rows;
mod size;
mod svid;
mod table;
mod token_claims;
mod trust;
mod values;

pub(crate) use classes::ClassFile;
pub use classes::OperatorClasses;
pub use context::VolumeContext;
#[cfg(feature = "kubernetes")]
pub(crate) use defaults::is_trust_domain;
pub use defaults::{
    ClusterDomain, OperatorDefaults, OptionalAttribute, PodIp, SpiffeIds, SpiffeIdsError, SvidDefaults,
    TrustDefaults,
};
pub(crate) use defaults::{SPIFFE_ID_TEMPLATE, annotations, file_name, is_annotation};
#[cfg(feature = "kubernetes")]
pub(crate) use defaults::{issuer_kind, issuer_name};
pub use errors::{AttributeError, AttributeErrors};
pub(crate) use files::check_secret;
pub use parse::parse;
pub(crate) use parse::{parse_again, parse_stored, parse_stored_class};
pub(crate) use passwords::take_mistyped;
pub(crate) use reference::reference_markdown;
pub(crate) use size::check_names;
pub(crate) use token_claims::{check_tokens, node_of, workload_of};

/// The names, without a prefix, of all attributes that a volume with `signer: acm-pca` may carry.
#[cfg(test)]
pub(crate) fn names_with_private_ca() -> impl Iterator<Item = &'static str> {
    let of_issuer = Some(crate::model::SignerKind::CertManager);
    rows::TABLE.iter().filter(move |row| row.options.signer != of_issuer).map(|row| row.name)
}

#[cfg(test)]
mod tests;
