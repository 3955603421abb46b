//! Failures: one type and one kind, from the signer to the record, the metrics and the gRPC status.

use super::{MAX_MESSAGE_BYTES, clipped};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::time::Duration;
use thiserror::Error;

/// A failure. The driver acts on its kind; people act on its message.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct Failure {
    /// Decides retries and the gRPC status.
    pub kind: FailureKind,
    /// Says what is wrong and what is accepted. It holds no secret.
    pub message: String,
    /// The pause before the next attempt, if the signer, the API or a readiness gate sets one.
    pub retry_after: Option<Duration>,
    /// Whether the signer's decision on this request is final: the same request cannot succeed later.
    pub is_refusal: bool,
}

impl Failure {
    /// A failure of this kind.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retry_after: None, is_refusal: false }
    }

    /// The message for a volume's record: the store has a page for each volume's failure, whatever the signer says.
    pub(crate) fn recorded_message(&self) -> String {
        clipped(&self.message, MAX_MESSAGE_BYTES)
    }

    /// A failure that lasts until somebody changes the configuration.
    pub fn permanent(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Permanent, message)
    }

    /// A permanent failure that is the signer's final decision on this request: denied, or invalid.
    pub fn refused(message: impl Into<String>) -> Self {
        Self { is_refusal: true, ..Self::permanent(message) }
    }

    /// A failure that may be gone at the next attempt.
    pub fn transient(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Transient, message)
    }

    /// The signer or API asks for fewer requests.
    pub fn throttled(message: impl Into<String>, retry_after: Option<Duration>) -> Self {
        Self { retry_after, ..Self::new(FailureKind::Throttled, message) }
    }

    /// The pod lacks something that the operator requires before a certificate is requested.
    pub(crate) fn not_ready(message: impl Into<String>, retry_after: Duration) -> Self {
        Self { retry_after: Some(retry_after), ..Self::new(FailureKind::NotReady, message) }
    }
}

/// The kind of a failure. The first five decide retries, and are the labels in metrics and records. The others end one
/// call; in metrics and records they count as [`FailureKind::Transient`] or [`FailureKind::Permanent`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// Every attempt fails until somebody changes the configuration.
    Permanent,
    /// The signer asks for fewer requests.
    Throttled,
    /// The pods of the namespace have used up their budget of certificates.
    OverBudget,
    /// The pod is not ready for a certificate to be requested.
    NotReady,
    /// Another attempt may succeed.
    Transient,
    /// Another operation on the volume is running.
    Busy,
    /// A limit of this node is reached: publishes in flight, or the size of the store.
    Full,
    /// The volume exists with other parameters.
    Conflict,
    /// Another program has mounted something at the target.
    Occupied,
    /// The node has no such volume.
    NotFound,
    /// The signer has not answered within the caller's deadline. The request is kept.
    StillWaiting,
    /// The operation was cancelled.
    Cancelled,
    /// The process is shutting down.
    ShuttingDown,
    /// A fault of the node: its file system, or a bug.
    Internal,
}

impl FailureKind {
    /// The kind that decides retries: one of the first five.
    #[must_use]
    pub(crate) fn retry_kind(self) -> Self {
        match self {
            Self::Permanent | Self::Conflict => Self::Permanent,
            Self::Throttled | Self::OverBudget | Self::NotReady => self,
            _ => Self::Transient,
        }
    }

    /// The kind in metrics, logs and records.
    pub(crate) fn as_str(self) -> &'static str {
        match self.retry_kind() {
            Self::Permanent => "permanent",
            Self::Throttled => "throttled",
            Self::OverBudget => "over-budget",
            Self::NotReady => "not-ready",
            _ => "transient",
        }
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for FailureKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// A record of a newer build may hold an unknown kind. It is retried like a transient failure.
impl<'de> Deserialize<'de> for FailureKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let known = [Self::Permanent, Self::Throttled, Self::OverBudget, Self::NotReady];
        Ok(known.into_iter().find(|kind| kind.as_str() == text).unwrap_or(Self::Transient))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_keeps_the_beginning_of_a_long_message() {
        let short = Failure::transient("the issuer is down");
        assert_eq!(short.recorded_message(), short.message);
        let long = Failure::transient("\u{e9}".repeat(30_000)).recorded_message();
        assert!(long.len() <= MAX_MESSAGE_BYTES && long.ends_with("\u{e9} ..."), "{} bytes", long.len());
    }

    #[test]
    fn a_record_keeps_the_kind_that_decides_retries() {
        for (kind, read) in [
            (FailureKind::Permanent, FailureKind::Permanent),
            (FailureKind::NotReady, FailureKind::NotReady),
            (FailureKind::OverBudget, FailureKind::OverBudget),
            (FailureKind::Conflict, FailureKind::Permanent),
            (FailureKind::StillWaiting, FailureKind::Transient),
        ] {
            let json = serde_json::to_string(&kind).unwrap();
            assert_eq!(serde_json::from_str::<FailureKind>(&json).unwrap(), read, "{json}");
        }
        assert_eq!(
            serde_json::from_str::<FailureKind>("\"from-the-future\"").unwrap(),
            FailureKind::Transient
        );
    }
}
