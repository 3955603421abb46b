//! The control socket: a Unix socket of mode 0600 in the data root, which is a directory of mode 0700. Only root on the node
//! reaches it, and no pod; that of a sidecar only the sidecar's own user. The kubelet's probes use it by `certlet health`, so that no pod can make them fail. `certlet status` asks it for notices.
//!
//! A client sends one line, the name of a [`Check`], and reads one line: `ok`, or what is wrong.

mod client;
mod server;

pub use client::ControlError;
pub(crate) use client::ask;
pub(crate) use server::serve;

use std::path::{Path, PathBuf};

/// What a client may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    /// Whether the process works.
    Liveness,
    /// Whether the kubelet can use the driver.
    Readiness,
    /// What the operator should know although nothing fails.
    Notices,
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
const MAX_REQUEST_BYTES: u64 = 64;

/// Limit on an answer. A longer one is cut.
const MAX_ANSWER_BYTES: u64 = 4096;

/// The socket's path.
pub(crate) fn socket_in(data_root: &Path) -> PathBuf {
    data_root.join("control.sock")
}
