//! One call: its time limit, its identity, and what its failure means.

use super::cluster::{Cluster, is_about_credentials};
use http::header::{AUTHORIZATION, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use kube::client::Body;
use kube::core::Status;
use kube::core::request::Error as RequestError;
use secrecy::{ExposeSecret, SecretString};
use std::time::Duration;
use thiserror::Error;

/// Whose call it is.
#[derive(Clone, Copy, Debug)]
pub enum Caller<'a> {
    /// The driver's own.
    Driver,
    /// A pod's service account's.
    Token(&'a SecretString),
}

/// Why a call brought nothing.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CallError {
    /// The server said no.
    #[error("{message}")]
    Refused {
        /// The HTTP status.
        code: u16,
        /// Kubernetes' own word for it, such as `AlreadyExists`; may be empty.
        reason: String,
        /// In words.
        message: String,
        /// How long the server wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// No answer.
    #[error("the Kubernetes API server cannot be reached: {0}")]
    Unreachable(String),
    /// No answer in time. The call may have been carried out all the same.
    #[error("the Kubernetes API server has not answered within {} s", TIMEOUT.as_secs())]
    TimedOut,
    /// An answer that is not one.
    #[error("the Kubernetes API server's answer cannot be read: {0}")]
    Unreadable(String),
    /// The credentials are missing or cannot be sent.
    #[error("the driver's credentials for the Kubernetes API cannot be used: {0}")]
    Credentials(String),
}

impl CallError {
    /// The HTTP status, where there was one.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// How long the server wants to be left alone, where it says so.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Kubernetes' own word for what is wrong.
    pub fn reason(&self) -> &str {
        match self {
            Self::Refused { reason, .. } => reason,
            _ => "",
        }
    }
}

/// How long one call may take.
const TIMEOUT: Duration = Duration::from_secs(15);

impl Cluster {
    /// Sends one request and reads its answer.
    pub async fn call(
        &self,
        caller: Caller<'_>,
        request: Result<Request<Vec<u8>>, RequestError>,
    ) -> Result<Vec<u8>, CallError> {
        let request = request.map_err(|error| CallError::Unreadable(error.to_string()))?;
        tokio::time::timeout(TIMEOUT, self.send(caller, request)).await.unwrap_or(Err(CallError::TimedOut))
    }

    async fn send(&self, caller: Caller<'_>, request: Request<Vec<u8>>) -> Result<Vec<u8>, CallError> {
        let mut request = request.map(Body::from);
        let answer = match caller {
            Caller::Driver => self.client().send(request).await,
            Caller::Token(token) => {
                let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose_secret()))
                    .map_err(|_| CallError::Credentials("the pod's token is not printable".into()))?;
                value.set_sensitive(true);
                request.headers_mut().insert(AUTHORIZATION, value);
                self.bare().send(request).await
            }
        };
        let (head, body) = answer.map_err(|error| unsent(&error))?.into_parts();
        let body = body.collect_bytes().await.map_err(|error| CallError::Unreachable(chain(&error)))?;
        if head.status.is_success() {
            return Ok(body.to_vec());
        }
        Err(refusal(head.status, &head.headers, &body))
    }
}

fn unsent(error: &kube::Error) -> CallError {
    if is_about_credentials(error) {
        CallError::Credentials(chain(error))
    } else {
        CallError::Unreachable(chain(error))
    }
}

/// An error with what is behind it: the outermost one alone says little.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

fn refusal(code: StatusCode, headers: &HeaderMap, body: &[u8]) -> CallError {
    let status: Option<Status> = serde_json::from_slice(body).ok();
    let asked = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let in_details =
        status.as_ref().and_then(|status| status.details.as_ref()).map(|details| details.retry_after_seconds);
    let retry_after =
        asked.or(in_details.filter(|seconds| *seconds > 0).map(u64::from)).map(Duration::from_secs);
    let (reason, message) = status.map_or_else(Default::default, |status| (status.reason, status.message));
    let message = if message.is_empty() {
        // Priority and fairness, proxies and load balancers answer in plain text.
        let text = String::from_utf8_lossy(body);
        let line: String = text.lines().next().unwrap_or_default().chars().take(200).collect();
        format!("the Kubernetes API server answered {code}: {}", line.trim())
            .trim_end_matches(": ")
            .to_owned()
    } else {
        message
    };
    CallError::Refused { code: code.as_u16(), reason, message, retry_after }
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
    fn a_status_refusal_speaks_for_itself() {
        let body = br#"{"kind":"Status","status":"Failure","code":403,"reason":"Forbidden","message":"no, you","details":{"retryAfterSeconds":3}}"#;
        let error = refusal(StatusCode::FORBIDDEN, &HeaderMap::new(), body);
        assert_eq!(error.reason(), "Forbidden");
        assert_eq!(error.to_string(), "no, you");
    }
}
