//! Failed calls to AWS.

use crate::model::{Failure, FailureKind, MAX_MESSAGE_BYTES, clipped};
use ErrorKind::{Credentials, Denied, InProgress, Lost, Permanent, State, Throttled, Transient};
use aws_sdk_acmpca::config::http::HttpResponse;
use aws_sdk_acmpca::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use std::error::Error;

/// The kind of a failed call. It decides what the signer does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ErrorKind {
    /// AWS is still issuing the certificate.
    InProgress,
    /// AWS asks for fewer calls.
    Throttled,
    /// The network or AWS itself failed; another attempt may succeed.
    Transient,
    /// AWS does not accept the credentials; the next attempt needs new ones.
    Credentials,
    /// The caller lacks a permission.
    Denied,
    /// The CA is not active.
    State,
    /// AWS could not issue this certificate; the next attempt requests another one.
    Lost,
    /// Every attempt fails until somebody changes the configuration.
    Permanent,
}

/// A failed call.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct CallError {
    pub(crate) kind: ErrorKind,
    /// The error code of AWS, or a name such as `connection`. It is a metric label, so it has few values.
    pub(crate) code: String,
    message: String,
}

/// Bytes that are kept of AWS's own text, so that the advice after it is kept too.
const MAX_TEXT_BYTES: usize = MAX_MESSAGE_BYTES / 2;

const CHECK_CLOCKS: &str = "compare the clocks of the node and of AWS";

/// Error codes of AWS. Unlike the SDK, this table does not retry LimitExceeded, and waits after RequestInProgress.
const CODES: &[(&[&str], ErrorKind, &str)] = &[
    (&["RequestInProgressException"], InProgress, ""),
    (&["ThrottlingException", "Throttling", "ThrottledException"], Throttled, ""),
    (&["TooManyRequestsException", "RequestLimitExceeded", "SlowDown"], Throttled, ""),
    (&["ExpiredTokenException", "ExpiredToken"], Credentials, ""),
    (&["UnrecognizedClientException", "InvalidClientTokenId"], Credentials, ""),
    (&["InvalidSignatureException", "SignatureDoesNotMatch", "RequestExpired"], Credentials, CHECK_CLOCKS),
    (
        &["AccessDeniedException", "AccessDenied"],
        Denied,
        "let the IAM policy of the caller allow it on this CA and template",
    ),
    (&["InvalidStateException"], State, "the private CA must be ACTIVE: check its status"),
    (&["RequestFailedException"], Lost, ""),
    (&["ConcurrentModificationException", "IDPCommunicationError"], Transient, ""),
    (
        &["InvalidIdentityToken"],
        Permanent,
        "make the cluster's OIDC issuer an identity provider of the account",
    ),
    (&["IDPRejectedClaim"], Permanent, "check the audience in the role's trust policy"),
    (
        &["ResourceNotFoundException"],
        Permanent,
        "check certificate-authority-arn, and that the CA is shared with this account",
    ),
    (
        &["LimitExceededException"],
        Permanent,
        "the private CA's quota of certificates is used up: use another CA, or have the quota raised",
    ),
    (
        &["InvalidArgsException"],
        Permanent,
        "the CA does not accept this combination of template, signing algorithm and duration",
    ),
    (&["MalformedCSRException"], Permanent, "AWS Private CA does not accept this subject or these names"),
    (
        &["ValidationException", "InvalidArnException"],
        Permanent,
        "check the certificate-authority-arn, template-arn and signing-algorithm attributes",
    ),
];

impl CallError {
    /// Keeps the beginning of a long message: it goes to records and Events.
    pub(crate) fn new(kind: ErrorKind, code: impl Into<String>, message: &str) -> Self {
        Self { kind, code: code.into(), message: clipped(message, MAX_MESSAGE_BYTES) }
    }

    /// An answer of AWS that cannot be used.
    pub(crate) fn response(call: &str, message: &str) -> Self {
        Self::new(Transient, "response", &format!("AWS: {call}: {message}"))
    }

    /// Reads the kind off an error of the SDK.
    pub(crate) fn from_sdk<E>(call: &str, error: SdkError<E, HttpResponse>) -> Self
    where
        E: Error + ProvideErrorMetadata + Send + Sync + 'static,
    {
        let status = error.raw_response().map(|response| response.status().as_u16());
        if let Some(code) = error.code() {
            let (kind, advice) = known(code, status);
            let text = clipped(error.message().unwrap_or("no message"), MAX_TEXT_BYTES);
            return Self::new(kind, code, &format!("AWS: {call}: {code}: {text}{}", suffix(advice)));
        }
        let (kind, code) = match (&error, status) {
            (SdkError::TimeoutError(_), _) => (Transient, "timeout"),
            (SdkError::DispatchFailure(_), _) => (Transient, "connection"),
            (SdkError::ConstructionFailure(_), _) => (Credentials, "credentials"),
            (_, Some(429)) => (Throttled, "throttled"),
            (_, Some(500..)) => (Transient, "server"),
            (_, Some(401 | 403)) => (Denied, "denied"),
            _ => (Transient, "response"),
        };
        Self::new(kind, code, &format!("AWS: {call}: {}", DisplayErrorContext(error)))
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        let kind = match error.kind {
            Throttled => FailureKind::Throttled,
            Denied | State | Permanent => FailureKind::Permanent,
            InProgress | Transient | Credentials | Lost => FailureKind::Transient,
        };
        Self::new(kind, error.message)
    }
}

/// Advice at the end of a message.
pub(super) fn suffix(advice: &str) -> String {
    if advice.is_empty() { String::new() } else { format!("; {advice}") }
}

/// Kind and advice of an error code. An unknown code is permanent if the status says that the request is at fault.
fn known(code: &str, status: Option<u16>) -> (ErrorKind, &'static str) {
    let entry = CODES.iter().find(|(codes, ..)| codes.contains(&code));
    match entry {
        Some((_, kind, advice)) => (*kind, advice),
        None if status.is_some_and(|status| status < 500) => (Permanent, ""),
        None => (Transient, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_of_aws_is_cut() {
        let long = CallError::response("GetCertificate", &"x".repeat(200_000)).to_string();
        assert!(long.len() <= MAX_MESSAGE_BYTES, "{}", long.len());
    }

    #[test]
    fn limit_exceeded_is_permanent_and_request_in_progress_is_not() {
        assert_eq!(known("LimitExceededException", Some(400)).0, ErrorKind::Permanent);
        assert_eq!(known("RequestInProgressException", Some(400)).0, ErrorKind::InProgress);
        assert_eq!(known("ThrottlingException", Some(400)).0, ErrorKind::Throttled);
        assert_eq!(known("InternalFailure", Some(500)).0, ErrorKind::Transient);
        assert_eq!(known("NewlyInventedException", Some(400)).0, ErrorKind::Permanent);
    }
}
