//! `certlet health`: the kubelet's probes, over the control socket of the driver or of a sidecar. It needs no network and no async runtime.

use super::shared::StoreArgs;
use crate::control::{self, Check};
use clap::Args;

pub use crate::control::ControlError;

/// `certlet health`
#[derive(Clone, Debug, Args)]
pub struct HealthArgs {
    /// Check whether certlet works: the driver's CSI socket answers, and the renewal loop runs.
    #[arg(long, required_unless_present = "readiness", conflicts_with = "readiness")]
    pub liveness: bool,

    /// Check whether the kubelet has registered the driver. The check waits three seconds for a registration that is under
    /// way. Of a sidecar: whether its pod has a valid certificate.
    #[arg(long)]
    pub readiness: bool,

    /// Whom to ask.
    #[command(flatten)]
    pub store: StoreArgs,
}

impl HealthArgs {
    /// Asks the driver, or the sidecar. The error says what is wrong.
    pub fn run(&self) -> Result<String, ControlError> {
        let root = self.store.root();
        let check = if self.readiness { Check::Readiness } else { Check::Liveness };
        control::ask(&control::socket_in(&root), check)?;
        Ok("ok\n".to_owned())
    }
}
