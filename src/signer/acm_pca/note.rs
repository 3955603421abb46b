//! What the signer notes beside a pending key: enough to go on after a cut-off call or a restart without paying twice.
//!
//! It is written before IssueCertificate, so that a retry repeats the very same request under the very same idempotency
//! token, and again with the certificate's ARN. People see it in the error of a publish that still waits.

use super::validity::Limit;
use crate::model::fingerprint;
use jiff::{SignedDuration, Timestamp};
use std::fmt::Write;

/// AWS remembers an idempotency token for five minutes; a repetition is safe for a little less.
const TOKEN_LIFE: SignedDuration = SignedDuration::from_mins(4);

/// One certificate that has been asked for, or is about to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SavedRequest {
    /// Fingerprint of CA, template, role and request: a note for other ones is not this volume's any more.
    pub(crate) request: String,
    /// When it was first asked for.
    pub(crate) asked_at: Timestamp,
    /// What was asked for.
    pub(crate) not_after: Timestamp,
    /// The signing algorithm asked for.
    pub(crate) algorithm: String,
    /// What cut the life short.
    pub(crate) limit: Option<Limit>,
    /// The certificate's ARN, once AWS has told it.
    pub(crate) certificate: Option<String>,
}

impl SavedRequest {
    pub(crate) fn encode(&self) -> String {
        let mut text = format!(
            "request={} asked-at={} not-after={} algorithm={}",
            self.request, self.asked_at, self.not_after, self.algorithm
        );
        for (key, value) in
            [("limit", self.limit.map(Limit::as_str)), ("certificate", self.certificate.as_deref())]
        {
            if let Some(value) = value {
                let _infallible = write!(text, " {key}={value}");
            }
        }
        text
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| {
            text.split(' ')
                .find_map(|word| word.split_once('=').filter(|(key, _)| *key == name))
                .map(|(_, v)| v)
        };
        Some(Self {
            request: field("request")?.to_owned(),
            asked_at: field("asked-at")?.parse().ok()?,
            not_after: field("not-after")?.parse().ok()?,
            algorithm: field("algorithm")?.to_owned(),
            limit: field("limit")
                .and_then(|text| Limit::ALL.into_iter().find(|limit| limit.as_str() == text)),
            certificate: field("certificate").map(str::to_owned),
        })
    }

    /// Whether to go on from here: it is about the same request, and the answer can still be had.
    pub(crate) fn is_good_for(&self, request: &str, now: Timestamp) -> bool {
        let fresh = match self.certificate {
            Some(_) => self.not_after > now,
            None => now.duration_since(self.asked_at).abs() < TOKEN_LIFE,
        };
        self.request == request && fresh
    }

    /// The idempotency token (at most 36 characters): the same for the same request, validity included.
    pub(crate) fn idempotency_token(&self) -> String {
        let seconds = self.not_after.as_second().to_be_bytes();
        fingerprint(&[self.request.as_bytes(), &seconds, self.algorithm.as_bytes()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note() -> SavedRequest {
        SavedRequest {
            request: fingerprint(&[b"ca", b"csr"]),
            asked_at: "2026-01-01T00:00:00.25Z".parse().unwrap(),
            not_after: "2026-01-02T00:00:00Z".parse().unwrap(),
            algorithm: "SHA256WITHECDSA".into(),
            limit: Some(Limit::ShortLived),
            certificate: Some("arn:aws:acm-pca:eu-central-1:1:certificate-authority/1/certificate/2".into()),
        }
    }

    #[test]
    fn a_checkpoint_reads_back_as_it_was_written() {
        let whole = note();
        assert_eq!(SavedRequest::parse(&whole.encode()), Some(whole.clone()));
        let early = SavedRequest { limit: None, certificate: None, ..whole };
        assert_eq!(SavedRequest::parse(&early.encode()), Some(early));
        for odd in ["", "request-1", "request=1 asked-at=x not-after=y algorithm=z"] {
            assert_eq!(SavedRequest::parse(odd), None, "{odd}");
        }
    }

    #[test]
    fn a_stale_checkpoint_or_one_about_another_request_is_not_gone_on_from() {
        let note = note();
        let soon = note.asked_at + SignedDuration::from_mins(1);
        let late = note.asked_at + SignedDuration::from_mins(6);
        assert!(note.is_good_for(&note.request, late));
        assert!(!note.is_good_for("another", late));
        assert!(!note.is_good_for(&note.request, note.not_after));
        let unanswered = SavedRequest { certificate: None, ..note };
        assert!(unanswered.is_good_for(&unanswered.request, soon));
        assert!(!unanswered.is_good_for(&unanswered.request, late), "AWS has forgotten the token");
    }

    #[test]
    fn the_idempotency_token_follows_from_what_is_asked_for_alone() {
        let one = note();
        let token = one.idempotency_token();
        assert!(token.len() <= 36 && token.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        let same = SavedRequest { certificate: None, asked_at: Timestamp::MAX, ..one.clone() };
        assert_eq!(same.idempotency_token(), token);
        let longer = SavedRequest { not_after: one.not_after + SignedDuration::from_secs(1), ..one.clone() };
        assert_ne!(longer.idempotency_token(), token);
        assert_ne!(fingerprint(&[b"ab", b"c"]), fingerprint(&[b"a", b"bc"]));
    }
}
