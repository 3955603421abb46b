//! Verifies what a signer returns: the leaf is for our key, has what was asked for and no more, is valid now, and its chain
//! links up.

mod additions;
mod anchors;
mod chain;
mod error;
mod lead;

use super::extensions::{self, Meaning};
use super::{name, serial_number};
use crate::model::{CertificateFacts, CertificateSpec, Dialect, SubjectAltNames, Usage, hex};
pub use additions::Addition;
use additions::{additions, check_extensions, described};
pub(crate) use anchors::{Anchors, Candidate, MAX_ANCHORS_BYTES, usable_anchors, usable_certificates};
pub use chain::MAX_CHAIN_BYTES;
pub(crate) use chain::MAX_NAMES_BYTES;
use chain::{Certificate, Path, decode};
use der::Decode;
use der::flagset::FlagSet;
pub use error::{Part, VerifyError};
use jiff::Timestamp;
pub(crate) use lead::{Lead, lead, subject_of};
use std::net::IpAddr;
use x509_cert::ext::pkix::ExtendedKeyUsage;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::OID_X509_EXT_EXTENDED_KEY_USAGE;
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

/// A chain that passed [`verify()`]: it fits the key that it was requested for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedChain {
    /// The leaf, DER.
    pub leaf: Vec<u8>,
    /// From the leaf's issuer upwards, DER, without a self-signed root.
    pub intermediates: Vec<Vec<u8>>,
    /// The trust anchors that the signer returned. If it returned none: the chain's root or the self-signed leaf, if there
    /// is one.
    pub trust_anchors: Vec<Vec<u8>>,
    /// The leaf's facts.
    pub facts: CertificateFacts,
    /// What the pod's author should know although the chain is accepted.
    pub warning: Option<String>,
}

/// What a signer answered, and what is known of the signer.
#[derive(Clone, Copy, Debug)]
pub struct SignerAnswer<'a> {
    /// PEM certificates: the leaf and its issuers, in any order.
    pub chain: &'a [u8],
    /// PEM certificates of the trust anchors, if the signer returns them separately.
    pub ca: Option<&'a [u8]>,
    /// Usages that the signer's template sets, whatever is asked. They count as asked for.
    pub template_usages: &'a [Usage],
}

/// Checks a signer's answer against the key (`SubjectPublicKeyInfo`, DER) and the volume's spec, and puts the chain in
/// order.
///
/// What the leaf has beyond the spec, or lacks of it, is refused under certlet's own prefix. Under a peer's prefix it is a warning,
/// because issuers that add or drop names are in use there. A CA certificate that was not asked for is refused under every prefix.
pub fn verify(
    answer: &SignerAnswer<'_>,
    spki: &[u8],
    spec: &CertificateSpec,
    now: Timestamp,
) -> Result<VerifiedChain, VerifyError> {
    let chain = decode(Part::Chain, answer.chain)?;
    let anchors = decode(Part::Anchors, answer.ca.unwrap_or_default())?;
    let certificates = Certificate::parse_all(Part::Chain, &chain)?;
    let trusted = Certificate::parse_all(Part::Anchors, &anchors)?;

    let leaf = leaf_of(&certificates, spki).ok_or(VerifyError::WrongKey)?;
    leaf.check_validity(now)?;
    check_extensions(leaf)?;
    let names = names_of(leaf)?;
    if leaf.x509.is_ca() && !spec.is_ca {
        return Err(VerifyError::IsCa);
    }
    let mut differences = Differences { dialect: spec.dialect, served: Vec::new() };
    differences.check(check_names(&names, &spec.sans))?;
    differences.check(if leaf.x509.is_ca() == spec.is_ca { Ok(()) } else { Err(VerifyError::NotCa) })?;
    let additions = additions(leaf, &names, spec, answer.template_usages)?;
    if !spec.dialect.is_peers() && !additions.is_empty() {
        return Err(VerifyError::NotAsked(additions));
    }
    let path = Path::build(leaf, &certificates, now)?;
    let unrelated = path.unrelated.map(|certificate| VerifyError::Unrelated(certificate.subject()));
    differences.check(unrelated.map_or(Ok(()), Err))?;
    if !trusted.is_empty() {
        path.check_anchored(&trusted, now)?;
        if !trusted.iter().any(Certificate::is_self_issued) {
            differences.served.push(NO_ROOT.to_owned());
        }
    }

    let intermediates =
        path.certificates.iter().skip(1).map(|certificate| certificate.der.to_vec()).collect();
    let trust_anchors = if anchors.is_empty() {
        path.root.iter().map(|root| root.der.to_vec()).collect()
    } else {
        anchors.clone()
    };
    Ok(VerifiedChain {
        leaf: leaf.der.to_vec(),
        intermediates,
        trust_anchors,
        facts: facts_of(leaf, &names),
        warning: warning(leaf, &spec.usages, &additions, differences.served, now),
    })
}

/// What is said if none of the trust anchors is self-signed.
const NO_ROOT: &str = "the CA that the issuer names is not self-signed: peers that use OpenSSL need its root as well, in a bundle of \
     their own, or X509_V_FLAG_PARTIAL_CHAIN";

/// How an answer differs from what was asked for.
struct Differences {
    dialect: Dialect,
    /// What is served all the same.
    served: Vec<String>,
}

impl Differences {
    /// Under a peer's prefix the answer is served all the same, as by the peer.
    fn check(&mut self, result: Result<(), VerifyError>) -> Result<(), VerifyError> {
        match result {
            Err(difference) if self.dialect.is_peers() => {
                self.served.push(difference.to_string());
                Ok(())
            }
            result => result,
        }
    }
}

/// The certificate for our key. A reused key can have several: then the one that expires last.
fn leaf_of<'p, 'a>(certificates: &'p [Certificate<'a>], spki: &[u8]) -> Option<&'p Certificate<'a>> {
    let (_, ours) = SubjectPublicKeyInfo::from_der(spki).ok()?;
    let is_ours = |certificate: &&Certificate<'_>| {
        let theirs = certificate.x509.public_key();
        // Some signers encode the algorithm's parameters in another way. Only the key itself must be equal.
        theirs.raw == spki
            || (theirs.algorithm.algorithm == ours.algorithm.algorithm
                && theirs.subject_public_key == ours.subject_public_key)
    };
    certificates.iter().filter(is_ours).max_by_key(|certificate| certificate.not_after())
}

/// The leaf's alternative names, as `DNS:`, `URI:` and `IP:` strings. Other kinds have the prefixes of openssl.
fn names_of(leaf: &Certificate<'_>) -> Result<Vec<String>, VerifyError> {
    let extension = leaf.x509.subject_alternative_name().map_err(|_| {
        VerifyError::Malformed(Part::Chain, 1, "its subject alternative names do not parse".to_owned())
    })?;
    let general_names = extension.iter().flat_map(|extension| &extension.value.general_names);
    let names = general_names.map(|general_name| match general_name {
        GeneralName::DNSName(text) => format!("DNS:{}", printable(text)),
        GeneralName::URI(text) => format!("URI:{}", printable(text)),
        GeneralName::IPAddress(octets) => ip_address(octets)
            .map_or_else(|| format!("IP:#{}", hex(octets)), |address| format!("IP:{address}")),
        GeneralName::RFC822Name(text) => format!("email:{}", printable(text)),
        GeneralName::DirectoryName(directory) => format!("dirName:{}", name::to_rfc4514(directory)),
        GeneralName::RegisteredID(oid) => format!("RID:{oid}"),
        GeneralName::OtherName(oid, value) => format!("othername:{oid}#{}", hex(value)),
        GeneralName::X400Address(any) => format!("X400Name:#{}", hex(any.data)),
        GeneralName::EDIPartyName(any) => format!("EdiPartyName:#{}", hex(any.data)),
        GeneralName::Invalid(tag, value) => format!("invalid:{}#{}", tag.0, hex(value)),
    });
    Ok(names.collect())
}

fn ip_address(octets: &[u8]) -> Option<IpAddr> {
    let ipv4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    ipv4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).ok()
}

/// Names go to logs and tables: control characters are escaped.
fn printable(text: &str) -> String {
    let escape = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escape).collect()
}

/// The names of a spec, in the form of [`names_of`].
fn asked_names(asked: &SubjectAltNames) -> impl Iterator<Item = String> {
    let dns = asked.dns_names.iter().map(|name| format!("DNS:{}", printable(name)));
    let uris = asked.uris.iter().map(|uri| format!("URI:{}", printable(uri)));
    let addresses = asked.ip_addresses.iter().map(|address| format!("IP:{}", address.to_canonical()));
    let emails = asked.emails.iter().map(|name| format!("email:{name}"));
    dns.chain(uris).chain(addresses).chain(emails)
}

/// The case of a DNS name does not matter (RFC 5280 section 7.2), that of a URI does.
fn is_same_name(name: &str, asked: &str) -> bool {
    name == asked || (asked.starts_with("DNS:") && name.eq_ignore_ascii_case(asked))
}

fn check_names(names: &[String], asked: &SubjectAltNames) -> Result<(), VerifyError> {
    let is_there = |asked: &String| names.iter().any(|name| is_same_name(name, asked));
    let missing: Vec<_> = asked_names(asked).filter(|asked| !is_there(asked)).collect();
    if missing.is_empty() { Ok(()) } else { Err(VerifyError::MissingNames(missing)) }
}

/// The facts of the first certificate in a PEM text; `None` without a certificate.
pub(crate) fn facts_of_pem(pem: &[u8]) -> Option<CertificateFacts> {
    let ders = decode(Part::Chain, pem).ok()?;
    let certificates = Certificate::parse_all(Part::Chain, &ders).ok()?;
    let leaf = certificates.first()?;
    Some(facts_of(leaf, &names_of(leaf).ok()?))
}

fn facts_of(leaf: &Certificate<'_>, names: &[String]) -> CertificateFacts {
    CertificateFacts {
        serial: serial_number(leaf.x509.raw_serial()),
        subject: name::to_rfc4514(leaf.x509.subject()),
        sans: names.to_vec(),
        not_before: leaf.not_before(),
        not_after: leaf.not_after(),
    }
}

/// What the pod's author should know. An issuer may change the usages, so a missing one is not an error.
fn warning(
    leaf: &Certificate<'_>,
    asked: &[Usage],
    additions: &[Addition],
    mut warnings: Vec<String>,
    now: Timestamp,
) -> Option<String> {
    if !additions.is_empty() {
        warnings.push(described(additions));
    }
    let missing: Vec<_> =
        asked.iter().filter(|usage| !has_usage(leaf, **usage)).map(|usage| usage.as_str()).collect();
    if !missing.is_empty() {
        warnings.push(format!("the signer left out usages that were asked for: {}", missing.join(", ")));
    }
    if leaf.not_before() > now {
        warnings.push(format!(
            "by this node's clock the certificate is valid only from {}: compare the clocks of node and signer",
            leaf.not_before()
        ));
    }
    (!warnings.is_empty()).then(|| warnings.join("; "))
}

fn has_usage(leaf: &Certificate<'_>, usage: Usage) -> bool {
    match extensions::meaning(usage) {
        Meaning::Flag(flag) => {
            let usage = leaf.x509.key_usage().ok().flatten();
            usage.is_some_and(|extension| extension.value.flags & FlagSet::from(flag).bits() != 0)
        }
        Meaning::Purpose(oid) => {
            let usage = leaf.x509.get_extension_unique(&OID_X509_EXT_EXTENDED_KEY_USAGE).ok().flatten();
            let purposes = usage.and_then(|extension| ExtendedKeyUsage::from_der(extension.value).ok());
            purposes.is_some_and(|purposes| purposes.0.contains(&oid))
        }
    }
}

#[cfg(test)]
mod tests;
