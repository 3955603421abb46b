//! The metrics of CRLs. Their labels name no source, because certificates can name many.

use jiff::Timestamp;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

type Labels = [(&'static str, &'static str); 1];

/// The metrics of CRLs.
#[derive(Clone, Debug, Default)]
pub(crate) struct CrlMetrics {
    sources: Family<Labels, Gauge>,
    lists: Family<Labels, Gauge>,
    first_end: Gauge,
    reads: Family<Labels, Counter>,
    changes: Counter,
}

impl CrlMetrics {
    /// Adds the metrics to a registry.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let help = "Sources of CRLs in use by state: usable, or failed (their last CRLs stay in use)";
        registry.register("crl_sources", help, self.sources.clone());
        let help = "CRLs in use by state: valid, or stale (their nextUpdate has passed, so that consumers refuse every peer)";
        registry.register("crls", help, self.lists.clone());
        let help = "The first nextUpdate of the CRLs in use; 0 without any";
        registry.register("crl_next_update_timestamp_seconds", help, self.first_end.clone());
        let help = "Reads of sources of CRLs by result: ok, failed";
        registry.register("crl_reads", help, self.reads.clone());
        registry.register("crl_changes", "Changes of the CRLs of sources", self.changes.clone());
        self.in_use((0, 0), (0, 0), None);
        for result in ["ok", "failed"] {
            let _at_zero = self.reads.get_or_create(&[("result", result)]);
        }
    }

    /// So many sources are usable and failed, so many lists valid and stale, and the first of them ends then.
    pub(super) fn in_use(
        &self,
        (usable, failed): (usize, usize),
        (valid, stale): (usize, usize),
        end: Option<Timestamp>,
    ) {
        let set = |family: &Family<Labels, Gauge>, state, count| {
            family.get_or_create(&[("state", state)]).set(i64::try_from(count).unwrap_or(i64::MAX));
        };
        set(&self.sources, "usable", usable);
        set(&self.sources, "failed", failed);
        set(&self.lists, "valid", valid);
        set(&self.lists, "stale", stale);
        self.first_end.set(end.map_or(0, Timestamp::as_second));
    }

    /// A source was read.
    pub(super) fn fetched(&self, is_usable: bool) {
        self.reads.get_or_create(&[("result", if is_usable { "ok" } else { "failed" })]).inc();
    }

    /// A source has another list than before.
    pub(super) fn changed(&self) {
        self.changes.inc();
    }
}
