//! EKS Pod Identity: the credentials of the role that is associated with the pod's service account. The agent on this node
//! returns them.
//!
//! The protocol is the SDKs' container credentials protocol: a GET with the pod's token in the Authorization header,
//! answered in JSON. An error is a status of the EKS Auth API and a line of text. The SDK's own provider is not used because
//! it takes one token for the whole process, from the environment.

use super::errors::{CallError, ErrorKind, suffix};
use super::metrics::PcaMetrics;
use crate::model::{Failure, jitter};
use crate::platform::Backoff;
use crate::signer::SigningRequest;
use aws_sdk_acmpca::config::Credentials;
use http::header::{ACCEPT, AUTHORIZATION, HeaderValue};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::rt::TokioExecutor;
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use std::error::Error;
use std::time::{Duration, SystemTime};
use tokio::time::timeout;

/// The attribute that selects EKS Pod Identity.
const ATTRIBUTE: &str = "use-pod-identity";
/// The audience of tokens for EKS Pod Identity.
const AUDIENCE: &str = "pods.eks.amazonaws.com";
/// The metric label: the call of the EKS Auth API that the agent makes.
const CALL: &str = "AssumeRoleForPodIdentity";
/// Retries of a transient failure. After that the caller of the signer retries.
const MAX_RETRIES: u32 = 2;
const BACKOFF: Backoff = Backoff::with_factor(Duration::from_millis(400), 5.0, Duration::from_secs(2));
/// The agent is on this node, so it accepts a connection at once.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// The agent calls the EKS Auth API if it has no credentials in its cache.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// More bytes than any answer of the agent has.
const MAX_ANSWER: usize = 64 << 10;
/// An error shows so many characters of the agent's text.
const MAX_SHOWN: usize = 300;

/// Error codes of the EKS Auth API in the agent's text. The status is not enough: older agents returned some of them with
/// status 500.
const CODES: [(&str, ErrorKind, &str); 8] = [
    (
        "ResourceNotFoundException",
        ErrorKind::Permanent,
        "associate a role with service account {account} (aws eks create-pod-identity-association)",
    ),
    (
        "AccessDeniedException",
        ErrorKind::Permanent,
        "let the trust policy of the role that is associated with service account {account} allow sts:AssumeRole and \
         sts:TagSession to the service pods.eks.amazonaws.com, and the node's role eks-auth:AssumeRoleForPodIdentity",
    ),
    ("ExpiredTokenException", ErrorKind::Transient, "the kubelet's next call brings a new token"),
    ("InvalidTokenException", ErrorKind::Permanent, "the token must be of this cluster's own API server"),
    ("InvalidParameterException", ErrorKind::Permanent, ""),
    ("ThrottlingException", ErrorKind::Throttled, ""),
    ("ServiceUnavailableException", ErrorKind::Transient, ""),
    ("InternalServerException", ErrorKind::Transient, ""),
];

/// The EKS Pod Identity agent of this node.
#[derive(Debug)]
pub(crate) struct Agent {
    endpoints: Vec<Uri>,
    client: Client<HttpConnector, Empty<Bytes>>,
}

impl Agent {
    /// Uses the first of these endpoints that accepts a connection.
    pub(crate) fn new(endpoints: Vec<Uri>) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        // No idle connections, because hours pass between two requests.
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        Self { endpoints, client }
    }

    /// The credentials for the pod's token.
    pub(crate) async fn credentials(
        &self,
        request: &SigningRequest<'_>,
        now: Timestamp,
        metrics: &PcaMetrics,
    ) -> Result<Credentials, Failure> {
        let token = request.token(AUDIENCE, ATTRIBUTE, now)?;
        let account =
            format!("{} in namespace {}", request.identity.service_account, request.identity.namespace);
        let mut failures = 0_u32;
        loop {
            let answer = self.query(token, &account).await.and_then(|text| read(&text, now));
            metrics.call(CALL, answer.as_ref().err().map_or("ok", |error| &error.code));
            match answer {
                Err(error) if error.kind != ErrorKind::Permanent && failures < MAX_RETRIES => {
                    let jitter = jitter(request.id.as_str(), &failures.to_be_bytes());
                    tokio::time::sleep(BACKOFF.pause(failures, jitter)).await;
                    failures += 1;
                }
                answer => return Ok(answer?),
            }
        }
    }

    /// The text of a successful answer.
    async fn query(&self, token: &SecretString, account: &str) -> Result<SecretString, CallError> {
        let mut authorization = HeaderValue::from_str(token.expose_secret())
            .map_err(|_| transient("connection", "the pod's token is not valid in an HTTP header"))?;
        authorization.set_sensitive(true);
        let mut unreachable = Vec::new();
        for endpoint in &self.endpoints {
            let request = Request::get(endpoint)
                .header(ACCEPT, "application/json")
                .header(AUTHORIZATION, &authorization)
                .body(Empty::new())
                .map_err(|error| transient("connection", &error.to_string()))?;
            match timeout(ANSWER_TIMEOUT, self.exchange(request)).await {
                Ok(Ok((status, text))) if status.is_success() => return Ok(text),
                Ok(Ok((status, text))) => return Err(refusal(status, &text, token, account)),
                Ok(Err(error)) => {
                    let cause = root_cause(&*error);
                    if !error.downcast_ref().is_some_and(ClientError::is_connect) {
                        let text = format!("the EKS Pod Identity agent has closed the connection: {cause}");
                        return Err(transient("connection", &text));
                    }
                    unreachable.push(format!("{endpoint}: {cause}"));
                }
                Err(_elapsed) => {
                    let seconds = ANSWER_TIMEOUT.as_secs();
                    let text = format!("the EKS Pod Identity agent has not answered within {seconds} s");
                    return Err(transient("connection", &text));
                }
            }
        }
        let text = format!(
            "the EKS Pod Identity agent cannot be reached ({}): install the add-on eks-pod-identity-agent, or set \
             --pca-pod-identity-endpoint",
            unreachable.join("; ")
        );
        Err(transient("connection", &text))
    }

    async fn exchange(
        &self,
        request: Request<Empty<Bytes>>,
    ) -> Result<(StatusCode, SecretString), Box<dyn Error + Send + Sync>> {
        let response = self.client.request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await?.to_bytes();
        Ok((status, SecretString::from(String::from_utf8_lossy(&body).into_owned())))
    }
}

/// The innermost error: the outer ones of an HTTP client say little.
fn root_cause(mut error: &(dyn Error + 'static)) -> String {
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// The agent's answer in the container credentials protocol.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    access_key_id: String,
    secret_access_key: SecretString,
    token: SecretString,
    expiration: Timestamp,
}

/// Reads credentials. It drops the JSON parser's message, which might contain a part of them.
fn read(text: &SecretString, now: Timestamp) -> Result<Credentials, CallError> {
    let answer: Option<Answer> = serde_json::from_str(text.expose_secret()).ok();
    let answer =
        answer.filter(|answer| !answer.access_key_id.is_empty() && answer.expiration > now).ok_or_else(
            || transient("response", "the EKS Pod Identity agent has answered without credentials"),
        )?;
    let (secret, token) = (answer.secret_access_key.expose_secret(), answer.token.expose_secret().to_owned());
    let expires_at = Some(SystemTime::from(answer.expiration));
    Ok(Credentials::new(answer.access_key_id, secret, Some(token), expires_at, "certlet-pod-identity"))
}

fn transient(code: &str, message: &str) -> CallError {
    CallError::new(ErrorKind::Transient, code, &format!("{ATTRIBUTE}: {message}"))
}

/// The error for a refusal. The kind follows from a known error code in the text, or else from the status.
fn refusal(status: StatusCode, text: &SecretString, token: &SecretString, account: &str) -> CallError {
    let text = text.expose_secret().replace(token.expose_secret(), "(token)");
    let text: String =
        text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(MAX_SHOWN).collect();
    let number = status.as_u16().to_string();
    let known = CODES.iter().find(|(code, ..)| text.contains(code));
    let (code, kind, advice) = match (known, status.as_u16()) {
        (Some(known), _) => *known,
        (None, 404) => (number.as_str(), ErrorKind::Permanent, CODES[0].2),
        (None, 403) => (number.as_str(), ErrorKind::Permanent, "check --pca-pod-identity-endpoint"),
        (None, 429) => (number.as_str(), ErrorKind::Throttled, ""),
        (None, 400..=499) => (number.as_str(), ErrorKind::Permanent, ""),
        (None, _) => (number.as_str(), ErrorKind::Transient, ""),
    };
    let advice = suffix(advice).replace("{account}", account);
    let text = format!("{ATTRIBUTE}: the EKS Pod Identity agent answers {status}: {text}{advice}");
    CallError::new(kind, code, &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(status: u16, text: &str) -> CallError {
        refusal(StatusCode::from_u16(status).unwrap(), &text.into(), &"secret".into(), "web")
    }

    #[test]
    fn the_kind_of_a_refusal_follows_from_its_error_code_or_its_status() {
        for (status, text, kind, code) in [
            (
                404,
                "[id]: (ResourceNotFoundException): no association, fault: client",
                ErrorKind::Permanent,
                "ResourceNotFoundException",
            ),
            (
                500,
                "operation error EKS Auth: AccessDeniedException: no",
                ErrorKind::Permanent,
                "AccessDeniedException",
            ),
            (
                400,
                "[id]: (ExpiredTokenException): late, fault: client",
                ErrorKind::Transient,
                "ExpiredTokenException",
            ),
            (404, "404 page not found", ErrorKind::Permanent, "404"),
            (403, "Access Denied. Called agent through invalid address", ErrorKind::Permanent, "403"),
            (429, "Too Many Requests.", ErrorKind::Throttled, "429"),
            (400, "Service account token cannot be empty", ErrorKind::Permanent, "400"),
            (503, "", ErrorKind::Transient, "503"),
        ] {
            let failure = failure(status, text);
            assert_eq!((failure.kind, failure.code.as_str()), (kind, code), "{status} {text}");
        }
    }

    #[test]
    fn a_refusal_is_one_short_line_without_the_token() {
        let long = failure(500, &format!("a\n secret {}", "x".repeat(1000))).to_string();
        assert!(long.starts_with(
            "use-pod-identity: the EKS Pod Identity agent answers 500 Internal Server Error: a (token) xxx"
        ));
        assert!(long.len() < 400 && !long.contains("secret") && !long.contains('\n'), "{long}");
    }

    #[test]
    fn the_credentials_of_the_agent_are_read() {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let written = r#"{"AccessKeyId":"ASIA","SecretAccessKey":"s","Token":"t","AccountId":"1",
            "Expiration":"2026-01-01T06:00:00.123456789Z"}"#;
        let credentials = read(&written.into(), now).unwrap();
        assert_eq!((credentials.access_key_id(), credentials.session_token()), ("ASIA", Some("t")));
        assert!(credentials.expiry().is_some());
        for invalid in [
            "",
            "<html>",
            "{}",
            &written.replace("ASIA", ""),
            &written.replace("2026-01-01T06", "2025-01-01T06"),
        ] {
            assert_eq!(read(&invalid.into(), now).unwrap_err().kind, ErrorKind::Transient, "{invalid}");
        }
    }
}
