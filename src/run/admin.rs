//! The pages of the admin server: `/healthz`, `/readyz`, `/metrics`. They show no secrets.

use crate::csi::RegistrationState;
use crate::proto::csi::ProbeRequest;
use crate::proto::csi::identity_client::IdentityClient;
use crate::telemetry::Metrics;
use crate::volume::VolumeService;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tonic::transport::Endpoint;

/// What the pages show.
pub(super) struct AdminPages {
    pub(super) metrics: Arc<Metrics>,
    pub(super) endpoint: PathBuf,
    pub(super) volumes: VolumeService,
    /// None: the driver does not register itself.
    pub(super) registered: Option<watch::Receiver<RegistrationState>>,
}

/// A CSI socket that takes longer than this to answer Probe does not work.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

impl AdminPages {
    pub(super) fn router(self) -> Router {
        Router::new()
            .route("/healthz", get(async |State(pages): State<Arc<Self>>| probe(pages.alive().await)))
            .route("/readyz", get(async |State(pages): State<Arc<Self>>| probe(pages.ready())))
            .route("/metrics", get(async |State(pages): State<Arc<Self>>| pages.metrics()))
            .with_state(Arc::new(self))
    }

    /// Whether the process works: the CSI socket answers, and the renewal loop runs. The error says what does not work.
    async fn alive(&self) -> Result<(), String> {
        if !self.volumes.is_running() {
            return Err("the renewal loop does not run".to_owned());
        }
        let socket = format!("unix://{}", self.endpoint.display());
        let probe = async {
            let channel = Endpoint::from_shared(socket)?.connect().await?;
            Ok::<_, tonic::transport::Error>(IdentityClient::new(channel).probe(ProbeRequest {}).await)
        };
        match tokio::time::timeout(PROBE_TIMEOUT, probe).await {
            Err(_) => Err(format!("the CSI socket has not answered within {} s", PROBE_TIMEOUT.as_secs())),
            Ok(Err(error)) => Err(format!("the CSI socket cannot be reached: {error}")),
            Ok(Ok(Err(status))) => Err(format!("the CSI socket answers {status}")),
            Ok(Ok(Ok(_))) => Ok(()),
        }
    }

    /// Whether the kubelet can use the driver. The error says what is missing.
    fn ready(&self) -> Result<(), String> {
        let Some(registered) = &self.registered else { return Ok(()) };
        match &*registered.borrow() {
            RegistrationState::Accepted => Ok(()),
            RegistrationState::Waiting => Err("the kubelet has not asked for the driver yet".to_owned()),
            RegistrationState::Refused(reason) => Err(format!("the kubelet refused the driver: {reason}")),
            RegistrationState::Lost(reason) => {
                Err(format!("the registration with the kubelet was lost: {reason}"))
            }
        }
    }

    fn metrics(&self) -> Response {
        const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        match self.metrics.encode() {
            Ok(text) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("metrics: {error}\n")).into_response(),
        }
    }
}

fn probe(result: Result<(), String>) -> Response {
    match result {
        Ok(()) => "ok\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}
