//! The control socket: a Unix socket of mode 0600 in the data root, which is a directory of mode 0700. Only root on the node
//! reaches it, and no pod; that of a sidecar only the sidecar's own user. The kubelet's probes use it by `certlet health`, so that no pod can make them fail. `certlet status` asks it for notices.
//!
//! A client sends one line, a [`Request`], and reads one line: `ok`, after which a number can follow, or what is wrong. Checks change
//! nothing. `renew` is the only request that does.

mod client;
mod server;

pub use client::ControlError;
pub(crate) use client::{ask, renew};
pub(crate) use server::serve;

use crate::volume::RenewTarget;
use std::fmt;
use std::path::{Path, PathBuf};

/// What a client may ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// How the process is.
    Check(Check),
    /// Renewals, whether or not they are due. The answer has their number, and comes before they end.
    Renew(RenewTarget),
}

/// The result of a request: the number that follows `ok`, if one does.
pub(crate) type Answer = Result<Option<usize>, String>;

/// A question about the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    /// Whether the process works.
    Liveness,
    /// Whether the kubelet can use the driver.
    Readiness,
    /// What the operator should know although nothing fails.
    Notices,
}

impl Request {
    /// Reads a line.
    fn parse(line: &str) -> Option<Self> {
        match line.split_once(' ') {
            None => Check::from_name(line).map(Self::Check),
            Some(("renew", target)) => target.parse().ok().map(Self::Renew),
            Some(_) => None,
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Check(check) => f.write_str(check.as_str()),
            Self::Renew(target) => write!(f, "renew {target}"),
        }
    }
}

impl Check {
    /// The line that asks for it.
    fn as_str(self) -> &'static str {
        match self {
            Self::Liveness => "liveness",
            Self::Readiness => "readiness",
            Self::Notices => "notices",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Liveness, Self::Readiness, Self::Notices].into_iter().find(|check| check.as_str() == name)
    }
}

/// The answer when nothing is wrong.
const OK: &str = "ok";

/// Limit on a request.
const MAX_REQUEST_BYTES: u64 = 512;

/// Limit on an answer. A longer one is cut.
const MAX_ANSWER_BYTES: u64 = 4096;

/// The socket's path.
pub(crate) fn socket_in(data_root: &Path) -> PathBuf {
    data_root.join("control.sock")
}
