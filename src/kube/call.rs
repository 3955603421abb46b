//! One call: its identity, its time limit and the meaning of its failure.

use super::bounded::message;
use super::cluster::Cluster;
use crate::model::clipped;
use http::header::{AUTHORIZATION, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Bytes;
use kube::client::Body;
use kube::core::request::Error as RequestError;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::time::Duration;
use thiserror::Error;

/// Who makes a call.
#[derive(Clone, Copy, Debug)]
pub enum Caller<'a> {
    /// The driver.
    Driver,
    /// A pod's service account.
    Token(&'a SecretString),
}

/// Why a call has failed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CallError {
    /// The server answered with an error status.
    #[error("{message}")]
    Refused {
        /// The HTTP status.
        code: u16,
        /// The reason in Kubernetes' `Status`, such as `AlreadyExists`; may be empty.
        reason: String,
        /// For people.
        message: String,
        /// The server's Retry-After.
        retry_after: Option<Duration>,
    },
    /// No connection, or no answer on it.
    #[error("the Kubernetes API server cannot be reached: {0}")]
    Unreachable(String),
    /// No answer in time. The server may have carried out the call.
    #[error("the Kubernetes API server has not answered within {} s", TIMEOUT.as_secs())]
    TimedOut,
    /// The answer is not the JSON that was expected.
    #[error("the Kubernetes API server's answer cannot be read: {0}")]
    Unreadable(String),
    /// The answer is larger than [`MAX_ANSWER`].
    #[error("the Kubernetes API server's answer is larger than {} MiB", MAX_ANSWER >> 20)]
    TooLarge,
    /// The credentials are missing or cannot be sent.
    #[error("the driver's credentials for the Kubernetes API cannot be used: {0}")]
    Credentials(String),
}

impl CallError {
    /// The server's Retry-After, if it sent one.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// Time limit of one call.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Limit on the body of an answer: more than one object can have (etcd's limit on a request is 1.5 MiB).
const MAX_ANSWER: usize = 2 << 20;
/// Limit on the bytes of an answer in plain text that a message shows.
const MAX_PLAIN_TEXT: usize = 200;

impl Cluster {
    /// Sends one request and parses its answer.
    pub async fn read<T: DeserializeOwned>(
        &self,
        caller: Caller<'_>,
        request: Result<Request<Vec<u8>>, RequestError>,
    ) -> Result<T, CallError> {
        let answer = self.call(caller, request).await?;
        serde_json::from_slice(&answer).map_err(|error| CallError::Unreadable(error.to_string()))
    }

    /// Sends one request and returns the body of its answer.
    pub async fn call(
        &self,
        caller: Caller<'_>,
        request: Result<Request<Vec<u8>>, RequestError>,
    ) -> Result<Bytes, CallError> {
        let request = request.map_err(|error| CallError::Unreadable(error.to_string()))?;
        tokio::time::timeout(TIMEOUT, self.send(caller, request)).await.unwrap_or(Err(CallError::TimedOut))
    }

    async fn send(&self, caller: Caller<'_>, request: Request<Vec<u8>>) -> Result<Bytes, CallError> {
        let mut request = request.map(Body::from);
        let answer = match caller {
            Caller::Driver => self.own.send(request).await,
            Caller::Token(token) => {
                let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose_secret()))
                    .map_err(|_| CallError::Credentials("the pod's token is not printable".into()))?;
                value.set_sensitive(true);
                request.headers_mut().insert(AUTHORIZATION, value);
                self.bare.send(request).await
            }
        };
        let (head, body) = answer
            .map_err(|error| match error {
                kube::Error::Auth(_) => CallError::Credentials(with_causes(&error)),
                _ => CallError::Unreachable(with_causes(&error)),
            })?
            .into_parts();
        let body = collect(body).await;
        if head.status.is_success() {
            return body;
        }
        Err(refusal(head.status, &head.headers, &body.unwrap_or_default()))
    }
}

/// The whole body, of at most [`MAX_ANSWER`] bytes.
async fn collect(body: Body) -> Result<Bytes, CallError> {
    match Limited::new(body, MAX_ANSWER).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(CallError::TooLarge),
        Err(error) => Err(CallError::Unreachable(with_causes(&*error))),
    }
}

/// An error with its causes: the outermost one alone says little.
fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    for cause in std::iter::successors(error.source(), |cause| cause.source()) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// What is read of a `Status`: `kube::core::Status` has lists whose length the webhook chooses that refuses.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    #[serde(deserialize_with = "message")]
    reason: String,
    #[serde(deserialize_with = "message")]
    message: String,
    details: Option<StatusDetails>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct StatusDetails {
    retry_after_seconds: u32,
}

fn refusal(code: StatusCode, headers: &HeaderMap, body: &[u8]) -> CallError {
    let status: Status = serde_json::from_slice(body).unwrap_or_default();
    let in_header = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let in_details = status.details.map(|details| u64::from(details.retry_after_seconds));
    let retry_after = in_header.or(in_details.filter(|seconds| *seconds > 0)).map(Duration::from_secs);
    let message = if status.message.is_empty() {
        // Priority and fairness, proxies and load balancers answer in plain text.
        let text = String::from_utf8_lossy(body);
        let line = clipped(text.lines().next().unwrap_or_default(), MAX_PLAIN_TEXT);
        let message = format!("the Kubernetes API server answered {code}: {}", line.trim());
        message.trim_end_matches(": ").to_owned()
    } else {
        status.message
    };
    CallError::Refused { code: code.as_u16(), reason: status.reason, message, retry_after }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_text_refusal_keeps_its_retry_after() {
        let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static("7"))]);
        let error =
            refusal(StatusCode::TOO_MANY_REQUESTS, &headers, b"Too many requests, please try again later.\n");
        let CallError::Refused { code: 429, message, retry_after, .. } = error else { panic!("{error:?}") };
        assert_eq!(retry_after, Some(Duration::from_secs(7)));
        assert!(message.contains("429") && message.contains("try again later"), "{message}");
    }

    #[test]
    fn a_status_object_gives_message_reason_and_retry_after() {
        let body = br#"{"kind":"Status","status":"Failure","code":403,"reason":"Forbidden","message":"no, you","details":{"retryAfterSeconds":3}}"#;
        let error = refusal(StatusCode::FORBIDDEN, &HeaderMap::new(), body);
        assert_eq!(error.to_string(), "no, you");
        let CallError::Refused { reason, retry_after, .. } = error else { panic!("{error:?}") };
        assert_eq!((reason.as_str(), retry_after), ("Forbidden", Some(Duration::from_secs(3))));
    }
}
