//! Credentials: obtained, verified, kept current and published.
//!
//! [`Obtainer`] runs one issuance, from spec to [`Credential`]. [`LiveCredential`] publishes the current one of a
//! workload on a channel that sinks follow. [`WorkQueue`] is the one queue of renewals and other work that falls due.

mod clock_jump;
#[expect(clippy::module_inception, reason = "the type that the module is named after")]
mod credential;
mod keys;
mod live;
mod obtain;
mod pending;
mod queue;
mod schedule;
mod slots;

pub use credential::Credential;
pub(crate) use live::LiveCredential;
pub use live::{Current, Follower, Published};
pub(crate) use obtain::{IssueOptions, Obtained, Obtainer, Workload};
pub(crate) use queue::{Next, Schedule, Work, WorkQueue};
pub(crate) use schedule::{CATCH_UP, MIN_RETRY, is_ahead, offset_within, retry_after, spread};
pub use schedule::{Lifetime, renew_at};
pub(crate) use slots::{RenewalSlot, RenewalSlots};
