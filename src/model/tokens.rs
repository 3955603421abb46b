//! The pod's service account tokens, which the kubelet sends if the `CSIDriver` has `tokenRequests`.

use jiff::Timestamp;
use secrecy::SecretString;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Service account tokens by audience. They are in memory only, and a publish with new tokens replaces all of them.
///
/// It deserializes from the kubelet's JSON: `{"AUDIENCE":{"token":"...","expirationTimestamp":"RFC 3339 time"}}`.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct PodTokens(pub(crate) BTreeMap<String, PodToken>);

/// One token.
#[derive(Clone, Debug, Deserialize)]
pub struct PodToken {
    /// The bearer token.
    pub token: SecretString,
    /// End of its validity.
    #[serde(rename = "expirationTimestamp")]
    pub expires_at: Timestamp,
}

impl PodTokens {
    /// The token for an audience; the empty audience is the API server's own.
    pub(crate) fn audience(&self, audience: &str) -> Option<&PodToken> {
        self.0.get(audience)
    }

    /// Every token with its audience.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &PodToken)> {
        self.0.iter().map(|(audience, token)| (audience.as_str(), token))
    }

    /// Whether one of the tokens expires later than the other set's token for the same audience.
    pub(crate) fn outlast(&self, others: &Self) -> bool {
        self.0.iter().any(|(audience, token)| {
            others.audience(audience).is_none_or(|other| token.expires_at > other.expires_at)
        })
    }

    /// Whether the kubelet sent no token.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
