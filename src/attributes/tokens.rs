//! The pod's service account tokens, where the `CSIDriver`'s `tokenRequests` make the kubelet send them.

use jiff::Timestamp;
use secrecy::SecretString;
use std::collections::BTreeMap;

/// Service account tokens by audience. Held in memory only; replaced whole by every publish that brings new ones.
#[derive(Clone, Debug, Default)]
pub struct PodTokens(pub(super) BTreeMap<String, PodToken>);

/// One token.
#[derive(Clone, Debug)]
pub struct PodToken {
    /// The bearer token.
    pub token: SecretString,
    /// When the API server stops taking it.
    pub expires_at: Timestamp,
}

impl PodTokens {
    /// The token for an audience; the empty audience stands for the API server's own.
    pub fn audience(&self, audience: &str) -> Option<&PodToken> {
        self.0.get(audience)
    }

    /// Whether one of them lasts longer than the other tokens' for its audience.
    pub fn outlast(&self, others: &Self) -> bool {
        self.0.iter().any(|(audience, token)| {
            others.audience(audience).is_none_or(|other| token.expires_at > other.expires_at)
        })
    }

    /// Whether the kubelet sent none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
