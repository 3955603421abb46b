//! `certlet approver`, put together: client, approver, readiness, metrics.

use super::admin::{metrics_page, probe};
use super::bind;
use crate::approver::{Approver, ApproverMetrics, ApproverOptions};
use crate::kube::{ApiObserver, Cluster, KubeError};
use crate::telemetry::serve_admin;
use axum::Router;
use axum::routing::get;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

/// How the approver runs.
#[derive(Clone, Debug)]
pub struct ApproverConfig {
    /// A kubeconfig file; none: the pod's own service account.
    pub kubeconfig: Option<PathBuf>,
    /// The address of `/readyz`, if it is served.
    pub readiness_address: Option<SocketAddr>,
    /// The address of `/metrics`, if it is served.
    pub metrics_address: Option<SocketAddr>,
    /// What is approved.
    pub options: ApproverOptions,
}

/// Why the approver could not run.
#[derive(Debug, Error)]
pub enum ApproverError {
    /// The cluster.
    #[error(transparent)]
    Kube(#[from] KubeError),
    /// There is no API server to talk to.
    #[error(
        "--kubeconfig: is missing, and this process is not in a pod; accepted: a kubeconfig file outside of a cluster"
    )]
    NoCluster,
    /// An address cannot be listened on.
    #[error("{flag} {address}: {source}")]
    Bind {
        /// The flag.
        flag: &'static str,
        /// The address.
        address: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
}

/// Runs the approver until `shutdown`.
pub async fn run_approver(config: ApproverConfig, shutdown: CancellationToken) -> Result<(), ApproverError> {
    let metrics = Arc::<ApproverMetrics>::default();
    let observer: Arc<dyn ApiObserver> = Arc::clone(&metrics) as _;
    let cluster = Cluster::connect(config.kubeconfig.as_deref(), observer).await?;
    let cluster = cluster.ok_or(ApproverError::NoCluster)?;
    let (lease, namespace) = (config.options.lease_name.clone(), config.options.lease_namespace.clone());
    let approver = Approver::new(cluster, config.options, Arc::clone(&metrics));
    let state = approver.state();
    let readiness = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(async move || probe(state.borrow().ready())));
    let pages = Router::new().route("/metrics", get(async move || metrics_page(metrics.encode())));
    for (flag, address, pages) in [
        ("--readiness-probe-bind-address", config.readiness_address, readiness),
        ("--metrics-bind-address", config.metrics_address, pages),
    ] {
        if let Some(address) = address {
            let failed = |source| ApproverError::Bind { flag, address, source };
            tokio::spawn(serve_admin(bind(address).await.map_err(failed)?, pages, shutdown.clone()));
        }
    }
    tracing::info!(version = env!("CARGO_PKG_VERSION"), lease, namespace, "the approver starts");
    approver.run(shutdown).await;
    tracing::info!("the approver ends");
    Ok(())
}
