//! Counters and histograms. Labels are bounded: pods and volumes are named only with `--metrics-per-volume`.

use super::samples::{VolumeCollector, VolumeSamples};
use crate::model::{FailureKind, SignerKind};
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry};
use std::time::Duration;

/// Names and values of N labels.
type Labels<const N: usize> = [(&'static str, &'static str); N];

/// The driver's metrics.
#[derive(Debug)]
pub struct Metrics {
    issuances: Family<Labels<3>, Counter>,
    issuance_seconds: Family<Labels<1>, Histogram>,
    csi_calls: Family<Labels<2>, Counter>,
    csi_seconds: Family<Labels<1>, Histogram>,
    registered: Gauge,
    registrations: Family<Labels<1>, Counter>,
    signer_calls: Family<Labels<2>, Counter>,
    api_calls: Family<ApiCallLabels, Counter>,
    watch_restarts: Counter,
    requests_tracked: Gauge,
    requests_ignored: Counter,
    approved_unchecked: Gauge,
    doubtful_volumes: Counter,
    sockets: SocketMetrics,
    registry: Mutex<Registry>,
}

/// The labels of a call of the Kubernetes API.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ApiCallLabels {
    /// As in RBAC rules.
    pub(crate) verb: &'static str,
    /// The HTTP status; 0: no answer.
    pub(crate) code: u16,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = new_registry();
        let reg = &mut registry;
        Self {
            issuances: registered(
                reg,
                "issuances",
                "Issuances by signer, purpose (publish or renewal) and result (ok, permanent, throttled, over-budget, not-ready, transient)",
            ),
            issuance_seconds: histogram(
                reg,
                "issuance_duration_seconds",
                "Duration of successful issuances, from key to mounted files",
            ),
            csi_calls: registered(reg, "csi_calls", "CSI calls by method and gRPC code"),
            csi_seconds: histogram(reg, "csi_call_duration_seconds", "Duration of CSI calls"),
            registered: registered(
                reg,
                "registered",
                "Whether the kubelet has accepted the driver's registration: 1 or 0",
            ),
            registrations: registered(
                reg,
                "registrations",
                "Registrations with the kubelet by result (accepted, refused, lost)",
            ),
            doubtful_volumes: doubtful_volumes(reg),
            sockets: SocketMetrics::registered_in(reg),
            signer_calls: registered(
                reg,
                "signer_calls",
                "Calls of a signer by result (ok, permanent, throttled, over-budget, not-ready, transient, abandoned)",
            ),
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
            requests_tracked: registered(
                reg,
                "certificate_requests_tracked",
                "CertificateRequests with this node's label that are in memory, at most 2 KiB each",
            ),
            requests_ignored: registered(
                reg,
                "certificate_requests_ignored",
                "CertificateRequests with this node's label that were ignored: of no volume here, or too many",
            ),
            approved_unchecked: registered(
                reg,
                "requests_approved_unchecked",
                "Whether an approver that approves every CertificateRequest was seen at work: 1 or 0",
            ),
            registry: Mutex::new(registry),
        }
    }
}

/// A registry of metrics with certlet's prefix, and its version in it.
pub(crate) fn new_registry() -> Registry {
    let mut registry = Registry::with_prefix("certlet");
    registry.register("build", "The version of certlet", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
    registry
}

/// All metrics of a registry in the OpenMetrics text format.
pub(crate) fn encode(registry: &Registry) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry)?;
    Ok(text)
}

/// Registers a metric, and returns a handle on it.
pub(crate) fn registered<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}

/// The metrics of the volumes' sockets.
#[derive(Debug)]
struct SocketMetrics {
    connections: Gauge,
    refusals: Family<Labels<1>, Counter>,
    rejections: Counter,
}

impl SocketMetrics {
    fn registered_in(registry: &mut Registry) -> Self {
        Self {
            connections: registered(
                registry,
                "socket_connections",
                "Connections of pods to the sockets of their volumes",
            ),
            refusals: registered(
                registry,
                "socket_refusals",
                "Connections, streams and requests of volumes' sockets that were refused, by the limit (connections, streams, request-bytes)",
            ),
            rejections: registered(registry, "sds_rejections", "Secrets that an Envoy did not accept"),
        }
    }
}

fn doubtful_volumes(registry: &mut Registry) -> Counter {
    let help = "Volumes that got their first certificate although their attributes are doubtful";
    registered(registry, "doubtful_volumes", help)
}

/// Registers a histogram. Its buckets go from 250 microseconds (a local signer) to 20 minutes (an approval by a person).
fn histogram(registry: &mut Registry, name: &str, help: &str) -> Family<Labels<1>, Histogram> {
    let family = Family::<_, Histogram>::new_with_constructor(|| {
        Histogram::new(exponential_buckets(0.000_25, 3.0, 15))
    });
    registry.register(name, help, family.clone());
    family
}

impl Metrics {
    /// Registers the metrics of another module.
    pub(crate) fn extend(&self, register: impl FnOnce(&mut Registry)) {
        register(&mut self.registry.lock());
    }

    /// Calls `sample` for the state of the volumes on every scrape.
    pub(crate) fn watch_volumes(
        &self,
        sample: impl Fn() -> VolumeSamples + Send + Sync + 'static,
        per_volume: bool,
    ) {
        self.registry.lock().register_collector(Box::new(VolumeCollector { sample, per_volume }));
    }

    /// An issuance has ended; `failed` is `None` if it succeeded.
    pub(crate) fn issuance(
        &self,
        signer: SignerKind,
        purpose: &'static str,
        failed: Option<FailureKind>,
        took: Duration,
    ) {
        let signer = ("signer", signer.as_str());
        if failed.is_none() {
            self.issuance_seconds.get_or_create(&[signer]).observe(took.as_secs_f64());
        }
        let result = failed.map_or("ok", FailureKind::as_str);
        self.issuances.get_or_create(&[signer, ("purpose", purpose), ("result", result)]).inc();
    }

    /// A volume is served although its attributes are doubtful.
    pub(crate) fn doubtful_volume(&self) {
        self.doubtful_volumes.inc();
    }

    /// A volume's socket has one connection more or less.
    pub(crate) fn socket_connections(&self, change: i64) {
        self.sockets.connections.inc_by(change);
    }

    /// A connection, a stream or a request of a volume's socket was refused: there are as many as may be.
    pub(crate) fn socket_refused(&self, limit: &'static str) {
        self.sockets.refusals.get_or_create(&[("limit", limit)]).inc();
    }

    /// An Envoy did not accept a secret.
    pub(crate) fn secret_rejected(&self) {
        self.sockets.rejections.inc();
    }

    /// A CSI call has ended.
    pub(crate) fn csi_call(&self, method: &'static str, code: &'static str, took: Duration) {
        let method = ("method", method);
        self.csi_calls.get_or_create(&[method, ("code", code)]).inc();
        self.csi_seconds.get_or_create(&[method]).observe(took.as_secs_f64());
    }

    /// The kubelet accepted the driver (`accepted`) or refused it (`refused`), or the registration socket was lost (`lost`).
    pub(crate) fn registration(&self, result: &'static str) {
        self.registered.set(i64::from(result == "accepted"));
        self.registrations.get_or_create(&[("result", result)]).inc();
    }

    /// A signer has answered, or its caller has given up (`abandoned`).
    pub(crate) fn signer_call(&self, signer: SignerKind, result: &'static str) {
        self.signer_calls.get_or_create(&[("signer", signer.as_str()), ("result", result)]).inc();
    }

    /// A call of the Kubernetes API has ended; code 0 means that it got no answer.
    pub(crate) fn api_call(&self, verb: &'static str, code: u16) {
        self.api_calls.get_or_create(&ApiCallLabels { verb, code }).inc();
    }

    /// So many CertificateRequests are in memory, and so many were ignored so far.
    pub(crate) fn requests_tracked(&self, tracked: usize, ignored: u64) {
        self.requests_tracked.set(i64::try_from(tracked).unwrap_or(i64::MAX));
        self.requests_ignored.inner().store(ignored, std::sync::atomic::Ordering::Relaxed);
    }

    /// A CertificateRequest was approved by an approver that approves every one.
    pub(crate) fn approved_unchecked(&self) {
        self.approved_unchecked.set(1);
    }

    /// The watch on CertificateRequests was interrupted.
    pub(crate) fn watch_restarted(&self) {
        self.watch_restarts.inc();
    }

    /// All metrics in the OpenMetrics text format.
    pub(crate) fn encode(&self) -> Result<String, std::fmt::Error> {
        encode(&self.registry.lock())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{VolumeSample, VolumeState};

    fn two_volumes() -> VolumeSamples {
        let sample = |state, remaining| VolumeSample {
            state,
            class: None,
            namespace: "shop".to_owned(),
            pod: "web-0".to_owned(),
            volume: "csi-1".to_owned(),
            not_after: jiff::Timestamp::from_second(1_800_000_000).ok(),
            root: Some(("CN=root".to_owned(), Some("ab12".to_owned()))),
            end: jiff::Timestamp::from_second(1_800_000_000).ok(),
            remaining_fraction: Some(remaining),
        };
        VolumeSamples {
            volumes: vec![sample(VolumeState::Ready, 0.9), sample(VolumeState::Overdue, 0.2)],
            unreadable: 3,
        }
    }

    #[test]
    fn pods_and_volumes_are_named_only_on_request() {
        let metrics = Metrics::default();
        metrics.watch_volumes(two_volumes, false);
        let text = metrics.encode().unwrap();
        assert!(text.lines().any(|line| line == "certlet_volumes{state=\"ready\"} 1"), "{text}");
        assert!(text.lines().any(|line| line == "certlet_volumes{state=\"unreadable\"} 3"), "{text}");
        assert!(text.lines().any(|line| line == "certlet_smallest_remaining_lifetime_ratio 0.2"), "{text}");
        let of_root = "{root=\"CN=root\",sha256=\"ab12\"}";
        assert!(text.contains(&format!("certlet_volumes_by_root{of_root} 2\n")), "{text}");
        assert!(
            text.contains(&format!("certlet_root_last_use_timestamp_seconds{of_root} 1800000000\n")),
            "{text}"
        );
        assert!(!text.contains("web-0") && !text.contains("csi-1"), "{text}");

        let metrics = Metrics::default();
        metrics.watch_volumes(two_volumes, true);
        let text = metrics.encode().unwrap();
        assert!(text.contains("pod=\"web-0\""), "{text}");
    }

    #[test]
    fn counters_follow_the_prometheus_naming() {
        let metrics = Metrics::default();
        metrics.issuance(SignerKind::Local, "publish", None, Duration::from_millis(2));
        metrics.issuance(SignerKind::Local, "renewal", Some(FailureKind::Transient), Duration::ZERO);
        metrics.csi_call("NodePublishVolume", "OK", Duration::from_millis(3));
        metrics.registration("accepted");
        let text = metrics.encode().unwrap();
        for line in [
            "certlet_issuances_total{signer=\"local\",purpose=\"publish\",result=\"ok\"} 1",
            "certlet_issuances_total{signer=\"local\",purpose=\"renewal\",result=\"transient\"} 1",
            "certlet_csi_calls_total{method=\"NodePublishVolume\",code=\"OK\"} 1",
            "certlet_registered 1",
            "certlet_build_info{version=",
        ] {
            assert!(text.lines().any(|found| found.starts_with(line)), "{line} is not in\n{text}");
        }
    }
}
