//! Events on pods, which `kubectl describe pod` shows to their authors, and on this node, for the operator.

use super::{Caller, Cluster};
use crate::model::{EventKind, PodEvent, WorkloadIdentity, fingerprint};
use jiff::Timestamp;
use kube::api::PostParams;
use kube::core::Request;
use serde_json::json;
use std::time::Duration;
use tokio::sync::mpsc;

/// Records Events, in the background. Clones share the queues.
#[derive(Clone, Debug)]
pub(crate) struct EventRecorder {
    warnings: mpsc::Sender<Queued>,
    /// Sent slowly while more arrive, because a node that starts a hundred pods has more urgent calls to make.
    normals: mpsc::Sender<Queued>,
}

#[derive(Debug)]
struct Queued {
    regarding: Regarding,
    event: PodEvent,
    at: Timestamp,
}

/// What an Event is about.
#[derive(Debug)]
enum Regarding {
    Pod(WorkloadIdentity),
    /// The node of this name.
    Node(String),
}

/// Events of one kind that wait to be sent; more are dropped.
const MAX_QUEUED: usize = 1024;
/// The pause after a normal Event while more arrive.
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

    /// Records an Event on a pod. It is dropped if too many wait.
    pub(crate) fn record(&self, pod: &WorkloadIdentity, event: PodEvent) {
        self.queue(Regarding::Pod(pod.clone()), event);
    }

    /// Records an Event on this node. It is dropped if too many wait.
    pub(crate) fn record_on_node(&self, node: &str, event: PodEvent) {
        self.queue(Regarding::Node(node.to_owned()), event);
    }

    fn queue(&self, regarding: Regarding, event: PodEvent) {
        let queue = match event.kind {
            EventKind::Normal => &self.normals,
            EventKind::Warning => &self.warnings,
        };
        if let Err(error) = queue.try_send(Queued { regarding, event, at: Timestamp::now() }) {
            let Queued { regarding, .. } = error.into_inner();
            tracing::debug!(?regarding, "an Event is dropped, because too many wait");
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
    let mut pacing = Pacing { pause, free: 0 };
    while let Some(Queued { regarding, event, at }) = waiting.recv().await {
        let body = body(&driver, &node, &regarding, &event, at);
        let namespace = regarding.namespace();
        let events = Request::new(format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events"));
        let request = events.create(&PostParams::default(), body);
        if let Err(error) = cluster.call(Caller::Driver, request).await {
            // The log and the metrics have the same information.
            tracing::debug!(?regarding, %error, "an Event was not recorded");
        }
        pacing.rest(&waiting).await;
    }
}

/// Sends one Event for each pause while more arrive. Once none has arrived for a whole pause, those that wait are sent without
/// pauses.
struct Pacing {
    pause: Duration,
    /// How many Events are sent without a pause.
    free: usize,
}

impl Pacing {
    async fn rest<T>(&mut self, waiting: &mpsc::Receiver<T>) {
        if self.free > 0 {
            self.free -= 1;
            return;
        }
        let before = waiting.len();
        tokio::time::sleep(self.pause).await;
        if waiting.len() == before {
            self.free = before;
        }
    }
}

/// An `events.k8s.io/v1` Event.
impl Regarding {
    /// The Event's namespace. Events on objects without one are in `default`.
    fn namespace(&self) -> &str {
        match self {
            Self::Pod(pod) => &pod.namespace,
            Self::Node(_) => "default",
        }
    }
}

fn body(driver: &str, node: &str, regarding: &Regarding, event: &PodEvent, now: Timestamp) -> Vec<u8> {
    // The kubelet too gives the node's name as its uid, and `kubectl describe node` looks for that.
    let (kind, name, uid) = match regarding {
        Regarding::Pod(WorkloadIdentity { name, uid, .. }) => ("Pod", name, uid),
        Regarding::Node(name) => ("Node", name, name),
    };
    let mut object = json!({ "apiVersion": "v1", "kind": kind, "name": name, "uid": uid });
    if let Regarding::Pod(pod) = regarding {
        object["namespace"] = pod.namespace.clone().into();
    }
    let unique = fingerprint(&[uid.as_bytes(), event.message.as_bytes(), &now.as_nanosecond().to_be_bytes()]);
    let stem: String = name.chars().take(200).collect();
    json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": { "namespace": regarding.namespace(), "name": format!("{stem}.{}", &unique[..16]) },
        "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string(),
        "reportingController": driver,
        "reportingInstance": node.chars().take(128).collect::<String>(),
        "action": "IssueCertificate",
        "reason": event.reason,
        "type": match event.kind { EventKind::Normal => "Normal", EventKind::Warning => "Warning" },
        "note": clipped(&event.message),
        "regarding": object,
    })
    .to_string()
    .into_bytes()
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
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn events_are_sent_slowly_only_while_more_arrive() {
        let (queue, mut waiting) = mpsc::channel(100);
        let arriving = tokio::spawn(async move {
            for _ in 0..50 {
                queue.try_send(()).unwrap();
                tokio::time::sleep(NORMAL_PAUSE / 5).await;
            }
            queue
        });
        let mut pacing = Pacing { pause: NORMAL_PAUSE, free: 0 };
        let begun = Instant::now();
        let mut sent = Vec::new();
        while sent.len() < 50 {
            waiting.recv().await;
            sent.push(begun.elapsed());
            pacing.rest(&waiting).await;
        }
        let _queue = arriving.await.unwrap();
        let end_of_arrivals = 10 * NORMAL_PAUSE;
        let early = sent.iter().filter(|at| **at <= end_of_arrivals).count();
        assert!((10..=12).contains(&early), "{early} were sent while more arrived");
        assert!(sent[49] <= end_of_arrivals + 2 * NORMAL_PAUSE, "the last one was sent after {:?}", sent[49]);
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let cut = clipped(&"ä".repeat(1000));
        assert!(cut.len() <= MAX_MESSAGE && cut.ends_with("..."), "{}", cut.len());
    }
}
