//! The state of volumes: for NodeGetVolumeStats and for metrics.

use super::volume::Volume;
use super::{VolumeService, not_found};
use crate::credential::Lifetime;
use crate::model::{Failure, VolumeId};
use crate::store::{IssuedRecord, Record, Usage};
use crate::telemetry::{VolumeSample, VolumeSamples, VolumeState};
use jiff::Timestamp;
use std::path::PathBuf;
use std::sync::Arc;

/// A volume is abnormal if its renewal is late by more than this share of the lifetime.
const MARGIN: f64 = 0.1;

/// CSI's `VolumeCondition`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Condition {
    /// Whether something is wrong.
    pub(crate) abnormal: bool,
    /// What is wrong, or when the renewal is due.
    pub(crate) message: String,
}

/// What NodeGetVolumeStats answers.
#[derive(Clone, Debug)]
pub(crate) struct VolumeStats {
    /// Bytes and inodes.
    pub(crate) usage: Usage,
    /// The state of the certificate.
    pub(crate) condition: Condition,
}

impl VolumeService {
    /// An error if the node has no such volume.
    pub(crate) fn check_known(&self, id: &VolumeId) -> Result<(), Failure> {
        self.volume(id).map(drop)
    }

    /// Usage and condition of a volume mounted at `target`.
    pub(crate) async fn stats(&self, id: VolumeId, target: PathBuf) -> Result<VolumeStats, Failure> {
        let volume = self.volume(&id)?;
        let condition = volume.with_record(|record| condition(record, self.context.clock.now()));
        let measured = self.context.files.run(move |files| {
            let is_bound = files.mounts.is_bound(&id, &target)?;
            if is_bound { Ok(files.store.usage(&id)?) } else { Err(not_found(&id)) }
        });
        Ok(VolumeStats { usage: measured.await?, condition })
    }

    /// Samples every volume, for a scrape of `/metrics`. The sampler holds only registry and clock, so that the metrics do
    /// not keep the store open.
    pub(crate) fn sampler(&self) -> impl Fn() -> VolumeSamples + Send + Sync + 'static {
        let (registry, clock) = (Arc::clone(&self.context.registry), Arc::clone(&self.context.clock));
        move || VolumeSamples {
            volumes: registry.all().iter().map(|volume| sample(volume, clock.now())).collect(),
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
        class: record.class.as_ref().map(|class| class.name.clone()),
        not_after: record.issued.as_ref().map(|issued| issued.facts.not_after),
        end: record.issued.as_ref().map(IssuedRecord::end),
        root: record.issued.as_ref().and_then(|issued| {
            issued.trust.root.as_ref().map(|root| (root.subject.clone(), root.sha256.clone()))
        }),
        remaining_fraction: record.issued.as_ref().map(|issued| Lifetime::of(issued).remaining_fraction(now)),
    })
}

fn state(record: &Record, now: Timestamp) -> VolumeState {
    let Some(issued) = &record.issued else { return VolumeState::Pending };
    let remaining = |at| Lifetime::of(issued).remaining_fraction(at);
    if issued.end() <= now {
        VolumeState::Expired
    } else if remaining(issued.renew_at) - remaining(now) > MARGIN {
        VolumeState::Overdue
    } else {
        VolumeState::Ready
    }
}

fn condition(record: &Record, now: Timestamp) -> Condition {
    let cause = record.last_error.as_ref().map_or_else(String::new, |last| {
        format!("; {} attempts have failed, the last at {}: {}", last.consecutive, last.at, last.message)
    });
    let state = state(record, now);
    let message = match (state, &record.issued) {
        (VolumeState::Pending, _) | (_, None) => format!("no certificate has been issued yet{cause}"),
        (VolumeState::Expired, Some(issued)) => {
            format!("certificate expired at {}{cause}", issued.facts.not_after)
        }
        (VolumeState::Overdue, Some(issued)) => format!(
            "certificate valid until {} should have been renewed at {}{cause}",
            issued.facts.not_after, issued.renew_at
        ),
        (VolumeState::Ready, Some(issued)) => {
            format!("certificate valid until {}, renewal due at {}", issued.facts.not_after, issued.renew_at)
        }
    };
    Condition { abnormal: state != VolumeState::Ready, message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::CertificateFacts;
    use crate::store::TrustRecord;
    use crate::volume::tests::volume_in_memory;
    use jiff::SignedDuration;

    #[test]
    fn a_volume_is_abnormal_without_a_certificate_with_a_late_renewal_and_once_expired() {
        let volume = volume_in_memory("v");
        let issued_at = Timestamp::UNIX_EPOCH;
        let hour = |hours| issued_at + SignedDuration::from_hours(hours);
        let mut record = volume.record();
        assert!(condition(&record, hour(0)).message.starts_with("no certificate has been issued yet"));
        let facts = CertificateFacts {
            serial: "01".into(),
            subject: String::new(),
            sans: Vec::new(),
            not_before: issued_at,
            not_after: hour(24),
        };
        record.issued = Some(IssuedRecord {
            facts: Arc::new(facts),
            issued_at,
            renew_at: hour(16),
            generation: 1,
            warning: None,
            trust: TrustRecord::default(),
        });
        for (at, expected, begins) in [
            (17, VolumeState::Ready, "certificate valid until"),
            (19, VolumeState::Overdue, "certificate valid until"),
            (24, VolumeState::Expired, "certificate expired at"),
        ] {
            assert_eq!(state(&record, hour(at)), expected, "after {at} hours");
            let Condition { abnormal, message } = condition(&record, hour(at));
            assert!(abnormal == (expected != VolumeState::Ready) && message.starts_with(begins), "{message}");
        }
    }
}
