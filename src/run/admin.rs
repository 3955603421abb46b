//! The pages of the admin server: `/healthz`, `/readyz`, `/metrics`. They show no secrets.

use super::health::Health;
use crate::telemetry::Metrics;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::sync::Arc;

/// What the pages show.
pub(super) struct AdminPages {
    pub(super) metrics: Arc<Metrics>,
    pub(super) health: Arc<Health>,
}

impl AdminPages {
    pub(super) fn router(self) -> Router {
        Router::new()
            .route("/healthz", get(async |State(pages): State<Arc<Self>>| probe(pages.health.alive().await)))
            .route("/readyz", get(async |State(pages): State<Arc<Self>>| probe(pages.health.ready())))
            .route(
                "/metrics",
                get(async |State(pages): State<Arc<Self>>| metrics_page(pages.metrics.encode())),
            )
            .with_state(Arc::new(self))
    }
}

/// The page of metrics in the OpenMetrics text format.
pub(super) fn metrics_page(text: Result<String, std::fmt::Error>) -> Response {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match text {
        Ok(text) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("metrics: {error}\n")).into_response(),
    }
}

/// The page of a probe, which shows what is wrong.
pub(super) fn probe(result: Result<(), String>) -> Response {
    match result {
        Ok(()) => "ok\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}
