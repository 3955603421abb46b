//! The operator's rules: which pods may have which certificates from AWS Private CA.
//!
//! [`Policy`] is the file, [`Policy::decide`] checks a request, and [`LivePolicy`] follows changes of the file.

mod decide;
mod file;
mod live;
mod matched;
mod placeholder;
#[cfg(test)]
mod tests;
mod upgrade;

pub(crate) use decide::Question;
pub(crate) use file::{Policy, PolicyError};
pub(crate) use live::LivePolicy;
pub(crate) use upgrade::upgrade;
