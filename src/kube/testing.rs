//! For tests of callers.

use super::{ApiObserver, Cluster};
use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::net::TcpListener;

/// Counts nothing.
pub(crate) struct Uncounted;

impl ApiObserver for Uncounted {
    fn admit(&self) -> futures_util::future::BoxFuture<'_, ()> {
        Box::pin(async {})
    }

    fn api_call(&self, _verb: &'static str, _code: u16) {}
    fn watch_restarted(&self) {}
    fn requests_tracked(&self, _tracked: usize, _ignored: u64) {}

    fn approved_unchecked(&self) {}
}

/// An API server that gives scripted answers in their order, and the last one for ever. It keeps the URLs.
#[derive(Clone, Default)]
pub(crate) struct ScriptedServer {
    answers: Arc<Mutex<VecDeque<(u16, Value)>>>,
    urls: Arc<Mutex<Vec<String>>>,
}

impl ScriptedServer {
    /// The server, and a cluster that it is.
    pub(crate) async fn start(answers: impl IntoIterator<Item = (u16, Value)>) -> (Self, Cluster) {
        let server = Self::default();
        server.answers.lock().extend(answers);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let cluster = Cluster::at(listener.local_addr().unwrap(), Arc::new(Uncounted));
        let this = server.clone();
        let app = Router::new().fallback(async move |request: Request| this.answer(&request));
        tokio::spawn(async move { axum::serve(listener, app).await });
        (server, cluster)
    }

    fn answer(&self, request: &Request) -> Response {
        self.urls.lock().push(request.uri().to_string());
        let mut answers = self.answers.lock();
        let is_last = answers.len() == 1;
        let answer = if is_last { answers.front().cloned() } else { answers.pop_front() };
        let (code, body) = answer.unwrap();
        (StatusCode::from_u16(code).unwrap(), body.to_string()).into_response()
    }

    /// The URLs so far. None of them is that of a watch.
    pub(crate) fn urls_without_watch(&self) -> Vec<String> {
        let urls = self.urls.lock().clone();
        assert!(urls.iter().all(|url| !url.contains("watch")), "{urls:?}");
        urls
    }
}

/// The answer to a call that is refused.
pub(crate) fn refusal(code: u16, reason: &str) -> (u16, Value) {
    let message = format!("scripted {reason}");
    let status =
        json!({ "kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message });
    (code, status)
}
