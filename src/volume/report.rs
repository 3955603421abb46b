//! Reports issuances: by metrics to operators, by Events to pods' authors.

use super::event_history::EventHistory;
use super::volume::Volume;
use crate::model::{
    Dialect, EventKind, Failure, FailureKind, PodEvent, SignerKind, VolumeId, WorkloadIdentity, shown,
    shown_list,
};
use crate::signer::Purpose;
use crate::telemetry::Metrics;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Reports issuances.
pub(super) struct Reporter {
    pub(super) metrics: Arc<Metrics>,
    /// Records Events; none without a cluster.
    pub(super) events: Option<Box<dyn EventSink>>,
}

/// Records Events on pods.
pub(crate) trait EventSink: Send + Sync + 'static {
    /// Records an Event on a pod. Returns at once.
    fn record(&self, pod: &WorkloadIdentity, event: PodEvent);
}

/// The state of a volume before an issuance.
pub(super) struct Before {
    /// The serial number of the certificate in use.
    pub(super) serial: Option<String>,
    /// The CA that has signed it.
    pub(super) issuing_ca: Option<String>,
    had_failed: bool,
    /// What the pod's author was told of it.
    warning: Option<String>,
}

impl Before {
    pub(super) fn of(volume: &Volume) -> Self {
        volume.with_record(|record| Self {
            serial: record.issued.as_ref().map(|issued| issued.facts.serial.clone()),
            issuing_ca: record.issued.as_ref().and_then(|issued| issued.trust.issuing_ca.clone()),
            had_failed: record.last_error.is_some(),
            warning: record.issued.as_ref().and_then(|issued| issued.warning.clone()),
        })
    }
}

impl Reporter {
    /// Tells the pod's author of attributes that are not used because they may hold a password under a mistyped name. Shows no
    /// value.
    pub(super) fn mistyped_passwords(&self, volume: &Volume, keys: &[String]) {
        if keys.is_empty() {
            return;
        }
        self.warn(volume, "AttributeIgnored", mistyped_passwords_message(keys));
    }

    /// Counts a doubtful volume, and tells the pod's author of what is doubtful in the attributes of a volume and is served all the same.
    fn doubts(&self, volume: &Volume) {
        let spec = volume.spec();
        let doubts = &spec.doubts;
        if doubts.is_empty() {
            return;
        }
        self.metrics.doubtful_volume();
        let as_whom = match spec.dialect {
            Dialect::CertManager => "as cert-manager's csi-driver does",
            Dialect::CsiDriverSpiffe => "as csi-driver-spiffe does",
            Dialect::Certlet => "as before an upgrade of certlet",
        };
        self.warn(volume, "AttributeDoubtful", format!("served {as_whom}: {doubts}"));
    }

    /// Tells the pod's author that the pod's Envoy does not accept a secret.
    pub(super) fn secret_rejected(&self, volume: &Volume, message: &str) {
        let message = format!("Envoy does not accept a secret of this volume: {message}");
        volume.set_rejection(Some(message.clone()));
        let event = PodEvent { kind: EventKind::Warning, reason: "SecretRejected", message };
        // A pod can say this as often as it likes, so the log is limited as the Events are.
        if volume.events.admits(&event) {
            log(volume, &event);
            self.record(volume, event);
        }
    }

    /// Tells the pod's author that a trust source of the volume has failed, or works again.
    pub(super) fn trust_sources(&self, volume: &Volume) {
        // The log names each source once for the whole node.
        let Some(changed) = volume.changed_fault() else { return };
        let event = if let Err(message) = changed {
            PodEvent { kind: EventKind::Warning, reason: "TrustSourceFailed", message }
        } else {
            volume.events.settle();
            let message = "all trust sources of the volume can be read".to_owned();
            PodEvent { kind: EventKind::Normal, reason: "TrustSourceRecovered", message }
        };
        if self.events.is_some() && volume.events.admits(&event) {
            self.record(volume, event);
        }
    }

    /// Tells the pod's author of federated trust bundles that the pod does not have. They come without a restart of the pod.
    pub(super) fn federated_missing(&self, volume: &Volume, missing: &[String]) {
        if !missing.is_empty() {
            let missing = shown_list(missing, "; ");
            let message =
                format!("the pod is served without a federated trust bundle until it can be read: {missing}");
            self.warn(volume, "FederatedBundleMissing", message);
        }
    }

    /// Tells the pod's author that another driver has mounted the volume, and that certlet does not renew it.
    pub(super) fn not_renewed(
        &self,
        volume: &VolumeId,
        target: &Path,
        pod: &WorkloadIdentity,
        events: &EventHistory,
    ) {
        let message = "another driver's volume is mounted here: it stays as it is, and is not renewed; restart the pod to replace it";
        let event = PodEvent {
            kind: EventKind::Warning,
            reason: "CertificateNotRenewed",
            message: message.to_owned(),
        };
        // The kubelet may publish it every minute, so the log is limited as the Events are.
        if !events.admits(&event) {
            return;
        }
        let WorkloadIdentity { namespace, name, .. } = pod;
        tracing::warn!(%volume, namespace, pod = name, target = %target.display(), "{message}");
        if let Some(events) = &self.events {
            events.record(pod, event);
        }
    }

    fn warn(&self, volume: &Volume, reason: &'static str, message: String) {
        let event = PodEvent { kind: EventKind::Warning, reason, message };
        log(volume, &event);
        if self.events.is_some() && volume.events.admits(&event) {
            self.record(volume, event);
        }
    }

    fn record(&self, volume: &Volume, event: PodEvent) {
        if let Some(events) = &self.events {
            events.record(&volume.with_record(|record| record.pod.clone()), event);
        }
    }

    /// Counts an issuance. Records an Event for a first certificate, for a failure, and for the end of a failure. With the first
    /// certificate, whichever attempt obtained it, it tells what is doubtful in the attributes.
    pub(super) fn issuance(
        &self,
        volume: &Volume,
        (signer, purpose): (SignerKind, Purpose),
        before: &Before,
        result: Result<(), &Failure>,
        took: Duration,
    ) {
        let failed = result.err().map(|failure| failure.kind);
        self.metrics.issuance(signer, purpose.as_str(), failed, took);
        let is_first = before.serial.is_none() && volume.with_record(|record| record.issued.is_some());
        if is_first {
            self.doubts(volume);
        }
        let warning =
            volume.with_record(|record| record.issued.as_ref().and_then(|issued| issued.warning.clone()));
        if let Some(warning) =
            warning.filter(|warning| result.is_ok() && before.warning.as_ref() != Some(warning))
        {
            self.warn(volume, "CertificateDiffers", format!("the certificate is in use, but {warning}"));
        }
        let Some(event) = self.events.as_ref().and_then(|_| event(volume, before, result)) else { return };
        if result.is_ok() {
            volume.events.settle();
        }
        if volume.events.admits(&event) {
            self.record(volume, event);
        }
    }
}

fn log(volume: &Volume, event: &PodEvent) {
    let WorkloadIdentity { namespace, name: pod, .. } = volume.with_record(|record| record.pod.clone());
    tracing::warn!(volume = %volume.id, namespace, pod, "{}", event.message);
}

/// Names at most three of the keys, each cut: an Event holds 1,024 bytes.
fn mistyped_passwords_message(keys: &[String]) -> String {
    let named = keys.iter().take(3).map(|key| shown(key)).collect::<Vec<_>>().join(", ");
    let more = keys.len().saturating_sub(3);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!(
        "{named}{more}: not a known attribute, and may hold a password, so it is ignored and not copied to the \
         CertificateRequest; accepted: csi.cert-manager.io/pkcs12-password for the keystore's password"
    )
}

fn event(volume: &Volume, before: &Before, result: Result<(), &Failure>) -> Option<PodEvent> {
    let until = volume.fact(|facts| format!(" until {:.0}", facts.not_after)).unwrap_or_default();
    let was_issued = before.serial.is_some();
    let (kind, reason, message) = match result {
        Ok(()) if !was_issued => {
            (EventKind::Normal, "CertificateIssued", format!("certificate issued, valid{until}"))
        }
        Ok(()) if before.had_failed => (
            EventKind::Normal,
            "CertificateRenewalRecovered",
            format!("certificate renewed again, valid{until}"),
        ),
        Ok(()) => return None,
        Err(failure) if failure.kind == FailureKind::Cancelled => return None,
        // A renewal that waits has not failed.
        Err(failure) if was_issued && failure.kind == FailureKind::NotReady => return None,
        Err(failure) if was_issued => (
            EventKind::Warning,
            "CertificateRenewalFailing",
            format!("the certificate in place is valid{until}, but its renewal fails: {failure}"),
        ),
        Err(failure) => {
            let (kind, reason) = match failure.kind {
                FailureKind::StillWaiting | FailureKind::NotReady => {
                    (EventKind::Normal, "CertificatePending")
                }
                kind if kind.retry_kind() == FailureKind::Permanent => {
                    (EventKind::Warning, "CertificateRefused")
                }
                _ => (EventKind::Warning, "CertificateFailed"),
            };
            (kind, reason, failure.to_string())
        }
    };
    Some(PodEvent { kind, reason, message })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::CertificateFacts;
    use crate::store::{IssuedRecord, TrustRecord};
    use crate::volume::tests::{volume_in_memory, volume_of};
    use crate::x509::testing::attributes;
    use parking_lot::Mutex;

    #[test]
    fn the_author_is_told_of_a_first_certificate_of_failures_and_of_their_end() {
        let volume = volume_in_memory("v");
        let told = |serial: Option<&str>, had_failed, failed: Option<FailureKind>| {
            let failure = failed.map(|kind| Failure::new(kind, "no"));
            let before =
                Before { serial: serial.map(str::to_owned), issuing_ca: None, had_failed, warning: None };
            event(&volume, &before, failure.as_ref().map_or(Ok(()), Err))
                .map(|event| (event.kind, event.reason))
        };
        let (first, renewal) = (None, Some("01"));
        let normal = |reason| Some((EventKind::Normal, reason));
        let warning = |reason| Some((EventKind::Warning, reason));
        assert_eq!(told(first, false, None), normal("CertificateIssued"));
        assert_eq!(told(first, false, Some(FailureKind::StillWaiting)), normal("CertificatePending"));
        assert_eq!(told(first, false, Some(FailureKind::NotReady)), normal("CertificatePending"));
        assert_eq!(told(first, false, Some(FailureKind::Permanent)), warning("CertificateRefused"));
        assert_eq!(told(first, false, Some(FailureKind::Full)), warning("CertificateFailed"));
        assert_eq!(told(first, false, Some(FailureKind::Cancelled)), None);
        assert_eq!(told(renewal, false, None), None);
        assert_eq!(told(renewal, false, Some(FailureKind::NotReady)), None);
        assert_eq!(told(renewal, false, Some(FailureKind::Permanent)), warning("CertificateRenewalFailing"));
        assert_eq!(told(renewal, true, None), normal("CertificateRenewalRecovered"));
    }

    #[derive(Clone, Default)]
    struct Events(Arc<Mutex<Vec<PodEvent>>>);

    impl EventSink for Events {
        fn record(&self, _pod: &WorkloadIdentity, event: PodEvent) {
            self.0.lock().push(event);
        }
    }

    #[test]
    fn doubts_are_told_once_with_the_first_certificate_whichever_attempt_obtains_it() {
        let mut spec = attributes();
        spec.dialect = Dialect::CertManager;
        spec.doubts.add("csi.cert-manager.io/common-name", "is odd");
        let volume = volume_of("v", spec);
        let events = Events::default();
        let reporter = Reporter { metrics: Arc::default(), events: Some(Box::new(events.clone())) };
        let told = |result: Result<(), &Failure>| {
            let before = Before::of(&volume);
            if result.is_ok() {
                let mut record = volume.record();
                record.issued = Some(issued());
                volume.set_record(record);
            }
            reporter.issuance(
                &volume,
                (SignerKind::Local, Purpose::Publish),
                &before,
                result,
                Duration::ZERO,
            );
            let metrics = reporter.metrics.encode().unwrap();
            let counted =
                metrics.lines().find_map(|line| line.strip_prefix("certlet_doubtful_volumes_total "));
            let doubts = |event: &&PodEvent| {
                event.reason == "AttributeDoubtful" && event.message.contains("common-name: is odd")
            };
            (events.0.lock().iter().filter(doubts).count(), counted.map(str::to_owned))
        };
        assert_eq!(told(Err(&Failure::transient("the issuer is down"))), (0, Some("0".into())));
        assert_eq!(told(Ok(())), (1, Some("1".into())), "the retry");
        assert_eq!(told(Err(&Failure::transient("a renewal"))), (1, Some("1".into())));
        assert_eq!(told(Ok(())), (1, Some("1".into())), "a renewal");
    }

    #[test]
    fn the_author_is_told_once_that_another_drivers_volume_is_not_renewed() {
        let volume = volume_in_memory("v");
        let events = Events::default();
        let reporter = Reporter { metrics: Arc::default(), events: Some(Box::new(events.clone())) };
        let pod = volume.record().pod;
        for _ in 0..3 {
            reporter.not_renewed(&volume.id, Path::new("/target"), &pod, &volume.events);
        }
        let told: Vec<&str> = events.0.lock().iter().map(|event| event.reason).collect();
        assert_eq!(told, ["CertificateNotRenewed"]);
    }

    fn issued() -> IssuedRecord {
        let at = jiff::Timestamp::UNIX_EPOCH;
        let facts = CertificateFacts {
            serial: "01".into(),
            subject: String::new(),
            sans: Vec::new(),
            not_before: at,
            not_after: at,
        };
        IssuedRecord {
            facts: Arc::new(facts),
            issued_at: at,
            renew_at: at,
            generation: 1,
            warning: None,
            trust: TrustRecord::default(),
        }
    }
}
