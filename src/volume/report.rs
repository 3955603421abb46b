//! What operators and pods' authors are told of issuances: metrics and Events.

use super::registry::Registry;
use super::volume::Volume;
use crate::kube::{EventKind, EventRecorder, PodEvent};
use crate::model::{Failure, FailureKind};
use crate::signer::Purpose;
use crate::telemetry::Metrics;
use std::sync::Arc;
use std::time::Duration;

/// Tells of issuances.
pub(super) struct Reporter {
    metrics: Arc<Metrics>,
    /// None without a cluster.
    events: Option<EventRecorder>,
    registry: Arc<Registry>,
}

/// How a volume stood before an issuance.
#[derive(Clone, Copy, Debug)]
pub(super) struct Before {
    was_issued: bool,
    had_failed: bool,
}

impl Before {
    pub(super) fn of(volume: &Volume) -> Self {
        volume.with_record(|record| Self {
            was_issued: record.issued.is_some(),
            had_failed: record.last_error.is_some(),
        })
    }
}

impl Reporter {
    pub(super) fn new(metrics: Arc<Metrics>, events: Option<EventRecorder>, registry: Arc<Registry>) -> Self {
        Self { metrics, events, registry }
    }

    /// Counts an issuance, and tells the pod's author of a first certificate, a failure, and the end of one.
    pub(super) fn issuance(
        &self,
        volume: &Volume,
        purpose: Purpose,
        before: Before,
        result: Result<(), &Failure>,
        took: Duration,
    ) {
        let failed = result.err().map(|failure| failure.kind);
        self.metrics.issuance(volume.spec.signer.kind(), purpose.as_str(), failed, took);
        let Some(events) = &self.events else { return };
        let Some(event) = event(volume, before, result) else { return };
        let told = self.registry.told(&volume.id);
        if result.is_ok() {
            told.settle();
        }
        events.record(&told, &volume.with_record(|record| record.pod.clone()), event);
    }
}

fn event(volume: &Volume, before: Before, result: Result<(), &Failure>) -> Option<PodEvent> {
    let until = volume.fact(|facts| format!(" until {:.0}", facts.not_after)).unwrap_or_default();
    let (kind, reason, message) = match result {
        Ok(()) if !before.was_issued => {
            (EventKind::Normal, "CertificateIssued", format!("certificate issued, valid{until}"))
        }
        Ok(()) if before.had_failed => (
            EventKind::Normal,
            "CertificateRenewalRecovered",
            format!("certificate renewed again, valid{until}"),
        ),
        Ok(()) => return None,
        Err(failure) if failure.kind == FailureKind::Cancelled => return None,
        Err(failure) if before.was_issued => (
            EventKind::Warning,
            "CertificateRenewalFailing",
            format!("the certificate in place is valid{until}, but its renewal fails: {failure}"),
        ),
        Err(failure) => match failure.kind {
            FailureKind::StillWaiting | FailureKind::NotReady => {
                (EventKind::Normal, "CertificatePending", failure.to_string())
            }
            kind if kind.retry_kind() == FailureKind::Permanent => {
                (EventKind::Warning, "CertificateRefused", failure.to_string())
            }
            _ => (EventKind::Warning, "CertificateFailed", failure.to_string()),
        },
    };
    Some(PodEvent { kind, reason, message })
}
