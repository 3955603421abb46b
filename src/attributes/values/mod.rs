//! The shapes of single values. Each check answers with the value, or with a phrase that says what is wrong and reads on
//! from the quoted value; what is accepted stands in the table.

pub(super) mod arn;
pub(super) mod distinguished_name;
pub(super) mod go_duration;
pub(super) mod list;
pub(super) mod names;
pub(super) mod nearest;
pub(super) mod template;
