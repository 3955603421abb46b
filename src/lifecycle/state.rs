//! How volumes stand: for NodeGetVolumeStats and for metrics.

use super::schedule::Lifetime;
use super::volume::Volume;
use super::{Lifecycle, LifecycleError, Shared};
use crate::attributes::VolumeId;
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
    pub usage: Usage,
    /// How the certificate stands.
    pub condition: Condition,
}

impl Lifecycle {
    /// Usage and condition of a volume mounted at `target`.
    pub async fn stats(&self, id: VolumeId, target: PathBuf) -> Result<VolumeStats, LifecycleError> {
        let shared = &self.0;
        let missing = || LifecycleError::NotFound { volume: id.clone() };
        let volume = shared.volumes.get(&id).ok_or_else(missing)?;
        let condition = volume.look(|record| condition(record, shared.clock.now()));
        let (volume, asked) = (id.clone(), id.clone());
        let usage = shared
            .blocking(&id, move |shared: &Shared| {
                if shared.store.is_bound(&volume, &target)? {
                    Ok(Some(shared.store.usage(&volume)?))
                } else {
                    Ok(None)
                }
            })
            .await?;
        let usage = usage.ok_or(LifecycleError::NotFound { volume: asked })?;
        Ok(VolumeStats { usage, condition })
    }

    /// What a scrape of `/metrics` wants to know of every volume.
    pub fn sampler(&self) -> Sampler {
        Sampler(Arc::downgrade(&self.0))
    }
}

/// Looks at the volumes when metrics are scraped. Weak, since the volumes' lives hold the metrics.
pub struct Sampler(Weak<Shared>);

impl VolumeSource for Sampler {
    fn samples(&self) -> VolumeSamples {
        let samples = self.0.upgrade().map(|shared| {
            let now = shared.clock.now();
            VolumeSamples {
                volumes: shared.volumes.all().iter().map(|volume| sample(volume, now)).collect(),
                unreadable: shared.volumes.unreadable(),
            }
        });
        samples.unwrap_or_default()
    }
}

fn sample(volume: &Volume, now: Timestamp) -> VolumeSample {
    volume.look(|record| VolumeSample {
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
