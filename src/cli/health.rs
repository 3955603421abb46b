//! `certlet health`: the kubelet's probes, over the control socket of the driver or of a sidecar. It needs no network and no async runtime.

use super::node::{DATA_ROOT, path_or_default};
use super::sidecar::state_in;
use crate::control::{self, Check};
use clap::Args;
use std::path::PathBuf;

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

    /// Name of the CSI driver, which gives the path of its store.
    #[arg(long, env = "CERTLET_DRIVER_NAME", default_value = "csi.certlet.io", value_parser = super::values::driver_name)]
    pub driver_name: String,

    /// Directory of the store, where the driver's control socket is [default: /var/lib/kubelet/plugins/DRIVER-NAME/data]
    #[arg(long, env = "CERTLET_DATA_ROOT", value_name = "DIR")]
    pub data_root: Option<PathBuf>,

    /// Ask the sidecar with this directory, and not a driver.
    #[arg(long, env = "CERTLET_DIRECTORY", value_name = "DIR")]
    pub directory: Option<PathBuf>,
}

impl HealthArgs {
    /// Asks the driver, or the sidecar. The error says what is wrong.
    pub fn run(&self) -> Result<String, ControlError> {
        let root = self
            .directory
            .as_deref()
            .map_or_else(|| path_or_default(self.data_root.clone(), &self.driver_name, DATA_ROOT), state_in);
        let check = if self.readiness { Check::Readiness } else { Check::Liveness };
        control::ask(&control::socket_in(&root), check)?;
        Ok("ok\n".to_owned())
    }
}
