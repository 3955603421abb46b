//! The flags of `certlet node` for Kubernetes and cert-manager.

use super::node::UsageError;
use super::runtime_issuer::RuntimeIssuerArgs;
use super::shared::IssuerArgs;
use super::values;
use crate::attributes::PodIp;
use crate::model::{Dialect, OperatorIssuer};
use crate::run::{ClusterConfig, RateLimit};
use crate::signer::{CertManagerOptions, Following, Gate, GateBackoff};
use clap::Args;
use std::ops::Bound::{Excluded, Unbounded};
use std::path::PathBuf;
use std::time::Duration;

/// Flags for Kubernetes and cert-manager.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Kubernetes and cert-manager")]
pub struct ClusterArgs {
    /// Kubeconfig for access to the cluster. Without one, the driver uses its pod's service account; outside of a cluster
    /// there is no cert-manager signer.
    #[arg(long, env = "CERTLET_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Limit on Kubernetes API calls per second [default: no limit but the API server's own]
    #[arg(long, env = "CERTLET_KUBE_API_QPS", value_name = "RATE", value_parser = values::number((Excluded(0.0), Unbounded), "a number above 0"))]
    pub kube_api_qps: Option<f64>,

    /// Number of calls that --kube-api-qps allows at once [default: twice the rate]
    #[arg(long, env = "CERTLET_KUBE_API_BURST", value_name = "COUNT", requires = "kube_api_qps", value_parser = clap::value_parser!(u32).range(1..))]
    pub kube_api_burst: Option<u32>,

    /// The operator's issuer.
    #[command(flatten)]
    pub issuer: IssuerArgs,

    /// Which ConfigMap names the operator's issuer.
    #[command(flatten)]
    pub runtime_issuer: RuntimeIssuerArgs,

    /// Number of CertificateRequests to keep for each volume. Older ones are deleted once a newer one is in use.
    #[arg(long, env = "CERTLET_KEEP_REQUESTS", value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub keep_requests: u16,

    /// Create CertificateRequests as the pod's own service account, with the token that the kubelet sends. The CSIDriver
    /// needs tokenRequests and requiresRepublish. With the driver name spiffe.csi.cert-manager.io, this is the default.
    #[arg(long, env = "CERTLET_USE_TOKEN_REQUEST", conflicts_with = "use_own_service_account")]
    pub use_token_request: bool,

    /// Create CertificateRequests as the driver's own service account. Without --use-token-request, this is the default, but not with
    /// the driver name spiffe.csi.cert-manager.io.
    #[arg(long, env = "CERTLET_USE_OWN_SERVICE_ACCOUNT", num_args = 0..=1, require_equals = true, value_name = "BOOL", default_missing_value = "true", value_parser = values::boolean)]
    pub use_own_service_account: Option<bool>,

    /// Audience of the token to use, as in the CSIDriver's tokenRequests; empty: the API server's own.
    #[arg(long, env = "CERTLET_TOKEN_REQUEST_AUDIENCE", value_name = "AUDIENCE", default_value = "")]
    pub token_request_audience: String,

    /// What a pod must have before a certificate is requested: pod-ip:any|ipv4|ipv6, pod-condition:TYPE[=STATUS] or
    /// pod-annotation:KEY. The flag may be repeated; all gates must be open.
    #[arg(
        long,
        env = "CERTLET_POD_READINESS_GATE",
        value_name = "GATE",
        value_delimiter = ',',
        requires = "continue_on_not_ready"
    )]
    pub pod_readiness_gate: Vec<Gate>,

    /// Mount the volume without files while the pod's gates are closed; the files follow.
    #[arg(long, env = "CERTLET_CONTINUE_ON_NOT_READY")]
    pub continue_on_not_ready: bool,

    /// First pause before the gates of a pod are checked again.
    #[arg(long, env = "CERTLET_GATE_BACKOFF_DURATION", value_name = "DURATION", default_value = "1s", value_parser = values::duration)]
    pub gate_backoff_duration: Duration,

    /// Factor by which each next pause is longer; 1 or more.
    #[arg(long, env = "CERTLET_GATE_BACKOFF_FACTOR", value_name = "FACTOR", default_value_t = 2.0, value_parser = values::number(1.0.., "a number of 1 or more"))]
    pub gate_backoff_factor: f64,

    /// Random share that is added to each pause, from 0 to 1.
    #[arg(long, env = "CERTLET_GATE_BACKOFF_JITTER", value_name = "SHARE", default_value_t = 0.5, value_parser = values::number(0.0..=1.0, "a number from 0 to 1"))]
    pub gate_backoff_jitter: f64,

    /// Limit on the pause; 0 for no limit.
    #[arg(long, env = "CERTLET_GATE_BACKOFF_CAP", value_name = "DURATION", default_value = "10s", value_parser = values::duration_or_zero)]
    pub gate_backoff_cap: Duration,

    /// Limit on the CertificateRequests that the pods of one namespace on this node get in an hour. 0 for no limit. For AWS
    /// Private CA the policy file has a limit, maxIssuancesPerHour.
    #[arg(long, env = "CERTLET_MAX_ISSUANCES_PER_HOUR", value_name = "COUNT", default_value_t = 0)]
    pub max_issuances_per_hour: u32,

    /// Key of a taint to remove from this node once the driver is ready.
    #[arg(long, env = "CERTLET_STARTUP_TAINT", value_name = "KEY", value_parser = values::not_empty)]
    pub startup_taint: Option<String>,
}

impl ClusterArgs {
    /// The operator's issuer: of the flags, or of a ConfigMap.
    pub(super) fn operator_issuer(&self, dialect: Dialect) -> Result<OperatorIssuer, UsageError> {
        let of_flags = self.issuer.issuer(dialect)?;
        let config_map = self.runtime_issuer.config_map()?;
        if of_flags.is_none() && config_map.is_none() && dialect == Dialect::CsiDriverSpiffe {
            return Err(UsageError::NoIssuer);
        }
        Ok(OperatorIssuer::new(of_flags, config_map))
    }

    /// Where `${POD_IP}` comes from: the pods may be read if a gate waits for their address.
    pub(super) fn pod_ip(&self) -> PodIp {
        let is_awaited = self.pod_readiness_gate.iter().any(|gate| matches!(gate, Gate::PodIp(_)));
        if is_awaited { PodIp::Read } else { PodIp::Unknown }
    }

    /// The configuration, on this node.
    pub(super) fn into_config(self, node: &str, dialect: Dialect) -> ClusterConfig {
        let is_token_default =
            dialect == Dialect::CsiDriverSpiffe && self.use_own_service_account != Some(true);
        let rate_limit = self
            .kube_api_qps
            .map(|qps| RateLimit { qps, burst: self.kube_api_burst.map_or((qps * 2.0).ceil(), f64::from) });
        ClusterConfig {
            kubeconfig: self.kubeconfig,
            rate_limit,
            cert_manager: CertManagerOptions {
                node: node.to_owned(),
                keep_requests: self.keep_requests.into(),
                max_issuances_per_hour: self.max_issuances_per_hour,
                following: Following::Watch,
                journal: None,
                token_audience: (self.use_token_request || is_token_default)
                    .then_some(self.token_request_audience),
                gates: self.pod_readiness_gate,
                gate_backoff: GateBackoff {
                    duration: self.gate_backoff_duration,
                    factor: self.gate_backoff_factor,
                    jitter: self.gate_backoff_jitter,
                    cap: self.gate_backoff_cap,
                },
            },
            continue_on_not_ready: self.continue_on_not_ready,
            startup_taint: self.startup_taint,
        }
    }
}
