//! The signer's checkpoint: which CertificateRequest was made for a pending key, and whether it has failed.

use super::api::Key;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// The checkpoint of one request, JSON in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RequestCheckpoint {
    #[serde(flatten)]
    pub(super) key: Key,
    /// The object's uid, once the server has told it; text of older versions has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) uid: Option<String>,
    /// The request is final without a usable certificate: the next attempt makes another one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not", deserialize_with = "is_set")]
    pub(super) ended: bool,
}

/// Older versions stored here how the request had ended.
fn is_set<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(!matches!(Value::deserialize(deserializer)?, Value::Null | Value::Bool(false)))
}

impl RequestCheckpoint {
    /// Reads a checkpoint; none if the text is not one.
    pub(super) fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    pub(super) fn encode(&self) -> String {
        // Strings and a bool always encode.
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_of_an_older_version_says_whether_its_request_has_ended() {
        let parsed = |ended: &str| {
            RequestCheckpoint::parse(&format!(r#"{{"namespace":"a","name":"b"{ended}}}"#)).unwrap()
        };
        assert!(!parsed("").ended && !parsed(r#","ended":null"#).ended);
        assert!(parsed(r#","ended":"failed""#).ended);
        assert!(parsed(r#","ended":{"refused":{"at":"2026-01-01T00:00:00Z","reason":"no"}}"#).ended);
        assert!(parsed(r#","ended":true"#).ended);
        assert_eq!(parsed("").encode(), r#"{"namespace":"a","name":"b"}"#);
    }

    #[test]
    fn a_checkpoint_keeps_the_uid_once_it_is_known() {
        let text = r#"{"namespace":"a","name":"b","uid":"u"}"#;
        let parsed = RequestCheckpoint::parse(text).unwrap();
        assert_eq!((parsed.uid.as_deref(), parsed.encode().as_str()), (Some("u"), text));
        assert_eq!(RequestCheckpoint::parse(r#"{"namespace":"a","name":"b"}"#).unwrap().uid, None);
    }
}
