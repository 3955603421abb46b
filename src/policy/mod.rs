//! Who may ask AWS Private CA for what: the operator's rules, in a file that may change while the driver runs.
//!
//! [`Policy`] is the file, [`Policy::decide`] holds a request against it, [`LivePolicy`] keeps up with changes.

mod decide;
mod file;
mod live;
mod matched;
mod pattern;
#[cfg(test)]
mod tests;

pub(crate) use decide::Question;
pub(crate) use file::{Policy, PolicyError};
pub(crate) use live::LivePolicy;
