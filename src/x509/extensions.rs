//! Certificate extensions (RFC 5280 section 4.2): what a request asks for and a certificate carries.

use super::asn1::{self, tag};
use crate::attributes::{SubjectAltNames, Usage};
use const_oid::ObjectIdentifier;
use std::net::IpAddr;
use thiserror::Error;

pub(crate) const SUBJECT_KEY_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.14");
pub(crate) const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");
pub(crate) const SUBJECT_ALT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");
pub(crate) const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
pub(crate) const AUTHORITY_KEY_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.35");
pub(crate) const EXTENDED_KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37");

/// The `keyCertSign` bit.
pub(crate) const CERT_SIGN: u16 = 1 << 5;
/// The `cRLSign` bit.
pub(crate) const CRL_SIGN: u16 = 1 << 6;

/// One `Extension`.
pub(crate) fn extension(oid: &ObjectIdentifier, critical: bool, value: &[u8]) -> Vec<u8> {
    let critical = if critical { asn1::tlv(tag::BOOLEAN, &[&[0xff]]) } else { Vec::new() };
    asn1::sequence(&[&asn1::oid(oid), &critical, &asn1::octet_string(value)])
}

/// Subject alternative names, in Go's order: DNS, IP, URI.
pub(crate) fn subject_alt_names(names: &SubjectAltNames, critical: bool) -> Result<Vec<u8>, ExtensionError> {
    let text = |tag: u8, attribute: &'static str, name: &String| {
        if name.is_ascii() {
            Ok(asn1::tlv(tag, &[name.as_bytes()]))
        } else {
            Err(ExtensionError::NotAscii { attribute, name: name.clone() })
        }
    };
    let mut general_names = Vec::new();
    for name in &names.dns_names {
        general_names.push(text(0x82, "dns-names", name)?);
    }
    for address in &names.ip_addresses {
        general_names.push(asn1::tlv(0x87, &[&ip_octets(*address)]));
    }
    for uri in &names.uris {
        general_names.push(text(0x86, "uri-sans", uri)?);
    }
    Ok(extension(&SUBJECT_ALT_NAME, critical, &asn1::sequence_of(&general_names)))
}

/// An `iPAddress` name's octets. As in Go, an IPv4 address written as IPv6 counts as IPv4.
pub(crate) fn ip_octets(address: IpAddr) -> Vec<u8> {
    match address.to_canonical() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Key usage, critical, and extended key usage; each only where there is one. A CA also signs certificates.
pub(crate) fn usages(usages: &[Usage], is_ca: bool) -> Vec<Vec<u8>> {
    let mut flags = if is_ca { CERT_SIGN } else { 0 };
    let mut extended = Vec::new();
    for usage in usages {
        match meaning(*usage) {
            Meaning::Flag(flag) => flags |= flag,
            Meaning::Purpose(oid) => extended.push(asn1::oid(&oid)),
        }
    }
    let mut extensions = Vec::new();
    if flags != 0 {
        extensions.push(key_usage(flags));
    }
    if !extended.is_empty() {
        extensions.push(extension(&EXTENDED_KEY_USAGE, false, &asn1::sequence_of(&extended)));
    }
    extensions
}

/// Key usage from its flags, critical.
pub(crate) fn key_usage(flags: u16) -> Vec<u8> {
    extension(&KEY_USAGE, true, &asn1::named_bits(flags))
}

/// Basic constraints, critical, without a path length.
pub(crate) fn basic_constraints(is_ca: bool) -> Vec<u8> {
    let ca = if is_ca { asn1::tlv(tag::BOOLEAN, &[&[0xff]]) } else { Vec::new() };
    extension(&BASIC_CONSTRAINTS, true, &asn1::sequence(&[&ca]))
}

/// What a usage stands for in a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// A bit of key usage, bit 0 lowest.
    Flag(u16),
    /// A purpose of extended key usage.
    Purpose(ObjectIdentifier),
}

/// RFC 5280 sections 4.2.1.3 and 4.2.1.12.
pub(crate) fn meaning(usage: Usage) -> Meaning {
    const fn purpose(oid: &str) -> Meaning {
        Meaning::Purpose(ObjectIdentifier::new_unwrap(oid))
    }
    match usage {
        Usage::DigitalSignature => Meaning::Flag(1),
        Usage::ContentCommitment => Meaning::Flag(1 << 1),
        Usage::KeyEncipherment => Meaning::Flag(1 << 2),
        Usage::DataEncipherment => Meaning::Flag(1 << 3),
        Usage::KeyAgreement => Meaning::Flag(1 << 4),
        Usage::CertSign => Meaning::Flag(CERT_SIGN),
        Usage::CrlSign => Meaning::Flag(CRL_SIGN),
        Usage::EncipherOnly => Meaning::Flag(1 << 7),
        Usage::DecipherOnly => Meaning::Flag(1 << 8),
        Usage::Any => purpose("2.5.29.37.0"),
        Usage::ServerAuth => purpose("1.3.6.1.5.5.7.3.1"),
        Usage::ClientAuth => purpose("1.3.6.1.5.5.7.3.2"),
        Usage::CodeSigning => purpose("1.3.6.1.5.5.7.3.3"),
        Usage::EmailProtection => purpose("1.3.6.1.5.5.7.3.4"),
        Usage::IpsecEndSystem => purpose("1.3.6.1.5.5.7.3.5"),
        Usage::IpsecTunnel => purpose("1.3.6.1.5.5.7.3.6"),
        Usage::IpsecUser => purpose("1.3.6.1.5.5.7.3.7"),
        Usage::Timestamping => purpose("1.3.6.1.5.5.7.3.8"),
        Usage::OcspSigning => purpose("1.3.6.1.5.5.7.3.9"),
        Usage::MicrosoftSgc => purpose("1.3.6.1.4.1.311.10.3.3"),
        Usage::NetscapeSgc => purpose("2.16.840.1.113730.4.1"),
    }
}

/// What cannot be put into an extension.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ExtensionError {
    /// DNS names and URIs are ASCII in a certificate.
    #[error(
        "{attribute}: \"{name}\" has characters outside ASCII; write an internationalised name in its xn-- form"
    )]
    NotAscii {
        /// The attribute.
        attribute: &'static str,
        /// The name as it was given.
        name: String,
    },
}
