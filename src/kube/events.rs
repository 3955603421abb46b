//! Events on pods, which `kubectl describe pod` shows to their authors, and on this node, for the operator.

use super::{Caller, Cluster};
use crate::model::{EventKind, MAX_MESSAGE_BYTES, PodEvent, WorkloadIdentity, clipped, fingerprint};
use crate::platform::FairQueue;
use jiff::Timestamp;
use kube::api::PostParams;
use kube::core::Request;
use parking_lot::Mutex;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// Records Events, in the background. Clones share the queues.
#[derive(Clone, Debug)]
pub(crate) struct EventRecorder(Arc<Queues>);

#[derive(Debug)]
struct Queues {
    warnings: Arc<EventQueue>,
    /// Sent slowly while more arrive, because a node that starts a hundred pods has more urgent calls to make.
    normals: Arc<EventQueue>,
}

/// Events of one type that wait to be sent: those of one namespace after the other.
#[derive(Debug, Default)]
struct EventQueue {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: FairQueue<u64, Queued>,
    count: usize,
    /// How many have arrived so far.
    arrived: u64,
    is_closed: bool,
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

/// Events of one type that wait to be sent. For one more, the namespace that has most of them loses its oldest.
const MAX_QUEUED: usize = 1024;
/// The pause after a normal Event while more arrive.
const NORMAL_PAUSE: Duration = Duration::from_millis(500);

impl EventRecorder {
    /// Starts a recorder under the driver's name. Its tasks end with it.
    pub(crate) fn start(cluster: &Cluster, driver: &str, node: &str) -> Self {
        let start = |pause| {
            let queue = Arc::<EventQueue>::default();
            let waiting = Arc::clone(&queue);
            tokio::spawn(write(cluster.clone(), driver.to_owned(), node.to_owned(), waiting, pause));
            queue
        };
        Self(Arc::new(Queues { warnings: start(Duration::ZERO), normals: start(NORMAL_PAUSE) }))
    }

    /// Records an Event on a pod. An older one is dropped if too many wait.
    pub(crate) fn record(&self, pod: &WorkloadIdentity, event: PodEvent) {
        self.queue(Regarding::Pod(pod.clone()), event);
    }

    /// Records an Event on this node. An older one is dropped if too many wait.
    pub(crate) fn record_on_node(&self, node: &str, event: PodEvent) {
        self.queue(Regarding::Node(node.to_owned()), event);
    }

    fn queue(&self, regarding: Regarding, event: PodEvent) {
        let queue = match event.kind {
            EventKind::Normal => &self.0.normals,
            EventKind::Warning => &self.0.warnings,
        };
        queue.push(Queued::new(regarding, event));
    }
}

impl Drop for Queues {
    fn drop(&mut self) {
        for queue in [&self.warnings, &self.normals] {
            queue.state.lock().is_closed = true;
            queue.changed.notify_one();
        }
    }
}

impl Queued {
    /// An Event with as much of its message as the API accepts: it may wait for minutes.
    fn new(regarding: Regarding, mut event: PodEvent) -> Self {
        event.message = clipped(&event.message, MAX_MESSAGE_BYTES);
        Self { regarding, event, at: Timestamp::now() }
    }
}

impl EventQueue {
    fn push(&self, queued: Queued) {
        let dropped = {
            let mut state = self.state.lock();
            state.arrived += 1;
            let (number, namespace) = (state.arrived, queued.regarding.namespace().to_owned());
            state.waiting.insert(&namespace, number, queued);
            if state.count < MAX_QUEUED {
                state.count += 1;
                None
            } else {
                state.waiting.pop_first_of_largest()
            }
        };
        self.changed.notify_one();
        if let Some((_, Queued { regarding, .. })) = dropped {
            tracing::debug!(?regarding, "an Event is dropped, because too many wait");
        }
    }

    /// The next Event; none after the recorder has ended.
    async fn next(&self) -> Option<Queued> {
        loop {
            {
                let mut state = self.state.lock();
                if let Some((_, queued)) = state.waiting.pop_first() {
                    state.count -= 1;
                    return Some(queued);
                }
                if state.is_closed {
                    return None;
                }
            }
            self.changed.notified().await;
        }
    }
}

async fn write(cluster: Cluster, driver: String, node: String, queue: Arc<EventQueue>, pause: Duration) {
    let mut pacing = Pacing { pause, free: 0 };
    while let Some(Queued { regarding, event, at }) = queue.next().await {
        let body = body(&driver, &node, &regarding, &event, at);
        let namespace = regarding.namespace();
        let events = Request::new(format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events"));
        let request = events.create(&PostParams::default(), body);
        if let Err(error) = cluster.call(Caller::Driver, request).await {
            // The log and the metrics have the same information.
            tracing::debug!(?regarding, %error, "an Event was not recorded");
        }
        pacing.rest(&queue).await;
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
    async fn rest(&mut self, queue: &EventQueue) {
        if self.free > 0 {
            self.free -= 1;
            return;
        }
        let before = queue.state.lock().arrived;
        tokio::time::sleep(self.pause).await;
        let state = queue.state.lock();
        if state.arrived == before {
            self.free = state.count;
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
        "note": event.message,
        "regarding": object,
    })
    .to_string()
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use tokio::time::Instant;

    fn queued(namespace: &str, message: &str) -> Queued {
        let pod = WorkloadIdentity {
            namespace: namespace.to_owned(),
            name: "web-0".into(),
            uid: "uid-1".into(),
            service_account: "web".into(),
        };
        let event =
            PodEvent { kind: EventKind::Normal, reason: "CertificateIssued", message: message.to_owned() };
        Queued::new(Regarding::Pod(pod), event)
    }

    #[tokio::test(start_paused = true)]
    async fn events_are_sent_slowly_only_while_more_arrive() {
        let queue = Arc::<EventQueue>::default();
        let arriving = tokio::spawn({
            let queue = Arc::clone(&queue);
            async move {
                for _ in 0..50 {
                    queue.push(queued("shop", "no"));
                    tokio::time::sleep(NORMAL_PAUSE / 5).await;
                }
            }
        });
        let mut pacing = Pacing { pause: NORMAL_PAUSE, free: 0 };
        let begun = Instant::now();
        let mut sent = Vec::new();
        while sent.len() < 50 {
            queue.next().await;
            sent.push(begun.elapsed());
            pacing.rest(&queue).await;
        }
        arriving.await.unwrap();
        let end_of_arrivals = 10 * NORMAL_PAUSE;
        let early = sent.iter().filter(|at| **at <= end_of_arrivals).count();
        assert!((10..=12).contains(&early), "{early} were sent while more arrived");
        assert!(sent[49] <= end_of_arrivals + 2 * NORMAL_PAUSE, "the last one was sent after {:?}", sent[49]);
    }

    #[tokio::test]
    async fn a_namespace_with_very_many_events_drops_its_own_and_delays_another_by_one() {
        let queue = EventQueue::default();
        queue.push(queued("innocent", "first"));
        for n in 0..2 * MAX_QUEUED {
            queue.push(queued("hostile", &n.to_string()));
        }
        queue.push(queued("innocent", "last"));
        queue.state.lock().is_closed = true;
        let mut sent = Vec::new();
        while let Some(queued) = queue.next().await {
            sent.push((queued.regarding.namespace().to_owned(), queued.event.message));
        }
        let of_innocent: Vec<_> =
            sent.iter().enumerate().filter(|(_, (namespace, _))| namespace == "innocent").collect();
        assert!(
            matches!(&*of_innocent, [(0, (_, first)), (2, (_, last))] if first == "first" && last == "last")
        );
        let newest = (2 * MAX_QUEUED - 1).to_string();
        assert_eq!((sent.len(), &sent.last().unwrap().1), (MAX_QUEUED, &newest));
    }

    #[tokio::test]
    async fn the_queue_ends_with_the_recorder_after_what_waits() {
        let queue = Arc::<EventQueue>::default();
        let recorder =
            EventRecorder(Arc::new(Queues { warnings: Arc::default(), normals: Arc::clone(&queue) }));
        let clone = recorder.clone();
        queue.push(queued("shop", "no"));
        drop(recorder);
        assert!(queue.next().await.is_some());
        let mut next = Box::pin(queue.next());
        assert!((&mut next).now_or_never().is_none());
        drop(clone);
        assert!(next.await.is_none());
    }

    #[test]
    fn a_long_message_is_cut_before_it_waits() {
        let message = queued("shop", &"\u{e4}".repeat(500_000)).event.message;
        assert!(message.len() <= 1024 && message.ends_with("..."), "{}", message.len());
    }
}
