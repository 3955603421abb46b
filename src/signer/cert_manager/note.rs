//! The note beside a pending key: which request was made for it, and how that ended.

use super::api::Key;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// A refusal stands this long: tries in between ask nobody. Then one more request is made, in case the policy was mended.
pub(super) const REFUSAL_STANDS: SignedDuration = SignedDuration::from_mins(10);

/// The note.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    namespace: String,
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ended: Option<Ended>,
}

/// How a request ended badly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Ended {
    /// The issuer gave up.
    Failed,
    /// Denied or invalid.
    Refused {
        /// When we saw it.
        at: Timestamp,
        /// In words.
        reason: String,
    },
}

impl Note {
    pub(super) fn open(key: &Key) -> Self {
        Self { namespace: key.namespace.clone(), name: key.name.clone(), ended: None }
    }

    /// Reads a note; one that does not parse is none.
    pub(super) fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    pub(super) fn encode(&self) -> String {
        // Strings, a number and a timestamp always encode.
        serde_json::to_string(self).unwrap_or_default()
    }

    pub(super) fn key(&self) -> Key {
        Key { namespace: self.namespace.clone(), name: self.name.clone() }
    }

    /// The same, ended.
    pub(super) fn ended(&self, ended: Ended) -> Self {
        Self { ended: Some(ended), ..self.clone() }
    }

    /// Until when a refusal stands, and its reason; none once it stands no more. One from the future was seen by a clock
    /// that was wrong then, and does not stand.
    pub(super) fn refusal(&self, now: Timestamp) -> Option<(Timestamp, &str)> {
        let Some(Ended::Refused { at, reason }) = &self.ended else { return None };
        let until = at.saturating_add(REFUSAL_STANDS).unwrap_or(Timestamp::MAX);
        (*at <= now && now < until).then_some((until, reason))
    }
}
