//! A fake of AWS Private CA (JSON 1.1) and STS (query and XML). It signs with a real hierarchy of CAs, fails on demand and
//! counts every call.

#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "support for tests"
)]

pub mod ca;
mod sts;

use axum::Router;
use axum::body::Bytes;
use axum::extract;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use rcgen::{Issuer, KeyPair};
use serde_json::{Value, json};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

pub const CA: &str =
    "arn:aws:acm-pca:eu-central-1:123456789012:certificate-authority/11111111-2222-3333-4444-555555555555";
pub const ROLE: &str = "arn:aws:iam::123456789012:role/shop-web";

/// A fault of a call.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The error code of AWS, and the HTTP status.
    Refuse(&'static str, u16),
    /// The call takes effect, but its answer is lost.
    LoseAnswer,
    /// The answer is not a certificate.
    InvalidAnswer,
    /// The answer has 256 MiB.
    LongAnswer,
}

/// The description of the CA.
#[derive(Clone, Debug)]
pub struct Description {
    pub status: &'static str,
    pub mode: &'static str,
    pub key: &'static str,
    pub not_after: u64,
}

#[derive(Default)]
struct State {
    calls: HashMap<String, usize>,
    faults: HashMap<String, VecDeque<Fault>>,
    requests: Vec<(String, Value)>,
    callers: Vec<String>,
    tokens: HashMap<String, String>,
    issued: HashMap<String, (String, usize)>,
    not_ready: usize,
    sessions: Vec<String>,
}

/// The fake.
#[derive(Clone)]
pub struct FakePca(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    description: Mutex<Description>,
    issuer: Issuer<'static, KeyPair>,
    chain: String,
    endpoint: String,
}

pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

impl FakePca {
    /// Serves on loopback. Its CA is the third level of a hierarchy.
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (root, root_pem) = ca::authority("root", None);
        let (middle, middle_pem) = ca::authority("middle", Some(&root));
        let (issuer, issuer_pem) = ca::authority("issuer", Some(&middle));
        let description = Description {
            status: "ACTIVE",
            mode: "GENERAL_PURPOSE",
            key: "EC_prime256v1",
            not_after: now() + 365 * 24 * 3600,
        };
        let fake = Self(Arc::new(Inner {
            state: Mutex::default(),
            description: Mutex::new(description),
            issuer,
            chain: format!("{issuer_pem}{middle_pem}{root_pem}").trim_end().to_owned(),
            endpoint,
        }));
        let app = Router::new().fallback(answer).with_state(fake.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        fake
    }

    pub fn endpoint(&self) -> &str {
        &self.0.endpoint
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap()
    }

    /// The number of calls of a kind.
    pub fn calls(&self, call: &str) -> usize {
        self.state().calls.get(call).copied().unwrap_or_default()
    }

    /// The number of issued certificates.
    pub fn issued(&self) -> usize {
        self.state().issued.len()
    }

    /// Sets the faults of the next calls of a kind.
    pub fn fail(&self, call: &str, faults: &[Fault]) {
        self.state().faults.entry(call.to_owned()).or_default().extend(faults.iter().cloned());
    }

    /// For certificates issued from now on, this number of GetCertificate calls is answered with "in progress".
    pub fn slow(&self, times: usize) {
        self.state().not_ready = times;
    }

    /// Changes the description of the CA.
    pub fn describe(&self, change: impl FnOnce(&mut Description)) {
        change(&mut self.0.description.lock().unwrap());
    }

    /// The bodies of all calls of a kind.
    pub fn requests(&self, call: &str) -> Vec<Value> {
        self.state().requests.iter().filter(|(kind, _)| kind == call).map(|(_, body)| body.clone()).collect()
    }

    /// The access keys that IssueCertificate was signed with.
    pub fn callers(&self) -> Vec<String> {
        self.state().callers.clone()
    }

    /// The session names in calls of STS.
    pub fn sessions(&self) -> Vec<String> {
        self.state().sessions.clone()
    }

    fn fault(&self, call: &str) -> Option<Fault> {
        self.state().faults.get_mut(call).and_then(VecDeque::pop_front)
    }
}

async fn answer(extract::State(fake): extract::State<FakePca>, headers: HeaderMap, body: Bytes) -> Response {
    let target = headers.get("x-amz-target").and_then(|value| value.to_str().ok());
    let Some(call) = target.and_then(|target| target.strip_prefix("ACMPrivateCA.")) else {
        return sts::answer(&fake, &String::from_utf8_lossy(&body));
    };
    let request: Value = serde_json::from_slice(&body).unwrap();
    {
        let mut state = fake.state();
        *state.calls.entry(call.to_owned()).or_default() += 1;
        state.requests.push((call.to_owned(), request.clone()));
    }
    let fault = fake.fault(call);
    if let Some(Fault::Refuse(code, status)) = fault {
        return refuse(code, status);
    }
    if let Some(Fault::LongAnswer) = fault {
        return long();
    }
    if request["CertificateAuthorityArn"] != CA {
        return refuse("ResourceNotFoundException", 400);
    }
    let done = match call {
        "IssueCertificate" => ca::issue(&fake, &request, &headers),
        "GetCertificate" => ca::collect(&fake, &request),
        "DescribeCertificateAuthority" => Ok(ca::described(&fake)),
        "GetCertificateAuthorityCertificate" => Ok(json!({ "Certificate": ca::first(&fake.0.chain) })),
        "RevokeCertificate" => Ok(json!({})),
        _ => Err("UnknownOperationException"),
    };
    match (done, fault) {
        (_, Some(Fault::LoseAnswer)) => refuse("InternalFailure", 500),
        (_, Some(Fault::InvalidAnswer)) => in_json(200, &json!({ "Certificate": "<html>busy</html>" })),
        (Ok(body), _) => in_json(200, &body),
        (Err(code), _) => refuse(code, 400),
    }
}

/// An answer that is longer than any that AWS gives.
fn long() -> Response {
    let chunk = Bytes::from(vec![b'A'; 1 << 20]);
    let chunks = std::iter::repeat_n(Ok::<_, std::convert::Infallible>(chunk), 256);
    axum::body::Body::from_stream(tokio_stream::iter(chunks)).into_response()
}

fn refuse(code: &str, status: u16) -> Response {
    let body = json!({ "__type": code, "message": format!("the fake says {code}") });
    in_json(status, &body)
}

fn in_json(status: u16, body: &Value) -> Response {
    let kind = [("content-type", "application/x-amz-json-1.1")];
    (StatusCode::from_u16(status).unwrap(), kind, body.to_string()).into_response()
}
