//! Flags that several subcommands share.

use super::node::{DATA_ROOT, UsageError, path_or_default};
use super::sidecar::state_in;
use super::values;
use crate::attributes::{ClusterDomain, PodIp};
use crate::model::SecretNames;
#[cfg(feature = "kubernetes")]
use crate::model::{Dialect, IssuerRef};
use crate::run::LocalSigner;
use crate::telemetry::LogFormat;
use clap::Args;
use std::net::IpAddr;
use std::path::PathBuf;

/// What is logged.
#[derive(Clone, Debug, Args)]
pub struct LogArgs {
    /// Format of log lines.
    #[arg(long, env = "CERTLET_LOG_FORMAT", value_enum, default_value_t = LogFormat::Json)]
    pub log_format: LogFormat,

    /// Log level: error, warn, info, debug, trace, or a filter such as "info,certlet=debug". The numbers 1 to 5 of cert-manager's
    /// drivers are accepted too.
    #[arg(long, short = 'v', env = "CERTLET_LOG_LEVEL", default_value = "info", value_parser = values::log_level)]
    pub log_level: String,
}

/// The cluster's DNS domain.
#[derive(Clone, Debug, Args)]
pub struct ClusterDomainArgs {
    /// DNS domain of the cluster, with which the names of the attribute services end.
    #[arg(long, env = "CERTLET_CLUSTER_DOMAIN", value_name = "DOMAIN", default_value = "cluster.local", value_parser = values::cluster_domain)]
    pub cluster_domain: ClusterDomain,
}

/// What variables stand for, besides the names of the pod.
#[derive(Clone, Debug, Args)]
pub struct VariableArgs {
    /// Name of the pod's node, for `${NODE_NAME}`. In a sidecar by the downward API; without it, the node in the pod's service account
    /// token.
    #[arg(long, env = "CERTLET_NODE_NAME", value_name = "NAME", value_parser = values::not_empty)]
    pub node_name: Option<String>,

    /// Address of the pod, for `${POD_IP}` in ip-sans; in a sidecar by the downward API (status.podIP). Empty: it is not known.
    #[arg(long, env = "CERTLET_POD_IP", value_name = "ADDRESS", value_parser = values::ip_address)]
    pub pod_ip: Option<GivenAddress>,
}

/// An address; none if it is given empty, as the downward API does while there is none.
#[derive(Clone, Copy, Debug)]
pub struct GivenAddress(pub(super) Option<IpAddr>);

impl VariableArgs {
    /// Where `${POD_IP}` comes from.
    pub(super) fn pod_ip(&self) -> PodIp {
        self.pod_ip.and_then(|GivenAddress(address)| address).map_or(PodIp::Unknown, PodIp::Known)
    }
}

/// The local signer.
#[derive(Clone, Debug, Args)]
pub struct LocalSignerArgs {
    /// Allow "signer: local", a CA inside this process. For development only: whoever may create pods gets any name.
    #[arg(long, env = "CERTLET_ALLOW_LOCAL_SIGNER")]
    pub allow_local_signer: bool,

    /// CA certificate of the local signer, PEM. Without it, every start makes a new CA.
    #[arg(long, env = "CERTLET_LOCAL_CA_CERT", value_name = "FILE", requires = "local_ca_key")]
    pub local_ca_cert: Option<PathBuf>,

    /// CA private key of the local signer, PEM.
    #[arg(long, env = "CERTLET_LOCAL_CA_KEY", value_name = "FILE", requires = "local_ca_cert")]
    pub local_ca_key: Option<PathBuf>,
}

impl LocalSignerArgs {
    /// The local signer of the flags.
    pub(super) fn signer(self) -> Result<Option<LocalSigner>, UsageError> {
        Ok(match (self.allow_local_signer, self.local_ca_cert, self.local_ca_key) {
            (false, None, _) => None,
            (false, Some(_), _) => return Err(UsageError::LocalCaWithoutPermission),
            (true, Some(certificate), Some(key)) => Some(LocalSigner::Files { certificate, key }),
            (true, _, _) => Some(LocalSigner::Ephemeral),
        })
    }
}

/// Where the state of a driver, or of a sidecar, is.
#[derive(Clone, Debug, Args)]
pub struct StoreArgs {
    /// Name of the CSI driver, which gives the path of its store.
    #[arg(long, env = "CERTLET_DRIVER_NAME", default_value = "csi.certlet.io", value_parser = values::driver_name)]
    pub driver_name: String,

    /// Directory of the store, where the driver's control socket is too [default: /var/lib/kubelet/plugins/DRIVER-NAME/data]
    #[arg(long, env = "CERTLET_DATA_ROOT", value_name = "DIR")]
    pub data_root: Option<PathBuf>,

    /// Directory of a sidecar: this is about its certificate, and not about a driver's volumes.
    #[arg(long, env = "CERTLET_DIRECTORY", value_name = "DIR")]
    pub directory: Option<PathBuf>,
}

impl StoreArgs {
    /// The directory with records and control socket.
    pub(super) fn root(&self) -> PathBuf {
        let of_driver = || path_or_default(self.data_root.clone(), &self.driver_name, DATA_ROOT);
        self.directory.as_deref().map_or_else(of_driver, state_in)
    }
}

/// The names of SDS secrets.
#[derive(Clone, Debug, Args)]
pub struct SdsArgs {
    /// Name of the secret with certificate and key, for Envoys that ask a volume's socket (SDS).
    #[arg(long, env = "CERTLET_SDS_DEFAULT_SVID_NAME", value_name = "NAME", default_value = "default", value_parser = values::not_empty)]
    pub sds_default_svid_name: String,

    /// Name of the secret with the trust bundle, for Envoys that ask a volume's socket (SDS).
    #[arg(long, env = "CERTLET_SDS_DEFAULT_BUNDLE_NAME", value_name = "NAME", default_value = "ROOTCA", value_parser = values::not_empty)]
    pub sds_default_bundle_name: String,

    /// Name of the secret with the trust bundles of all trust domains, for Envoys that ask a volume's socket (SDS).
    #[arg(long, env = "CERTLET_SDS_DEFAULT_ALL_BUNDLES_NAME", value_name = "NAME", default_value = "ALL", value_parser = values::not_empty)]
    pub sds_default_all_bundles_name: String,
}

impl SdsArgs {
    pub(super) fn names(self) -> SecretNames {
        SecretNames {
            certificate: self.sds_default_svid_name,
            trust_bundle: self.sds_default_bundle_name,
            all_bundles: self.sds_default_all_bundles_name,
        }
    }
}

/// The operator's issuer.
#[cfg(feature = "kubernetes")]
#[derive(Clone, Debug, Args)]
pub struct IssuerArgs {
    /// The operator's issuer: that of volumes of spiffe.csi.cert-manager.io/, and of volumes of csi.certlet.io/ with the signer
    /// cert-manager that name no issuer. --issuer-name is the same. [default with the driver name spiffe.csi.cert-manager.io: my-spiffe-ca]
    #[arg(long, alias = "issuer-name", env = "CERTLET_DEFAULT_ISSUER_NAME", value_name = "NAME", value_parser = values::issuer_name)]
    pub default_issuer_name: Option<String>,

    /// Kind of the operator's issuer; --issuer-kind is the same [default: ClusterIssuer]
    #[arg(long, alias = "issuer-kind", env = "CERTLET_DEFAULT_ISSUER_KIND", value_name = "KIND", value_parser = values::issuer_kind)]
    pub default_issuer_kind: Option<String>,

    /// API group of the operator's issuer; --issuer-group is the same [default: cert-manager.io]
    #[arg(long, alias = "issuer-group", env = "CERTLET_DEFAULT_ISSUER_GROUP", value_name = "GROUP", value_parser = values::issuer_group)]
    pub default_issuer_group: Option<String>,
}

#[cfg(feature = "kubernetes")]
impl IssuerArgs {
    /// The issuer of the flags. An empty name is none; without a name, the name of the driver decides.
    pub(super) fn issuer(&self, dialect: Dialect) -> Result<Option<IssuerRef>, UsageError> {
        let default = match dialect {
            Dialect::CsiDriverSpiffe => "my-spiffe-ca",
            Dialect::CertManager | Dialect::Certlet => "",
        };
        let name = self.default_issuer_name.as_deref().unwrap_or(default);
        let [kind, group] = [
            ("--default-issuer-kind", &self.default_issuer_kind, "ClusterIssuer"),
            ("--default-issuer-group", &self.default_issuer_group, "cert-manager.io"),
        ]
        .map(|(flag, given, default)| match given {
            Some(_) if self.default_issuer_name.is_none() && name.is_empty() => {
                Err(UsageError::Issuer { flag })
            }
            given => Ok(given.clone().unwrap_or_else(|| default.to_owned())),
        });
        let (kind, group) = (kind?, group?);
        Ok((!name.is_empty()).then(|| IssuerRef { name: name.to_owned(), kind, group }))
    }
}
