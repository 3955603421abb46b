//! Attacks with CertificateRequests: whoever may make them in one namespace makes very large ones, or very many, with the label of
//! the node. An API server with scripted answers serves them to a real driver.

use crate::node_test;
use crate::support::{Node, assert_whole, openssl, peak_memory, pod_of};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::Method;
use axum::response::{IntoResponse, Response};
use base64ct::{Base64, Encoding};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;

/// Limit on the driver's memory, as the chart sets it (`resources.limits.memory`). The test allows half of it, because the limit
/// counts the store too.
const MEMORY_LIMIT: usize = 256 << 20;

/// Where a hostile object is large.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Request,
    Message,
    Certificate,
    Annotations,
    /// It has many small fields.
    Usages,
    /// It is small, and there are many.
    Small,
}

/// The API server: its hostile objects, in lists and in watches.
#[derive(Clone)]
struct ApiServer {
    kind: Kind,
    count: usize,
    /// Objects that a list or a watch has named so far.
    served: Arc<AtomicUsize>,
    ca: PathBuf,
}

impl ApiServer {
    async fn start(root: &Path, kind: Kind, count: usize) -> (Self, SocketAddr) {
        let file = |name: &str| root.join(name).display().to_string();
        #[rustfmt::skip]
        openssl(&[
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=ca", "-days", "2",
            "-keyout", &file("ca.key"), "-out", &file("ca.pem"),
        ]);
        let server = Self { kind, count, served: Arc::default(), ca: root.to_owned() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new().fallback(answer).with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        (server, address)
    }

    fn object(&self, number: usize) -> Value {
        let long = |bytes: usize| "QUFB".repeat(bytes / 4);
        let mut object = json!({
            "apiVersion": "cert-manager.io/v1", "kind": "CertificateRequest",
            "metadata": {
                "namespace": "shop", "name": format!("hostile-{number}"), "uid": format!("uid-{number}"),
                "resourceVersion": "1", "creationTimestamp": "2026-05-01T12:00:00Z",
                "labels": { "certlet.io/node": "node-1" },
                "annotations": { "certlet.io/volume-id": format!("csi-{number}") },
            },
            "spec": { "request": "QUFB", "issuerRef": { "name": "ca" } },
            "status": {},
        });
        match self.kind {
            Kind::Request => object["spec"]["request"] = long(1_300_000).into(),
            Kind::Message => {
                object["status"]["conditions"] = json!([
                    { "type": "Ready", "status": "False", "reason": "Pending", "message": long(1_300_000) },
                ]);
            }
            Kind::Certificate => {
                object["status"] = json!({
                    "conditions": [{ "type": "Ready", "status": "True", "reason": "Issued" }],
                    "certificate": long(650_000), "ca": long(650_000),
                });
            }
            Kind::Annotations => object["metadata"]["annotations"]["other"] = long(256_000).into(),
            Kind::Usages => object["spec"]["usages"] = vec!["any"; 200_000].into(),
            Kind::Small => {}
        }
        object
    }

    /// A page of the list, as long as the client asks for.
    fn list(&self, query: &str) -> Response {
        let parameter = |name: &str| {
            let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.filter(|(key, _)| *key == name).find_map(|(_, value)| value.parse::<usize>().ok())
        };
        let from = parameter("continue").unwrap_or_default();
        let to = parameter("limit").map_or(self.count, |limit| self.count.min(from + limit));
        let items: Vec<_> = (from..to).map(|number| self.object(number)).collect();
        self.served.fetch_add(items.len(), Ordering::Relaxed);
        let next = if to < self.count { to.to_string() } else { String::new() };
        let list = json!({
            "apiVersion": "cert-manager.io/v1", "kind": "CertificateRequestList",
            "metadata": { "resourceVersion": "1", "continue": next }, "items": items,
        });
        list.to_string().into_response()
    }

    /// Names all objects as fast as the client reads, and stays open.
    fn watch(&self) -> Response {
        let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Bytes, Infallible>>(1);
        let server = self.clone();
        tokio::spawn(async move {
            for number in 0..server.count {
                let event = json!({ "type": "MODIFIED", "object": server.object(number) });
                if sender.send(Ok(Bytes::from(format!("{event}\n")))).await.is_err() {
                    return;
                }
                server.served.fetch_add(1, Ordering::Relaxed);
            }
            sender.closed().await;
        });
        Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(receiver)).into_response()
    }

    /// Signs a request at once.
    fn create(&self, body: &[u8]) -> Response {
        let mut object: Value = serde_json::from_slice(body).unwrap();
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let file = |name: &str| self.ca.join(name).display().to_string();
        let csr = Base64::decode_vec(object["spec"]["request"].as_str().unwrap()).unwrap();
        fs::write(file(&name), csr).unwrap();
        #[rustfmt::skip]
        let leaf = openssl(&[
            "x509", "-req", "-in", &file(&name), "-CA", &file("ca.pem"), "-CAkey", &file("ca.key"), "-days", "1",
            "-copy_extensions", "copyall",
        ]);
        object["metadata"]["uid"] = name.into();
        object["metadata"]["creationTimestamp"] = "2026-05-01T12:00:00Z".into();
        object["status"] = json!({
            "conditions": [{ "type": "Ready", "status": "True", "reason": "Issued" }],
            "certificate": Base64::encode_string(&leaf.stdout),
            "ca": Base64::encode_string(&fs::read(file("ca.pem")).unwrap()),
        });
        object.to_string().into_response()
    }

    /// Waits until a list and a watch have named all objects.
    async fn all_served(&self, node: &Node) {
        let limit = tokio::time::Instant::now() + Duration::from_mins(1);
        while self.served.load(Ordering::Relaxed) < 2 * self.count {
            assert!(Path::new(&format!("/proc/{}/exe", node.id())).exists(), "the driver has ended");
            assert!(tokio::time::Instant::now() < limit, "{:?}: {:?} were served", self.kind, self.served);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn answer(State(server): State<ApiServer>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let query = head.uri.query().unwrap_or_default();
    match head.method {
        Method::GET if query.contains("watch=true") => server.watch(),
        Method::GET if head.uri.path().ends_with("/certificaterequests") => server.list(query),
        Method::POST if head.uri.path().ends_with("/certificaterequests") => {
            server.create(&axum::body::to_bytes(body, 1 << 20).await.unwrap())
        }
        // Events, deletions of superseded requests.
        _ => "{}".into_response(),
    }
}

async fn attack(kind: Kind, count: usize) {
    let mut node = Node::with_flags(&[]);
    let (server, address) = ApiServer::start(&node.root, kind, count).await;
    node.api_server(address);
    let kubelet = node.started().await;
    let innocent = |name: &str| pod_of(&[("issuer-name", "ca"), ("dns-names", "web.shop.svc")], name, &[]);
    // The first request starts the watch.
    assert_whole(&kubelet.publish(&innocent("web-0")).await.unwrap());
    server.all_served(&node).await;
    assert_whole(&kubelet.publish(&innocent("web-1")).await.unwrap());
    let peak = peak_memory(&node);
    assert!(peak < MEMORY_LIMIT / 2, "{kind:?}: {} MiB", peak >> 20);
}

// Together they have more bytes than the driver may use.
node_test! {
    async fn large_signing_requests_with_the_nodes_label_do_not_fill_the_drivers_memory() {
        attack(Kind::Request, 120).await;
    }
}

node_test! {
    async fn long_messages_with_the_nodes_label_do_not_fill_the_drivers_memory() {
        attack(Kind::Message, 120).await;
    }
}

node_test! {
    async fn large_certificates_with_the_nodes_label_do_not_fill_the_drivers_memory() {
        attack(Kind::Certificate, 120).await;
    }
}

node_test! {
    async fn large_annotations_with_the_nodes_label_do_not_fill_the_drivers_memory() {
        attack(Kind::Annotations, 600).await;
    }
}

node_test! {
    async fn many_usages_with_the_nodes_label_do_not_fill_the_drivers_memory() {
        attack(Kind::Usages, 20).await;
    }
}

node_test! {
    async fn very_many_requests_with_the_nodes_label_do_not_fill_the_drivers_memory() {
        attack(Kind::Small, 30_000).await;
    }
}
