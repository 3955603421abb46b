//! Metrics that are looked up when they are scraped: how the node's volumes stand.

use jiff::Timestamp;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use std::fmt;

/// How a volume stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VolumeState {
    /// No certificate yet.
    Pending,
    /// A valid certificate, renewal not late.
    Ready,
    /// A valid certificate whose renewal is late by a good margin.
    Overdue,
    /// An expired certificate.
    Expired,
}

impl VolumeState {
    const ALL: [Self; 4] = [Self::Pending, Self::Ready, Self::Overdue, Self::Expired];

    fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Ready => "ready",
            Self::Overdue => "overdue",
            Self::Expired => "expired",
        }
    }
}

/// One volume at the time of a scrape.
#[derive(Clone, Debug)]
pub struct VolumeSample {
    /// How it stands.
    pub state: VolumeState,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod.
    pub pod: String,
    /// The volume id.
    pub volume: String,
    /// When its certificate expires.
    pub not_after: Option<Timestamp>,
    /// What is left of its certificate's life: 1 when new, 0 or less once expired.
    pub remaining_fraction: Option<f64>,
}

/// All volumes at the time of a scrape.
#[derive(Clone, Debug, Default)]
pub struct VolumeSamples {
    /// Those that are looked after.
    pub volumes: Vec<VolumeSample>,
    /// Those of an earlier process whose records cannot be used: mounted perhaps, and not renewed.
    pub unreadable: usize,
}

/// Where samples come from.
pub trait VolumeSource: Send + Sync + 'static {
    /// How the volumes stand now.
    fn samples(&self) -> VolumeSamples;
}

/// Encodes a [`VolumeSource`] on every scrape.
pub(super) struct VolumeCollector {
    pub(super) source: Box<dyn VolumeSource>,
    pub(super) per_volume: bool,
}

impl fmt::Debug for VolumeCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VolumeCollector").field("per_volume", &self.per_volume).finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VolumeLabels {
    namespace: String,
    pod: String,
    volume: String,
}

impl Collector for VolumeCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let VolumeSamples { volumes: samples, unreadable } = self.source.samples();
        let mut volumes = encoder.encode_descriptor(
            "volumes",
            "Volumes on this node, by state: pending, ready, overdue (renewal late by a tenth of the lifetime), expired, \
             unreadable (not renewed: its record cannot be used)",
            None,
            MetricType::Gauge,
        )?;
        let counts = VolumeState::ALL
            .map(|state| (state.as_str(), samples.iter().filter(|sample| sample.state == state).count()));
        for (state, count) in counts.into_iter().chain([("unreadable", unreadable)]) {
            gauge(i64::try_from(count).unwrap_or(i64::MAX), &StateLabel { state }, &mut volumes)?;
        }
        if let Some(smallest) = samples.iter().filter_map(|sample| sample.remaining_fraction).reduce(f64::min)
        {
            let remaining = encoder.encode_descriptor(
                "smallest_remaining_lifetime_ratio",
                "The smallest remaining share of a certificate's lifetime on this node: 1 new, 0 or less expired",
                None,
                MetricType::Gauge,
            )?;
            ConstGauge::new(smallest).encode(remaining)?;
        }
        if self.per_volume { encode_each(&samples, encoder) } else { Ok(()) }
    }
}

fn encode_each(samples: &[VolumeSample], mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
    let mut expiry = encoder.encode_descriptor(
        "volume_certificate_not_after_timestamp_seconds",
        "When the volume's certificate expires",
        None,
        MetricType::Gauge,
    )?;
    for sample in samples {
        if let Some(not_after) = sample.not_after {
            let VolumeSample { namespace, pod, volume, .. } = sample.clone();
            gauge(not_after.as_second(), &VolumeLabels { namespace, pod, volume }, &mut expiry)?;
        }
    }
    Ok(())
}

fn gauge(
    value: i64,
    labels: &impl EncodeLabelSet,
    encoder: &mut MetricEncoder<'_>,
) -> Result<(), fmt::Error> {
    ConstGauge::new(value).encode(encoder.encode_family(labels)?)
}
