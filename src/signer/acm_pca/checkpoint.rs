//! The signer's checkpoint: after an interrupted call or a restart it is enough to resume without paying twice.
//!
//! The signer saves it before IssueCertificate, so that a retry repeats the same request with the same idempotency token.
//! It saves it again with the certificate's ARN. The error of a publish that is still waiting shows it.

use super::validity::Limit;
use crate::model::fingerprint;
use jiff::{SignedDuration, Timestamp};

/// AWS remembers an idempotency token for five minutes. One minute less is safe.
const TOKEN_LIFE: SignedDuration = SignedDuration::from_mins(4);

/// One call of IssueCertificate, before it or after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IssueCheckpoint {
    /// Fingerprint of CA, template, caller and certificate signing request. Another request does not use this checkpoint.
    pub(crate) request: String,
    /// The time of the first IssueCertificate.
    pub(crate) requested_at: Timestamp,
    /// The requested end of validity.
    pub(crate) not_after: Timestamp,
    /// The requested signing algorithm.
    pub(crate) algorithm: String,
    /// Why the requested validity is shorter than the spec's duration.
    pub(crate) limit: Option<Limit>,
    /// The certificate's ARN, once AWS has returned it.
    pub(crate) certificate: Option<String>,
}

impl IssueCheckpoint {
    pub(crate) fn encode(&self) -> String {
        let Self { request, requested_at, not_after, algorithm, .. } = self;
        let limit = self.limit.map(|limit| format!(" limit={limit}"));
        let certificate = self.certificate.as_ref().map(|arn| format!(" certificate={arn}"));
        format!(
            "request={request} asked-at={requested_at} not-after={not_after} algorithm={algorithm}{}{}",
            limit.unwrap_or_default(),
            certificate.unwrap_or_default()
        )
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let fields = || text.split(' ').filter_map(|field| field.split_once('='));
        let field = |name: &str| fields().find(|(key, _)| *key == name).map(|(_, value)| value);
        Some(Self {
            request: field("request")?.to_owned(),
            requested_at: field("asked-at")?.parse().ok()?,
            not_after: field("not-after")?.parse().ok()?,
            algorithm: field("algorithm")?.to_owned(),
            limit: field("limit").and_then(Limit::from_name),
            certificate: field("certificate").map(str::to_owned),
        })
    }

    /// Whether to resume from here: it is of this request, and AWS still has the answer.
    pub(crate) fn is_valid_for(&self, request: &str, now: Timestamp) -> bool {
        let is_current = match self.certificate {
            Some(_) => self.not_after > now,
            None => now.duration_since(self.requested_at).abs() < TOKEN_LIFE,
        };
        self.request == request && is_current
    }

    /// The idempotency token, at most 36 characters. It is the same for the same request and validity.
    pub(crate) fn idempotency_token(&self) -> String {
        let seconds = self.not_after.as_second().to_be_bytes();
        fingerprint(&[self.request.as_bytes(), &seconds, self.algorithm.as_bytes()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint() -> IssueCheckpoint {
        IssueCheckpoint {
            request: fingerprint(&[b"ca", b"csr"]),
            requested_at: "2026-01-01T00:00:00.25Z".parse().unwrap(),
            not_after: "2026-01-02T00:00:00Z".parse().unwrap(),
            algorithm: "SHA256WITHECDSA".into(),
            limit: Some(Limit::ShortLived),
            certificate: Some("arn:aws:acm-pca:eu-central-1:1:certificate-authority/1/certificate/2".into()),
        }
    }

    #[test]
    fn a_checkpoint_reads_back_as_it_was_written() {
        let whole = checkpoint();
        assert_eq!(IssueCheckpoint::parse(&whole.encode()), Some(whole.clone()));
        let early = IssueCheckpoint { limit: None, certificate: None, ..whole };
        assert_eq!(IssueCheckpoint::parse(&early.encode()), Some(early));
        for invalid in ["", "request-1", "request=1 asked-at=x not-after=y algorithm=z"] {
            assert_eq!(IssueCheckpoint::parse(invalid), None, "{invalid}");
        }
    }

    #[test]
    fn a_checkpoint_that_is_outdated_or_of_another_request_is_not_resumed() {
        let checkpoint = checkpoint();
        let soon = checkpoint.requested_at + SignedDuration::from_mins(1);
        let late = checkpoint.requested_at + SignedDuration::from_mins(6);
        assert!(checkpoint.is_valid_for(&checkpoint.request, late));
        assert!(!checkpoint.is_valid_for("another", late));
        assert!(!checkpoint.is_valid_for(&checkpoint.request, checkpoint.not_after));
        let unissued = IssueCheckpoint { certificate: None, ..checkpoint };
        assert!(unissued.is_valid_for(&unissued.request, soon));
        assert!(!unissued.is_valid_for(&unissued.request, late), "AWS no longer remembers the token");
    }

    #[test]
    fn the_idempotency_token_depends_on_the_request_only() {
        let one = checkpoint();
        let token = one.idempotency_token();
        assert!(token.len() <= 36 && token.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        let same = IssueCheckpoint { certificate: None, requested_at: Timestamp::MAX, ..one.clone() };
        assert_eq!(same.idempotency_token(), token);
        let longer =
            IssueCheckpoint { not_after: one.not_after + SignedDuration::from_secs(1), ..one.clone() };
        assert_ne!(longer.idempotency_token(), token);
        assert_ne!(fingerprint(&[b"ab", b"c"]), fingerprint(&[b"a", b"bc"]));
    }

    #[test]
    fn a_checkpoint_of_version_0_1_0_is_read() {
        let text = "request=0123456789abcdef asked-at=2026-01-01T00:00:00.25Z not-after=2026-01-02T00:00:00Z \
                    algorithm=SHA256WITHECDSA limit=short-lived-mode certificate=arn:aws:acm-pca:r:1:x/1";
        let read = IssueCheckpoint::parse(text).unwrap();
        assert_eq!(read.limit, Some(Limit::ShortLived));
        assert_eq!(read.encode(), text);
    }
}
