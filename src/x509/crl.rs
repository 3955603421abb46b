//! Certificate revocation lists (RFC 5280 section 5): what a list says of itself, and which CA has signed it.
//!
//! The entries are walked and not kept: a list of 100,000 entries has some megabytes, and their decoded form would have many more.

use super::signature::{self, SignatureError};
use super::{name, pem, timestamp};
use crate::model::{hex, sha256};
use jiff::{SignedDuration, Timestamp};
use std::fmt;
use thiserror::Error;
use x509_parser::asn1_rs::{Any, BitString};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{
    DistributionPointName, GeneralName, IssuingDistributionPoint, ParsedExtension, X509Extension,
};
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;
use x509_parser::x509::{AlgorithmIdentifier, X509Name};

/// The label of a list in PEM (RFC 7468 section 7).
pub(crate) const LABEL: &str = "X509 CRL";
/// Maximum number of lists in one text.
const MAX_LISTS: usize = 32;
/// Maximum length of a CRL number, in bytes (RFC 5280 section 5.2.3).
const MAX_NUMBER: usize = 20;
/// How far in the future a list may begin, because of another clock at the CA.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_secs(60);

/// The first byte of DER: the tags of what a list is made of.
const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const EXTENSIONS: u8 = 0xa0;

/// Extensions of a list that certlet or its consumers understand (RFC 5280 section 5.2).
const NUMBER: &str = "2.5.29.20";
const DELTA: &str = "2.5.29.27";
const DISTRIBUTION_POINT: &str = "2.5.29.28";
const UNDERSTOOD: [&str; 4] = ["2.5.29.35", "2.5.29.18", "2.5.29.46", "1.3.6.1.5.5.7.1.1"];

/// A well-formed certificate revocation list. Who signed it is another question: [`CrlSigner::check`].
#[derive(Clone)]
pub struct Crl {
    der: Vec<u8>,
    digest: [u8; 32],
    issuer: Vec<u8>,
    issuer_text: String,
    this_update: Timestamp,
    next_update: Timestamp,
    /// Without leading zeros; none: the CA does not number its lists.
    number: Option<Vec<u8>>,
    /// The value of the issuing distribution point; empty: all certificates of the issuer.
    scope: Vec<u8>,
    /// The URIs of the issuing distribution point; none: it names no point.
    points: Option<Vec<String>>,
    entries: usize,
}

/// Why a list is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CrlError {
    /// The text is neither PEM nor DER.
    #[error("holds no CRL in PEM or DER: it {0}")]
    Unreadable(String),
    /// A block of another kind.
    #[error("holds a {0} block; accepted are only X509 CRL blocks")]
    AnotherBlock(String),
    /// More than [`MAX_LISTS`].
    #[error("holds more than {MAX_LISTS} CRLs")]
    TooMany,
    /// The structure is not that of RFC 5280 section 5.1.
    #[error("is not a CRL: {0}")]
    Malformed(&'static str),
    /// Nobody would know when it is stale.
    #[error("does not say when the next one comes (nextUpdate)")]
    NoNextUpdate,
    /// A delta.
    #[error("is a delta CRL; accepted are complete ones")]
    Delta,
    /// Its entries are of several issuers.
    #[error("is an indirect CRL; accepted are those of one issuer")]
    Indirect,
    /// It has no certificates of public keys.
    #[error("is of attribute certificates only")]
    AttributeCertificates,
    /// It lists a part of what is revoked.
    #[error("is for some reasons of revocation only; accepted are those for all reasons")]
    SomeReasons,
    /// Whoever does not understand it may not use the list.
    #[error("has the critical extension {0}, which certlet does not know")]
    CriticalExtension(String),
    /// It is for certificates that name another distribution point.
    #[error("is for another distribution point than the one it comes from")]
    AnotherPoint,
    /// It begins in the future.
    #[error("is valid only from {0:.0}")]
    NotYetValid(Timestamp),
    /// It has ended.
    #[error("has expired at {0:.0}")]
    Expired(Timestamp),
    /// It is older than the one that is there.
    #[error("is older than the one in use ({0}), which stays")]
    Older(String),
    /// The signature.
    #[error("of {0} is refused: {1}")]
    Signature(String, SignatureText),
}

/// What is wrong with a signature.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct SignatureText(String);

/// The parts of a list, not decoded.
struct Parts<'a> {
    signed: &'a [u8],
    algorithm: &'a [u8],
    signature: &'a [u8],
    issuer: &'a [u8],
    this_update: Timestamp,
    next_update: Option<Timestamp>,
    entries: usize,
    /// The contents of the extensions' sequence; empty without any.
    extensions: &'a [u8],
}

impl Crl {
    /// Reads every list of a text: PEM blocks, or DER one after the other. There is at least one.
    pub fn read_all(text: &[u8]) -> Result<Vec<Self>, CrlError> {
        let ders = if text.first() == Some(&SEQUENCE) { split(text)? } else { decoded(text)? };
        ders.into_iter().map(Self::new).collect()
    }

    fn new(der: Vec<u8>) -> Result<Self, CrlError> {
        let parts = Parts::of(&der).ok_or(CrlError::Malformed("it does not parse"))?;
        let issuer = X509Name::from_der(parts.issuer).map_err(|_| CrlError::Malformed("its issuer"))?.1;
        let mut crl = Self {
            digest: sha256(&[&der]),
            issuer: parts.issuer.to_vec(),
            issuer_text: name::to_rfc4514(&issuer).chars().take(200).collect(),
            this_update: parts.this_update,
            next_update: parts.next_update.ok_or(CrlError::NoNextUpdate)?,
            number: None,
            scope: Vec::new(),
            points: None,
            entries: parts.entries,
            der: Vec::new(),
        };
        crl.read_extensions(parts.extensions)?;
        if crl.next_update < crl.this_update {
            return Err(CrlError::Malformed("it ends before it begins"));
        }
        crl.der = der;
        Ok(crl)
    }

    fn read_extensions(&mut self, mut rest: &[u8]) -> Result<(), CrlError> {
        while !rest.is_empty() {
            let (after, extension) =
                X509Extension::from_der(rest).map_err(|_| CrlError::Malformed("its extensions"))?;
            rest = after;
            let oid = extension.oid.to_id_string();
            match oid.as_str() {
                NUMBER => {
                    self.number = Some(number(extension.value).ok_or(CrlError::Malformed("its number"))?);
                }
                DELTA => return Err(CrlError::Delta),
                DISTRIBUTION_POINT => {
                    let ParsedExtension::IssuingDistributionPoint(point) = extension.parsed_extension()
                    else {
                        return Err(CrlError::Malformed("its issuing distribution point"));
                    };
                    self.scope = extension.value.to_vec();
                    self.points = points(point)?;
                }
                oid if extension.critical && !UNDERSTOOD.contains(&oid) => {
                    return Err(CrlError::CriticalExtension(oid.chars().take(80).collect()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The list itself.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// SHA-256 of the list.
    pub(crate) fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// When the CA makes the next one at the latest.
    pub(crate) fn next_update(&self) -> Timestamp {
        self.next_update
    }

    /// Its issuer, number and end, for people.
    pub(crate) fn describe(&self) -> String {
        let number = self.number.as_ref().map(|number| format!(", number {}", hex(number)));
        format!(
            "{}{}, of {:.0}, until {:.0}, {} entries",
            self.issuer_text,
            number.unwrap_or_default(),
            self.this_update,
            self.next_update,
            self.entries
        )
    }

    /// Checks that it can be used now.
    pub(crate) fn check_time(&self, now: Timestamp) -> Result<(), CrlError> {
        if self.next_update <= now {
            return Err(CrlError::Expired(self.next_update));
        }
        if self.this_update.duration_since(now) > CLOCK_SKEW {
            return Err(CrlError::NotYetValid(self.this_update));
        }
        Ok(())
    }

    /// Checks that it may come from this URL; none: from a file or an object of the operator, who answers for it.
    ///
    /// A list for one distribution point must name that point (RFC 5280 section 6.3.3 (b) (2)). Otherwise whoever controls the network
    /// could give the list of one partition in place of another.
    pub(crate) fn check_point(&self, url: Option<&str>) -> Result<(), CrlError> {
        match (url, &self.points) {
            (Some(url), Some(points)) if !points.iter().any(|point| point == url) => {
                Err(CrlError::AnotherPoint)
            }
            _ => Ok(()),
        }
    }

    /// Whether both are for the same certificates of the same issuer.
    pub(crate) fn has_same_scope(&self, other: &Self) -> bool {
        self.issuer == other.issuer && self.scope == other.scope
    }

    /// Whether it is older than another list of the same issuer. Numbers decide, and times where the CA does not number its lists.
    pub(crate) fn is_older_than(&self, other: &Self) -> bool {
        let by_time = self.this_update < other.this_update;
        match (&self.number, &other.number) {
            (Some(ours), Some(theirs)) => {
                let order = (ours.len(), ours).cmp(&(theirs.len(), theirs));
                order.is_lt() || order.is_eq() && by_time
            }
            (None, Some(_)) => true,
            (_, None) => by_time,
        }
    }
}

/// Lists are equal if their bytes are.
impl PartialEq for Crl {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for Crl {}

impl fmt::Debug for Crl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Crl({})", self.describe())
    }
}

/// A CA certificate whose key may sign lists.
#[derive(Debug)]
pub(crate) struct CrlSigner {
    id: [u8; 32],
    der: Vec<u8>,
    subject: Vec<u8>,
}

impl CrlSigner {
    /// None if it is no certificate, or if its key usage does not have `crl sign` (RFC 5280 section 4.2.1.3).
    pub(crate) fn new(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let usage = certificate.key_usage().ok()?;
        if usage.is_some_and(|usage| !usage.value.crl_sign()) {
            return None;
        }
        let subject = certificate.subject().as_raw().to_vec();
        // A CA whose certificate is renewed with the same key stays the same.
        let id = sha256(&[&sha256(&[&subject]), certificate.public_key().raw]);
        Some(Self { id, der: der.to_vec(), subject })
    }

    /// Depends on its name and key only.
    pub(crate) fn id(&self) -> &[u8; 32] {
        &self.id
    }

    /// Whether the list names it as its issuer.
    pub(crate) fn is_named_by(&self, crl: &Crl) -> bool {
        self.subject == crl.issuer
    }

    /// Checks that its key has signed the list.
    pub(crate) fn check(&self, crl: &Crl) -> Result<(), CrlError> {
        let refused = |error: SignatureError| {
            CrlError::Signature(crl.issuer_text.clone(), SignatureText(error.to_string()))
        };
        let malformed = CrlError::Malformed("its signature");
        let parts = Parts::of(&crl.der).ok_or_else(|| malformed.clone())?;
        let (_, certificate) = X509Certificate::from_der(&self.der).map_err(|_| malformed.clone())?;
        let (_, algorithm) = AlgorithmIdentifier::from_der(parts.algorithm).map_err(|_| malformed.clone())?;
        let (_, signature) = BitString::from_der(parts.signature).map_err(|_| malformed)?;
        signature::verify(certificate.public_key(), &algorithm, &signature, parts.signed).map_err(refused)
    }
}

/// The URLs of a certificate's distribution points (RFC 5280 section 4.2.1.13) that hold complete lists of its issuer.
pub(crate) fn distribution_points(certificate: &[u8]) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return Vec::new() };
    let of_extension = |extension: &X509Extension<'_>| match extension.parsed_extension() {
        ParsedExtension::CRLDistributionPoints(points) => {
            let points = points.points.iter();
            let complete = points.filter(|point| point.reasons.is_none() && point.crl_issuer.is_none());
            complete.filter_map(|point| point.distribution_point.as_ref()).flat_map(uris).collect()
        }
        _ => Vec::new(),
    };
    certificate.extensions().iter().flat_map(of_extension).collect()
}

/// The URIs of a distribution point's name.
fn uris(name: &DistributionPointName<'_>) -> Vec<String> {
    let DistributionPointName::FullName(names) = name else { return Vec::new() };
    let uri = |name: &GeneralName<'_>| match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    };
    names.iter().filter_map(uri).collect()
}

/// The URIs of an issuing distribution point, if the list can be used.
fn points(point: &IssuingDistributionPoint<'_>) -> Result<Option<Vec<String>>, CrlError> {
    if point.indirect_crl {
        return Err(CrlError::Indirect);
    }
    if point.only_contains_attribute_certs {
        return Err(CrlError::AttributeCertificates);
    }
    if point.only_some_reasons.is_some() {
        return Err(CrlError::SomeReasons);
    }
    Ok(point.distribution_point.as_ref().map(uris))
}

/// The bytes of a positive INTEGER, without leading zeros.
fn number(der: &[u8]) -> Option<Vec<u8>> {
    let Element { raw, contents, rest } = element(der)?;
    let is_negative = contents.first().is_none_or(|first| *first >= 0x80);
    if raw.first() != Some(&INTEGER) || !rest.is_empty() || is_negative {
        return None;
    }
    let digits: Vec<u8> = contents.iter().copied().skip_while(|byte| *byte == 0).collect();
    (digits.len() <= MAX_NUMBER).then_some(digits)
}

/// One element of DER at the beginning of a text.
struct Element<'a> {
    raw: &'a [u8],
    contents: &'a [u8],
    rest: &'a [u8],
}

fn element(text: &[u8]) -> Option<Element<'_>> {
    let (rest, any) = Any::from_der(text).ok()?;
    Some(Element { raw: &text[..text.len() - rest.len()], contents: any.data, rest })
}

/// An element with this tag.
fn tagged(text: &[u8], tag: u8) -> Option<Element<'_>> {
    element(text).filter(|element| element.raw.first() == Some(&tag))
}

impl<'a> Parts<'a> {
    /// `CertificateList` (RFC 5280 section 5.1). None if the bytes are not one, or if anything follows it.
    fn of(der: &'a [u8]) -> Option<Self> {
        let list = tagged(der, SEQUENCE).filter(|list| list.rest.is_empty())?;
        let signed = tagged(list.contents, SEQUENCE)?;
        let algorithm = tagged(signed.rest, SEQUENCE)?;
        let signature = element(algorithm.rest).filter(|signature| signature.rest.is_empty())?;
        let mut rest = signed.contents;
        if let Some(version) = tagged(rest, INTEGER) {
            // v2
            rest = Some(version.rest).filter(|_| version.contents == [1])?;
        }
        // The signature covers the inner algorithm only, so both must be the same (RFC 5280 section 5.1.1.2).
        let inner = tagged(rest, SEQUENCE).filter(|inner| inner.raw == algorithm.raw)?;
        let issuer = tagged(inner.rest, SEQUENCE)?;
        let (this_update, mut rest) = time(issuer.rest)?;
        let mut next_update = None;
        if let Some((time, after)) = time(rest) {
            (next_update, rest) = (Some(time), after);
        }
        let mut entries = 0;
        if let Some(revoked) = tagged(rest, SEQUENCE) {
            (entries, rest) = (count_entries(revoked.contents)?, revoked.rest);
        }
        let mut extensions = [].as_slice();
        if let Some(tagged_extensions) = tagged(rest, EXTENSIONS) {
            let sequence = tagged(tagged_extensions.contents, SEQUENCE)?;
            extensions = Some(sequence.contents).filter(|_| sequence.rest.is_empty())?;
            rest = tagged_extensions.rest;
        }
        rest.is_empty().then_some(Self {
            signed: signed.raw,
            algorithm: algorithm.raw,
            signature: signature.raw,
            issuer: issuer.raw,
            this_update,
            next_update,
            entries,
            extensions,
        })
    }
}

/// The number of entries, each a serial number and a time with or without more. Nothing is allocated for them.
fn count_entries(mut rest: &[u8]) -> Option<usize> {
    let mut count = 0;
    while !rest.is_empty() {
        let entry = tagged(rest, SEQUENCE)?;
        let serial = tagged(entry.contents, INTEGER)?;
        if !matches!(serial.rest.first(), Some(&(UTC_TIME | GENERALIZED_TIME))) {
            return None;
        }
        (count, rest) = (count + 1, entry.rest);
    }
    Some(count)
}

fn time(text: &[u8]) -> Option<(Timestamp, &[u8])> {
    if !matches!(text.first(), Some(&(UTC_TIME | GENERALIZED_TIME))) {
        return None;
    }
    let (rest, time) = ASN1Time::from_der(text).ok()?;
    Some((timestamp(time), rest))
}

/// Lists in DER, one after the other.
fn split(mut text: &[u8]) -> Result<Vec<Vec<u8>>, CrlError> {
    let mut lists = Vec::new();
    while !text.is_empty() {
        if lists.len() == MAX_LISTS {
            return Err(CrlError::TooMany);
        }
        let list =
            tagged(text, SEQUENCE).ok_or(CrlError::Malformed("it is cut off, or something follows it"))?;
        lists.push(list.raw.to_vec());
        text = list.rest;
    }
    Ok(lists)
}

/// Lists in PEM.
fn decoded(text: &[u8]) -> Result<Vec<Vec<u8>>, CrlError> {
    // Counted before they are decoded, because the decoder allocates the size of the text for each.
    const BEGIN: &[u8] = b"-----BEGIN ";
    let begins = text.split(|byte| *byte == b'\n').filter(|line| line.trim_ascii().starts_with(BEGIN));
    if begins.count() > MAX_LISTS {
        return Err(CrlError::TooMany);
    }
    let blocks = pem::blocks(text).map_err(|error| CrlError::Unreadable(error.to_string()))?;
    let der = |block: pem::Block| {
        if block.label == LABEL {
            Ok(block.der.to_vec())
        } else {
            Err(CrlError::AnotherBlock(block.label.escape_debug().take(40).collect()))
        }
    };
    blocks.into_iter().map(der).collect()
}

/// Lists in PEM, one block each.
pub(crate) fn to_pem<'a>(crls: impl IntoIterator<Item = &'a Crl>) -> Vec<u8> {
    let mut out = Vec::new();
    for crl in crls {
        out.reserve(pem::encoded_len(LABEL, &crl.der));
        pem::encode_into(&mut out, LABEL, &crl.der);
    }
    out
}

#[cfg(test)]
mod tests;
