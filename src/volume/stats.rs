//! The state of volumes: for NodeGetVolumeStats and for metrics.

use super::registry::Registry;
use super::volume::Volume;
use super::{VolumeService, not_found};
use crate::credential::Lifetime;
use crate::model::{Failure, VolumeId};
use crate::platform::Clock;
use crate::store::{Record, Usage};
use crate::telemetry::{VolumeSample, VolumeSamples, VolumeSource, VolumeState};
use jiff::Timestamp;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

/// Share of the lifetime by which a renewal may be late before the volume is called abnormal.
const MARGIN: f64 = 0.1;

/// CSI's `VolumeCondition`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Whether somebody should look.
    pub abnormal: bool,
    /// In plain words.
    pub message: String,
}

/// What NodeGetVolumeStats answers.
#[derive(Clone, Debug)]
pub struct VolumeStats {
    /// Bytes and inodes.
    pub(crate) usage: Usage,
    /// How the certificate stands.
    pub condition: Condition,
}

impl VolumeService {
    /// Usage and condition of a volume mounted at `target`.
    pub async fn stats(&self, id: VolumeId, target: PathBuf) -> Result<VolumeStats, Failure> {
        let volume = self.volume(&id)?;
        let condition = volume.with_record(|record| condition(record, self.clock.now()));
        let usage = self
            .files
            .run(&id.clone(), move |files| {
                if files.is_bound(&id, &target)? { Ok(files.store.usage(&id)?) } else { Err(not_found(&id)) }
            })
            .await?;
        Ok(VolumeStats { usage, condition })
    }

    /// What a scrape of `/metrics` needs to know of every volume.
    pub(crate) fn sampler(&self) -> Sampler {
        Sampler { registry: Arc::downgrade(&self.registry), clock: Arc::clone(&self.clock) }
    }
}

/// Samples the volumes when metrics are scraped. Weak, since the volumes' service holds the metrics.
pub(crate) struct Sampler {
    registry: Weak<Registry>,
    clock: Arc<dyn Clock>,
}

impl VolumeSource for Sampler {
    fn samples(&self) -> VolumeSamples {
        let Some(registry) = self.registry.upgrade() else { return VolumeSamples::default() };
        let now = self.clock.now();
        VolumeSamples {
            volumes: registry.all().iter().map(|volume| sample(volume, now)).collect(),
            unreadable: registry.unreadable(),
        }
    }
}

fn sample(volume: &Volume, now: Timestamp) -> VolumeSample {
    volume.with_record(|record| VolumeSample {
        state: state(record, now),
        namespace: record.pod.namespace.clone(),
        pod: record.pod.name.clone(),
        volume: record.volume_id.to_string(),
        not_after: record.issued.as_ref().map(|issued| issued.facts.not_after),
        remaining_fraction: lifetime(record).map(|lifetime| lifetime.remaining_fraction(now)),
    })
}

fn lifetime(record: &Record) -> Option<Lifetime> {
    record
        .issued
        .as_ref()
        .map(|issued| Lifetime { issued_at: issued.issued_at, not_after: issued.facts.not_after })
}

fn state(record: &Record, now: Timestamp) -> VolumeState {
    let (Some(issued), Some(lifetime)) = (&record.issued, lifetime(record)) else {
        return VolumeState::Pending;
    };
    let planned = Lifetime { issued_at: issued.issued_at, not_after: issued.facts.not_after };
    let late = planned.remaining_fraction(issued.renew_at) - lifetime.remaining_fraction(now);
    if issued.facts.not_after <= now {
        VolumeState::Expired
    } else if late > MARGIN {
        VolumeState::Overdue
    } else {
        VolumeState::Ready
    }
}

fn condition(record: &Record, now: Timestamp) -> Condition {
    let cause = record.last_error.as_ref().map_or_else(String::new, |last| {
        format!("; {} attempts have failed, the last at {}: {}", last.consecutive, last.at, last.message)
    });
    let expires =
        record.issued.as_ref().map_or_else(String::new, |issued| issued.facts.not_after.to_string());
    let renews = record.issued.as_ref().map_or_else(String::new, |issued| issued.renew_at.to_string());
    let (abnormal, message) = match state(record, now) {
        VolumeState::Ready => (false, format!("certificate valid until {expires}, renewal due at {renews}")),
        VolumeState::Pending => (true, format!("no certificate has been issued yet{cause}")),
        VolumeState::Overdue => {
            (true, format!("certificate valid until {expires} should have been renewed at {renews}{cause}"))
        }
        VolumeState::Expired => (true, format!("certificate expired at {expires}{cause}")),
    };
    Condition { abnormal, message }
}
