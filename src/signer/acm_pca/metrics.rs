//! Metrics of the calls to AWS.

use super::quota::CallKind;
use super::validity::Limit;
use jiff::Timestamp;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use std::time::Duration;

/// Metrics of the signer.
#[derive(Clone, Debug)]
pub struct PcaMetrics {
    calls: Family<[(&'static str, String); 2], Counter>,
    waits: Family<[(&'static str, &'static str); 1], Histogram>,
    clamped: Family<[(&'static str, &'static str); 1], Counter>,
    authority_end: Family<[(&'static str, String); 1], Gauge>,
    /// Whether a CA is named by its ARN, which holds the account's number. Otherwise it is named by its id alone.
    with_arns: bool,
}

impl Default for PcaMetrics {
    fn default() -> Self {
        Self {
            calls: Family::default(),
            // From 10 ms to ten minutes.
            waits: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.01, 3.0, 11))),
            clamped: Family::default(),
            authority_end: Family::default(),
            with_arns: false,
        }
    }
}

impl PcaMetrics {
    /// Metrics that name CAs by their ARNs if `with_arns`.
    pub fn new(with_arns: bool) -> Self {
        Self { with_arns, ..Self::default() }
    }

    /// Adds them to a registry.
    pub fn register(&self, registry: &mut Registry) {
        let help = "Calls to AWS by API call and result (ok, or the error code of AWS)";
        registry.register("pca_calls", help, self.calls.clone());
        let help = "Time that calls to AWS waited for the rate limit";
        registry.register("pca_limiter_wait_seconds", help, self.waits.clone());
        let help = "Certificates whose validity was shortened, by the reason";
        registry.register("pca_clamped_validities", help, self.clamped.clone());
        let help = "When a private CA in use expires";
        registry.register("pca_authority_not_after_timestamp_seconds", help, self.authority_end.clone());
    }

    pub(crate) fn call(&self, call: &str, result: &str) {
        self.calls.get_or_create(&[("call", call.to_owned()), ("result", result.to_owned())]).inc();
    }

    pub(crate) fn waited(&self, kind: CallKind, time: Duration) {
        self.waits.get_or_create(&[("call", kind.as_str())]).observe(time.as_secs_f64());
    }

    pub(crate) fn clamped(&self, limit: Limit) {
        self.clamped.get_or_create(&[("limit", limit.as_str())]).inc();
    }

    pub(crate) fn authority_end(&self, authority: &str, not_after: Timestamp) {
        // arn:PARTITION:acm-pca:REGION:ACCOUNT:certificate-authority/ID
        let id = authority.rsplit_once('/').map_or("", |(_, id)| id);
        let name = if self.with_arns { authority } else { id };
        self.authority_end.get_or_create(&[("authority", name.to_owned())]).set(not_after.as_second());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arns_and_account_numbers_are_shown_only_on_request() {
        let arn = "arn:aws:acm-pca:eu-central-1:123456789012:certificate-authority/1f3a-9c";
        let shown = |metrics: &PcaMetrics| {
            let mut registry = Registry::default();
            metrics.register(&mut registry);
            metrics.call("IssueCertificate", "AccessDeniedException");
            metrics.authority_end(arn, Timestamp::UNIX_EPOCH);
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
            text
        };
        let text = shown(&PcaMetrics::default());
        assert!(text.contains("{authority=\"1f3a-9c\"} 0"), "{text}");
        assert!(!text.contains("arn:") && !text.contains("123456789012"), "{text}");
        let text = shown(&PcaMetrics::new(true));
        assert!(text.contains(&format!("{{authority=\"{arn}\"}} 0")), "{text}");
    }
}
