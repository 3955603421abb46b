//! An API server on loopback that keeps objects of every kind by their paths.

use crate::kube::Cluster;
use crate::kube::testing::Uncounted;
use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use parking_lot::{Mutex, MutexGuard};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnboundedReceiverStream;

#[derive(Default)]
struct Inner {
    /// By path.
    objects: BTreeMap<String, Value>,
    version: u64,
    /// Method and path with its query.
    calls: Vec<String>,
    watches: Vec<(Collection, mpsc::UnboundedSender<String>)>,
    /// All events so far: their version, path and object, and the line of the watch.
    history: Vec<(u64, String, Value, String)>,
    /// Calls that are refused: method, part of the path, status.
    refused: Vec<(Method, &'static str, u16)>,
}

/// The server; every clone is the same.
#[derive(Clone)]
pub(super) struct Server {
    inner: Arc<Mutex<Inner>>,
    address: SocketAddr,
}

impl Server {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self { inner: Arc::default(), address: listener.local_addr().unwrap() };
        let app = Router::new().fallback(answer).with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        server
    }

    pub(super) fn cluster(&self) -> Cluster {
        Cluster::at(self.address, Arc::new(Uncounted))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    /// Creates or replaces an object.
    pub(super) fn put(&self, path: &str, object: Value) {
        self.lock().store(path, object);
    }

    pub(super) fn delete(&self, path: &str) {
        let mut inner = self.lock();
        let object = inner.objects.remove(path).unwrap();
        inner.version += 1;
        inner.publish("DELETED", path, &object);
    }

    pub(super) fn object(&self, path: &str) -> Value {
        self.lock().objects.get(path).cloned().unwrap_or_default()
    }

    /// Refuses these calls from now on.
    pub(super) fn refuse(&self, method: Method, part: &'static str, code: u16) {
        self.lock().refused.push((method, part, code));
    }

    /// Refuses nothing any longer.
    pub(super) fn refuse_nothing(&self) {
        self.lock().refused.clear();
    }

    /// How many calls had this in their method and path.
    pub(super) fn calls(&self, part: &str) -> usize {
        self.lock().calls.iter().filter(|call| call.contains(part)).count()
    }

    /// Waits until something holds of the server.
    pub(super) async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        for _ in 0..3000 {
            if holds(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{what}: {:#?}", self.lock().calls);
    }
}

impl Inner {
    fn store(&mut self, path: &str, mut object: Value) {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        let kind = if self.objects.contains_key(path) { "MODIFIED" } else { "ADDED" };
        self.publish(kind, path, &object);
        self.objects.insert(path.to_owned(), object);
    }

    fn publish(&mut self, kind: &str, path: &str, object: &Value) {
        let line = format!("{}\n", json!({ "type": kind, "object": object }));
        self.watches
            .retain(|(collection, watch)| !collection.has(path, object) || watch.send(line.clone()).is_ok());
        self.history.push((self.version, path.to_owned(), object.clone(), line));
    }

    fn watch(&mut self, collection: Collection, query: &str) -> Response {
        let from = query.split('&').find_map(|pair| pair.strip_prefix("resourceVersion="));
        let from: u64 = from.unwrap().parse().unwrap();
        let (sender, lines) = mpsc::unbounded_channel();
        for (version, path, object, line) in &self.history {
            if *version > from && collection.has(path, object) {
                let _sent = sender.send(line.clone());
            }
        }
        self.watches.push((collection, sender));
        let lines = UnboundedReceiverStream::new(lines).map(|line| Ok::<_, Infallible>(Bytes::from(line)));
        Body::from_stream(lines).into_response()
    }

    fn replace(&mut self, path: &str, body: &[u8]) -> Response {
        let object: Value = serde_json::from_slice(body).unwrap();
        let (target, is_status) = path.strip_suffix("/status").map_or((path, false), |path| (path, true));
        let Some(kept) = self.objects.get(target) else { return status(404, "NotFound") };
        if object["metadata"]["resourceVersion"] != kept["metadata"]["resourceVersion"] {
            return status(409, "Conflict");
        }
        let mut new = object.clone();
        if is_status {
            new = kept.clone();
            new["status"] = object["status"].clone();
        }
        self.store(target, new);
        self.objects[target].to_string().into_response()
    }
}

/// What a list or a watch selects.
struct Collection {
    /// `None`: all namespaces.
    namespace: Option<String>,
    plural: String,
    selector: String,
}

impl Collection {
    fn new(path: &str, query: &str) -> Self {
        let mut parts = path.rsplit('/');
        let plural = parts.next().unwrap().to_owned();
        let namespace = parts.next().map(str::to_owned).filter(|_| path.contains("/namespaces/"));
        let selector = query.split('&').find_map(|pair| pair.strip_prefix("fieldSelector="));
        Self { namespace, plural, selector: decoded(selector.unwrap_or_default()) }
    }

    fn has(&self, path: &str, object: &Value) -> bool {
        let parts: Vec<&str> = path.rsplit('/').collect();
        let [_, plural, namespace, ..] = parts.as_slice() else { return false };
        *plural == self.plural
            && self.namespace.as_deref().is_none_or(|own| own == *namespace)
            && self.selector.split(',').filter(|term| !term.is_empty()).all(|term| {
                let value = |field: &str| {
                    let pointer = format!("/{}", field.replace('.', "/"));
                    object.pointer(&pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
                };
                match term.split_once("!=") {
                    Some((field, other)) => value(field) != other,
                    None => term.split_once('=').is_some_and(|(field, wanted)| value(field) == wanted),
                }
            })
    }
}

/// Without percent-encoding.
fn decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let mut decoded = parts.next().unwrap().to_owned();
    for part in parts {
        decoded.push(char::from(u8::from_str_radix(&part[..2], 16).unwrap()));
        decoded.push_str(&part[2..]);
    }
    decoded
}

async fn answer(State(server): State<Server>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    let (path, query) = (head.uri.path().to_owned(), head.uri.query().unwrap_or_default().to_owned());
    let mut inner = server.lock();
    inner.calls.push(format!("{} {path}?{}", head.method, decoded(&query)));
    let refused =
        inner.refused.iter().find(|(method, part, _)| *method == head.method && path.contains(part));
    if let Some((_, _, code)) = refused {
        return status(*code, "Scripted");
    }
    let is_collection = ["certificaterequests", "configmaps", "pods", "services", "leases"]
        .iter()
        .any(|plural| path.ends_with(&format!("/{plural}")));
    match head.method {
        Method::GET if query.contains("watch=true") => inner.watch(Collection::new(&path, &query), &query),
        Method::GET if is_collection => {
            let collection = Collection::new(&path, &query);
            let has = |(path, object): &(&String, &Value)| collection.has(path, object);
            let items: Vec<&Value> = inner.objects.iter().filter(has).map(|(_, object)| object).collect();
            let version = inner.version.to_string();
            // As the real server writes an empty list of metadata.
            let accepted = head.headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
            let is_metadata = accepted.is_some_and(|accepted| accepted.contains("PartialObjectMetadataList"));
            let items = if items.is_empty() && is_metadata { Value::Null } else { json!(items) };
            json!({ "metadata": { "resourceVersion": version }, "items": items }).to_string().into_response()
        }
        Method::GET => {
            let found = inner.objects.get(&path);
            found.map_or_else(|| status(404, "NotFound"), |object| object.to_string().into_response())
        }
        Method::POST => {
            let object: Value = serde_json::from_slice(&body).unwrap();
            let path = format!("{path}/{}", object["metadata"]["name"].as_str().unwrap());
            if inner.objects.contains_key(&path) {
                return status(409, "AlreadyExists");
            }
            inner.store(&path, object);
            inner.objects[&path].to_string().into_response()
        }
        Method::PUT => inner.replace(&path, &body),
        _ => status(405, "MethodNotAllowed"),
    }
}

fn status(code: u16, reason: &str) -> Response {
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": reason,
    });
    (StatusCode::from_u16(code).unwrap(), body.to_string()).into_response()
}
