//! What a cluster adds: the cert-manager signer, Events, the startup taint.

use super::observer::{CallObserver, RateLimit};
use crate::csi::{Driver, RegistrationState};
use crate::kube::{Cluster, EventRecorder, KubeError, KubeOptions, remove_startup_taint};
use crate::platform::{Backoff, Clock};
use crate::signer::{CertManager, CertManagerOptions, ConfiguredSigner};
use crate::telemetry::Metrics;
use crate::volume::Registry;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How the driver works with a cluster.
#[derive(Clone, Debug, Default)]
pub struct ClusterConfig {
    /// How to reach it.
    pub kube: KubeOptions,
    /// A client-side limit on calls; none: only the server limits them.
    pub rate_limit: Option<RateLimit>,
    /// How the cert-manager signer makes its requests.
    pub cert_manager: CertManagerOptions,
    /// Whether a pod that is not ready gets an empty volume first.
    pub continue_on_not_ready: bool,
    /// The taint to remove from the node once the driver is ready.
    pub startup_taint: Option<String>,
}

/// The clients of the cluster, if there is one.
pub(super) struct ClusterClients {
    cluster: Option<Cluster>,
    observer: Arc<CallObserver>,
    driver: Driver,
}

impl ClusterClients {
    pub(super) async fn connect(
        config: &ClusterConfig,
        driver: &Driver,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, KubeError> {
        let observer = Arc::new(CallObserver::new(Arc::clone(metrics), config.rate_limit));
        let cluster = Cluster::connect(&config.kube, Arc::clone(&observer) as _).await?;
        Ok(Self { cluster, observer, driver: driver.clone() })
    }

    /// The cert-manager signer; it works until `end`.
    pub(super) fn signer(
        &self,
        options: &CertManagerOptions,
        clock: &Arc<dyn Clock>,
        registry: &Arc<Registry>,
        end: &CancellationToken,
    ) -> Option<ConfiguredSigner> {
        let (clock, observer) = (Arc::clone(clock), Arc::clone(&self.observer) as _);
        let (cluster, live) = (self.cluster.clone()?, Arc::clone(registry) as _);
        let signer = CertManager::new(cluster, options.clone(), clock, observer, live, end.clone());
        Some(ConfiguredSigner::new(Arc::new(signer)))
    }

    /// Records Events on pods.
    pub(super) fn events(&self) -> Option<EventRecorder> {
        let Driver { name, node_id } = &self.driver;
        self.cluster.as_ref().map(|cluster| EventRecorder::start(cluster, name, node_id))
    }

    /// Removes the startup taint once the kubelet has accepted the driver, however many attempts that needs.
    pub(super) fn untaint_when_ready(
        &self,
        key: Option<&str>,
        mut registered: watch::Receiver<RegistrationState>,
    ) {
        const RETRIES: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_mins(1));
        let Some((cluster, taint)) = self.cluster.clone().zip(key.map(str::to_owned)) else { return };
        let node = self.driver.node_id.clone();
        tokio::spawn(async move {
            if registered.wait_for(|state| *state == RegistrationState::Accepted).await.is_err() {
                return;
            }
            for failures in 0.. {
                match remove_startup_taint(&cluster, &node, &taint).await {
                    Ok(removed) => {
                        return tracing::info!(taint, removed, "the startup taint is off this node");
                    }
                    Err(error) => {
                        tracing::warn!(taint, %error, "the startup taint could not be removed; trying again");
                    }
                }
                tokio::time::sleep(RETRIES.grown(failures)).await;
            }
        });
    }
}
