//! Metrics of the node's volumes, computed on every scrape.

use jiff::Timestamp;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
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
    /// When its certificate expires.
    pub not_after: Option<Timestamp>,
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
        if self.per_volume { encode_each(&volumes, encoder) } else { Ok(()) }
    }
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
