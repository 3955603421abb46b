//! What can be wrong with a signer's answer.

use crate::x509::PemError;
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
    /// Far more than any chain needs.
    #[error("the signer's {part} is {bytes} bytes long; accepted are at most {limit}")]
    TooLarge {
        /// Which part.
        part: Part,
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        limit: usize,
    },
    /// Far more than any chain needs.
    #[error("the signer's chain holds {count} certificates; accepted are at most {limit}")]
    TooMany {
        /// How many there are.
        count: usize,
        /// How many there may be.
        limit: usize,
    },
    /// Not PEM.
    #[error("the signer's {part} is not PEM: it {source}")]
    NotPem {
        /// Which part.
        part: Part,
        /// What is wrong.
        source: PemError,
    },
    /// PEM of something that does not belong there.
    #[error("the signer's {part} holds a {label} block; accepted are only CERTIFICATE blocks")]
    NotACertificate {
        /// Which part.
        part: Part,
        /// The PEM label.
        label: String,
    },
    /// A certificate that does not parse.
    #[error("certificate {number} of the signer's {part} does not parse: {reason}")]
    Malformed {
        /// Which part.
        part: Part,
        /// Counted from one.
        number: usize,
        /// What is wrong.
        reason: String,
    },
    /// Nobody's certificate, or somebody else's.
    #[error("none of the certificates that the signer returned is for the key that was made for this volume")]
    WrongKey,
    /// A name is not in the leaf.
    #[error("the certificate lacks names that were asked for: {}", .missing.join(", "))]
    MissingNames {
        /// As `DNS:`, `URI:` and `IP:` strings.
        missing: Vec<String>,
    },
    /// Past its end.
    #[error("the certificate of \"{subject}\" expired at {not_after}")]
    Expired {
        /// Of the certificate.
        subject: String,
        /// End of validity.
        not_after: Timestamp,
    },
    /// Before its beginning, by more than clocks may differ.
    #[error(
        "the certificate of \"{subject}\" is not valid before {not_before}: compare the clocks of node and signer"
    )]
    NotYetValid {
        /// Of the certificate.
        subject: String,
        /// Start of validity.
        not_before: Timestamp,
    },
    /// `is-ca` and the certificate disagree.
    #[error(
        "is-ca: {} was asked for and the certificate {} a CA's",
        if *.asked { "a CA" } else { "no CA" },
        if *.asked { "is not" } else { "is" }
    )]
    CaMismatch {
        /// Whether a CA was asked for.
        asked: bool,
    },
    /// A certificate in the middle that must not sign.
    #[error("the chain is broken: \"{subject}\" is not a CA and cannot have issued a certificate")]
    IssuerNotCa {
        /// Of the issuer.
        subject: String,
    },
    /// The names link up and the signature does not.
    #[error("the chain is broken: \"{subject}\" names \"{issuer}\" as its issuer, but {reason}")]
    BrokenLink {
        /// Of the certificate.
        subject: String,
        /// Whom it names.
        issuer: String,
        /// What is wrong.
        reason: String,
    },
    /// A certificate that has nothing to do with the leaf.
    #[error("the chain is broken: it holds a certificate of \"{subject}\" that does not link to the others")]
    Unrelated {
        /// Of that certificate.
        subject: String,
    },
    /// The chain ends elsewhere than at the signer's own trust anchors.
    #[error("the chain ends at \"{issuer}\", which is not among the trust anchors that the signer returned")]
    NotAnchored {
        /// The issuer that the chain's last certificate names.
        issuer: String,
    },
}

impl VerifyError {
    /// Whether the next certificate may be better without anybody changing anything.
    pub(super) fn may_pass(&self) -> bool {
        matches!(self, Self::Expired { .. } | Self::NotYetValid { .. })
    }
}
