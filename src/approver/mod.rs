//! `certlet approver`: approves and denies the CertificateRequests of SPIFFE drivers, in place of csi-driver-spiffe's approver.
//!
//! ```text
//! Lease held -> watch of all requests -> queue -> get -> evaluate -> pods, Services -> status written
//! ```
//!
//! `evaluate` decides from the request alone, and names what is still to be looked up in the cluster. With the driver's own account
//! that is a pod of the asked identity on the node that the driver's token is bound to. So a stolen node gets the identities of its
//! own pods and no others.

mod controller;
mod evaluate;
mod identity;
mod lease;
mod metrics;
mod request;
mod service_names;
#[cfg(test)]
mod tests;

pub use evaluate::{AllowedDuration, Requester, Rules};
pub use identity::ServiceAccount;
pub use metrics::ApproverMetrics;
pub use request::IssuerRef;

use crate::kube::{Cluster, follow_issuer};
use crate::model::{self, CurrentIssuer, RuntimeConfigMap, fingerprint};
use controller::Controller;
use jiff::Timestamp;
use lease::{Attempt, Candidate, Lease, Timings};
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What an operator can choose.
#[derive(Clone, Debug)]
pub struct ApproverOptions {
    /// What a request must be like.
    pub rules: Rules,
    /// How to treat requests without the annotation; none: they are left to other approvers.
    pub others: Option<OtherRequests>,
    /// The namespace of the Lease.
    pub lease_namespace: String,
    /// The name of the Lease. Approvers that share it decide one at a time.
    pub lease_name: String,
}

/// The approver approves requests without the annotation too, but for those that concern SPIFFE.
#[derive(Clone, Debug)]
pub struct OtherRequests {
    /// The issuer of SPIFFE IDs, which no other request may use.
    pub spiffe_issuer: IssuerRef,
    /// A ConfigMap that names another one.
    pub runtime_config_map: Option<RuntimeConfigMap>,
}

/// What the approver does now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It has not reached the API server yet.
    Starting,
    /// Another approver decides.
    Standby,
    /// It leads, and reads the requests that exist.
    Listing,
    /// It decides.
    Deciding,
    /// The API server prevents it from deciding.
    Failing(String),
}

impl State {
    /// Whether everything is as it should be; else what is wrong.
    pub(crate) fn ready(&self) -> Result<(), String> {
        match self {
            Self::Standby | Self::Deciding => Ok(()),
            Self::Starting => Err("the API server has not answered yet".to_owned()),
            Self::Listing => Err("the existing CertificateRequests are being read".to_owned()),
            Self::Failing(fault) => Err(fault.clone()),
        }
    }
}

/// Takes part in the election, and decides while it leads.
pub(crate) struct Approver {
    controller: Controller,
    candidate: Candidate,
    others: Option<(OtherRequests, watch::Sender<Option<IssuerRef>>)>,
    cluster: Cluster,
    metrics: Arc<ApproverMetrics>,
    state: watch::Sender<State>,
}

impl Approver {
    /// Prepares an approver. Nothing is sent yet.
    pub(crate) fn new(cluster: Cluster, options: ApproverOptions, metrics: Arc<ApproverMetrics>) -> Self {
        Self::with_timings(cluster, options, metrics, Timings::USUAL)
    }

    fn with_timings(
        cluster: Cluster,
        options: ApproverOptions,
        metrics: Arc<ApproverMetrics>,
        timings: Timings,
    ) -> Self {
        let ApproverOptions { rules, others, lease_namespace, lease_name } = options;
        let state = watch::Sender::new(State::Starting);
        let others = others.map(|others| {
            let is_known = others.runtime_config_map.is_none();
            let issuer = watch::Sender::new(is_known.then(|| others.spiffe_issuer.clone()));
            (others, issuer)
        });
        let lease = Lease {
            cluster: cluster.clone(),
            namespace: lease_namespace,
            name: lease_name,
            identity: unique_identity(),
            timings,
        };
        Self {
            controller: Controller {
                cluster: cluster.clone(),
                rules,
                spiffe_issuer: others.as_ref().map(|(_, issuer)| issuer.subscribe()),
                metrics: Arc::clone(&metrics),
                state: state.clone(),
            },
            candidate: Candidate::new(lease),
            others,
            cluster,
            metrics,
            state,
        }
    }

    /// What the approver does, for the readiness probe.
    pub(crate) fn state(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// Runs until `shutdown`.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let Self { controller, mut candidate, others, cluster, metrics, state } = self;
        let issuer = async {
            if let Some((OtherRequests { spiffe_issuer, runtime_config_map: Some(map) }, issuer)) = others {
                let publish = |current: &CurrentIssuer| {
                    if let CurrentIssuer::Named(named) = current {
                        issuer.send_replace(Some(named.clone().into()));
                    }
                };
                let IssuerRef { name, kind, group } = spiffe_issuer;
                let fallback = Some(model::IssuerRef { name, kind, group });
                follow_issuer(cluster, map, fallback, publish, |_| {}).await;
            }
            std::future::pending::<()>().await;
        };
        let leading = async {
            loop {
                let report = |attempt: &_| report(&state, attempt);
                let Some(renewed) = shutdown.run_until_cancelled(candidate.acquire(report)).await else {
                    return;
                };
                tracing::info!("this approver leads");
                metrics.leads(true);
                state.send_replace(State::Listing);
                let lost = tokio::select! {
                    lost = candidate.keep(renewed) => Some(lost),
                    () = controller.run() => None,
                    () = shutdown.cancelled() => None,
                };
                metrics.leads(false);
                let Some(lost) = lost else { return candidate.release().await };
                tracing::warn!(error = lost, "this approver has lost its lease and stops deciding");
                state.send_replace(State::Failing(format!("the lease is lost: {lost}")));
            }
        };
        tokio::select! {
            () = issuer => {}
            () = leading => {}
        }
    }
}

/// Shows an attempt to get the lease, and logs what is new.
fn report(state: &watch::Sender<State>, attempt: &Result<Attempt, crate::kube::CallError>) {
    let now = match attempt {
        Ok(Attempt::Held) => return,
        Ok(Attempt::HeldBy(_)) => State::Standby,
        Err(error) => State::Failing(format!("the lease cannot be used: {error}")),
    };
    if *state.borrow() == now {
        return;
    }
    match attempt {
        Err(error) => tracing::warn!(%error, "the lease cannot be used; trying again"),
        Ok(Attempt::HeldBy(leader)) => tracing::info!(leader, "another approver leads"),
        Ok(Attempt::Held) => {}
    }
    state.send_replace(now);
}

/// The host's name, which is the pod's, and something that makes it unique.
fn unique_identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    let now = Timestamp::now().as_nanosecond().to_be_bytes();
    let unique = fingerprint(&[host.as_bytes(), &std::process::id().to_be_bytes(), &now]);
    format!("{host}_{}", &unique[..16])
}
