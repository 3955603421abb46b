//! `certlet sidecar`

use super::csi_driver_spiffe::CsiDriverSpiffeArgs;
use super::node::UsageError;
#[cfg(feature = "kubernetes")]
use super::shared::IssuerArgs;
use super::shared::{ClusterDomainArgs, LocalSignerArgs, LogArgs, SdsArgs, VariableArgs};
use super::values::{self, Bind};
use crate::attributes::{AttributeErrors, OperatorClasses, OperatorDefaults, TrustDefaults};
use crate::model::{Dialect, OperatorIssuer, RawAttributes};
#[cfg(feature = "kubernetes")]
use crate::run::SidecarClusterConfig;
use crate::run::{PodNames, SidecarConfig};
use crate::sidecar::AttributeSources;
use crate::store::INSIDE;
use clap::Args;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the certificate is, if nothing else is said.
pub(super) const DIRECTORY: &str = "/var/run/secrets/certlet.io";

/// Where the state of the sidecar with this directory is: its record, and its control socket.
pub(super) fn state_in(directory: &Path) -> PathBuf {
    directory.join(INSIDE)
}

/// `certlet sidecar`
#[derive(Clone, Debug, Args)]
pub struct SidecarArgs {
    /// Directory that the containers of the pod share: an emptyDir with medium Memory, with nothing else in it. What is not on a tmpfs is
    /// refused.
    #[arg(long, env = "CERTLET_DIRECTORY", value_name = "DIR", default_value = DIRECTORY)]
    pub directory: PathBuf,

    /// An attribute of the certificate, as a CSI volume has it. A name without a prefix gets csi.certlet.io/. Can be given several times;
    /// in the environment each on a line of its own. --attribute is the same.
    #[arg(long, alias = "attribute", env = "CERTLET_ATTRIBUTES", value_name = "NAME=VALUE", value_delimiter = '\n', value_parser = values::attribute)]
    pub attributes: Vec<Attribute>,

    /// File of a downwardAPI volume with metadata.annotations. Annotations with a prefix of attributes, such as csi.certlet.io/, are
    /// attributes. It is read at the start.
    #[arg(long, env = "CERTLET_ATTRIBUTES_FILE", value_name = "FILE")]
    pub attributes_file: Option<PathBuf>,

    /// File with the password of the keystores, for pkcs12-password-key: a key of a Secret that is mounted. The value of that attribute
    /// does not count.
    #[arg(long, env = "CERTLET_KEYSTORE_PASSWORD_FILE", value_name = "FILE")]
    pub keystore_password_file: Option<PathBuf>,

    /// Get one certificate, and end: for an init container, or a Job.
    #[arg(long, env = "CERTLET_ONCE")]
    pub once: bool,

    /// With --once: time for the certificate to come. Then certlet ends with exit code 1, and the kubelet starts it again.
    #[arg(long, env = "CERTLET_ONCE_TIMEOUT", value_name = "DURATION", default_value = "2m", value_parser = values::duration)]
    pub once_timeout: Duration,

    /// What happens once a later generation of the files is in place, with a new certificate or with other trust anchors: exit=CODE ends
    /// certlet with that exit code, for a restart rule of the container, `RestartAllContainers`. Without it, certlet goes on.
    #[arg(long, env = "CERTLET_ON_RENEWAL", value_name = "exit=CODE", value_parser = values::exit_code, conflicts_with = "once")]
    pub on_renewal: Option<u8>,

    /// Namespace of this pod, by the downward API. What is left out is read from the pod's service account token. What differs from the
    /// token is refused.
    #[arg(long, env = "CERTLET_POD_NAMESPACE", value_name = "NAMESPACE", value_parser = values::not_empty)]
    pub pod_namespace: Option<String>,

    /// Name of this pod.
    #[arg(long, env = "CERTLET_POD_NAME", value_name = "NAME", value_parser = values::not_empty)]
    pub pod_name: Option<String>,

    /// UID of this pod.
    #[arg(long, env = "CERTLET_POD_UID", value_name = "UID", value_parser = values::not_empty)]
    pub pod_uid: Option<String>,

    /// Name of this pod's service account.
    #[arg(long, env = "CERTLET_SERVICE_ACCOUNT", value_name = "NAME", value_parser = values::not_empty)]
    pub service_account: Option<String>,

    /// What variables stand for.
    #[command(flatten)]
    pub variables: VariableArgs,

    /// The cluster's DNS domain.
    #[command(flatten)]
    pub cluster_domain: ClusterDomainArgs,

    /// Address for /healthz, /readyz and /metrics: address:port, :port, or 0 for no admin server.
    #[arg(long, env = "CERTLET_METRICS_BIND_ADDRESS", value_name = "ADDRESS", default_value = "0", value_parser = values::bind_address)]
    pub metrics_bind_address: Bind,

    /// File for the reason of an end with a failure, which kubectl describe pod shows: the container's terminationMessagePath.
    #[arg(
        long,
        env = "CERTLET_TERMINATION_MESSAGE_PATH",
        value_name = "FILE",
        default_value = "/dev/termination-log"
    )]
    pub termination_message_path: PathBuf,

    /// What is logged.
    #[command(flatten)]
    pub logs: LogArgs,

    /// The local signer.
    #[command(flatten)]
    pub local_signer: LocalSignerArgs,

    /// AWS Private CA.
    #[cfg(feature = "aws")]
    #[command(flatten)]
    pub pca: super::pca::SidecarPcaArgs,

    /// The names of SDS secrets.
    #[command(flatten)]
    pub sds: SdsArgs,

    /// Limit on the files of the volume, all together. A signer's answer that makes them larger is refused, and the certificate in use
    /// stays.
    #[arg(long, env = "CERTLET_MAX_VOLUME_SIZE", value_name = "BYTES", default_value = "128Ki", value_parser = values::size)]
    pub max_volume_size: u64,

    /// Minimum time before a certificate is renewed, whatever "renew-before" says. If two thirds of the lifetime are less, they
    /// are the minimum. 0 for no minimum.
    #[arg(long, env = "CERTLET_MIN_RENEWAL_INTERVAL", value_name = "DURATION", default_value = "1m", value_parser = values::duration_or_zero)]
    pub min_renewal_interval: Duration,

    /// Time for work that is under way to finish after a SIGTERM or SIGINT.
    #[arg(long, env = "CERTLET_SHUTDOWN_GRACE", value_name = "DURATION", default_value = "5s", value_parser = values::duration)]
    pub shutdown_grace: Duration,

    /// Trust bundles.
    #[command(flatten)]
    pub trust: super::trust::TrustArgs,

    /// SPIFFE IDs.
    #[command(flatten)]
    pub spiffe: super::spiffe::SpiffeArgs,

    /// Attributes of csi-driver-spiffe.
    #[command(flatten)]
    pub csi_driver_spiffe: CsiDriverSpiffeArgs,

    /// Kubernetes and cert-manager.
    #[cfg(feature = "kubernetes")]
    #[command(flatten)]
    pub cluster: SidecarClusterArgs,
}

/// One attribute of `--attributes`: its name as it is given, and its value.
#[derive(Clone, Debug)]
pub struct Attribute(pub(super) String, pub(super) String);

/// Attributes of one flag, separated by commas.
#[derive(Clone, Debug)]
pub struct AttributeList(pub(super) Vec<Attribute>);

/// The attributes of a volume, from flags with lists.
pub(super) fn attributes(lists: &[AttributeList]) -> Result<RawAttributes, AttributeErrors> {
    let all = lists.iter().flat_map(|AttributeList(list)| list);
    let given = all.map(|Attribute(name, value)| (name.clone(), value.clone())).collect();
    AttributeSources { given, file: None }.read().map_err(AttributeErrors::new)
}

/// Flags for Kubernetes and cert-manager.
#[cfg(feature = "kubernetes")]
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Kubernetes and cert-manager")]
pub struct SidecarClusterArgs {
    /// Kubeconfig for access to the cluster. Without one, certlet uses its pod's service account.
    #[arg(long, env = "CERTLET_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// The operator's issuer.
    #[command(flatten)]
    pub issuer: IssuerArgs,

    /// Number of CertificateRequests to keep. Older ones are deleted once a newer one is in use, if the service account may do that.
    #[arg(long, env = "CERTLET_KEEP_REQUESTS", value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub keep_requests: u16,

    /// Record Events on the pod. The service account needs the permission to create Events (events.k8s.io).
    #[arg(long, env = "CERTLET_EVENTS")]
    pub events: bool,

    /// How often the ConfigMaps and ClusterTrustBundles of trust sources are read. A sidecar watches nothing.
    #[arg(long, env = "CERTLET_TRUST_POLL_INTERVAL", value_name = "DURATION", default_value = "5m", value_parser = values::duration)]
    pub trust_poll_interval: Duration,
}

impl SidecarArgs {
    /// The configuration.
    pub fn into_config(self) -> Result<SidecarConfig, UsageError> {
        // Attributes of every prefix are served. Ours are those without one.
        let dialect = Dialect::Certlet;
        let directory = std::path::absolute(&self.directory)
            .map_err(|source| UsageError::DataRoot { path: self.directory.clone(), source })?;
        let spiffe_ids = self.spiffe.ids(dialect)?;
        let trust = self.trust.defaults(spiffe_ids.as_ref()).map_err(UsageError::FederatedWithItself)?;
        // The pod reads them with its own account, so that the API server decides.
        let trust = TrustDefaults { are_all_config_maps_allowed: true, ..trust };
        let defaults = OperatorDefaults {
            dialect,
            spiffe_ids,
            #[cfg(feature = "kubernetes")]
            issuer: OperatorIssuer::new(self.cluster.issuer.issuer(dialect)?, None),
            #[cfg(not(feature = "kubernetes"))]
            issuer: OperatorIssuer::default(),
            secret_names: self.sds.names(),
            svid: self.csi_driver_spiffe.defaults(!trust.sources.is_empty())?,
            trust,
            owner: Some(nix::unistd::geteuid().as_raw()),
            // The token of the pod names it too.
            node_name: None,
            pod_ip: self.variables.pod_ip(),
            cluster_domain: self.cluster_domain.cluster_domain,
            classes: OperatorClasses::of_sidecar(),
        };
        Ok(SidecarConfig {
            directory,
            pod: PodNames {
                namespace: self.pod_namespace,
                name: self.pod_name,
                uid: self.pod_uid,
                service_account: self.service_account,
                node: self.variables.node_name,
            },
            attributes: self.attributes.into_iter().map(|Attribute(name, value)| (name, value)).collect(),
            attributes_file: self.attributes_file,
            keystore_password_file: self.keystore_password_file,
            once: self.once.then_some(self.once_timeout),
            exit_on_renewal: self.on_renewal,
            metrics_bind_address: self.metrics_bind_address.0,
            local_signer: self.local_signer.signer()?,
            #[cfg(feature = "aws")]
            pca: self.pca.into_config(),
            crls: self.trust.crls(),
            defaults,
            pins: self.trust.pin_ca,
            renewal_interval: self.min_renewal_interval,
            volume_bytes: self.max_volume_size,
            shutdown_grace: self.shutdown_grace,
            #[cfg(feature = "kubernetes")]
            cluster: SidecarClusterConfig {
                kubeconfig: self.cluster.kubeconfig,
                events: self.cluster.events,
                trust_poll_interval: self.cluster.trust_poll_interval,
                keep_requests: self.cluster.keep_requests.into(),
            },
        })
    }
}
