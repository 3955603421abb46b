//! What a pod author may ask for: `volumeAttributes` parsed once, at the door, into one typed [`Attributes`].
//!
//! Two dialects are told apart by their prefix: `csi.cert-manager.io/` with exactly the meaning and defaults of
//! cert-manager's csi-driver, and `csi.certlet.io/` with the same names, ours beside them, and today's defaults.
//! Everything here is pure: no clock, no file, no network.
//!
//! [`VolumeContext::parse`] takes the kubelet's part of a publish away from the author's; [`Attributes::parse`] reads the author's:
//! `sorted` finds the dialect and the known names, `fields` reads single ones by the rules in `table` and `rows` with the checks in
//! `values`, `parse` and `files` put them together. `reference` writes docs/attributes.md from the same table.

mod context;
mod distinguished_name;
mod errors;
mod fields;
mod files;
mod identity;
pub(crate) mod name_types;
mod parse;
mod raw;
mod reference;
mod rows;
mod sorted;
mod table;
mod tokens;
mod types;
mod usage;
mod values;

pub use context::VolumeContext;
pub use distinguished_name::{DistinguishedName, NameAttribute, NameValue};
pub use errors::{AttributeError, AttributeErrors};
pub use identity::{PodIdentity, VolumeId};
pub use raw::RawAttributes;
pub use reference::reference_markdown;
pub use tokens::{PodToken, PodTokens};
pub use types::{
    Attributes, Dialect, Files, IssuerRef, KeyAlgorithm, KeyEncoding, KeySpec, PcaCaller, PcaRequest, Pkcs12,
    SignerKind, Subject, SubjectAltNames, SubjectFields, Usage,
};

/// The name among `known` that resembles a mistyped one most.
pub(crate) fn nearest_name<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    values::nearest::nearest(name, known)
}

/// The names, without a prefix, of all attributes that a volume with `signer: acm-pca` may carry.
#[cfg(test)]
pub(crate) fn names_with_private_ca() -> impl Iterator<Item = &'static str> {
    let issuers = [table::Key::IssuerName, table::Key::IssuerKind, table::Key::IssuerGroup];
    rows::TABLE.iter().filter(move |row| !issuers.contains(&row.key)).map(|row| row.name)
}

/// A Go duration above zero: `1h30m`, `90s`; an error says what is wrong with it.
pub fn parse_duration(text: &str) -> Result<std::time::Duration, String> {
    values::go_duration::positive(text)
}

#[cfg(test)]
mod tests;
