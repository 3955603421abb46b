//! `certlet health`: the kubelet's probes, over the driver's control socket. It needs no network and no async runtime.

use super::node::{DATA_ROOT, path_or_default};
use crate::control::{self, Check};
use clap::Args;
use std::path::PathBuf;

pub use crate::control::ControlError;

/// `certlet health`
#[derive(Clone, Debug, Args)]
pub struct HealthArgs {
    /// Check whether the driver works: its CSI socket answers, and its renewal loop runs.
    #[arg(long, required_unless_present = "readiness", conflicts_with = "readiness")]
    pub liveness: bool,

    /// Check whether the kubelet has registered the driver. The check waits three seconds for a registration that is under
    /// way.
    #[arg(long)]
    pub readiness: bool,

    /// Name of the CSI driver, which gives the path of its store.
    #[arg(long, env = "CERTLET_DRIVER_NAME", default_value = "csi.certlet.io", value_parser = super::values::driver_name)]
    pub driver_name: String,

    /// Directory of the store, where the driver's control socket is [default: /var/lib/kubelet/plugins/DRIVER-NAME/data]
    #[arg(long, env = "CERTLET_DATA_ROOT", value_name = "DIR")]
    pub data_root: Option<PathBuf>,
}

impl HealthArgs {
    /// Asks the driver. The error says what is wrong.
    pub fn run(&self) -> Result<String, ControlError> {
        let root = path_or_default(self.data_root.clone(), &self.driver_name, DATA_ROOT);
        let check = if self.readiness { Check::Readiness } else { Check::Liveness };
        control::ask(&control::socket_in(&root), check)?;
        Ok("ok\n".to_owned())
    }
}
