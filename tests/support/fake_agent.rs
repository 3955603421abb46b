//! The EKS Pod Identity agent, as far as certlet talks to it, with refusals on demand and every call counted.

#![allow(unreachable_pub, dead_code, clippy::unwrap_used, clippy::expect_used, reason = "support for tests")]

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

/// The access key of what it gives.
pub const ACCESS_KEY: &str = "ASIAPOD";
/// The token that it takes.
pub const TOKEN: &str = "pod-identity-token";

#[derive(Default)]
struct Book {
    calls: usize,
    hosts: Vec<String>,
    answers: VecDeque<(u16, String)>,
    life: Duration,
}

/// The fake.
#[derive(Clone)]
pub struct FakeAgent {
    book: Arc<Mutex<Book>>,
    endpoint: String,
}

impl FakeAgent {
    /// Serves on loopback; its credentials live six hours.
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}/v1/credentials", listener.local_addr().unwrap());
        let book = Book { life: Duration::from_hours(6), ..Book::default() };
        let fake = Self { book: Arc::new(Mutex::new(book)), endpoint };
        let app = Router::new().route("/v1/credentials", get(answer)).with_state(fake.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        fake
    }

    /// Where it is.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// How often it was asked.
    pub fn calls(&self) -> usize {
        self.book().calls
    }

    /// The hosts that it was asked as.
    pub fn hosts(&self) -> Vec<String> {
        self.book().hosts.clone()
    }

    /// How long the credentials live that it gives from now on.
    pub fn give_for(&self, life: Duration) {
        self.book().life = life;
    }

    /// What it answers next in the place of credentials, one after the other.
    pub fn refuse(&self, answers: &[(u16, &str)]) {
        let answers = answers.iter().map(|(status, text)| (*status, (*text).to_owned()));
        self.book().answers.extend(answers);
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap()
    }
}

async fn answer(State(fake): State<FakeAgent>, headers: HeaderMap) -> Response {
    let mut book = fake.book();
    book.calls += 1;
    book.hosts.push(headers["host"].to_str().unwrap().to_owned());
    if let Some((status, text)) = book.answers.pop_front() {
        return (StatusCode::from_u16(status).unwrap(), text).into_response();
    }
    let token = headers.get("authorization").map(|value| value.to_str().unwrap());
    match token {
        Some(TOKEN) => {}
        None => {
            return (StatusCode::BAD_REQUEST, "Service account token cannot be empty\n").into_response();
        }
        Some(other) => {
            let text = format!("[1]: (InvalidTokenException): {other} is no token, fault: client\n");
            return (StatusCode::BAD_REQUEST, text).into_response();
        }
    }
    let expiration = jiff::Timestamp::try_from(SystemTime::now() + book.life).unwrap();
    let body = serde_json::json!({
        "AccessKeyId": ACCESS_KEY, "SecretAccessKey": "agent-secret", "Token": "agent-session",
        "AccountId": "123456789012", "Expiration": expiration.to_string(),
    });
    ([("content-type", "application/json")], body.to_string()).into_response()
}
