//! The metrics of trust sources. Their labels name no source, because pods choose among many.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The metrics of trust sources.
#[derive(Clone, Debug, Default)]
pub(crate) struct TrustMetrics {
    sources: Family<[(&'static str, &'static str); 1], Gauge>,
    changes: Counter,
}

impl TrustMetrics {
    /// Adds the metrics to a registry.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let help = "Trust sources in use by state: usable, or failed (its last anchors stay in use)";
        registry.register("trust_sources", help, self.sources.clone());
        let help = "Changes of the anchors of trust sources";
        registry.register("trust_source_changes", help, self.changes.clone());
        self.in_use(0, 0);
    }

    /// So many sources are in use.
    pub(super) fn in_use(&self, usable: usize, failed: usize) {
        for (state, count) in [("usable", usable), ("failed", failed)] {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.sources.get_or_create(&[("state", state)]).set(count);
        }
    }

    /// A source has other anchors than before.
    pub(super) fn changed(&self) {
        self.changes.inc();
    }
}
