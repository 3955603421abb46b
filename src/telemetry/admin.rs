//! The admin HTTP server: `/healthz`, `/readyz`, `/metrics`. It serves no secrets.

use super::Metrics;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::future::BoxFuture;
use std::io;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// What the probes ask.
pub trait Health: Send + Sync + 'static {
    /// Whether the process works: the CSI socket answers, the renewal queue turns. An error says what does not.
    fn alive(&self) -> BoxFuture<'_, Result<(), String>>;

    /// Whether the kubelet can use it. An error says what is missing.
    fn ready(&self) -> Result<(), String>;
}

/// What the admin server shows.
#[derive(Clone)]
pub struct Admin {
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The probes.
    pub health: Arc<dyn Health>,
}

impl Admin {
    /// Serves until `shutdown`.
    pub async fn serve(self, listener: TcpListener, shutdown: CancellationToken) -> io::Result<()> {
        let app = Router::new()
            .route("/healthz", get(healthz))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .with_state(self);
        axum::serve(listener, app).with_graceful_shutdown(shutdown.cancelled_owned()).await
    }
}

async fn healthz(State(admin): State<Admin>) -> Response {
    probe(admin.health.alive().await)
}

async fn readyz(State(admin): State<Admin>) -> Response {
    probe(admin.health.ready())
}

fn probe(result: Result<(), String>) -> Response {
    match result {
        Ok(()) => (StatusCode::OK, "ok\n").into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

async fn metrics(State(admin): State<Admin>) -> Response {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match admin.metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("metrics: {error}\n")).into_response(),
    }
}
