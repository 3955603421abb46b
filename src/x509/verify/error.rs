//! What can be wrong with a signer's answer.

use jiff::Timestamp;
use std::fmt;
use thiserror::Error;

/// The parts of a signer's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The leaf and what leads up from it.
    Chain,
    /// The trust anchors.
    Anchors,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Chain => "chain",
            Self::Anchors => "CA bundle",
        })
    }
}

/// Why a signer's answer is not used. Names in the messages come from certificates, with control characters escaped.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum VerifyError {
    /// A part that is too large, not PEM or not certificates: which, and what is wrong.
    #[error("the signer's {0} {1}")]
    Unreadable(Part, String),
    /// A certificate that does not parse: its number in its part, counted from one, and what is wrong.
    #[error("certificate {1} of the signer's {0} does not parse: {2}")]
    Malformed(Part, usize, String),
    /// Nobody's certificate, or somebody else's.
    #[error("none of the certificates that the signer returned is for the key that was made for this volume")]
    WrongKey,
    /// Names are not in the leaf: `DNS:`, `URI:` and `IP:` strings.
    #[error("the certificate lacks names that were asked for: {}", .0.join(", "))]
    MissingNames(Vec<String>),
    /// Past the end of validity: subject and end.
    #[error("the certificate of \"{0}\" expired at {1}")]
    Expired(String, Timestamp),
    /// Before the start of validity, by more than clocks may differ: subject and start.
    #[error("the certificate of \"{0}\" is not valid before {1}: compare the clocks of node and signer")]
    NotYetValid(String, Timestamp),
    /// A CA was asked for and the certificate is not a CA's.
    #[error("is-ca: a CA was asked for and the certificate is not a CA's")]
    NotCa,
    /// No CA was asked for and the certificate is a CA's.
    #[error("is-ca: no CA was asked for and the certificate is a CA's")]
    IsCa,
    /// An issuer in the chain is not a CA: its subject.
    #[error("the chain is broken: \"{0}\" is not a CA and cannot have issued a certificate")]
    IssuerNotCa(String),
    /// The names link up and the signature does not: subject, issuer, and what is wrong.
    #[error("the chain is broken: \"{0}\" names \"{1}\" as its issuer, but {2}")]
    BrokenLink(String, String, String),
    /// A certificate that has nothing to do with the leaf: its subject.
    #[error("the chain is broken: it holds a certificate of \"{0}\" that does not link to the others")]
    Unrelated(String),
    /// The chain ends elsewhere than at the signer's own trust anchors: the last issuer.
    #[error("the chain ends at \"{0}\", which is not among the trust anchors that the signer returned")]
    NotAnchored(String),
}

impl VerifyError {
    /// Whether the next certificate may be better without anybody changing anything.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(self, Self::Expired(..) | Self::NotYetValid(..))
    }
}
