//! Where a verified chain leads: its issuing CA, its end, and the trust anchor among those of a pod.

use super::chain::{Certificate, issuing_ca};
use super::error::{Part, VerifyError};
use jiff::Timestamp;

/// Where a chain leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lead {
    /// The index of the anchor; none: none of them.
    pub(crate) anchor: Option<usize>,
    /// The subject of the anchor, or else the issuer that the chain's last certificate names.
    pub(crate) root: String,
    /// The CA that has signed the leaf: its name and key, as a fingerprint.
    pub(crate) issuing_ca: String,
    /// When the first of the certificates above the leaf expires, the anchor included; none without any.
    pub(crate) not_after: Option<Timestamp>,
}

/// The subject of a certificate, DER, for people; empty if it cannot be read.
pub(crate) fn subject_of(der: &[u8]) -> String {
    anchor(&der.to_vec()).map(|certificate| certificate.subject()).unwrap_or_default()
}

/// Where a chain leads that [`verify()`](super::verify()) has put in order. Of several anchors it is the highest, and of those the one
/// that expires last. What is no certificate is no anchor.
pub(crate) fn lead(leaf: &[u8], intermediates: &[Vec<u8>], anchors: &[Vec<u8>]) -> Result<Lead, VerifyError> {
    let chain: Vec<Vec<u8>> = std::iter::once(leaf.to_vec()).chain(intermediates.iter().cloned()).collect();
    let chain = Certificate::parse_all(Part::Chain, &chain)?;
    // Of hundreds of anchors few have the name of an issuer, and only these are parsed.
    let may_be_above = |der: &[u8]| {
        chain.iter().any(|certificate| {
            let issuer = certificate.x509.issuer().as_raw();
            certificate.der == der || der.windows(issuer.len().max(1)).any(|part| part == issuer)
        })
    };
    let anchors: Vec<_> = anchors
        .iter()
        .enumerate()
        .filter(|(_, der)| may_be_above(der))
        .filter_map(|(index, der)| Some((index, anchor(der)?)))
        .collect();
    let is_above = |certificate: &Certificate<'_>, anchor: &Certificate<'_>| {
        anchor.der == certificate.der || anchor.is_issuer_of(certificate)
    };
    let found = chain.iter().rev().find_map(|certificate| {
        let above = anchors.iter().filter(|(_, anchor)| is_above(certificate, anchor));
        above.max_by_key(|(_, anchor)| anchor.not_after())
    });
    let ends = chain.iter().skip(1).chain(found.iter().map(|(_, anchor)| anchor)).map(Certificate::not_after);
    Ok(Lead {
        anchor: found.map(|(index, _)| *index),
        root: match (found, chain.last()) {
            (Some((_, anchor)), _) => anchor.subject(),
            (None, Some(last)) => last.issuer(),
            (None, None) => String::new(),
        },
        issuing_ca: chain.first().map(issuing_ca).unwrap_or_default(),
        not_after: ends.min(),
    })
}

fn anchor(der: &Vec<u8>) -> Option<Certificate<'_>> {
    Certificate::parse_all(Part::Anchors, std::slice::from_ref(der)).ok()?.into_iter().next()
}
