//! Attacks on the driver's memory with what one namespace may write: its pods, the messages and certificates of its issuers, the
//! attributes of its volumes. The API server answers as the attack wants it.

use crate::node_test;
use crate::support::{Node, eventually, peak_memory, pod_of};
use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::Method;
use axum::response::{IntoResponse, Response};
use certlet_kubelet::{Kubelet, Pod};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio::task::JoinSet;
use tonic::{Request as Call, Status};

/// Limit on the driver's memory, as the chart sets it (`resources.limits.memory`). The tests allow half of it, because the limit
/// counts the store too.
const MEMORY_LIMIT: usize = 256 << 20;

/// What the API server answers.
#[derive(Clone)]
struct Script {
    /// Any pod.
    pod: Bytes,
    /// The status of a request that is created.
    status: Value,
    /// The events of the watch.
    events: broadcast::Sender<Bytes>,
    /// Requests that were created.
    created: Arc<parking_lot::Mutex<Vec<Value>>>,
    /// Pods that were read.
    read: Arc<AtomicUsize>,
}

impl Script {
    fn new(pod: &Value, status: Value) -> Self {
        let pod = pod.to_string().into();
        Self { pod, status, events: broadcast::channel(512).0, created: Arc::default(), read: Arc::default() }
    }

    fn create(&self, body: &[u8]) -> Response {
        let mut object: Value = serde_json::from_slice(body).unwrap();
        object["metadata"]["uid"] = format!("uid-{}", object["metadata"]["name"].as_str().unwrap()).into();
        object["metadata"]["creationTimestamp"] = "2026-05-01T12:00:00Z".into();
        object["metadata"]["resourceVersion"] = "1".into();
        object["status"] = self.status.clone();
        let answer = object.to_string();
        self.created.lock().push(object);
        answer.into_response()
    }

    /// Shows all requests in the watch with this status.
    fn decide(&self, status: &Value) {
        for mut object in self.created.lock().iter().cloned() {
            object["status"] = status.clone();
            let event = json!({ "type": "MODIFIED", "object": object });
            self.events.send(format!("{event}\n").into()).unwrap();
        }
    }
}

async fn answer(State(script): State<Script>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let (path, query) = (head.uri.path(), head.uri.query().unwrap_or_default());
    match head.method {
        Method::GET if query.contains("watch=true") => {
            let events = futures_util::stream::unfold(script.events.subscribe(), async |mut events| {
                Some((Ok::<_, Infallible>(events.recv().await.ok()?), events))
            });
            Body::from_stream(events).into_response()
        }
        Method::GET if path.contains("/pods/") => {
            script.read.fetch_add(1, Ordering::Relaxed);
            script.pod.into_response()
        }
        Method::GET => json!({
            "apiVersion": "cert-manager.io/v1", "kind": "CertificateRequestList",
            "metadata": { "resourceVersion": "1" }, "items": [],
        })
        .to_string()
        .into_response(),
        Method::POST if path.ends_with("/certificaterequests") => {
            script.create(&to_bytes(body, 2 << 20).await.unwrap())
        }
        // Events wait in the driver.
        Method::POST => std::future::pending().await,
        _ => "{}".into_response(),
    }
}

async fn started(script: &Script, flags: &[&str]) -> (Node, Kubelet) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new().fallback(answer).with_state(script.clone());
    tokio::spawn(async move { axum::serve(listener, app).await });
    let mut node = Node::with_flags(flags);
    node.api_server(address);
    let kubelet = node.started().await;
    (node, kubelet)
}

/// The `number`th pod, with this attribute.
fn pod(number: usize, name: &str, value: &str) -> Pod {
    pod_of(
        &[("issuer-name", "ca"), ("dns-names", "web.shop.svc")],
        &format!("web-{number}"),
        &[(name, value)],
    )
}

/// Publishes so many pods at a time, each for at most 20 s.
fn publish_all(kubelet: &Kubelet, pods: impl Iterator<Item = Pod>) -> JoinSet<Result<(), Status>> {
    pods.map(|pod| {
        let kubelet = kubelet.clone();
        fs::create_dir_all(kubelet.target(&pod).parent().unwrap()).unwrap();
        let mut call = Call::new(kubelet.publish_request(&pod));
        call.set_timeout(Duration::from_mins(1));
        async move { kubelet.node().node_publish_volume(call).await.map(drop) }
    })
    .collect()
}

fn assert_small(node: &Node, what: &str) {
    let peak = peak_memory(node);
    assert!(peak < MEMORY_LIMIT / 2, "{what}: {} MiB", peak >> 20);
}

/// A long text.
fn long(bytes: usize) -> String {
    "QUFB".repeat(bytes / 4)
}

node_test! {
    async fn pods_of_many_small_fields_behind_a_readiness_gate_do_not_fill_the_drivers_memory() {
        let many: Vec<Value> = (0..240_000).map(|_| json!({ "a": 1 })).collect();
        let script = Script::new(&json!({ "metadata": { "managedFields": many }, "status": {} }), Value::Null);
        let (node, kubelet) = started(&script, &["--pod-readiness-gate=pod-ip:any", "--continue-on-not-ready"]).await;
        publish_all(&kubelet, (0..64).map(|number| pod(number, "key-size", "256"))).join_all().await;
        assert!(script.read.load(Ordering::Relaxed) >= 64);
        assert_small(&node, "pods");
    }
}

node_test! {
    async fn the_long_failure_messages_of_an_issuer_do_not_fill_the_drivers_memory() {
        let failed = json!([{ "type": "Ready", "status": "False", "reason": "Failed", "message": long(1_000_000) }]);
        let script = Script::new(&json!({}), json!({ "conditions": failed }));
        let (node, kubelet) = started(&script, &[]).await;
        let calls = publish_all(&kubelet, (0..200).map(|number| pod(number, "key-size", "256")));
        for result in calls.join_all().await {
            let refused = result.unwrap_err();
            assert!(refused.message().contains(" failed: QUFB") && refused.message().len() < 1500, "{refused:?}");
        }
        assert_small(&node, "failure messages");
    }
}

node_test! {
    async fn large_answers_to_requests_that_are_awaited_do_not_fill_the_drivers_memory() {
        let script = Script::new(&json!({}), json!({}));
        let (node, kubelet) = started(&script, &[]).await;
        let calls = publish_all(&kubelet, (0..120).map(|number| pod(number, "key-size", "256")));
        eventually("all are created", async || script.created.lock().len() == 120).await;
        eventually("it watches", async || script.events.receiver_count() > 0).await;
        script.decide(&json!({
            "conditions": [{ "type": "Ready", "status": "True", "reason": "Issued" }],
            "certificate": long(650_000), "ca": long(650_000),
        }));
        for result in calls.join_all().await {
            let refused = result.unwrap_err();
            assert!(refused.message().contains("65536"), "{refused:?}");
        }
        assert_small(&node, "awaited answers");
    }
}

node_test! {
    async fn large_volumes_of_one_namespace_whose_issuer_never_answers_do_not_fill_the_drivers_memory() {
        let script = Script::new(&json!({}), json!({}));
        let (node, kubelet) = started(&script, &[]).await;
        // As much as the names may have, from few attributes: with more the namespace's share of the store is the limit.
        let names: Vec<String> = (0..160).map(|number| format!("${{POD_NAME}}.n{number}")).collect();
        let names = names.join(",");
        let pods = (0..384).map(|number| {
            let name = format!("web-{number}{}", format!(".{}", "x".repeat(60)).repeat(3));
            pod_of(&[("issuer-name", "ca")], &name, &[("dns-names", &names)])
        });
        let calls = publish_all(&kubelet, pods);
        eventually("all are created", async || script.created.lock().len() == 384).await;
        assert_small(&node, "awaited requests");
        drop(calls);
    }
}
