//! An API server for CertificateRequests on loopback, with scripted answers. The tests of the library and the integration
//! tests include this file.

#![allow(dead_code, clippy::unwrap_used, clippy::panic, reason = "support for tests")]

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64ct::{Base64, Encoding};
use parking_lot::{Mutex, MutexGuard};
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnboundedReceiverStream;

/// A failure of a create.
pub(crate) enum CreateFailure {
    /// Refuses it.
    Refuse { code: u16, body: String, retry_after: Option<u64> },
    /// Creates the object, and the answer is lost.
    LoseAnswer,
}

#[derive(Default)]
struct Inner {
    objects: BTreeMap<String, Value>,
    pods: BTreeMap<String, Value>,
    version: u64,
    calls: Vec<String>,
    tokens: Vec<Option<String>>,
    create_failures: VecDeque<CreateFailure>,
    /// Status and Retry-After of the next gets of a CertificateRequest.
    get_failures: VecDeque<(u16, Option<u64>)>,
    watches: Vec<mpsc::UnboundedSender<String>>,
    /// The oldest version in the history.
    oldest: u64,
    history: Vec<(u64, String)>,
    /// Watches are refused.
    down: bool,
    /// Deletes are refused.
    undeletable: bool,
    /// Whom it names as the creator of requests; empty: nobody, as a server without cert-manager's webhook.
    creator: String,
    /// The ConfigMap that names the issuer.
    config_map: Option<Value>,
    config_map_watches: Vec<mpsc::UnboundedSender<String>>,
}

/// The server; every clone is the same.
#[derive(Clone, Default)]
pub(crate) struct Server(Arc<Mutex<Inner>>);

const COLLECTION: &str = "certificaterequests";

impl Server {
    pub(crate) async fn start() -> (Self, SocketAddr) {
        let server = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new().fallback(answer).with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        (server, address)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock()
    }

    /// Scripts a failure of the next create.
    pub(crate) fn next_create(&self, failure: CreateFailure) {
        self.lock().create_failures.push_back(failure);
    }

    /// Scripts failures of the next gets of a CertificateRequest: their status and Retry-After.
    pub(crate) fn fail_gets(&self, failures: &[(u16, Option<u64>)]) {
        self.lock().get_failures.extend(failures);
    }

    /// How many scripted failures of gets are left.
    pub(crate) fn get_failures(&self) -> usize {
        self.lock().get_failures.len()
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.lock().objects.keys().cloned().collect()
    }

    pub(crate) fn object(&self, name: &str) -> Value {
        self.lock().objects.get(name).cloned().unwrap_or_default()
    }

    pub(crate) fn put_pod(&self, name: &str, pod: Value) {
        self.lock().pods.insert(name.to_owned(), pod);
    }

    /// Calls so far. A `delete` of an object that does not exist is also counted as `failed delete`.
    pub(crate) fn calls(&self, verb: &str) -> usize {
        self.lock().calls.iter().filter(|call| call.as_str() == verb).count()
    }

    /// The bearer tokens of the creates.
    pub(crate) fn tokens(&self) -> Vec<Option<String>> {
        self.lock().tokens.clone()
    }

    /// Waits until there is one object, and returns its name.
    pub(crate) async fn only(&self) -> String {
        self.wait_for_count(1).await.remove(0)
    }

    /// Waits until there are `count` objects, and returns their names.
    pub(crate) async fn wait_for_count(&self, count: usize) -> Vec<String> {
        for _ in 0..1000 {
            let names = self.names();
            if names.len() == count {
                return names;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{:?} are not {count}", self.names());
    }

    /// Waits until this number of watches has begun.
    pub(crate) async fn watched(&self, times: usize) {
        for _ in 0..1000 {
            if self.calls("watch") >= times {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("watched {} times only", self.calls("watch"));
    }

    /// Sets a request's conditions and the other fields of its status.
    pub(crate) fn set(&self, name: &str, conditions: &[(&str, &str, &str, &str)], more: &Value) {
        let conditions: Vec<Value> = conditions
            .iter()
            .map(|(kind, status, reason, message)| {
                json!({ "type": kind, "status": status, "reason": reason, "message": message })
            })
            .collect();
        let mut inner = self.lock();
        let object = inner.objects.get_mut(name).unwrap();
        object["status"] = more.clone();
        object["status"]["conditions"] = conditions.into();
        let object = object.clone();
        inner.publish("MODIFIED", object);
    }

    /// Signs a request.
    pub(crate) fn issue(&self, name: &str) {
        let base64 = |text: &str| Base64::encode_string(text.as_bytes());
        self.set(
            name,
            &[("Approved", "True", "", ""), ("Ready", "True", "Issued", "")],
            &json!({ "certificate": base64("leaf"), "ca": base64("root") }),
        );
    }

    /// Deletes a request and makes another one of its name, as somebody else would; watches show both only if `seen`.
    pub(crate) fn replace(&self, name: &str, seen: bool, change: impl FnOnce(&mut Value)) {
        let mut inner = self.lock();
        let mut object = inner.objects.remove(name).unwrap();
        if seen {
            inner.publish("DELETED", object.clone());
        }
        object["metadata"]["uid"] = "another".into();
        change(&mut object);
        inner.objects.insert(name.to_owned(), object.clone());
        if seen {
            inner.publish("ADDED", object);
        }
    }

    pub(crate) fn delete(&self, name: &str) {
        let mut inner = self.lock();
        let object = inner.objects.remove(name).unwrap();
        inner.publish("DELETED", object);
    }

    /// Sets whom the requests of the next creates are said to come from.
    pub(crate) fn set_creator(&self, name: &str) {
        name.clone_into(&mut self.lock().creator);
    }

    /// Makes, changes or deletes the ConfigMap `certlet/issuer`.
    pub(crate) fn put_config_map(&self, data: Option<Value>) {
        let mut inner = self.lock();
        inner.version += 1;
        let metadata =
            json!({ "namespace": "certlet", "name": "issuer", "resourceVersion": inner.version.to_string() });
        let object =
            |data| json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data });
        let kind = match (&inner.config_map, &data) {
            (None, _) => "ADDED",
            (Some(_), Some(_)) => "MODIFIED",
            (Some(_), None) => "DELETED",
        };
        inner.config_map = data.clone().map(object);
        let line = format!("{}\n", json!({ "type": kind, "object": object(data.unwrap_or_default()) }));
        inner.config_map_watches.retain(|watch| watch.send(line.clone()).is_ok());
    }

    /// Waits until somebody watches the ConfigMap.
    pub(crate) async fn config_map_watched(&self) {
        for _ in 0..1000 {
            if !self.lock().config_map_watches.is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("nobody watches the ConfigMap");
    }

    /// The requests that nobody has decided.
    pub(crate) fn open(&self) -> Vec<Value> {
        self.lock().objects.values().filter(|object| object["status"].is_null()).cloned().collect()
    }

    /// Waits until there is another request than the known ones, and returns its name.
    pub(crate) async fn new_besides(&self, known: &[String]) -> String {
        for _ in 0..1000 {
            if let Some(name) = self.names().into_iter().find(|name| !known.contains(name)) {
                return name;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no request besides {known:?}");
    }

    /// Whether deletes are refused from now on.
    pub(crate) fn refuse_deletes(&self, refuse: bool) {
        self.lock().undeletable = refuse;
    }

    /// Ends every watch. With `down`, new ones are refused.
    pub(crate) fn close_watches(&self, down: bool) {
        let mut inner = self.lock();
        inner.watches.clear();
        inner.down = down;
    }

    /// Ends every watch and forgets the history: resuming one is answered with 410.
    pub(crate) fn expire(&self) {
        let mut inner = self.lock();
        inner.version += 1;
        inner.oldest = inner.version;
        inner.history.clear();
        inner.watches.clear();
        inner.down = false;
    }
}

impl Inner {
    fn publish(&mut self, kind: &str, mut object: Value) {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        if let Some(kept) = self.objects.get_mut(object["metadata"]["name"].as_str().unwrap()) {
            *kept = object.clone();
        }
        let line = format!("{}\n", json!({ "type": kind, "object": object }));
        self.history.push((self.version, line.clone()));
        self.watches.retain(|watch| watch.send(line.clone()).is_ok());
    }

    fn create(&mut self, body: &[u8], token: Option<String>) -> Response {
        self.tokens.push(token);
        let failure = self.create_failures.pop_front();
        if let Some(CreateFailure::Refuse { code, body, retry_after }) = failure {
            return with_retry_after(
                (StatusCode::from_u16(code).unwrap(), body).into_response(),
                retry_after,
            );
        }
        let mut object: Value = serde_json::from_slice(body).unwrap();
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        if self.objects.contains_key(&name) {
            return status(409, "AlreadyExists");
        }
        object["metadata"]["uid"] = format!("uid-{name}").into();
        if !self.creator.is_empty() {
            object["spec"]["username"] = self.creator.as_str().into();
        }
        object["metadata"]["creationTimestamp"] =
            format!("2026-05-01T12:00:{:02}Z", self.objects.len()).into();
        self.objects.insert(name.clone(), object.clone());
        self.publish("ADDED", object);
        if failure.is_some() {
            status(504, "Timeout")
        } else {
            self.objects[&name].to_string().into_response()
        }
    }

    /// The list of the one ConfigMap, or a watch on it.
    fn config_maps(&mut self, is_watch: bool) -> Response {
        if is_watch {
            let (sender, lines) = mpsc::unbounded_channel();
            self.config_map_watches.push(sender);
            let lines =
                UnboundedReceiverStream::new(lines).map(|line| Ok::<_, Infallible>(Bytes::from(line)));
            return Body::from_stream(lines).into_response();
        }
        let items: Vec<_> = self.config_map.iter().collect();
        let metadata = json!({ "resourceVersion": self.version.to_string() });
        json!({ "apiVersion": "v1", "kind": "ConfigMapList", "metadata": metadata, "items": items })
            .to_string()
            .into_response()
    }

    fn list(&self) -> Response {
        json!({
            "apiVersion": "cert-manager.io/v1", "kind": "CertificateRequestList",
            "metadata": { "resourceVersion": self.version.to_string() },
            "items": self.objects.values().collect::<Vec<_>>(),
        })
        .to_string()
        .into_response()
    }

    fn watch(&mut self, from: u64) -> Response {
        if self.down {
            return status(503, "ServiceUnavailable");
        }
        let (sender, lines) = mpsc::unbounded_channel();
        if from < self.oldest {
            let gone = json!({ "type": "ERROR", "object": {
                "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 410, "reason": "Expired",
                "message": "too old resource version" } });
            let _sent = sender.send(format!("{gone}\n"));
        } else {
            for (_, line) in self.history.iter().filter(|(version, _)| *version > from) {
                let _sent = sender.send(line.clone());
            }
            self.watches.push(sender);
        }
        let lines = UnboundedReceiverStream::new(lines).map(|line| Ok::<_, Infallible>(Bytes::from(line)));
        Body::from_stream(lines).into_response()
    }
}

async fn answer(State(server): State<Server>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    let path = head.uri.path().to_owned();
    let query = head.uri.query().unwrap_or_default().to_owned();
    let token = head
        .headers
        .get(header::AUTHORIZATION)
        .map(|value| value.to_str().unwrap().trim_start_matches("Bearer ").to_owned());
    let name = path.rsplit('/').next().unwrap().to_owned();
    let mut inner = server.lock();
    if name == "configmaps" {
        assert!(query.contains("fieldSelector=metadata.name%3Dissuer"), "{query}");
        return inner.config_maps(query.contains("watch=true"));
    }
    let verb = match head.method {
        Method::GET if query.contains("watch=true") => "watch",
        Method::GET if name == COLLECTION => "list",
        Method::GET => "get",
        Method::POST if name == COLLECTION => "create",
        Method::POST if name == "selfsubjectreviews" => "review",
        Method::POST => "event",
        _ => "delete",
    };
    inner.calls.push(verb.to_owned());
    match verb {
        "watch" => {
            assert!(query.contains("labelSelector=certlet.io%2Fnode%3Dnode-1"), "{query}");
            let from = query.split('&').find_map(|pair| pair.strip_prefix("resourceVersion=")).unwrap();
            inner.watch(from.parse().unwrap())
        }
        "list" => inner.list(),
        "get" => {
            let is_pod = path.contains("/pods/");
            let failure = if is_pod { None } else { inner.get_failures.pop_front() };
            if let Some((code, retry_after)) = failure {
                return with_retry_after(status(code, "Scripted"), retry_after);
            }
            let all = if is_pod { &inner.pods } else { &inner.objects };
            all.get(&name)
                .map_or_else(|| status(404, "NotFound"), |object| object.to_string().into_response())
        }
        "create" => inner.create(&body, token),
        "review" => {
            json!({ "status": { "userInfo": { "username": inner.creator } } }).to_string().into_response()
        }
        "event" => (StatusCode::CREATED, body).into_response(),
        _ if inner.undeletable => status(403, "Forbidden"),
        _ => {
            if let Some(object) = inner.objects.remove(&name) {
                inner.publish("DELETED", object);
                status(200, "")
            } else {
                inner.calls.push("failed delete".to_owned());
                status(404, "NotFound")
            }
        }
    }
}

fn with_retry_after(mut response: Response, retry_after: Option<u64>) -> Response {
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

fn status(code: u16, reason: &str) -> Response {
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "status": if code == 200 { "Success" } else { "Failure" },
        "code": code, "reason": reason, "message": format!("scripted {reason}"),
    });
    (StatusCode::from_u16(code).unwrap(), body.to_string()).into_response()
}
