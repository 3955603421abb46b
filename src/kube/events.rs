//! Events on pods. `kubectl describe pod` shows them to the pod's author.

use super::{Caller, Cluster};
use crate::model::{WorkloadIdentity, fingerprint};
use jiff::Timestamp;
use kube::api::PostParams;
use kube::core::Request;
use parking_lot::Mutex;
use serde_json::json;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// The type of an Event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventKind {
    /// Information.
    Normal,
    /// Something needs attention.
    Warning,
}

/// One Event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PodEvent {
    /// Its type.
    pub kind: EventKind,
    /// For machines, in `UpperCamelCase`.
    pub reason: &'static str,
    /// For people; the API's field `note`.
    pub message: String,
}

/// Records Events: a few a minute per volume, and the same Event only after [`REPEAT_AFTER`] again.
#[derive(Debug)]
pub(crate) struct EventRecorder {
    warnings: mpsc::Sender<Queued>,
    /// Sent slowly, because a node that starts a hundred pods has more urgent calls to make.
    normals: mpsc::Sender<Queued>,
}

#[derive(Debug)]
struct Queued {
    pod: WorkloadIdentity,
    event: PodEvent,
    at: Timestamp,
}

/// The recent Events of one volume.
#[derive(Debug, Default)]
pub(crate) struct EventHistory(Mutex<Vec<Recorded>>);

#[derive(Debug)]
struct Recorded {
    at: Instant,
    /// Identifies the same Event; none if that may be recorded again.
    key: Option<String>,
}

impl EventHistory {
    /// The volume's failure is over: the same Event is recorded again when it returns.
    pub(crate) fn settle(&self) {
        self.0.lock().iter_mut().for_each(|recorded| recorded.key = None);
    }

    /// Whether an Event is recorded, or dropped as a repetition or as one too many in a minute.
    fn admits(&self, event: &PodEvent) -> bool {
        let now = Instant::now();
        let key = Some(fingerprint(&[event.reason.as_bytes(), stable_part(&event.message).as_bytes()]));
        let mut recent = self.0.lock();
        recent.retain(|recorded| now.duration_since(recorded.at) < REPEAT_AFTER);
        let in_last_minute =
            recent.iter().filter(|recorded| now.duration_since(recorded.at) < MINUTE).count();
        let admitted =
            in_last_minute < MAX_EVENTS_PER_MINUTE && recent.iter().all(|recorded| recorded.key != key);
        if admitted {
            recent.push(Recorded { at: now, key });
        }
        admitted
    }
}

/// How long the same Event is not recorded again.
const REPEAT_AFTER: Duration = Duration::from_mins(15);
/// Events per volume and minute.
const MAX_EVENTS_PER_MINUTE: usize = 4;
const MINUTE: Duration = Duration::from_mins(1);
/// Events of one kind that wait to be sent; more are dropped.
const MAX_QUEUED: usize = 1024;
/// The pause after each normal Event.
const NORMAL_PAUSE: Duration = Duration::from_millis(500);
/// Bytes of a `note` that the API accepts.
const MAX_MESSAGE: usize = 1024;

impl EventRecorder {
    /// Starts a recorder under the driver's name. Its tasks end with it.
    pub(crate) fn start(cluster: &Cluster, driver: &str, node: &str) -> Self {
        let start = |pause| {
            let (queue, waiting) = mpsc::channel(MAX_QUEUED);
            tokio::spawn(write(cluster.clone(), driver.to_owned(), node.to_owned(), waiting, pause));
            queue
        };
        Self { warnings: start(Duration::ZERO), normals: start(NORMAL_PAUSE) }
    }

    /// Records an Event on the volume's pod, unless `history` has the same one or too many.
    pub(crate) fn record(&self, history: &EventHistory, pod: &WorkloadIdentity, event: PodEvent) {
        if !history.admits(&event) {
            return;
        }
        let queue = match event.kind {
            EventKind::Normal => &self.normals,
            EventKind::Warning => &self.warnings,
        };
        if let Err(error) = queue.try_send(Queued { pod: pod.clone(), event, at: Timestamp::now() }) {
            tracing::debug!(namespace = pod.namespace, pod = pod.name, %error, "an Event is dropped");
        }
    }
}

async fn write(
    cluster: Cluster,
    driver: String,
    node: String,
    mut waiting: mpsc::Receiver<Queued>,
    pause: Duration,
) {
    while let Some(Queued { pod, event, at }) = waiting.recv().await {
        let body = body(&driver, &node, &pod, &event, at);
        let events = Request::new(format!("/apis/events.k8s.io/v1/namespaces/{}/events", pod.namespace));
        let request = events.create(&PostParams::default(), body);
        if let Err(error) = cluster.call(Caller::Driver, request).await {
            // The log and the metrics have the same information.
            tracing::debug!(namespace = pod.namespace, pod = pod.name, %error, "an Event was not recorded");
        }
        tokio::time::sleep(pause).await;
    }
}

/// An `events.k8s.io/v1` Event.
fn body(driver: &str, node: &str, pod: &WorkloadIdentity, event: &PodEvent, now: Timestamp) -> Vec<u8> {
    let WorkloadIdentity { namespace, name, uid, .. } = pod;
    let unique = fingerprint(&[uid.as_bytes(), event.message.as_bytes(), &now.as_nanosecond().to_be_bytes()]);
    let stem: String = name.chars().take(200).collect();
    json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": { "namespace": namespace, "name": format!("{stem}.{}", &unique[..16]) },
        "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string(),
        "reportingController": driver,
        "reportingInstance": node.chars().take(128).collect::<String>(),
        "action": "IssueCertificate",
        "reason": event.reason,
        "type": match event.kind { EventKind::Normal => "Normal", EventKind::Warning => "Warning" },
        "note": clipped(&event.message),
        "regarding": { "apiVersion": "v1", "kind": "Pod", "namespace": namespace, "name": name, "uid": uid },
    })
    .to_string()
    .into_bytes()
}

/// The part of a message that makes two Events the same: without words with digits, such as a request's name or a time.
fn stable_part(message: &str) -> String {
    let has_digit = |word: &&str| word.contains(|c: char| c.is_ascii_digit());
    message.split_whitespace().filter(|word| !has_digit(word)).collect::<Vec<_>>().join(" ")
}

fn clipped(message: &str) -> String {
    if message.len() <= MAX_MESSAGE {
        return message.to_owned();
    }
    format!("{}...", &message[..message.floor_char_boundary(MAX_MESSAGE - 3)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorder() -> (EventRecorder, mpsc::Receiver<Queued>) {
        let (warnings, waiting) = mpsc::channel(MAX_QUEUED);
        let (normals, _) = mpsc::channel(1);
        (EventRecorder { warnings, normals }, waiting)
    }

    fn record(recorder: &EventRecorder, history: &EventHistory, message: &str) {
        let pod = WorkloadIdentity {
            namespace: "shop".into(),
            name: "web-0".into(),
            uid: "u".into(),
            service_account: "default".into(),
        };
        let event = PodEvent { kind: EventKind::Warning, reason: "RenewalFailing", message: message.into() };
        recorder.record(history, &pod, event);
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_event_is_recorded_again_only_after_a_while() {
        let ((recorder, mut waiting), a) = (recorder(), EventHistory::default());
        for _ in 0..100 {
            record(&recorder, &a, "no");
        }
        assert_eq!(waiting.len(), 1);
        tokio::time::advance(REPEAT_AFTER).await;
        record(&recorder, &a, "no");
        assert_eq!(waiting.len(), 2);
        waiting.close();
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_failure_of_another_request_is_recorded_only_after_a_success() {
        let ((recorder, waiting), a) = (recorder(), EventHistory::default());
        let failed = |name: &str| format!("CertificateRequest shop/web-0-{name} failed: no such issuer");
        record(&recorder, &a, &failed("05f3aa"));
        record(&recorder, &a, &failed("c0ffee1"));
        assert_eq!(waiting.len(), 1);
        record(&recorder, &a, "CertificateRequest shop/web-0-7 failed: the backend is down");
        assert_eq!(waiting.len(), 2);
        a.settle();
        record(&recorder, &a, &failed("1b"));
        assert_eq!(waiting.len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn each_volume_has_a_few_events_a_minute_of_its_own() {
        let ((recorder, waiting), a) = (recorder(), EventHistory::default());
        for n in 1..=100 {
            record(&recorder, &a, &"no".repeat(n));
        }
        assert_eq!(waiting.len(), MAX_EVENTS_PER_MINUTE);
        record(&recorder, &EventHistory::default(), "no");
        assert_eq!(waiting.len(), MAX_EVENTS_PER_MINUTE + 1);
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let cut = clipped(&"ä".repeat(1000));
        assert!(cut.len() <= MAX_MESSAGE && cut.ends_with("..."), "{}", cut.len());
    }
}
