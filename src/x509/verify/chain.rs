//! Orders certificates into a path: the leaf, then its issuer, and so on up to a root.

use super::error::{Part, VerifyError};
use crate::model::fingerprint;
use crate::x509::pem;
use crate::x509::signature::{self, SignatureError};
use crate::x509::{name, timestamp};
use der::asn1::{AnyRef, BitStringRef};
use der::{Decode, Reader, SliceReader, Tag, Tagged};
use jiff::{SignedDuration, Timestamp};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Version;

/// Maximum size of a signer's chain, and of its CA bundle, as PEM in bytes.
pub const MAX_CHAIN_BYTES: usize = 64 * 1024;
/// Maximum size of the subject and the alternative names that a volume may ask for, in bytes of DER: with them the signer's chain is
/// not over [`MAX_CHAIN_BYTES`]. A line of PEM holds 48 bytes in 65 characters. 16 KiB of PEM are left for everything else: up to 4
/// KiB for the leaf with key and signature of RSA 8192, and 12 KiB for the CA certificates, which is five of RSA 4096.
pub(crate) const MAX_NAMES_BYTES: usize = (MAX_CHAIN_BYTES - 16 * 1024) / 65 * 48;
/// Maximum number of certificates in a chain.
const MAX_CERTIFICATES: usize = 20;

/// How far in the future a certificate's validity may begin. The signer sets the beginning by its own clock: without the
/// tolerance, a node whose clock is a little behind would refuse every certificate. The end has no tolerance.
pub(super) const CLOCK_SKEW: SignedDuration = SignedDuration::from_secs(60);

/// The prefixes of the object identifiers of RSA, ECDSA and Ed25519, for keys and signatures.
const FAMILIES: [&str; 3] = ["1.2.840.113549.1.1.", "1.2.840.10045.", "1.3.101.112"];

/// The DER of every certificate in a PEM text, in order and without duplicates. A blank text holds none.
pub(super) fn decode(part: Part, text: &[u8]) -> Result<Vec<Vec<u8>>, VerifyError> {
    let unreadable = |reason| VerifyError::Unreadable(part, reason);
    if text.len() > MAX_CHAIN_BYTES {
        // Without its length: a signer may have cut it.
        return Err(unreadable(format!("is too long; accepted are at most {MAX_CHAIN_BYTES} bytes")));
    }
    if part == Part::Anchors && text.trim_ascii().is_empty() {
        return Ok(Vec::new());
    }
    let blocks = pem::blocks(text).map_err(|error| unreadable(format!("is not PEM: it {error}")))?;
    let mut certificates: Vec<Vec<u8>> = Vec::new();
    for block in blocks {
        if block.label != "CERTIFICATE" {
            let label: String = block.label.escape_debug().take(40).collect();
            return Err(unreadable(format!("holds a {label} block; accepted are only CERTIFICATE blocks")));
        }
        if !certificates.contains(&block.der) {
            certificates.push(block.der.to_vec());
        }
    }
    if part == Part::Chain && certificates.len() > MAX_CERTIFICATES {
        let count = certificates.len();
        return Err(unreadable(format!(
            "holds {count} certificates; accepted are at most {MAX_CERTIFICATES}"
        )));
    }
    Ok(certificates)
}

/// One certificate, parsed.
pub(super) struct Certificate<'a> {
    pub(super) der: &'a [u8],
    pub(super) x509: X509Certificate<'a>,
}

impl<'a> Certificate<'a> {
    /// Parses every certificate; one that does not parse fails all.
    pub(super) fn parse_all(part: Part, ders: &'a [Vec<u8>]) -> Result<Vec<Self>, VerifyError> {
        let parse = |(index, der): (usize, &'a Vec<u8>)| {
            let malformed = |reason| VerifyError::Malformed(part, index + 1, reason);
            let not_der = || malformed("it is not an X.509 certificate in DER".to_owned());
            let (rest, x509) = X509Certificate::from_der(der).map_err(|_| not_der())?;
            if !rest.is_empty() {
                return Err(malformed(format!("{} bytes follow the certificate", rest.len())));
            }
            if !algorithms_agree(der).map_err(|_| not_der())? {
                return Err(malformed("the signature algorithm inside it is not the one outside".to_owned()));
            }
            Ok(Self { der, x509 })
        };
        ders.iter().enumerate().map(parse).collect()
    }

    /// The subject, for people.
    pub(super) fn subject(&self) -> String {
        readable(name::to_rfc4514(self.x509.subject()))
    }

    pub(super) fn issuer(&self) -> String {
        readable(name::to_rfc4514(self.x509.issuer()))
    }

    pub(super) fn not_before(&self) -> Timestamp {
        timestamp(self.x509.validity().not_before)
    }

    pub(super) fn not_after(&self) -> Timestamp {
        timestamp(self.x509.validity().not_after)
    }

    /// Checks that its validity covers `now`, with the tolerance [`CLOCK_SKEW`] at the beginning.
    pub(super) fn check_validity(&self, now: Timestamp) -> Result<(), VerifyError> {
        let (not_before, not_after) = (self.not_before(), self.not_after());
        if now > not_after || not_before > not_after {
            return Err(VerifyError::Expired(self.subject(), not_after));
        }
        if not_before.duration_since(now) > CLOCK_SKEW {
            return Err(VerifyError::NotYetValid(self.subject(), not_before));
        }
        Ok(())
    }

    fn names_as_issuer(&self, other: &Certificate<'_>) -> bool {
        self.x509.issuer().as_raw() == other.x509.subject().as_raw()
    }

    fn check_signed_by(&self, issuer: &Certificate<'_>) -> Result<(), VerifyError> {
        self.verify_signature_of(issuer)
            .map_err(|error| VerifyError::BrokenLink(self.subject(), self.issuer(), error.to_string()))
    }

    fn verify_signature_of(&self, issuer: &Certificate<'_>) -> Result<(), SignatureError> {
        let certificate = &self.x509;
        let signed: &[u8] = certificate.tbs_certificate.as_ref();
        let key = issuer.x509.public_key();
        signature::verify(key, &certificate.signature_algorithm, &certificate.signature_value, signed)
    }

    /// Whether its key has signed that certificate, which names it as its issuer.
    pub(super) fn is_issuer_of(&self, certificate: &Certificate<'_>) -> bool {
        certificate.names_as_issuer(self) && certificate.verify_signature_of(self).is_ok()
    }

    fn is_self_signed(&self) -> bool {
        self.names_as_issuer(self) && self.verify_signature_of(self).is_ok()
    }

    /// Whether it is a root. The caller must have checked that its key signed the certificate below it.
    ///
    /// A trust anchor's own signature is not part of the path (RFC 5280 section 6.1). So if its algorithm is not accepted,
    /// such as SHA-1, names and key identifiers decide instead.
    fn is_root(&self) -> bool {
        self.names_as_issuer(self)
            && match self.verify_signature_of(self) {
                Ok(()) => true,
                Err(SignatureError::Unsupported(algorithm)) => {
                    self.may_have_signed_with(&algorithm) && self.names_own_key()
                }
                Err(SignatureError::KeySize(_) | SignatureError::Wrong) => false,
            }
    }

    /// Whether it names itself as its issuer, and no other key. So does OpenSSL tell a root; an anchor's signature says nothing more.
    pub(super) fn is_self_issued(&self) -> bool {
        self.names_as_issuer(self) && self.names_own_key()
    }

    /// Whether a key of this kind can sign with the algorithm. It cannot if an old root key of another kind signed this
    /// certificate.
    fn may_have_signed_with(&self, algorithm: &str) -> bool {
        let key = self.x509.public_key().algorithm.algorithm.to_id_string();
        FAMILIES.iter().all(|family| !algorithm.starts_with(family) || key.starts_with(family))
    }

    /// Whether its authority key identifier names its own key, or is missing (RFC 5280 section 4.2.1.1).
    fn names_own_key(&self) -> bool {
        let (mut own, mut issuers) = (None, None);
        for extension in self.x509.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => own = Some(id),
                ParsedExtension::AuthorityKeyIdentifier(ids) => issuers = ids.key_identifier.as_ref(),
                _ => {}
            }
        }
        issuers.is_none() || issuers == own
    }
}

/// The CA that has signed a certificate: a fingerprint of the name, and of the key if the certificate identifies it.
pub(super) fn issuing_ca(certificate: &Certificate<'_>) -> String {
    let key = certificate.x509.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(ids) => ids.key_identifier.as_ref().map(|key| key.0),
        _ => None,
    });
    fingerprint(&[certificate.x509.issuer().as_raw(), key.unwrap_or_default()])
}

/// Whether the outer signature algorithm equals the signed one byte by byte (RFC 5280 section 4.1.1.2). The signature does
/// not cover the outer one, and x509-parser accepts a damaged one. So the damage would reach the pod.
fn algorithms_agree(certificate: &[u8]) -> der::Result<bool> {
    let mut fields = SliceReader::new(AnyRef::from_der(certificate)?.value())?;
    let signed = AnyRef::decode(&mut fields)?;
    let outer = AnyRef::decode(&mut fields)?;
    BitStringRef::decode(&mut fields)?;
    fields.finish()?;

    let mut fields = SliceReader::new(signed.value())?;
    let version_or_serial = AnyRef::decode(&mut fields)?;
    if version_or_serial.tag() != Tag::Integer {
        AnyRef::decode(&mut fields)?;
    }
    Ok(AnyRef::decode(&mut fields)? == outer)
}

/// The path from the leaf to the top of the chain.
pub(super) struct Path<'p, 'a> {
    /// The leaf, then intermediates. The root is not among them, unless the leaf is the root.
    pub(super) certificates: Vec<&'p Certificate<'a>>,
    /// The root, if the chain has one. For a self-signed leaf: the leaf.
    pub(super) root: Option<&'p Certificate<'a>>,
    /// A certificate of the chain that has nothing to do with the leaf.
    pub(super) unrelated: Option<&'p Certificate<'a>>,
}

impl<'p, 'a> Path<'p, 'a> {
    /// Puts `chain` in order, beginning with `leaf`, and checks every link.
    pub(super) fn build(
        leaf: &'p Certificate<'a>,
        chain: &'p [Certificate<'a>],
        now: Timestamp,
    ) -> Result<Self, VerifyError> {
        let root = leaf.is_self_signed().then_some(leaf);
        let mut path = Self { certificates: vec![leaf], root, unrelated: None };
        let mut top = leaf;
        while path.root.is_none() {
            let Some(issuer) = path.issuer_of(top, chain)? else { break };
            let is_root = issuer.is_root();
            // A certificate of version 1 has no extensions; a root of version 1 is accepted (RFC 5280 section 6.1.4 (k)).
            let is_ca = issuer.x509.is_ca() || is_root && issuer.x509.version() == X509Version::V1;
            if !is_ca {
                return Err(VerifyError::IssuerNotCa(issuer.subject()));
            }
            issuer.check_validity(now)?;
            if is_root {
                path.root = Some(issuer);
            } else {
                path.certificates.push(issuer);
                top = issuer;
            }
        }
        path.unrelated = chain.iter().find(|certificate| !path.is_related(certificate, chain));
        Ok(path)
    }

    /// The issuer whose key signed `subject`, among the certificates that are not in the path yet.
    fn issuer_of(
        &self,
        subject: &Certificate<'a>,
        chain: &'p [Certificate<'a>],
    ) -> Result<Option<&'p Certificate<'a>>, VerifyError> {
        let in_path = |candidate: &Certificate<'_>| self.members().any(|member| member.der == candidate.der);
        let (mut best, mut failure) = (None, None);
        for candidate in chain.iter().filter(|it| subject.names_as_issuer(it) && !in_path(it)) {
            match subject.check_signed_by(candidate) {
                // A root is preferred to its cross-signed certificate, because it ends the path.
                Ok(()) if best.is_none() || candidate.names_as_issuer(candidate) => best = Some(candidate),
                Ok(()) => {}
                Err(error) => failure = Some(error),
            }
        }
        match (best, failure) {
            (None, Some(error)) => Err(error),
            (best, _) => Ok(best),
        }
    }

    fn members(&self) -> impl Iterator<Item = &'p Certificate<'a>> {
        self.certificates.iter().copied().chain(self.root)
    }

    /// Whether `certificate` belongs to the chain: it is in the path, has the same subject as a certificate in the path
    /// (cross-signed), or another certificate names it as issuer.
    fn is_related(&self, certificate: &Certificate<'a>, chain: &[Certificate<'a>]) -> bool {
        let subject = certificate.x509.subject().as_raw();
        self.members().any(|member| member.x509.subject().as_raw() == subject)
            || chain.iter().any(|other| other.der != certificate.der && other.names_as_issuer(certificate))
    }

    /// Checks that one of `anchors` is in the path or has signed a certificate of it.
    pub(super) fn check_anchored(
        &self,
        anchors: &[Certificate<'_>],
        now: Timestamp,
    ) -> Result<(), VerifyError> {
        let mut failure = None;
        for member in self.root.iter().chain(self.certificates.iter().rev()) {
            for anchor in anchors {
                let link = if member.der == anchor.der {
                    Ok(())
                } else if member.names_as_issuer(anchor) {
                    member.check_signed_by(anchor)
                } else {
                    continue;
                };
                match link.and_then(|()| anchor.check_validity(now)) {
                    Ok(()) => return Ok(()),
                    Err(error) => failure = failure.or(Some(error)),
                }
            }
        }
        Err(failure.unwrap_or_else(|| {
            let top = self.root.or(self.certificates.last().copied());
            VerifyError::NotAnchored(top.map(Certificate::issuer).unwrap_or_default())
        }))
    }
}

/// Cuts a name or an object identifier to 200 characters: enough for any real one, and short enough for a message.
pub(super) fn readable(name: String) -> String {
    if name.chars().count() <= 200 { name } else { name.chars().take(200).chain(['…']).collect() }
}
