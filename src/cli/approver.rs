//! `certlet approver`. The flags of csi-driver-spiffe's approver are accepted as they are.

use super::runtime_issuer::{RuntimeIssuerArgs, RuntimeIssuerError};
use super::values::{self, Bind};
use crate::approver::{
    AllowedDuration, ApproverOptions, IssuerRef, OtherRequests, Requester, Rules, ServiceAccount,
};
use crate::run::ApproverConfig;
use crate::telemetry::LogFormat;
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;
use thiserror::Error;

/// `certlet approver`
#[derive(Clone, Debug, Args)]
pub struct ApproverArgs {
    /// Name of the SPIFFE driver, which is also the name of the Lease; --csi-driver-name is the same. Approvers with one name decide
    /// one at a time.
    #[arg(long, alias = "csi-driver-name", env = "CERTLET_DRIVER_NAME", default_value = "spiffe.csi.cert-manager.io", value_parser = values::driver_name)]
    pub driver_name: String,

    /// Kubeconfig for access to the cluster. Without one, the approver uses its pod's service account.
    #[arg(long, env = "CERTLET_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Trust domain of every SPIFFE ID.
    #[arg(long, env = "CERTLET_TRUST_DOMAIN", value_name = "DOMAIN", default_value = "cluster.local", value_parser = values::trust_domain)]
    pub trust_domain: String,

    /// Duration that every request must have.
    #[arg(long, env = "CERTLET_CERTIFICATE_REQUEST_DURATION", value_name = "DURATION", default_value = "1h", value_parser = values::duration)]
    pub certificate_request_duration: Duration,

    /// Allow every duration up to this one.
    #[arg(long, env = "CERTLET_MAX_DURATION", value_name = "DURATION", value_parser = values::duration)]
    pub max_duration: Option<Duration>,

    /// Allow DNS names of Services that exist in the requester's namespace: SERVICE.NAMESPACE, SERVICE.NAMESPACE.svc and
    /// SERVICE.NAMESPACE.svc.CLUSTER-DOMAIN.
    #[arg(long, env = "CERTLET_ALLOW_SERVICE_DNS_NAMES", num_args = 0..=1, require_equals = true, value_name = "BOOL", default_value = "false", default_missing_value = "true", value_parser = values::boolean, action = clap::ArgAction::Set)]
    pub allow_service_dns_names: bool,

    /// DNS domain of the cluster, for names of Services.
    #[arg(long, env = "CERTLET_CLUSTER_DOMAIN", value_name = "DOMAIN", default_value = "cluster.local", value_parser = values::not_empty)]
    pub cluster_domain: String,

    /// The driver makes requests with its own service account, and not with those of the pods. Then an identity is approved only if the
    /// node that the driver's token is bound to has a pod with it.
    #[arg(long, env = "CERTLET_USE_OWN_SERVICE_ACCOUNT", num_args = 0..=1, require_equals = true, value_name = "BOOL", default_value = "false", default_missing_value = "true", value_parser = values::boolean, action = clap::ArgAction::Set)]
    pub use_own_service_account: bool,

    /// The driver's service account, as system:serviceaccount:NAMESPACE:NAME. Required with --use-own-service-account.
    #[arg(long, env = "CERTLET_DRIVER_SERVICE_ACCOUNT", value_name = "USERNAME", default_value = "")]
    pub driver_service_account: String,

    /// Approve requests without the driver's annotation too, as cert-manager's own approver does. Requests that ask for a SPIFFE ID or
    /// use the issuer of SPIFFE IDs are denied.
    #[arg(long, env = "CERTLET_AUTO_APPROVE_NON_SPIFFE", num_args = 0..=1, require_equals = true, value_name = "BOOL", default_value = "false", default_missing_value = "true", value_parser = values::boolean, action = clap::ArgAction::Set)]
    pub auto_approve_non_spiffe: bool,

    /// Name of the issuer of SPIFFE IDs, which --auto-approve-non-spiffe keeps from other requests.
    #[arg(long, env = "CERTLET_ISSUER_NAME", value_name = "NAME", default_value = "my-spiffe-ca")]
    pub issuer_name: String,

    /// Kind of that issuer.
    #[arg(long, env = "CERTLET_ISSUER_KIND", value_name = "KIND", default_value = "ClusterIssuer")]
    pub issuer_kind: String,

    /// API group of that issuer.
    #[arg(long, env = "CERTLET_ISSUER_GROUP", value_name = "GROUP", default_value = "cert-manager.io")]
    pub issuer_group: String,

    /// Which ConfigMap names that issuer.
    #[command(flatten)]
    pub runtime_issuer: RuntimeIssuerArgs,

    /// Namespace of the Lease by which several approvers agree on one.
    #[arg(long, env = "CERTLET_LEADER_ELECTION_NAMESPACE", value_name = "NAMESPACE", default_value = "cert-manager", value_parser = values::object_name)]
    pub leader_election_namespace: String,

    /// Address for /readyz: address:port, :port, or 0 for none.
    #[arg(long, env = "CERTLET_READINESS_PROBE_BIND_ADDRESS", value_name = "ADDRESS", default_value = ":6060", value_parser = values::bind_address)]
    pub readiness_probe_bind_address: Bind,

    /// Address for /metrics: address:port, :port, or 0 for none.
    #[arg(long, env = "CERTLET_METRICS_BIND_ADDRESS", value_name = "ADDRESS", default_value = ":9402", value_parser = values::bind_address)]
    pub metrics_bind_address: Bind,

    /// Format of log lines.
    #[arg(long, env = "CERTLET_LOG_FORMAT", value_enum, default_value_t = LogFormat::Json)]
    pub log_format: LogFormat,

    /// Log level: error, warn, info, debug, trace, or a filter such as "info,certlet=debug". The numbers 1 to 5 of csi-driver-spiffe
    /// are accepted too.
    #[arg(long, short = 'v', env = "CERTLET_LOG_LEVEL", default_value = "info", value_parser = values::log_level)]
    pub log_level: String,
}

/// Flags of the approver that are valid alone, but not together.
#[derive(Debug, Error)]
pub enum ApproverUsageError {
    /// Whose requests would be approved?
    #[error("--driver-service-account {given:?}: {fault}; required with --use-own-service-account")]
    DriverServiceAccount {
        /// The value.
        given: String,
        /// What is wrong.
        fault: String,
    },
    /// The usual duration would be denied.
    #[error(
        "--max-duration: is shorter than --certificate-request-duration; accepted: that duration or a longer one"
    )]
    MaxDuration,
    /// The ConfigMap cannot be found.
    #[error(transparent)]
    ConfigMap(#[from] RuntimeIssuerError),
}

impl ApproverArgs {
    /// The configuration.
    pub fn into_config(self) -> Result<ApproverConfig, ApproverUsageError> {
        let requester = self.requester()?;
        let runtime_config_map = self.runtime_issuer.config_map()?;
        let usual = self.certificate_request_duration;
        let duration = match self.max_duration {
            None => AllowedDuration::Exactly(usual),
            Some(most) if most >= usual => AllowedDuration::AtMost(most),
            Some(_) => return Err(ApproverUsageError::MaxDuration),
        };
        let spiffe_issuer =
            IssuerRef { name: self.issuer_name, kind: self.issuer_kind, group: self.issuer_group };
        Ok(ApproverConfig {
            kubeconfig: self.kubeconfig,
            readiness_address: self.readiness_probe_bind_address.0,
            metrics_address: self.metrics_bind_address.0,
            options: ApproverOptions {
                rules: Rules {
                    trust_domain: self.trust_domain,
                    duration,
                    requester,
                    service_names_under: self.allow_service_dns_names.then_some(self.cluster_domain),
                },
                others: self
                    .auto_approve_non_spiffe
                    .then_some(OtherRequests { spiffe_issuer, runtime_config_map }),
                lease_namespace: self.leader_election_namespace,
                lease_name: self.driver_name.to_ascii_lowercase(),
            },
        })
    }

    fn requester(&self) -> Result<Requester, ApproverUsageError> {
        if !self.use_own_service_account {
            return Ok(Requester::Pod);
        }
        let given = &self.driver_service_account;
        let account: Result<ServiceAccount, String> = given.parse();
        account
            .map(Requester::Driver)
            .map_err(|fault| ApproverUsageError::DriverServiceAccount { given: given.clone(), fault })
    }
}
