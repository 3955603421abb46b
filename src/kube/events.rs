//! Events on pods: `kubectl describe pod` shows them to the pod's author.

use super::{Caller, Cluster};
use crate::attributes::{PodIdentity, VolumeId};
use jiff::Timestamp;
use kube::api::PostParams;
use kube::core::Request;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Good news or bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// For the record.
    Normal,
    /// Somebody should look.
    Warning,
}

/// One Event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodEventNote {
    /// Good news or bad.
    pub kind: EventKind,
    /// A word in `UpperCamelCase` for machines.
    pub reason: &'static str,
    /// A sentence for people.
    pub note: String,
}

/// Records Events, a few a minute for each volume, and the same one not again for a while.
#[derive(Debug)]
pub struct EventRecorder {
    warnings: mpsc::Sender<Queued>,
    /// Sent a few a second: a node that starts a hundred pods has better things to ask of the API server.
    good_news: mpsc::Sender<Queued>,
    recent: Mutex<HashMap<VolumeId, Recent>>,
}

#[derive(Debug)]
struct Queued {
    pod: PodIdentity,
    event: PodEventNote,
    at: Timestamp,
}

#[derive(Debug)]
struct Recent {
    last: HashMap<(&'static str, u64), Instant>,
    window: Instant,
    in_window: u32,
}

/// The same Event comes again after this long, if it still holds.
const REPEAT_AFTER: Duration = Duration::from_mins(15);
/// Events a minute and volume.
const A_MINUTE: u32 = 4;
/// So many volumes are worth looking through for those that can be forgotten.
const MANY: usize = 1024;
/// Events of a kind that wait for the API server; more are dropped.
const WAITING: usize = 1024;
/// The pause after each Event that is good news.
const PACE: Duration = Duration::from_millis(500);
/// What the API takes.
const NOTE_BYTES: usize = 1024;

impl EventRecorder {
    /// A recorder under the driver's name; its tasks end with it.
    pub fn start(cluster: &Cluster, driver: &str, node: &str) -> Self {
        let start = |pause| {
            let (queue, waiting) = mpsc::channel(WAITING);
            tokio::spawn(write(cluster.clone(), driver.to_owned(), node.to_owned(), waiting, pause));
            queue
        };
        Self { warnings: start(Duration::ZERO), good_news: start(PACE), recent: Mutex::default() }
    }

    /// Records an Event on the volume's pod, unless it was just said or there have been many.
    pub fn record(&self, volume: &VolumeId, pod: &PodIdentity, event: PodEventNote) {
        if !self.is_news(volume, &event) {
            return;
        }
        let queue = match event.kind {
            EventKind::Normal => &self.good_news,
            EventKind::Warning => &self.warnings,
        };
        if let Err(error) = queue.try_send(Queued { pod: pod.clone(), event, at: Timestamp::now() }) {
            tracing::debug!(%volume, %error, "an Event is dropped");
        }
    }

    /// The volume's trouble is over: the same trouble would be news again.
    pub fn settle(&self, volume: &VolumeId) {
        if let Some(recent) = self.lock().get_mut(volume) {
            recent.last.clear();
        }
    }

    /// The volume is gone.
    pub fn forget(&self, volume: &VolumeId) {
        self.lock().remove(volume);
    }

    fn is_news(&self, volume: &VolumeId, event: &PodEventNote) -> bool {
        let now = Instant::now();
        let mut all = self.lock();
        if all.len() >= MANY && !all.contains_key(volume) {
            // Nobody says so when a volume goes whose publish never succeeded.
            all.retain(|_, recent| recent.last.values().any(|said| now.duration_since(*said) < REPEAT_AFTER));
        }
        let recent = all.entry(volume.clone()).or_insert_with(|| Recent {
            last: HashMap::new(),
            window: now,
            in_window: 0,
        });
        recent.last.retain(|_, said| now.duration_since(*said) < REPEAT_AFTER);
        let key = (event.reason, short_hash(&[gist(&event.note).as_bytes()]));
        if recent.last.contains_key(&key) {
            return false;
        }
        if now.duration_since(recent.window) >= Duration::from_mins(1) {
            (recent.window, recent.in_window) = (now, 0);
        }
        if recent.in_window >= A_MINUTE {
            return false;
        }
        recent.in_window += 1;
        recent.last.insert(key, now);
        true
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<VolumeId, Recent>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
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
            // An Event is a courtesy: what it says is in the log and the metrics too.
            tracing::debug!(namespace = pod.namespace, pod = pod.name, %error, "an Event was not recorded");
        }
        tokio::time::sleep(pause).await;
    }
}

/// An `events.k8s.io/v1` Event.
fn body(driver: &str, node: &str, pod: &PodIdentity, event: &PodEventNote, now: Timestamp) -> Vec<u8> {
    let PodIdentity { namespace, name, uid, .. } = pod;
    let unique = short_hash(&[uid.as_bytes(), event.note.as_bytes(), &now.as_nanosecond().to_be_bytes()]);
    let stem: String = name.chars().take(200).collect();
    json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": { "namespace": namespace, "name": format!("{stem}.{unique:016x}") },
        "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string(),
        "reportingController": driver,
        "reportingInstance": node.chars().take(128).collect::<String>(),
        "action": "IssueCertificate",
        "reason": event.reason,
        "type": match event.kind { EventKind::Normal => "Normal", EventKind::Warning => "Warning" },
        "note": clipped(&event.note),
        "regarding": { "apiVersion": "v1", "kind": "Pod", "namespace": namespace, "name": name, "uid": uid },
    })
    .to_string()
    .into_bytes()
}

/// What tells one Event from another: words with digits in them, such as a request's name and the time, do not.
fn gist(note: &str) -> String {
    let has_digit = |word: &&str| word.contains(|c: char| c.is_ascii_digit());
    note.split_whitespace().filter(|word| !has_digit(word)).collect::<Vec<_>>().join(" ")
}

fn clipped(note: &str) -> String {
    if note.len() <= NOTE_BYTES {
        return note.to_owned();
    }
    let end = (0..=NOTE_BYTES - 3).rev().find(|at| note.is_char_boundary(*at)).unwrap_or(0);
    format!("{}...", &note[..end])
}

fn short_hash(parts: &[&[u8]]) -> u64 {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().iter().take(8).fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorder() -> (EventRecorder, mpsc::Receiver<Queued>) {
        let (warnings, waiting) = mpsc::channel(WAITING);
        let (good_news, _) = mpsc::channel(1);
        (EventRecorder { warnings, good_news, recent: Mutex::default() }, waiting)
    }

    fn said(recorder: &EventRecorder, volume: &str, note: &str) {
        let pod = PodIdentity {
            namespace: "shop".into(),
            name: "web-0".into(),
            uid: "u".into(),
            service_account: "default".into(),
        };
        let event =
            PodEventNote { kind: EventKind::Warning, reason: "RenewalFailing", note: note.to_owned() };
        recorder.record(&VolumeId::new(volume), &pod, event);
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_event_is_said_again_only_after_a_while() {
        let (recorder, mut waiting) = recorder();
        for _ in 0..100 {
            said(&recorder, "a", "no");
        }
        assert_eq!(waiting.len(), 1);
        tokio::time::advance(REPEAT_AFTER).await;
        said(&recorder, "a", "no");
        assert_eq!(waiting.len(), 2);
        waiting.close();
    }

    #[tokio::test(start_paused = true)]
    async fn another_request_with_the_same_trouble_is_no_news_until_it_was_over() {
        let (recorder, waiting) = recorder();
        let failed = |name: &str| format!("CertificateRequest shop/web-0-{name} failed: no such issuer");
        said(&recorder, "a", &failed("05f3aa"));
        said(&recorder, "a", &failed("c0ffee1"));
        assert_eq!(waiting.len(), 1);
        said(&recorder, "a", "CertificateRequest shop/web-0-7 failed: the backend is down");
        assert_eq!(waiting.len(), 2);
        recorder.settle(&VolumeId::new("a"));
        said(&recorder, "a", &failed("1b"));
        assert_eq!(waiting.len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_volume_has_a_few_events_a_minute_and_leaves_the_others_theirs() {
        let (recorder, waiting) = recorder();
        for n in 1..=100 {
            said(&recorder, "a", &"no".repeat(n));
        }
        assert_eq!(waiting.len(), A_MINUTE as usize);
        said(&recorder, "b", "no");
        assert_eq!(waiting.len(), A_MINUTE as usize + 1);
    }

    #[test]
    fn a_long_note_is_cut_between_characters() {
        let note = clipped(&"ä".repeat(1000));
        assert!(note.len() <= NOTE_BYTES && note.ends_with("..."), "{}", note.len());
    }
}
