//! A fake of the EKS Pod Identity agent. It refuses on demand and counts every call.

#![allow(unreachable_pub, dead_code, clippy::unwrap_used, clippy::expect_used, reason = "support for tests")]

use axum::Router;
use axum::extract;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

/// The access key of its credentials.
pub const ACCESS_KEY: &str = "ASIAPOD";
/// The token that it accepts.
pub const TOKEN: &str = "pod-identity-token";

#[derive(Default)]
struct State {
    calls: usize,
    hosts: Vec<String>,
    answers: VecDeque<(u16, String)>,
    life: Duration,
}

/// The fake.
#[derive(Clone)]
pub struct FakeAgent {
    state: Arc<Mutex<State>>,
    endpoint: String,
}

impl FakeAgent {
    /// Serves on loopback. Its credentials are valid for six hours.
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}/v1/credentials", listener.local_addr().unwrap());
        let state = State { life: Duration::from_hours(6), ..State::default() };
        let fake = Self { state: Arc::new(Mutex::new(state)), endpoint };
        let app = Router::new().route("/v1/credentials", get(answer)).with_state(fake.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        fake
    }

    /// Its URL.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The number of calls.
    pub fn calls(&self) -> usize {
        self.state().calls
    }

    /// The `Host` headers of the calls.
    pub fn hosts(&self) -> Vec<String> {
        self.state().hosts.clone()
    }

    /// Sets the validity of the credentials from now on.
    pub fn set_life(&self, life: Duration) {
        self.state().life = life;
    }

    /// Sets the next answers, which replace credentials.
    pub fn refuse(&self, answers: &[(u16, &str)]) {
        let answers = answers.iter().map(|(status, text)| (*status, (*text).to_owned()));
        self.state().answers.extend(answers);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

async fn answer(extract::State(fake): extract::State<FakeAgent>, headers: HeaderMap) -> Response {
    let mut state = fake.state();
    state.calls += 1;
    state.hosts.push(headers["host"].to_str().unwrap().to_owned());
    if let Some((status, text)) = state.answers.pop_front() {
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
    let expiration = jiff::Timestamp::try_from(SystemTime::now() + state.life).unwrap();
    let body = serde_json::json!({
        "AccessKeyId": ACCESS_KEY, "SecretAccessKey": "agent-secret", "Token": "agent-session",
        "AccountId": "123456789012", "Expiration": expiration.to_string(),
    });
    ([("content-type", "application/json")], body.to_string()).into_response()
}
