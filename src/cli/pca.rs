//! The part of `certlet node` that is about AWS Private CA.

use super::values;
use crate::run::PcaConfig;
use crate::signer::Fleet;
use clap::Args;
use http::Uri;
use std::path::PathBuf;

/// How AWS Private CA is used.
#[derive(Clone, Debug, Args)]
pub struct PcaArgs {
    /// Allow "signer: acm-pca", AWS Private CA called directly, as far as this file allows: YAML rules for who may request
    /// what. The driver reloads a changed file.
    #[arg(long, env = "CERTLET_PCA_POLICY", value_name = "FILE")]
    pub pca_policy: Option<PathBuf>,

    /// IssueCertificate calls per second that all nodes together may make in an account and Region, of the 25 that AWS
    /// allows by default. The limits of other calls follow in proportion to their quotas.
    #[arg(long, env = "CERTLET_PCA_RATE", value_name = "RATE", default_value_t = Fleet::DEFAULT.issue_rate, value_parser = values::number(0.01..=10_000.0, "calls per second, from 0.01 to 10000, such as 20 or 2.5"))]
    pub pca_rate: f64,

    /// Number of nodes that share --pca-rate. A node may use more than its share while the others are idle, until AWS throttles.
    #[arg(long, env = "CERTLET_PCA_FLEET_SIZE", value_name = "NODES", default_value_t = Fleet::DEFAULT.nodes, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub pca_fleet_size: u32,

    /// Revoke a certificate of AWS Private CA when its volume is removed, or replaced by one with a new key. Best effort, with
    /// the driver's own credentials. It has no effect for a CA in short-lived mode, which has no revocation.
    #[arg(long, env = "CERTLET_PCA_REVOKE_ON_UNPUBLISH", requires = "pca_policy")]
    pub pca_revoke_on_unpublish: bool,

    /// Name private CAs in metrics by their ARNs, which hold account numbers. Without it, the label `authority` is the last part
    /// of the ARN. Every pod of the cluster may be able to read metrics.
    #[arg(long, env = "CERTLET_METRICS_PCA_ARNS", requires = "pca_policy")]
    pub metrics_pca_arns: bool,

    /// Addresses of the node's EKS Pod Identity agent, for volumes with "use-pod-identity". The driver uses the first one that
    /// accepts a connection.
    #[arg(
        long,
        env = "CERTLET_PCA_POD_IDENTITY_ENDPOINT",
        value_name = "URL,...",
        value_delimiter = ',',
        default_value = "http://169.254.170.23/v1/credentials,http://[fd00:ec2::23]/v1/credentials",
        value_parser = values::http_url
    )]
    pub pca_pod_identity_endpoint: Vec<Uri>,
}

impl PcaArgs {
    pub(super) fn into_config(self) -> Option<PcaConfig> {
        Some(PcaConfig {
            policy: Some(self.pca_policy?),
            fleet: Fleet { issue_rate: self.pca_rate, nodes: self.pca_fleet_size },
            revoke: self.pca_revoke_on_unpublish,
            metrics_arns: self.metrics_pca_arns,
            pod_identity: self.pca_pod_identity_endpoint,
            is_in_pod: false,
        })
    }
}

/// How a sidecar uses AWS Private CA.
#[derive(Clone, Debug, Args)]
pub struct SidecarPcaArgs {
    /// Restrict "signer: acm-pca" to what this file allows: YAML rules as of certlet node. Without it, IAM alone decides. The pod's own
    /// AWS credentials reach AWS without certlet too, so that the file protects from mistakes only.
    #[arg(long, env = "CERTLET_PCA_POLICY", value_name = "FILE")]
    pub pca_policy: Option<PathBuf>,

    /// IssueCertificate calls per second that all pods together may make in an account and Region, of the 25 that AWS allows by
    /// default. The limits of other calls follow in proportion to their quotas.
    #[arg(long, env = "CERTLET_PCA_RATE", value_name = "RATE", default_value_t = Fleet::DEFAULT.issue_rate, value_parser = values::number(0.01..=10_000.0, "calls per second, from 0.01 to 10000, such as 20 or 2.5"))]
    pub pca_rate: f64,

    /// Number of sidecars that share --pca-rate. One may use more than its share while the others are idle, until AWS throttles.
    #[arg(long, env = "CERTLET_PCA_FLEET_SIZE", value_name = "COUNT", default_value_t = Fleet::DEFAULT.nodes, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub pca_fleet_size: u32,
}

impl SidecarPcaArgs {
    pub(super) fn into_config(self) -> PcaConfig {
        PcaConfig {
            policy: self.pca_policy,
            fleet: Fleet { issue_rate: self.pca_rate, nodes: self.pca_fleet_size },
            revoke: false,
            metrics_arns: false,
            pod_identity: Vec::new(),
            is_in_pod: true,
        }
    }
}
