//! Certificate extensions (RFC 5280 section 4.2), for requests and certificates.

use super::RequestError;
use crate::model::{SubjectAltNames, Usage};
use const_oid::ObjectIdentifier;
use der::asn1::Ia5String;
use der::flagset::FlagSet;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages, SubjectAltName};
use x509_cert::ext::{Extension, ToExtension};
use x509_cert::name::Name;

/// Subject alternative names, in Go's order: DNS, e-mail, IP, URI. As in Go, an IPv4 address written as IPv6 counts as IPv4.
pub(crate) fn subject_alt_names(names: &SubjectAltNames, subject: &Name) -> Result<Extension, RequestError> {
    let text = |attribute, name: &String| {
        Ia5String::new(name).map_err(|_| RequestError::NotAscii { attribute, name: name.clone() })
    };
    let mut all = Vec::new();
    for name in &names.dns_names {
        all.push(GeneralName::DnsName(text("dns-names", name)?));
    }
    for name in &names.emails {
        all.push(GeneralName::Rfc822Name(text("email-sans", name)?));
    }
    all.extend(names.ip_addresses.iter().map(|address| GeneralName::from(address.to_canonical())));
    for uri in &names.uris {
        all.push(GeneralName::UniformResourceIdentifier(text("uri-sans", uri)?));
    }
    // `to_extension` makes it critical if the subject is empty (RFC 5280 section 4.2.1.6). AWS Private CA requires this.
    Ok(SubjectAltName(all).to_extension(subject, &[])?)
}

/// Key usage, critical, and extended key usage; each only if it is not empty. A CA always has the usage `cert sign`.
pub(crate) fn usages(usages: &[Usage], is_ca: bool) -> der::Result<Vec<Extension>> {
    let mut flags = FlagSet::from(is_ca.then_some(FlagSet::from(KeyUsages::KeyCertSign)));
    let mut purposes = Vec::new();
    for usage in usages {
        match meaning(*usage) {
            Meaning::Flag(flag) => flags |= flag,
            Meaning::Purpose(oid) => purposes.push(oid),
        }
    }
    let mut extensions = Vec::new();
    if !flags.is_empty() {
        extensions.push(KeyUsage(flags).to_extension(&Name::default(), &[])?);
    }
    if !purposes.is_empty() {
        extensions.push(ExtendedKeyUsage(purposes).to_extension(&Name::default(), &[])?);
    }
    Ok(extensions)
}

/// Basic constraints, critical, without a path length.
pub(crate) fn basic_constraints(is_ca: bool) -> der::Result<Extension> {
    BasicConstraints { ca: is_ca, path_len_constraint: None }.to_extension(&Name::default(), &[])
}

/// How a certificate holds a usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// A bit of key usage.
    Flag(KeyUsages),
    /// A purpose of extended key usage.
    Purpose(ObjectIdentifier),
}

/// RFC 5280 sections 4.2.1.3 and 4.2.1.12.
pub(crate) fn meaning(usage: Usage) -> Meaning {
    const fn purpose(oid: &str) -> Meaning {
        Meaning::Purpose(ObjectIdentifier::new_unwrap(oid))
    }
    match usage {
        Usage::DigitalSignature => Meaning::Flag(KeyUsages::DigitalSignature),
        Usage::ContentCommitment => Meaning::Flag(KeyUsages::NonRepudiation),
        Usage::KeyEncipherment => Meaning::Flag(KeyUsages::KeyEncipherment),
        Usage::DataEncipherment => Meaning::Flag(KeyUsages::DataEncipherment),
        Usage::KeyAgreement => Meaning::Flag(KeyUsages::KeyAgreement),
        Usage::CertSign => Meaning::Flag(KeyUsages::KeyCertSign),
        Usage::CrlSign => Meaning::Flag(KeyUsages::CRLSign),
        Usage::EncipherOnly => Meaning::Flag(KeyUsages::EncipherOnly),
        Usage::DecipherOnly => Meaning::Flag(KeyUsages::DecipherOnly),
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
