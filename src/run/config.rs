//! The configuration of the driver.

use super::ClusterConfig;
use crate::csi::Driver;
use crate::signer::Fleet;
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
    pub pca: Option<PcaConfig>,
    /// Limits on concurrent work.
    pub limits: Limits,
    /// How long work in flight can continue after a SIGTERM.
    pub shutdown_grace: Duration,
    /// How it works with the cluster.
    pub cluster: ClusterConfig,
}

/// How AWS Private CA is used.
#[derive(Clone, Debug)]
pub struct PcaConfig {
    /// The file with the rules for who gets which certificate.
    pub policy: PathBuf,
    /// How much of the account's quotas all nodes together can use.
    pub fleet: Fleet,
    /// Whether certificates that are no longer in use are revoked.
    pub revoke: bool,
    /// Possible addresses of this node's EKS Pod Identity agent, tried in this order.
    pub pod_identity: Vec<http::Uri>,
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
