//! `certlet node`

use super::cluster::ClusterArgs;
use super::values::{self, Bind};
use crate::csi::Driver;
use crate::lifecycle::Limits;
use crate::limiter::Fleet;
use crate::node::{Config, LocalSigner, PcaConfig};
use crate::store::StoreOptions;
use crate::telemetry::LogFormat;
use clap::Args;
use http::Uri;
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;

/// Where the kubelet keeps the directories and sockets of its plugins.
const KUBELET_PLUGINS: &str = "/var/lib/kubelet/plugins";

/// `certlet node`
#[derive(Clone, Debug, Args)]
pub struct NodeArgs {
    /// This node's name, as the kubelet knows it.
    #[arg(long, env = "CERTLET_NODE_ID", value_parser = values::not_empty)]
    pub node_id: String,

    /// The CSI driver's name: csi.certlet.io, or csi.cert-manager.io to take the place of cert-manager's csi-driver.
    #[arg(long, env = "CERTLET_DRIVER_NAME", default_value = "csi.certlet.io", value_parser = values::driver_name)]
    pub driver_name: String,

    /// The CSI socket to listen on [default: /var/lib/kubelet/plugins/DRIVER-NAME/csi.sock]
    #[arg(long, env = "CERTLET_ENDPOINT", value_name = "SOCKET", value_parser = values::endpoint)]
    pub endpoint: Option<PathBuf>,

    /// The directory of the store, on which its tmpfs is mounted; absolute or relative
    /// [default: /var/lib/kubelet/plugins/DRIVER-NAME/data]
    #[arg(long, env = "CERTLET_DATA_ROOT", value_name = "DIR")]
    pub data_root: Option<PathBuf>,

    /// The kubelet's directory of registration sockets; empty to leave the registration to somebody else.
    #[arg(
        long,
        env = "CERTLET_REGISTRATION_DIR",
        value_name = "DIR",
        default_value = "/var/lib/kubelet/plugins_registry",
        value_parser = values::maybe_path
    )]
    pub registration_dir: PathBuf,

    /// The CSI socket as the kubelet sees it, where that is another path than --endpoint.
    #[arg(long, env = "CERTLET_KUBELET_REGISTRATION_PATH", value_name = "PATH")]
    pub kubelet_registration_path: Option<PathBuf>,

    /// Where /healthz, /readyz and /metrics are served: address:port, :port, or 0 for nowhere.
    #[arg(long, env = "CERTLET_METRICS_BIND_ADDRESS", value_name = "ADDRESS", default_value = ":9402", value_parser = values::bind_address)]
    pub metrics_bind_address: Bind,

    /// Give each volume metrics of its own, labelled with namespace, pod and volume.
    #[arg(long, env = "CERTLET_METRICS_PER_VOLUME")]
    pub metrics_per_volume: bool,

    /// The form of log lines.
    #[arg(long, env = "CERTLET_LOG_FORMAT", value_enum, default_value_t = LogFormat::Json)]
    pub log_format: LogFormat,

    /// What is logged: error, warn, info, debug, trace, or a filter such as "info,certlet=debug".
    #[arg(long, env = "CERTLET_LOG_LEVEL", default_value = "info")]
    pub log_level: String,

    /// Let pods use "signer: local", a CA inside this process. For development: whoever may create pods gets any name.
    #[arg(long, env = "CERTLET_ALLOW_LOCAL_SIGNER")]
    pub allow_local_signer: bool,

    /// The local signer's CA certificate, PEM; without it a CA is made at every start.
    #[arg(long, env = "CERTLET_LOCAL_CA_CERT", value_name = "FILE", requires = "local_ca_key")]
    pub local_ca_cert: Option<PathBuf>,

    /// The local signer's CA private key, PEM.
    #[arg(long, env = "CERTLET_LOCAL_CA_KEY", value_name = "FILE", requires = "local_ca_cert")]
    pub local_ca_key: Option<PathBuf>,

    /// Let pods use "signer: acm-pca", AWS Private CA called directly, as far as this file allows: YAML rules for who may
    /// ask for what. Changes are taken up while the driver runs.
    #[arg(long, env = "CERTLET_PCA_POLICY", value_name = "FILE")]
    pub pca_policy: Option<PathBuf>,

    /// IssueCertificate calls a second that all nodes together may make in an account and Region, of the 25 that AWS
    /// allows by default; other calls keep the proportion of their quotas.
    #[arg(long, env = "CERTLET_PCA_RATE", value_name = "RATE", default_value_t = Fleet::DEFAULT.issue_rate, value_parser = values::rate)]
    pub pca_rate: f64,

    /// How many nodes share --pca-rate. A node that is alone in being busy may use more than its share, until AWS throttles.
    #[arg(long, env = "CERTLET_PCA_FLEET_SIZE", value_name = "NODES", default_value_t = Fleet::DEFAULT.nodes, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub pca_fleet_size: u32,

    /// Revoke a certificate of AWS Private CA when its volume goes, or when one with a new key has taken its place. Best
    /// effort, with the driver's own credentials. Pointless for a CA in short-lived mode: it has no revocation.
    #[arg(long, env = "CERTLET_PCA_REVOKE_ON_UNPUBLISH", requires = "pca_policy")]
    pub pca_revoke_on_unpublish: bool,

    /// Where the EKS Pod Identity agent of this node may be, for volumes with "use-pod-identity": the first that takes a
    /// connection is asked.
    #[arg(
        long,
        env = "CERTLET_PCA_POD_IDENTITY_ENDPOINT",
        value_name = "URL,...",
        value_delimiter = ',',
        default_value = "http://169.254.170.23/v1/credentials,http://[fd00:ec2::23]/v1/credentials",
        value_parser = values::http_url
    )]
    pub pca_pod_identity_endpoint: Vec<Uri>,

    /// How much memory the store may take; a volume needs 8 to 40 KiB.
    #[arg(long, env = "CERTLET_STORE_SIZE", value_name = "BYTES", default_value = "64Mi", value_parser = values::size)]
    pub store_size: u64,

    /// How many files, directories and links the store may hold; a volume needs about 14.
    #[arg(long, env = "CERTLET_STORE_INODES", value_name = "COUNT", default_value_t = 65_536, value_parser = clap::value_parser!(u64).range(64..))]
    pub store_inodes: u64,

    /// The SELinux context of the store, for nodes where SELinux is enforcing: what containers may read there, such as
    /// `system_u:object_r:container_file_t:s0`.
    #[arg(long, env = "CERTLET_STORE_SELINUX_CONTEXT", value_name = "CONTEXT", value_parser = values::selinux_context)]
    pub store_selinux_context: Option<String>,

    /// How many publishes may be under way at once; one more is told to try again.
    #[arg(long, env = "CERTLET_MAX_VOLUMES_IN_FLIGHT", value_name = "COUNT", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub max_volumes_in_flight: u32,

    /// How many renewals may be under way at once; others wait their turn. One whose signer has not answered within five
    /// seconds makes room, as long as no more than four times as many wait so.
    #[arg(long, env = "CERTLET_MAX_RENEWALS_IN_FLIGHT", value_name = "COUNT", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub max_renewals_in_flight: u32,

    /// How long a certificate is used at least before it is renewed, whatever "renew-before" says, but for those whose life
    /// is so short that two thirds of it are less; 0 for no such limit.
    #[arg(long, env = "CERTLET_MIN_RENEWAL_INTERVAL", value_name = "DURATION", default_value = "1m", value_parser = values::duration_or_zero)]
    pub min_renewal_interval: Duration,

    /// How long what is in flight may go on after a SIGTERM or SIGINT.
    #[arg(long, env = "CERTLET_SHUTDOWN_GRACE", value_name = "DURATION", default_value = "20s", value_parser = values::duration)]
    pub shutdown_grace: Duration,

    /// Threads that run the driver [default: half as many as there are cores, from 1 to 4]
    #[arg(long, env = "CERTLET_WORKER_THREADS", value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub worker_threads: Option<u16>,

    /// The cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// Flags that are fine one by one, but not together.
#[derive(Debug, Error)]
pub enum UsageError {
    /// A CA without leave to use it.
    #[error("--local-ca-cert: given without --allow-local-signer; add that flag, or leave the CA out")]
    LocalCaWithoutLeave,
    /// The taint would stay for ever.
    #[error(
        "--startup-taint: given with an empty --registration-dir; only a driver that registers itself learns when it is ready"
    )]
    TaintWithoutRegistration,
    /// No working directory to make a path absolute with.
    #[error("--data-root {}: cannot be made absolute: {source}", .path.display())]
    DataRoot {
        /// The path.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}

impl NodeArgs {
    /// The configuration they amount to.
    pub fn into_config(self) -> Result<Config, UsageError> {
        let root = default_data_root(&self.driver_name, self.data_root);
        let root =
            std::path::absolute(&root).map_err(|source| UsageError::DataRoot { path: root, source })?;
        let endpoint = self
            .endpoint
            .unwrap_or_else(|| Path::new(KUBELET_PLUGINS).join(&self.driver_name).join("csi.sock"));
        if self.cluster.startup_taint.is_some() && self.registration_dir.as_os_str().is_empty() {
            return Err(UsageError::TaintWithoutRegistration);
        }
        let local_signer = match (self.allow_local_signer, self.local_ca_cert, self.local_ca_key) {
            (false, None, _) => None,
            (false, Some(_), _) => return Err(UsageError::LocalCaWithoutLeave),
            (true, Some(certificate), Some(key)) => Some(LocalSigner::Files { certificate, key }),
            (true, _, _) => Some(LocalSigner::Ephemeral),
        };
        Ok(Config {
            driver: Driver { name: self.driver_name, node_id: self.node_id },
            kubelet_endpoint: self.kubelet_registration_path.unwrap_or_else(|| endpoint.clone()),
            endpoint,
            registration_dir: Some(self.registration_dir).filter(|dir| !dir.as_os_str().is_empty()),
            store: StoreOptions {
                root,
                size_bytes: self.store_size,
                inodes: self.store_inodes,
                selinux_context: self.store_selinux_context,
            },
            metrics_bind_address: self.metrics_bind_address.0,
            metrics_per_volume: self.metrics_per_volume,
            local_signer,
            pca: self.pca_policy.map(|policy| PcaConfig {
                policy,
                fleet: Fleet { issue_rate: self.pca_rate, nodes: self.pca_fleet_size },
                revoke: self.pca_revoke_on_unpublish,
                pod_identity: self.pca_pod_identity_endpoint,
            }),
            limits: Limits {
                publishes: self.max_volumes_in_flight as usize,
                renewals: self.max_renewals_in_flight as usize,
                renewal_interval: self.min_renewal_interval,
            },
            shutdown_grace: self.shutdown_grace,
            cluster: self.cluster.into_config(),
        })
    }
}

/// `--data-root`, or what it is by default.
pub(super) fn default_data_root(driver_name: &str, given: Option<PathBuf>) -> PathBuf {
    given.unwrap_or_else(|| Path::new(KUBELET_PLUGINS).join(driver_name).join("data"))
}
