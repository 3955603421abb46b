//! What a cluster adds: the cert-manager signer, Events, the startup taint.

use super::Config;
use super::notices::{APPROVED_UNCHECKED, Notices};
use super::observer::{CallObserver, RateLimit};
use crate::csi::{Driver, RegistrationState};
use crate::kube::{Cluster, EventRecorder, KubeError, follow_issuer, remove_startup_taint};
use crate::model::{CurrentIssuer, EventKind, OperatorIssuer, PodEvent, RuntimeConfigMap, WorkloadIdentity};
use crate::platform::Backoff;
use crate::signer::{CertManager, CertManagerOptions, ConfiguredSigner, PodReader};
use crate::volume::{EventSink, Parts};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How the driver works with a cluster.
#[derive(Clone, Debug, Default)]
pub struct ClusterConfig {
    /// A kubeconfig file; none: the pod's own service account.
    pub kubeconfig: Option<PathBuf>,
    /// A client-side limit on calls; none: only the server limits them.
    pub rate_limit: Option<RateLimit>,
    /// How the cert-manager signer makes its requests.
    pub cert_manager: CertManagerOptions,
    /// Whether a pod that is not ready gets an empty volume first.
    pub continue_on_not_ready: bool,
    /// The taint to remove from the node once the driver is ready.
    pub startup_taint: Option<String>,
}

/// If there is a cluster, adds the cert-manager signer, which works until `end`, and Events to `parts`. It also starts the
/// removal of the startup taint.
pub(super) async fn join(
    config: &Config,
    parts: &mut Parts,
    notices: &Arc<Notices>,
    registered: watch::Receiver<RegistrationState>,
    end: &CancellationToken,
) -> Result<(), KubeError> {
    let (Driver { name, node_id }, options) = (&config.driver, &config.cluster);
    parts.continue_on_not_ready = options.continue_on_not_ready;
    let observer =
        Arc::new(CallObserver::new(Arc::clone(&parts.metrics), options.rate_limit, Arc::clone(notices)));
    let Some(cluster) = Cluster::connect(options.kubeconfig.as_deref(), Arc::clone(&observer) as _).await?
    else {
        return Ok(());
    };
    parts.trust.connect(cluster.clone());
    parts.crls.connect(cluster.clone());
    parts.addresses = Some(Arc::new(PodReader::new(cluster.clone(), options.cert_manager.gate_backoff)));
    parts.signers.push(ConfiguredSigner::new(Arc::new(CertManager::new(
        cluster.clone(),
        options.cert_manager.clone(),
        Arc::clone(&parts.clock),
        observer,
        Arc::clone(&parts.registry) as _,
        end.clone(),
    ))));
    let events = EventRecorder::start(&cluster, name, node_id);
    if let Some(config_map) = config.defaults.issuer.config_map().cloned() {
        let issuer = config.defaults.issuer.clone();
        tokio::spawn(follow_operators_issuer(
            cluster.clone(),
            config_map,
            issuer,
            events.clone(),
            node_id.clone(),
        ));
    }
    tokio::spawn(tell_operator(Arc::clone(notices), events.clone(), node_id.clone()));
    tokio::spawn(tell_of_classes(notices.class_faults(), events.clone(), node_id.clone()));
    parts.events = Some(Box::new(events));
    if let Some(taint) = options.startup_taint.clone() {
        tokio::spawn(untaint(cluster, node_id.clone(), taint, registered));
    }
    Ok(())
}

/// Follows the ConfigMap with the operator's issuer. What is wrong with it is also an Event on the node.
async fn follow_operators_issuer(
    cluster: Cluster,
    config_map: RuntimeConfigMap,
    issuer: OperatorIssuer,
    events: EventRecorder,
    node: String,
) {
    let name = config_map.to_string();
    let reject = |error: &str| {
        let message = format!("the ConfigMap {name} names no issuer and changes nothing: {error}");
        let event = PodEvent { kind: EventKind::Warning, reason: "RuntimeIssuerInvalid", message };
        events.record_on_node(&node, event);
    };
    let publish = |current: &CurrentIssuer| issuer.set(current.clone());
    follow_issuer(cluster, config_map, issuer.of_flags().cloned(), publish, reject).await;
}

impl EventSink for EventRecorder {
    fn record(&self, pod: &WorkloadIdentity, event: PodEvent) {
        EventRecorder::record(self, pod, event);
    }
}

/// Logs a notice, and records it as an Event on the node.
async fn tell_operator(notices: Arc<Notices>, events: EventRecorder, node: String) {
    notices.until_approved_unchecked().await;
    tracing::warn!("{APPROVED_UNCHECKED}");
    let event = PodEvent {
        kind: EventKind::Warning,
        reason: "EveryRequestApproved",
        message: APPROVED_UNCHECKED.to_owned(),
    };
    events.record_on_node(&node, event);
}

/// Records what is wrong with the file of classes as an Event on the node.
async fn tell_of_classes(mut faults: watch::Receiver<Option<String>>, events: EventRecorder, node: String) {
    while faults.changed().await.is_ok() {
        let fault = faults.borrow_and_update().clone();
        if let Some(message) = fault {
            let event = PodEvent { kind: EventKind::Warning, reason: "ClassesInvalid", message };
            events.record_on_node(&node, event);
        }
    }
}

/// Removes the startup taint once the kubelet has accepted the driver, however many attempts that needs.
async fn untaint(
    cluster: Cluster,
    node: String,
    taint: String,
    mut registered: watch::Receiver<RegistrationState>,
) {
    const RETRIES: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_mins(1));
    if registered.wait_for(|state| *state == RegistrationState::Accepted).await.is_err() {
        return;
    }
    for failures in 0.. {
        match remove_startup_taint(&cluster, &node, &taint).await {
            Ok(removed) => return tracing::info!(taint, removed, "the startup taint is off this node"),
            Err(error) => {
                tracing::warn!(taint, %error, "the startup taint could not be removed; trying again");
            }
        }
        tokio::time::sleep(RETRIES.full_pause(failures)).await;
    }
}
