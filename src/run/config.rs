//! The configuration of the driver.

use super::ClassConfig;
use crate::attributes::OperatorDefaults;
use crate::csi::Driver;
use crate::trust::{CrlOptions, Pin};
use crate::volume::{Limits, StoreOptions};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The configuration of `certlet node`.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name and node of the driver.
    pub driver: Driver,
    /// The CSI socket.
    pub endpoint: PathBuf,
    /// The CSI socket as the kubelet sees it, where that is another path.
    pub kubelet_endpoint: PathBuf,
    /// The kubelet's `plugins_registry`; none: the driver does not register itself.
    pub registration_dir: Option<PathBuf>,
    /// The store.
    pub store: StoreOptions,
    /// The admin server's address; none: there is no admin server.
    pub metrics_bind_address: Option<SocketAddr>,
    /// Whether metrics name pods and volumes.
    pub metrics_per_volume: bool,
    /// The local signer; none if it is not allowed.
    pub local_signer: Option<LocalSigner>,
    /// AWS Private CA; none: `signer: acm-pca` is refused.
    #[cfg(feature = "aws")]
    pub pca: Option<super::PcaConfig>,
    /// What the flags give to volumes.
    pub defaults: OperatorDefaults,
    /// The operator's classes; none: there are none.
    pub classes: Option<ClassConfig>,
    /// Trust anchors by issuer.
    pub pins: Vec<Pin>,
    /// CRLs.
    pub crls: CrlOptions,
    /// Limits on concurrent work.
    pub limits: Limits,
    /// How long work in flight can continue after a SIGTERM.
    pub shutdown_grace: Duration,
    /// How it works with the cluster.
    #[cfg(feature = "kubernetes")]
    pub cluster: super::ClusterConfig,
}

/// Where the local signer's CA comes from.
#[derive(Clone, Debug)]
pub enum LocalSigner {
    /// Made when the process starts, gone when it ends.
    Ephemeral,
    /// Read from files.
    Files {
        /// PEM certificate.
        certificate: PathBuf,
        /// PEM private key.
        key: PathBuf,
    },
}
