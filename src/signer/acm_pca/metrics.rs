//! What an operator sees of the calls to AWS.

use super::validity::Limit;
use crate::signer::CallKind;
use jiff::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use std::time::Duration;

/// Counters of the signer.
#[derive(Clone, Debug)]
pub struct PcaMetrics {
    calls: Family<CallLabels, Counter>,
    waits: Family<CallLabel, Histogram>,
    clamped: Family<LimitLabel, Counter>,
    authority_end: Family<AuthorityLabel, Gauge>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    call: &'static str,
    result: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabel {
    call: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabel {
    limit: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AuthorityLabel {
    authority: String,
}

/// From a hundredth of a second to ten minutes.
fn waits() -> Histogram {
    Histogram::new(exponential_buckets(0.01, 3.0, 11))
}

impl Default for PcaMetrics {
    fn default() -> Self {
        Self {
            calls: Family::default(),
            waits: Family::new_with_constructor(waits),
            clamped: Family::default(),
            authority_end: Family::default(),
        }
    }
}

impl PcaMetrics {
    /// Has them shown.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "pca_calls",
            "Calls to AWS by API call and result (ok, or AWS's name for the error)",
            self.calls.clone(),
        );
        registry.register(
            "pca_limiter_wait_seconds",
            "Time that calls to AWS waited for their turn within the quotas",
            self.waits.clone(),
        );
        registry.register(
            "pca_clamped_validities",
            "Certificates with a shorter life than was asked for, by what cut it",
            self.clamped.clone(),
        );
        registry.register(
            "pca_authority_not_after_timestamp_seconds",
            "When a private CA in use expires",
            self.authority_end.clone(),
        );
    }

    pub(crate) fn call(&self, call: &'static str, result: &str) {
        self.calls.get_or_create(&CallLabels { call, result: result.to_owned() }).inc();
    }

    pub(crate) fn waited(&self, kind: CallKind, time: Duration) {
        self.waits.get_or_create(&CallLabel { call: kind.as_str() }).observe(time.as_secs_f64());
    }

    pub(crate) fn clamped(&self, limit: Limit) {
        self.clamped.get_or_create(&LimitLabel { limit: limit.as_str() }).inc();
    }

    pub(crate) fn authority_end(&self, authority: &str, not_after: Timestamp) {
        self.authority_end
            .get_or_create(&AuthorityLabel { authority: authority.to_owned() })
            .set(not_after.as_second());
    }
}
