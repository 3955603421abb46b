//! Checks of single values. Each check returns the value, or a phrase that continues the quoted value and says what is
//! wrong. The table says what is accepted.

pub(super) mod arn;
mod asn1_text;
pub(super) mod distinguished_name;
mod go_uri;
pub(super) mod list;
pub(super) mod names;
pub(super) mod template;
