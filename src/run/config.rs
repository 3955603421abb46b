//! What the driver runs with.

use super::ClusterConfig;
use crate::csi::Driver;
use crate::signer::Fleet;
use crate::volume::{Limits, StoreOptions};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// What `certlet node` runs with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who the driver is.
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
    /// The local signer; none: there is none.
    pub local_signer: Option<LocalSigner>,
    /// AWS Private CA; none: `signer: acm-pca` is refused.
    pub pca: Option<PcaConfig>,
    /// How much may go on at once.
    pub limits: Limits,
    /// How long what is in flight may go on after a SIGTERM.
    pub shutdown_grace: Duration,
    /// The cluster around it.
    pub cluster: ClusterConfig,
}

/// How AWS Private CA is used.
#[derive(Clone, Debug)]
pub struct PcaConfig {
    /// The file with the rules for who may ask for what.
    pub policy: PathBuf,
    /// What all nodes together may do to the account's quotas.
    pub fleet: Fleet,
    /// Whether certificates that nobody has any more are revoked.
    pub revoke: bool,
    /// Where the EKS Pod Identity agent of this node may be, tried in this order.
    pub pod_identity: Vec<http::Uri>,
}

/// Where the local signer's CA comes from.
#[derive(Clone, Debug)]
pub enum LocalSigner {
    /// Made when the process starts, gone when it ends.
    Ephemeral,
    /// Loaded.
    Files {
        /// PEM certificate.
        certificate: PathBuf,
        /// PEM private key.
        key: PathBuf,
    },
}
