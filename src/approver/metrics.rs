//! The approver's metrics.

use super::evaluate::Denial;
use crate::kube::ApiObserver;
use crate::telemetry::{ApiCallLabels, encode_metrics, new_registry, registered};
use futures_util::future::BoxFuture;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Counters of decisions and calls. They name no pod and no namespace.
#[derive(Debug)]
pub struct ApproverMetrics {
    approvals: Counter,
    denials: Family<[(&'static str, &'static str); 1], Counter>,
    retries: Counter,
    waiting: Gauge,
    leads: Gauge,
    api_calls: Family<ApiCallLabels, Counter>,
    watch_restarts: Counter,
    registry: Registry,
}

impl Default for ApproverMetrics {
    fn default() -> Self {
        let mut registry = new_registry();
        let reg = &mut registry;
        Self {
            approvals: registered(reg, "request_approvals", "CertificateRequests that were approved"),
            denials: registered(
                reg,
                "request_denials",
                "CertificateRequests that were denied, by the check that they have not passed",
            ),
            retries: registered(
                reg,
                "request_decision_retries",
                "Decisions that the Kubernetes API prevented, and that are tried again",
            ),
            waiting: registered(
                reg,
                "requests_waiting",
                "CertificateRequests that wait for this approver's decision",
            ),
            leads: registered(reg, "leader", "Whether this approver is the one that decides: 1 or 0"),
            api_calls: registered(
                reg,
                "kubernetes_api_calls",
                "Calls of the Kubernetes API by verb and HTTP status; 0: no answer",
            ),
            watch_restarts: registered(
                reg,
                "kubernetes_watch_restarts",
                "Interruptions of the watch on CertificateRequests",
            ),
            registry,
        }
    }
}

impl ApproverMetrics {
    pub(super) fn decided(&self, decision: &Result<String, Denial>) {
        match decision {
            Ok(_) => self.approvals.inc(),
            Err(denial) => self.denials.get_or_create(&[("reason", denial.reason.as_str())]).inc(),
        };
    }

    pub(super) fn will_retry(&self) {
        self.retries.inc();
    }

    pub(super) fn waiting(&self, count: usize) {
        self.waiting.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub(super) fn leads(&self, leads: bool) {
        self.leads.set(leads.into());
    }

    /// All metrics in the OpenMetrics text format.
    pub(crate) fn encode(&self) -> Result<String, std::fmt::Error> {
        encode_metrics(&self.registry)
    }
}

impl ApiObserver for ApproverMetrics {
    fn admit(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    fn api_call(&self, verb: &'static str, code: u16) {
        self.api_calls.get_or_create(&ApiCallLabels { verb, code }).inc();
    }

    fn watch_restarted(&self) {
        self.watch_restarts.inc();
    }

    fn requests_tracked(&self, _tracked: usize, _ignored: u64) {}

    fn approved_unchecked(&self) {}
}
