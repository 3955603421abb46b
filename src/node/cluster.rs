//! What a cluster adds: the cert-manager signer, Events, the startup taint.

use crate::attributes::{PodIdentity, VolumeId};
use crate::clock::Clock;
use crate::csi::{Driver, RegistrationState};
use crate::issue::FailureClass;
use crate::kube::{
    Cluster, EventKind, EventRecorder, KubeError, KubeOptions, PodEventNote, remove_startup_taint,
};
use crate::lifecycle::{LifecycleError, NoEvents, PodEvent, PodEvents};
use crate::signer::{CertManager, CertManagerOptions, Gate, GateBackoff, Signer};
use crate::telemetry::Metrics;
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How the driver works with a cluster.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// How to reach it.
    pub kube: KubeOptions,
    /// CertificateRequests that a volume may have.
    pub keep_requests: usize,
    /// The audience of the pods' tokens that requests are made with; none: they are made as the driver.
    pub token_audience: Option<String>,
    /// What must hold of a pod before a request is made for it.
    pub gates: Vec<Gate>,
    /// When a pod that was not ready is looked at again.
    pub gate_backoff: GateBackoff,
    /// Whether a pod that is not ready gets its volume empty.
    pub continue_on_not_ready: bool,
    /// The taint to take off the node once the driver is ready.
    pub startup_taint: Option<String>,
}

impl Default for ClusterConfig {
    fn default() -> Self {
        Self {
            kube: KubeOptions::default(),
            keep_requests: 1,
            token_audience: None,
            gates: Vec::new(),
            gate_backoff: GateBackoff::default(),
            continue_on_not_ready: false,
            startup_taint: None,
        }
    }
}

/// The cluster around the driver, if there is one.
pub(super) struct Around {
    cluster: Option<Cluster>,
    driver: Driver,
    metrics: Arc<Metrics>,
}

impl Around {
    pub(super) async fn find(
        config: &ClusterConfig,
        driver: &Driver,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, KubeError> {
        let cluster = Cluster::connect(&config.kube, Arc::clone(metrics) as _).await?;
        Ok(Self { cluster, driver: driver.clone(), metrics: Arc::clone(metrics) })
    }

    /// The cert-manager signer; it works until `end`.
    pub(super) fn signer(
        &self,
        config: &ClusterConfig,
        clock: &Arc<dyn Clock>,
        end: &CancellationToken,
    ) -> Option<Arc<dyn Signer>> {
        let options = CertManagerOptions {
            node: self.driver.node_id.clone(),
            keep_requests: config.keep_requests,
            token_audience: config.token_audience.clone(),
            gates: config.gates.clone(),
            gate_backoff: config.gate_backoff,
        };
        let (clock, observer) = (Arc::clone(clock), Arc::clone(&self.metrics) as _);
        let cluster = self.cluster.clone()?;
        Some(Arc::new(CertManager::new(cluster, options, clock, observer, end.clone())))
    }

    /// Who tells the authors of pods.
    pub(super) fn events(&self) -> Arc<dyn PodEvents> {
        let Driver { name, node_id } = self.driver.clone();
        match self.cluster.clone() {
            Some(cluster) => Arc::new(ClusterEvents(EventRecorder::start(&cluster, &name, &node_id))),
            None => Arc::new(NoEvents),
        }
    }

    /// Takes the startup taint off once the kubelet has taken the driver, however long that needs trying.
    pub(super) fn untaint_when_ready(
        &self,
        key: Option<&str>,
        registered: watch::Receiver<RegistrationState>,
    ) {
        let Some((cluster, key)) = self.cluster.clone().zip(key.map(str::to_owned)) else { return };
        tokio::spawn(untaint(cluster, self.driver.node_id.clone(), key, registered));
    }
}

async fn untaint(
    cluster: Cluster,
    node: String,
    key: String,
    mut registered: watch::Receiver<RegistrationState>,
) {
    const LONGEST_PAUSE: Duration = Duration::from_mins(1);
    if registered.wait_for(|state| matches!(state, RegistrationState::Accepted)).await.is_err() {
        return;
    }
    let mut pause = Duration::from_secs(1);
    loop {
        match remove_startup_taint(&cluster, &node, &key).await {
            Ok(removed) => return tracing::info!(taint = key, removed, "the startup taint is off this node"),
            Err(error) => {
                tracing::warn!(taint = key, %error, "the startup taint could not be taken off; trying again");
            }
        }
        tokio::time::sleep(pause).await;
        pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
    }
}

/// Puts what the lifecycle tells into Events.
struct ClusterEvents(EventRecorder);

impl PodEvents for ClusterEvents {
    fn tell(&self, volume: &VolumeId, pod: &PodIdentity, not_after: Option<Timestamp>, event: PodEvent<'_>) {
        if matches!(event, PodEvent::Issued | PodEvent::RenewalRecovered) {
            self.0.settle(volume);
        }
        self.0.record(volume, pod, note(not_after, event));
    }

    fn forget(&self, volume: &VolumeId) {
        self.0.forget(volume);
    }
}

fn note(not_after: Option<Timestamp>, event: PodEvent<'_>) -> PodEventNote {
    let until = not_after.map_or_else(String::new, |not_after| format!(" until {not_after:.0}"));
    let (kind, reason, note) = match event {
        PodEvent::Issued => {
            (EventKind::Normal, "CertificateIssued", format!("certificate issued, valid{until}"))
        }
        PodEvent::RenewalRecovered => (
            EventKind::Normal,
            "CertificateRenewalRecovered",
            format!("certificate renewed again, valid{until}"),
        ),
        PodEvent::RenewalFailing(error) => (
            EventKind::Warning,
            "CertificateRenewalFailing",
            format!("the certificate in place is valid{until}, but its renewal fails: {error}"),
        ),
        PodEvent::NotIssued(error) => match (error, error.class()) {
            (LifecycleError::StillWaiting { .. }, _) | (_, FailureClass::NotReady { .. }) => {
                (EventKind::Normal, "CertificatePending", error.to_string())
            }
            (_, FailureClass::Permanent) => (EventKind::Warning, "CertificateRefused", error.to_string()),
            _ => (EventKind::Warning, "CertificateFailed", error.to_string()),
        },
    };
    PodEventNote { kind, reason, note }
}
