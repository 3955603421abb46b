//! Metrics of the node's volumes, computed on every scrape.

use jiff::Timestamp;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use std::collections::BTreeMap;
use std::fmt;

/// The state of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VolumeState {
    /// No certificate yet.
    Pending,
    /// A valid certificate, renewal not late.
    Ready,
    /// A valid certificate whose renewal is late by a tenth of its lifetime.
    Overdue,
    /// An expired certificate.
    Expired,
}

/// One volume at the time of a scrape.
#[derive(Clone, Debug)]
pub(crate) struct VolumeSample {
    /// Its state.
    pub state: VolumeState,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod.
    pub pod: String,
    /// The volume id.
    pub volume: String,
    /// The operator's class that it is of.
    pub class: Option<String>,
    /// When its certificate expires.
    pub not_after: Option<Timestamp>,
    /// The root that its certificate leads to, and the SHA-256 of that anchor in its trust bundle; none: it has no such anchor.
    pub root: Option<(String, Option<String>)>,
    /// When certificate and chain end.
    pub end: Option<Timestamp>,
    /// The remaining share of the certificate's lifetime: 1 when new, 0 or less once expired.
    pub remaining_fraction: Option<f64>,
}

/// All volumes at the time of a scrape.
#[derive(Clone, Debug, Default)]
pub(crate) struct VolumeSamples {
    /// The volumes that the driver renews.
    pub volumes: Vec<VolumeSample>,
    /// The number of volumes whose record cannot be used. They may be mounted, and are not renewed.
    pub unreadable: usize,
}

/// Encodes the current state of all volumes on every scrape.
pub(super) struct VolumeCollector<F> {
    pub(super) sample: F,
    pub(super) per_volume: bool,
}

impl<F> fmt::Debug for VolumeCollector<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VolumeCollector").finish_non_exhaustive()
    }
}

impl<F: Fn() -> VolumeSamples + Send + Sync + 'static> Collector for VolumeCollector<F> {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let VolumeSamples { volumes, unreadable } = (self.sample)();
        let help = "Volumes on this node, by state: pending, ready, overdue (renewal late by a tenth of the lifetime), \
                    expired, unreadable (not renewed, because its record cannot be used)";
        let mut gauges = encoder.encode_descriptor("volumes", help, None, MetricType::Gauge)?;
        let count = |state| volumes.iter().filter(|volume| volume.state == state).count();
        for (state, count) in [
            ("pending", count(VolumeState::Pending)),
            ("ready", count(VolumeState::Ready)),
            ("overdue", count(VolumeState::Overdue)),
            ("expired", count(VolumeState::Expired)),
            ("unreadable", unreadable),
        ] {
            let count = ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX));
            count.encode(gauges.encode_family(&[("state", state)])?)?;
        }
        if let Some(smallest) = volumes.iter().filter_map(|volume| volume.remaining_fraction).reduce(f64::min)
        {
            let help = "The smallest remaining share of a certificate's lifetime on this node: 1 new, 0 or less expired";
            let name = "smallest_remaining_lifetime_ratio";
            ConstGauge::new(smallest).encode(encoder.encode_descriptor(
                name,
                help,
                None,
                MetricType::Gauge,
            )?)?;
        }
        encode_roots(&volumes, &mut encoder)?;
        encode_classes(&volumes, &mut encoder)?;
        if self.per_volume { encode_each(&volumes, encoder) } else { Ok(()) }
    }
}

/// Roots with series of their own. Pods' authors choose issuers, so the number is bounded; all further ones are one series.
const MAX_ROOTS: usize = 20;
/// Classes with series of their own; all further ones are one series.
const MAX_CLASSES: usize = 50;
/// What the further ones are called.
const OTHER: &str = "other";

/// Volumes by the root that their certificates lead to, and when the last of them ends.
fn encode_roots(volumes: &[VolumeSample], encoder: &mut DescriptorEncoder) -> Result<(), fmt::Error> {
    let mut roots: BTreeMap<(&str, &str), (i64, Option<Timestamp>)> = BTreeMap::new();
    for volume in volumes {
        let Some((subject, sha256)) = &volume.root else { continue };
        let key = (subject.as_str(), sha256.as_deref().unwrap_or_default());
        let key = if roots.len() < MAX_ROOTS || roots.contains_key(&key) { key } else { (OTHER, OTHER) };
        let (count, end) = roots.entry(key).or_default();
        *count += 1;
        *end = (*end).max(volume.end);
    }
    let help = "Volumes by the root that their certificates lead to; an empty sha256: not in the volume's trust bundle";
    let mut gauges = encoder.encode_descriptor("volumes_by_root", help, None, MetricType::Gauge)?;
    for ((root, sha256), (count, _)) in &roots {
        ConstGauge::new(*count).encode(gauges.encode_family(&[("root", *root), ("sha256", *sha256)])?)?;
    }
    let help =
        "When the last certificate that leads to a root ends: before that the root is needed on this node";
    let name = "root_last_use_timestamp_seconds";
    let mut gauges = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for ((root, sha256), (_, end)) in &roots {
        if let Some(end) = end {
            let labels = [("root", *root), ("sha256", *sha256)];
            ConstGauge::new(end.as_second()).encode(gauges.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

/// Volumes by their class, those without one left out.
fn encode_classes(volumes: &[VolumeSample], encoder: &mut DescriptorEncoder) -> Result<(), fmt::Error> {
    let mut classes: BTreeMap<&str, i64> = BTreeMap::new();
    for class in volumes.iter().filter_map(|volume| volume.class.as_deref()) {
        let class = if classes.len() < MAX_CLASSES || classes.contains_key(class) { class } else { OTHER };
        *classes.entry(class).or_default() += 1;
    }
    let help = "Volumes by the operator's class that they are of";
    let mut gauges = encoder.encode_descriptor("volumes_by_class", help, None, MetricType::Gauge)?;
    for (class, count) in classes {
        ConstGauge::new(count).encode(gauges.encode_family(&[("class", class)])?)?;
    }
    Ok(())
}

fn encode_each(volumes: &[VolumeSample], mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
    let name = "volume_certificate_not_after_timestamp_seconds";
    let help = "When the volume's certificate expires";
    let mut gauges = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for volume in volumes {
        if let Some(not_after) = volume.not_after {
            let VolumeSample { namespace, pod, volume, .. } = volume;
            let labels = [("namespace", namespace.as_str()), ("pod", pod), ("volume", volume)];
            ConstGauge::new(not_after.as_second()).encode(gauges.encode_family(&labels)?)?;
        }
    }
    Ok(())
}
