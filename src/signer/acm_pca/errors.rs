//! What AWS answers when it does not do what was asked, sorted by what to do about it.

use crate::model::Failure;
use aws_sdk_acmpca::config::http::HttpResponse;
use aws_sdk_acmpca::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use std::error::Error;

/// What to do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Wait: the certificate is being made.
    InProgress,
    /// Slow down.
    Throttled,
    /// Ask again: the network, or AWS itself.
    Transient,
    /// The credentials are no good (any more): get new ones and ask again.
    Credentials,
    /// The caller may not do this.
    Denied,
    /// The CA is not in a state to do this.
    State,
    /// The certificate will not come: ask for another.
    Lost,
    /// Asking again will not help.
    Permanent,
}

/// A call that failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{call}: {message}")]
pub(crate) struct CallError {
    pub(crate) call: &'static str,
    pub(crate) class: Class,
    /// AWS's own word, or `connection` and the like: for metrics, and so one of few.
    pub(crate) code: String,
    message: String,
}

/// Errors by AWS's name for them. LimitExceeded is permanent though the SDK would retry it; RequestInProgress is none
/// at all though the SDK would give up on it.
const CODES: [(&str, Class, &str); 30] = [
    ("RequestInProgressException", Class::InProgress, ""),
    ("ThrottlingException", Class::Throttled, ""),
    ("Throttling", Class::Throttled, ""),
    ("ThrottledException", Class::Throttled, ""),
    ("TooManyRequestsException", Class::Throttled, ""),
    ("RequestLimitExceeded", Class::Throttled, ""),
    ("SlowDown", Class::Throttled, ""),
    ("ExpiredTokenException", Class::Credentials, ""),
    ("ExpiredToken", Class::Credentials, ""),
    ("UnrecognizedClientException", Class::Credentials, ""),
    ("InvalidClientTokenId", Class::Credentials, ""),
    ("InvalidSignatureException", Class::Credentials, "compare the clocks of node and AWS"),
    ("SignatureDoesNotMatch", Class::Credentials, "compare the clocks of node and AWS"),
    ("RequestExpired", Class::Credentials, "compare the clocks of node and AWS"),
    (
        "AccessDeniedException",
        Class::Denied,
        "let the IAM policy of the caller allow it on this CA and template",
    ),
    ("AccessDenied", Class::Denied, "let the IAM policy of the caller allow it on this CA and template"),
    ("InvalidStateException", Class::State, "the private CA must be ACTIVE: look at its status"),
    ("RequestFailedException", Class::Lost, ""),
    ("ConcurrentModificationException", Class::Transient, ""),
    ("IDPCommunicationError", Class::Transient, ""),
    (
        "InvalidIdentityToken",
        Class::Permanent,
        "make the cluster's OIDC issuer an identity provider of the account",
    ),
    ("IDPRejectedClaim", Class::Permanent, "look at the audience of the role's trust policy"),
    (
        "ResourceNotFoundException",
        Class::Permanent,
        "check certificate-authority-arn, and that the CA is shared with this account",
    ),
    (
        "LimitExceededException",
        Class::Permanent,
        "the private CA's quota of certificates is used up: use another CA, or have the quota raised",
    ),
    (
        "InvalidArgsException",
        Class::Permanent,
        "the CA does not take this combination of template, signing algorithm and duration",
    ),
    ("InvalidArnException", Class::Permanent, "check certificate-authority-arn and template-arn"),
    ("InvalidRequestException", Class::Permanent, "the CA does not take this request"),
    ("MalformedCSRException", Class::Permanent, "AWS Private CA does not take this subject or these names"),
    (
        "ValidationException",
        Class::Permanent,
        "check the certificate-authority-arn, template-arn and signing-algorithm attributes",
    ),
    ("RequestAlreadyProcessedException", Class::Permanent, ""),
];

impl CallError {
    /// Sorts an error of the SDK.
    pub(crate) fn of<E>(call: &'static str, error: SdkError<E, HttpResponse>) -> Self
    where
        E: Error + ProvideErrorMetadata + Send + Sync + 'static,
    {
        let status = error.raw_response().map(|response| response.status().as_u16());
        if let Some(code) = error.code() {
            let (class, advice) = Self::known(code, status);
            let said = error.message().unwrap_or("no message");
            let advice = if advice.is_empty() { String::new() } else { format!("; {advice}") };
            return Self { call, class, code: code.to_owned(), message: format!("{code}: {said}{advice}") };
        }
        let (class, code) = match (&error, status) {
            (SdkError::TimeoutError(_), _) => (Class::Transient, "timeout"),
            (SdkError::DispatchFailure(_), _) => (Class::Transient, "connection"),
            (SdkError::ConstructionFailure(_), _) => (Class::Credentials, "credentials"),
            (_, Some(429)) => (Class::Throttled, "throttled"),
            (_, Some(500..)) => (Class::Transient, "server"),
            (_, Some(401 | 403)) => (Class::Denied, "denied"),
            _ => (Class::Transient, "response"),
        };
        Self { call, class, code: code.to_owned(), message: DisplayErrorContext(error).to_string() }
    }

    /// An answer that makes no sense.
    pub(crate) fn local(call: &'static str, message: String) -> Self {
        Self { call, class: Class::Transient, code: "response".to_owned(), message }
    }

    fn known(code: &str, status: Option<u16>) -> (Class, &'static str) {
        let entry = CODES.iter().find(|(known, ..)| *known == code);
        entry.map_or_else(
            || {
                (
                    if status.is_some_and(|status| status < 500) {
                        Class::Permanent
                    } else {
                        Class::Transient
                    },
                    "",
                )
            },
            |(_, class, advice)| (*class, *advice),
        )
    }

    /// What the signer says of it.
    pub(crate) fn into_sign_error(self) -> Failure {
        let reason = format!("AWS: {self}");
        match self.class {
            Class::Throttled => Failure::throttled(reason, None),
            Class::InProgress | Class::Transient | Class::Credentials | Class::Lost => {
                Failure::transient(reason)
            }
            Class::Denied | Class::State | Class::Permanent => Failure::permanent(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_exceeded_is_permanent_and_request_in_progress_is_none() {
        assert_eq!(CallError::known("LimitExceededException", Some(400)).0, Class::Permanent);
        assert_eq!(CallError::known("RequestInProgressException", Some(400)).0, Class::InProgress);
        assert_eq!(CallError::known("ThrottlingException", Some(400)).0, Class::Throttled);
        assert_eq!(CallError::known("InternalFailure", Some(500)).0, Class::Transient);
        assert_eq!(CallError::known("NewlyInventedException", Some(400)).0, Class::Permanent);
    }
}
