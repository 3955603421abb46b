//! What is counted. Labels are bounded: never a pod or a volume, but with `--metrics-per-volume`.

use super::samples::{VolumeCollector, VolumeSource};
use crate::attributes::SignerKind;
use crate::issue::FailureClass;
use crate::kube::ApiObserver;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The driver's metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    issuances: Family<IssuanceLabels, Counter>,
    issuance_seconds: Family<SignerLabel, Histogram>,
    csi_calls: Family<CallLabels, Counter>,
    csi_seconds: Family<MethodLabel, Histogram>,
    registered: Gauge,
    registrations: Family<ResultLabel, Counter>,
    signer_calls: Family<SignerCallLabels, Counter>,
    api_calls: Family<ApiCallLabels, Counter>,
    watch_restarts: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SignerCallLabels {
    signer: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ApiCallLabels {
    verb: &'static str,
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct IssuanceLabels {
    signer: &'static str,
    purpose: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SignerLabel {
    signer: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    method: &'static str,
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MethodLabel {
    method: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

/// From 250 microseconds, a local signer's time, to half an hour, a human's.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.000_25, 3.0, 15))
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            registry: Mutex::new(Registry::with_prefix("certlet")),
            issuances: Family::default(),
            issuance_seconds: Family::new_with_constructor(seconds),
            csi_calls: Family::default(),
            csi_seconds: Family::new_with_constructor(seconds),
            registered: Gauge::default(),
            registrations: Family::default(),
            signer_calls: Family::default(),
            api_calls: Family::default(),
            watch_restarts: Counter::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&self) {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "What runs here", build);
        registry.register(
            "issuances",
            "Issuances by signer, purpose (publish or renewal) and result (ok, permanent, throttled, transient)",
            self.issuances.clone(),
        );
        registry.register(
            "issuance_duration_seconds",
            "Time of successful issuances, from key to mounted files",
            self.issuance_seconds.clone(),
        );
        registry.register("csi_calls", "CSI calls by method and gRPC code", self.csi_calls.clone());
        registry.register("csi_call_duration_seconds", "Time of CSI calls", self.csi_seconds.clone());
        registry.register(
            "registered",
            "Whether the kubelet has taken the driver's registration: 1 or 0",
            self.registered.clone(),
        );
        registry.register(
            "registrations",
            "Registrations with the kubelet by result (accepted, refused, lost)",
            self.registrations.clone(),
        );
        registry.register(
            "signer_calls",
            "Calls of a signer by result (ok, permanent, throttled, not-ready, transient, abandoned)",
            self.signer_calls.clone(),
        );
        registry.register(
            "kubernetes_api_calls",
            "Calls of the Kubernetes API by verb and HTTP status; 0: no answer",
            self.api_calls.clone(),
        );
        registry.register(
            "kubernetes_watch_restarts",
            "Times the watch on CertificateRequests was interrupted",
            self.watch_restarts.clone(),
        );
    }

    /// A signer has answered, or nobody waits for it any more.
    pub(super) fn signer_call(&self, signer: SignerKind, result: &'static str) {
        self.signer_calls.get_or_create(&SignerCallLabels { signer: signer.as_str(), result }).inc();
    }

    /// Has metrics shown that another room counts by itself.
    pub fn extend(&self, register: impl FnOnce(&mut Registry)) {
        register(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Has every scrape ask `source` how the volumes stand.
    pub fn watch_volumes(&self, source: Box<dyn VolumeSource>, per_volume: bool) {
        let collector = Box::new(VolumeCollector { source, per_volume });
        self.registry.lock().unwrap_or_else(PoisonError::into_inner).register_collector(collector);
    }

    /// An issuance has ended: well, where `failed` is none.
    pub fn issuance(
        &self,
        signer: SignerKind,
        purpose: &'static str,
        failed: Option<FailureClass>,
        took: Duration,
    ) {
        let signer = signer.as_str();
        if failed.is_none() {
            self.issuance_seconds.get_or_create(&SignerLabel { signer }).observe(took.as_secs_f64());
        }
        let result = failed.map_or("ok", FailureClass::as_str);
        self.issuances.get_or_create(&IssuanceLabels { signer, purpose, result }).inc();
    }

    /// A CSI call has ended.
    pub fn csi_call(&self, method: &'static str, code: &'static str, took: Duration) {
        self.csi_calls.get_or_create(&CallLabels { method, code }).inc();
        self.csi_seconds.get_or_create(&MethodLabel { method }).observe(took.as_secs_f64());
    }

    /// The kubelet took the driver (`accepted`), refused it (`refused`), or its registration socket vanished (`lost`).
    pub fn registration(&self, result: &'static str) {
        self.registered.set(i64::from(result == "accepted"));
        self.registrations.get_or_create(&ResultLabel { result }).inc();
    }

    /// Everything, in the OpenMetrics text format.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        prometheus_client::encoding::text::encode(&mut text, &registry)?;
        Ok(text)
    }
}

impl ApiObserver for Metrics {
    fn api_call(&self, verb: &'static str, code: u16) {
        self.api_calls.get_or_create(&ApiCallLabels { verb, code }).inc();
    }

    fn watch_restarted(&self) {
        self.watch_restarts.inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{VolumeSample, VolumeSamples, VolumeState};

    struct Two;
    impl VolumeSource for Two {
        fn samples(&self) -> VolumeSamples {
            let sample = |state, remaining| VolumeSample {
                state,
                namespace: "shop".to_owned(),
                pod: "web-0".to_owned(),
                volume: "csi-1".to_owned(),
                not_after: jiff::Timestamp::from_second(1_800_000_000).ok(),
                remaining_fraction: Some(remaining),
            };
            VolumeSamples {
                volumes: vec![sample(VolumeState::Ready, 0.9), sample(VolumeState::Overdue, 0.2)],
                unreadable: 3,
            }
        }
    }

    #[test]
    fn pods_and_volumes_are_named_only_when_asked_for() {
        let metrics = Metrics::default();
        metrics.watch_volumes(Box::new(Two), false);
        let text = metrics.encode().unwrap();
        assert!(text.lines().any(|line| line == "certlet_volumes{state=\"ready\"} 1"), "{text}");
        assert!(text.lines().any(|line| line == "certlet_volumes{state=\"unreadable\"} 3"), "{text}");
        assert!(text.lines().any(|line| line == "certlet_smallest_remaining_lifetime_ratio 0.2"), "{text}");
        assert!(!text.contains("web-0") && !text.contains("csi-1"), "{text}");

        let metrics = Metrics::default();
        metrics.watch_volumes(Box::new(Two), true);
        let text = metrics.encode().unwrap();
        assert!(text.contains("pod=\"web-0\""), "{text}");
    }

    #[test]
    fn counters_follow_the_prometheus_naming() {
        let metrics = Metrics::default();
        metrics.issuance(SignerKind::Local, "publish", None, Duration::from_millis(2));
        metrics.issuance(SignerKind::Local, "renewal", Some(FailureClass::Transient), Duration::ZERO);
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
