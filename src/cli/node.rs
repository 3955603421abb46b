//! `certlet node`

use super::csi_driver_spiffe::{CsiDriverSpiffeArgs, CsiDriverSpiffeError};
#[cfg(feature = "kubernetes")]
use super::runtime_issuer::RuntimeIssuerError;
use super::shared::{ClusterDomainArgs, LocalSignerArgs, LogArgs, SdsArgs};
use super::values::{self, Bind};
use crate::attributes::{OperatorDefaults, PodIp, SpiffeIdsError};
use crate::csi::Driver;
#[cfg(not(feature = "kubernetes"))]
use crate::model::OperatorIssuer;
use crate::model::{Dialect, TrustDomain};
use crate::run::Config;
use crate::volume::{Limits, StoreOptions};
use clap::Args;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;
use thiserror::Error;

/// The kubelet's directory for plugins and their sockets.
const KUBELET_PLUGINS: &str = "/var/lib/kubelet/plugins";
/// The store's directory in the driver's plugin directory.
pub(super) const DATA_ROOT: &str = "data";

/// `certlet node`
#[derive(Clone, Debug, Args)]
pub struct NodeArgs {
    /// Name of this node in Kubernetes.
    #[arg(long, env = "CERTLET_NODE_ID", value_parser = values::not_empty)]
    pub node_id: String,

    /// Name of the CSI driver: csi.certlet.io, csi.cert-manager.io to replace cert-manager's csi-driver, or spiffe.csi.cert-manager.io
    /// to replace csi-driver-spiffe. --csi-driver-name is the same.
    #[arg(long, alias = "csi-driver-name", env = "CERTLET_DRIVER_NAME", default_value = "csi.certlet.io", value_parser = values::driver_name)]
    pub driver_name: String,

    /// CSI socket to listen on [default: /var/lib/kubelet/plugins/DRIVER-NAME/csi.sock]
    #[arg(long, env = "CERTLET_ENDPOINT", value_name = "SOCKET", value_parser = values::endpoint)]
    pub endpoint: Option<PathBuf>,

    /// Directory of the store, where its tmpfs is mounted; absolute or relative
    /// [default: /var/lib/kubelet/plugins/DRIVER-NAME/data]
    #[arg(long, env = "CERTLET_DATA_ROOT", value_name = "DIR")]
    pub data_root: Option<PathBuf>,

    /// The kubelet's directory of registration sockets; empty if another program registers the driver.
    #[arg(
        long,
        env = "CERTLET_REGISTRATION_DIR",
        value_name = "DIR",
        default_value = "/var/lib/kubelet/plugins_registry",
        value_parser = PathBuf::from_str
    )]
    pub registration_dir: PathBuf,

    /// Path of the CSI socket as the kubelet sees it, if it differs from --endpoint.
    #[arg(long, env = "CERTLET_KUBELET_REGISTRATION_PATH", value_name = "PATH")]
    pub kubelet_registration_path: Option<PathBuf>,

    /// Address for /healthz, /readyz and /metrics: address:port, :port, or 0 for no admin server.
    #[arg(long, env = "CERTLET_METRICS_BIND_ADDRESS", value_name = "ADDRESS", default_value = ":9402", value_parser = values::bind_address)]
    pub metrics_bind_address: Bind,

    /// Add metrics for each volume, with the labels namespace, pod and volume.
    #[arg(long, env = "CERTLET_METRICS_PER_VOLUME")]
    pub metrics_per_volume: bool,

    /// What is logged.
    #[command(flatten)]
    pub logs: LogArgs,

    /// The local signer.
    #[command(flatten)]
    pub local_signer: LocalSignerArgs,

    /// AWS Private CA.
    #[cfg(feature = "aws")]
    #[command(flatten)]
    pub pca: super::pca::PcaArgs,

    /// The names of SDS secrets.
    #[command(flatten)]
    pub sds: SdsArgs,

    /// The cluster's DNS domain.
    #[command(flatten)]
    pub cluster_domain: ClusterDomainArgs,

    /// Limit on the memory of the store; a volume needs 8 to 40 KiB.
    #[arg(long, env = "CERTLET_STORE_SIZE", value_name = "BYTES", default_value = "64Mi", value_parser = values::size)]
    pub store_size: u64,

    /// Limit on the files, directories and links of the store; a volume with key, certificate and CA has 11.
    #[arg(long, env = "CERTLET_STORE_INODES", value_name = "COUNT", default_value_t = 65_536, value_parser = clap::value_parser!(u64).range(64..))]
    pub store_inodes: u64,

    /// Limit on the files of one volume, all together. A signer's answer that makes them larger is refused, and the certificate
    /// in use stays.
    #[arg(long, env = "CERTLET_MAX_VOLUME_SIZE", value_name = "BYTES", default_value = "128Ki", value_parser = values::size)]
    pub max_volume_size: u64,

    /// Percent of the store that the volumes of one namespace may use together.
    #[arg(long, env = "CERTLET_MAX_STORE_SHARE_PER_NAMESPACE", value_name = "PERCENT", default_value_t = 50, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub max_store_share_per_namespace: u8,

    /// Limit on the volumes of one pod. 0 for no limit.
    #[arg(long, env = "CERTLET_MAX_VOLUMES_PER_POD", value_name = "COUNT", default_value_t = 16)]
    pub max_volumes_per_pod: u32,

    /// Limit on the volumes of one namespace on this node. 0 for no limit but --max-store-share-per-namespace.
    #[arg(long, env = "CERTLET_MAX_VOLUMES_PER_NAMESPACE", value_name = "COUNT", default_value_t = 0)]
    pub max_volumes_per_namespace: u32,

    /// SELinux context of the store, for nodes where SELinux is enforcing: one that containers may read, such as
    /// `system_u:object_r:container_file_t:s0`.
    #[arg(long, env = "CERTLET_STORE_SELINUX_CONTEXT", value_name = "CONTEXT", value_parser = values::selinux_context)]
    pub store_selinux_context: Option<String>,

    /// Limit on publishes at the same time; one namespace has at most three quarters. Others wait, for half of their time and 64
    /// of each namespace, and the kubelet retries them. Namespaces are served one after the other.
    #[arg(long, env = "CERTLET_MAX_VOLUMES_IN_FLIGHT", value_name = "COUNT", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub max_volumes_in_flight: u32,

    /// Limit on active renewals; others wait. A renewal whose signer has not answered within five seconds no longer counts as
    /// active, but as waiting; up to four times as many may be waiting. One namespace has at most three quarters of both.
    #[arg(long, env = "CERTLET_MAX_RENEWALS_IN_FLIGHT", value_name = "COUNT", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub max_renewals_in_flight: u32,

    /// Minimum time before a certificate is renewed, whatever "renew-before" says. If two thirds of the lifetime are less, they
    /// are the minimum. 0 for no minimum.
    #[arg(long, env = "CERTLET_MIN_RENEWAL_INTERVAL", value_name = "DURATION", default_value = "1m", value_parser = values::duration_or_zero)]
    pub min_renewal_interval: Duration,

    /// Time for running calls to finish after a SIGTERM or SIGINT.
    #[arg(long, env = "CERTLET_SHUTDOWN_GRACE", value_name = "DURATION", default_value = "20s", value_parser = values::duration)]
    pub shutdown_grace: Duration,

    /// Number of worker threads [default: half the number of cores, from 1 to 4]
    #[arg(long, env = "CERTLET_WORKER_THREADS", value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub worker_threads: Option<u16>,

    /// Trust bundles.
    #[command(flatten)]
    pub trust: super::trust::TrustArgs,

    /// SPIFFE IDs.
    #[command(flatten)]
    pub spiffe: super::spiffe::SpiffeArgs,

    /// Classes of identity.
    #[command(flatten)]
    pub classes: super::classes::ClassArgs,

    /// The volumes of csi-driver-spiffe.
    #[command(flatten)]
    pub csi_driver_spiffe: CsiDriverSpiffeArgs,

    /// Kubernetes and cert-manager.
    #[cfg(feature = "kubernetes")]
    #[command(flatten)]
    pub cluster: super::cluster::ClusterArgs,
}

/// Flags that are valid alone, but not together.
#[derive(Debug, Error)]
pub enum UsageError {
    /// A local CA without the permission to use it.
    #[error("--local-ca-cert: given without --allow-local-signer; add that flag, or remove this one")]
    LocalCaWithoutPermission,
    /// The taint would never be removed.
    #[error(
        "--startup-taint: given with an empty --registration-dir; only a driver that registers itself learns when it is ready"
    )]
    TaintWithoutRegistration,
    /// The flags for SPIFFE IDs.
    #[error(transparent)]
    SpiffeIds(#[from] SpiffeIdsError),
    /// The cluster's own trust domain as a federated one.
    #[error(
        "--federated-bundle {0}: is the --trust-domain of this driver, whose trust bundle comes from the signer or --ca-source; accepted: \
         other trust domains"
    )]
    FederatedWithItself(TrustDomain),
    /// The flags for volumes of csi-driver-spiffe.
    #[error(transparent)]
    CsiDriverSpiffe(#[from] CsiDriverSpiffeError),
    /// The ConfigMap with the issuer.
    #[cfg(feature = "kubernetes")]
    #[error(transparent)]
    RuntimeIssuer(#[from] RuntimeIssuerError),
    /// A part of an issuer without its name.
    #[error("{flag}: given without --default-issuer-name; add that flag, or remove this one")]
    Issuer {
        /// The flag.
        flag: &'static str,
    },
    /// Volumes of csi-driver-spiffe need an issuer.
    #[error(
        "--issuer-name: is empty, and --runtime-issuance-config-map-name too; accepted: the name of an issuer, or the name of a \
         ConfigMap that names one"
    )]
    NoIssuer,
    /// The current directory is not known.
    #[error("--data-root {}: cannot be made absolute: {source}", .path.display())]
    DataRoot {
        /// The path.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
}

impl NodeArgs {
    /// Where `${POD_IP}` comes from.
    #[cfg(feature = "kubernetes")]
    fn pod_ip(&self) -> PodIp {
        self.cluster.pod_ip()
    }

    /// Without a cluster no pod is read.
    #[cfg(not(feature = "kubernetes"))]
    #[expect(clippy::unused_self, reason = "it is not unused with the feature kubernetes")]
    fn pod_ip(&self) -> PodIp {
        PodIp::Unknown
    }

    fn limits(&self) -> Limits {
        Limits {
            publishes: self.max_volumes_in_flight as usize,
            renewals: self.max_renewals_in_flight as usize,
            renewal_interval: self.min_renewal_interval,
            volume_bytes: self.max_volume_size,
            namespace_store_percent: self.max_store_share_per_namespace,
            volumes_per_pod: self.max_volumes_per_pod as usize,
            volumes_per_namespace: self.max_volumes_per_namespace as usize,
        }
    }

    /// The configuration.
    pub fn into_config(self) -> Result<Config, UsageError> {
        let (pod_ip, limits) = (self.pod_ip(), self.limits());
        let root = path_or_default(self.data_root, &self.driver_name, DATA_ROOT);
        let root =
            std::path::absolute(&root).map_err(|source| UsageError::DataRoot { path: root, source })?;
        let endpoint = path_or_default(self.endpoint, &self.driver_name, "csi.sock");
        #[cfg(feature = "kubernetes")]
        if self.cluster.startup_taint.is_some() && self.registration_dir.as_os_str().is_empty() {
            return Err(UsageError::TaintWithoutRegistration);
        }
        let local_signer = self.local_signer.signer()?;
        let dialect = Dialect::of_driver(&self.driver_name);
        let spiffe_ids = self.spiffe.ids(dialect)?;
        let trust = self.trust.defaults(spiffe_ids.as_ref()).map_err(UsageError::FederatedWithItself)?;
        let defaults = OperatorDefaults {
            dialect,
            spiffe_ids,
            #[cfg(feature = "kubernetes")]
            issuer: self.cluster.operator_issuer(dialect)?,
            #[cfg(not(feature = "kubernetes"))]
            issuer: OperatorIssuer::default(),
            secret_names: self.sds.names(),
            // Without a source of trust anchors csi-driver-spiffe writes no file of them.
            svid: self.csi_driver_spiffe.defaults(!trust.sources.is_empty())?,
            trust,
            node_name: Some(self.node_id.clone()),
            pod_ip,
            cluster_domain: self.cluster_domain.cluster_domain,
            ..OperatorDefaults::default()
        };
        Ok(Config {
            crls: self.trust.crls(),
            #[cfg(feature = "kubernetes")]
            cluster: self.cluster.into_config(&self.node_id, dialect),
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
            #[cfg(feature = "aws")]
            pca: self.pca.into_config(),
            defaults,
            classes: self.classes.config(),
            pins: self.trust.pin_ca,
            limits,
            shutdown_grace: self.shutdown_grace,
        })
    }
}

/// The path of a flag, or its default: `name` in the driver's plugin directory.
pub(super) fn path_or_default(given: Option<PathBuf>, driver_name: &str, name: &str) -> PathBuf {
    given.unwrap_or_else(|| Path::new(KUBELET_PLUGINS).join(driver_name).join(name))
}
