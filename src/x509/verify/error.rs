//! What can be wrong with a signer's answer.

use super::additions::{Addition, described, listed};
use super::chain::readable;
use crate::model::named::named_enum;
use jiff::Timestamp;
use thiserror::Error;
use x509_parser::oid_registry::Oid;

named_enum! {
    /// The parts of a signer's answer.
    pub enum Part {
        /// The leaf, and the certificates that lead from it to a root.
        Chain = "chain",
        /// The trust anchors.
        Anchors = "CA bundle",
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
    /// No certificate is for the volume's key.
    #[error("none of the certificates that the signer returned is for the key that was made for this volume")]
    WrongKey,
    /// Requested names that the leaf lacks: `DNS:`, `URI:` and `IP:` strings.
    #[error("the certificate lacks names that were asked for: {}", listed(.0))]
    MissingNames(Vec<String>),
    /// What the leaf has although it was not asked for.
    #[error("{}; accepted under csi.certlet.io/ is what the volume asks for, and nothing else", described(.0))]
    NotAsked(Vec<Addition>),
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
    /// A certificate names its issuer, but its signature is not the issuer's: subject, issuer, and what is wrong.
    #[error("the chain is broken: \"{0}\" names \"{1}\" as its issuer, but {2}")]
    BrokenLink(String, String, String),
    /// A certificate that has nothing to do with the leaf: its subject.
    #[error("the chain is broken: it holds a certificate of \"{0}\" that does not link to the others")]
    Unrelated(String),
    /// The chain does not end at one of the signer's trust anchors: the last issuer.
    #[error("the chain ends at \"{0}\", which is not among the trust anchors that the signer returned")]
    NotAnchored(String),
}

impl VerifyError {
    /// An extension of the leaf that does not parse or that it has twice.
    pub(super) fn unreadable_extension(oid: &Oid<'_>) -> Self {
        let oid = readable(oid.to_string());
        Self::Malformed(Part::Chain, 1, format!("its extension {oid} does not parse, or is there twice"))
    }

    /// Whether the next answer can pass without a change of the configuration.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(self, Self::Expired(..) | Self::NotYetValid(..))
    }
}
