//! What a certificate has beyond what was asked for: names, another subject, usages, extensions.
//!
//! Some signers always set a few usages and extensions of their own. The lists here say which of them are accepted.
//! docs/security.md shows the same lists.

use super::chain::{Certificate, readable};
use super::{VerifyError, asked_names, is_same_name};
use crate::model::{CertificateSpec, Subject, Usage};
use crate::x509::extensions::{self, Meaning};
use crate::x509::name::{self, Attributes};
use const_oid::ObjectIdentifier;
use der::flagset::FlagSet;
use der::{Decode, Encode};
use std::fmt;
use x509_cert::ext::pkix::ExtendedKeyUsage;
use x509_parser::extensions::ParsedExtension;
use x509_parser::oid_registry::{
    OID_X509_EXT_BASIC_CONSTRAINTS, OID_X509_EXT_EXTENDED_KEY_USAGE, OID_X509_EXT_KEY_USAGE,
};
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Name;

/// The extensions that a signer may add. The first four are those of the request, which are compared by their contents.
const ACCEPTED_EXTENSIONS: [(&str, &str); 17] = [
    ("2.5.29.15", "key usage"),
    ("2.5.29.37", "extended key usage"),
    ("2.5.29.17", "subject alternative name"),
    ("2.5.29.19", "basic constraints"),
    ("2.5.29.14", "subject key identifier"),
    ("2.5.29.35", "authority key identifier"),
    ("2.5.29.18", "issuer alternative name"),
    ("2.5.29.32", "certificate policies"),
    ("2.5.29.31", "CRL distribution points"),
    ("2.5.29.46", "freshest CRL"),
    ("1.3.6.1.5.5.7.1.1", "authority information access"),
    ("1.3.6.1.4.1.11129.2.4.2", "signed certificate timestamps"),
    ("2.16.840.1.113730.1.13", "Netscape comment"),
    ("1.3.6.1.4.1.311.20.2", "Microsoft template name"),
    ("1.3.6.1.4.1.311.21.7", "Microsoft template"),
    ("1.3.6.1.4.1.311.21.10", "Microsoft application policies"),
    ("1.3.6.1.4.1.37476.9000.64.1", "step-ca provisioner"),
];

/// Holds purposes, as the extended key usage does, in the form of certificate policies.
const APPLICATION_POLICIES: &str = "1.3.6.1.4.1.311.21.10";

/// Key usages that a signer may add: what TLS does with a key.
const ACCEPTED_FLAGS: [Usage; 3] = [Usage::DigitalSignature, Usage::KeyEncipherment, Usage::KeyAgreement];

/// Purposes that a signer may set where none was asked for. A certificate without any serves both (RFC 5280 section
/// 4.2.1.12), so that naming them takes uses away and adds none.
const ACCEPTED_PURPOSES: [Usage; 2] = [Usage::ServerAuth, Usage::ClientAuth];

/// Maximum number of values of one kind in a message.
const MAX_LISTED: usize = 8;

/// One kind of thing that a certificate has although it was not asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Addition {
    /// Subject alternative names.
    Names(Vec<String>),
    /// Another subject: the certificate's and the one that was asked for, as RFC 4514 strings.
    Subject(String, String),
    /// Key usages and extended key usages.
    Usages(Vec<String>),
    /// Extensions, by their object identifiers.
    Extensions(Vec<String>),
}

impl fmt::Display for Addition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Names(names) => {
                write!(f, "the signer added names that were not asked for: {}", listed(names))
            }
            Self::Subject(subject, asked) => write!(
                f,
                "the signer set the subject \"{}\" where \"{}\" was asked for",
                readable(subject.clone()),
                readable(asked.clone())
            ),
            Self::Usages(usages) => {
                write!(f, "the signer added usages that were not asked for: {}", listed(usages))
            }
            Self::Extensions(oids) => {
                write!(f, "the signer added extensions that are not accepted unasked: {}", listed(oids))
            }
        }
    }
}

/// All additions, for a message.
pub(super) fn described(additions: &[Addition]) -> String {
    additions.iter().map(Addition::to_string).collect::<Vec<_>>().join("; ")
}

/// The values with commas, cut to a length that fits a message.
pub(super) fn listed(values: &[String]) -> String {
    let shown = values.iter().take(MAX_LISTED).cloned().map(readable).collect::<Vec<_>>().join(", ");
    match values.len().saturating_sub(MAX_LISTED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// What the leaf has beyond the spec. `template` lists the usages that the signer's template sets: they count as asked for.
pub(super) fn additions(
    leaf: &Certificate<'_>,
    names: &[String],
    spec: &CertificateSpec,
    template: &[Usage],
) -> Result<Vec<Addition>, VerifyError> {
    let filled =
        |values: Vec<String>, kind: fn(Vec<String>) -> Addition| (!values.is_empty()).then(|| kind(values));
    Ok([
        filled(added_names(names, spec), Addition::Names),
        other_subject(leaf, spec),
        filled(added_usages(leaf, spec, template)?, Addition::Usages),
        filled(added_extensions(leaf), Addition::Extensions),
    ]
    .into_iter()
    .flatten()
    .collect())
}

fn added_names(names: &[String], spec: &CertificateSpec) -> Vec<String> {
    let asked: Vec<_> = asked_names(&spec.sans).collect();
    names.iter().filter(|name| !asked.iter().any(|asked| is_same_name(name, asked))).cloned().collect()
}

/// Compares the values, not their encoding: a signer may write the same text as another type of string.
fn other_subject(leaf: &Certificate<'_>, spec: &CertificateSpec) -> Option<Addition> {
    let subject = leaf.x509.subject();
    let encoded =
        name::encode(&spec.subject, spec.dialect).and_then(|name| name.to_der()).unwrap_or_default();
    if subject.as_raw() == encoded {
        return None;
    }
    let asked = X509Name::from_der(&encoded).ok().map(|(_, name)| name);
    let same = asked.as_ref().is_some_and(|asked| is_same_subject(subject, asked, spec));
    let shown = asked.as_ref().map(name::to_rfc4514).unwrap_or_default();
    (!same).then(|| Addition::Subject(name::to_rfc4514(subject), shown))
}

fn is_same_subject(subject: &X509Name<'_>, asked: &X509Name<'_>, spec: &CertificateSpec) -> bool {
    let (mut subject, asked) = (name::attributes(subject), name::attributes(asked));
    let has_common_name = match &spec.subject {
        Subject::Fields(fields) => fields.common_name.is_some(),
        Subject::Literal(_) => true,
    };
    if !has_common_name {
        // ACME servers repeat one of the DNS names there.
        let repeats = |part: &Attributes| {
            name::common_name(part)
                .is_some_and(|text| spec.sans.dns_names.iter().any(|dns| dns.eq_ignore_ascii_case(text)))
        };
        subject.retain(|part| !repeats(part));
    }
    subject == asked
}

fn added_usages(
    leaf: &Certificate<'_>,
    spec: &CertificateSpec,
    template: &[Usage],
) -> Result<Vec<String>, VerifyError> {
    let mut accepted: Vec<Usage> = [&spec.usages, template, &ACCEPTED_FLAGS[..]].concat();
    if spec.is_ca {
        accepted.push(Usage::CertSign);
    }
    let is_purpose = |usage: &&Usage| matches!(extensions::meaning(**usage), Meaning::Purpose(_));
    let asks_purposes = spec.usages.iter().any(|usage| is_purpose(&usage));
    if !asks_purposes && !template.iter().any(|usage| is_purpose(&usage)) {
        accepted.extend(ACCEPTED_PURPOSES);
    }
    let (mut flags, mut purposes) = (0, Vec::new());
    for usage in &accepted {
        match extensions::meaning(*usage) {
            Meaning::Flag(flag) => flags |= FlagSet::from(flag).bits(),
            Meaning::Purpose(oid) => purposes.push(oid),
        }
    }
    let found = leaf.x509.key_usage().ok().flatten().map_or(0, |usage| usage.value.flags) & !flags;
    let mut added: Vec<String> = (0..16).filter(|bit| found & (1 << bit) != 0).map(flag_name).collect();
    match purposes_of(leaf)? {
        Some(found) => {
            added.extend(found.iter().filter(|oid| !purposes.contains(oid)).map(purpose_name));
        }
        // Without the extension no purpose is excluded.
        None if asks_purposes => added.push("every purpose (it has no extended key usage)".to_owned()),
        None => {}
    }
    Ok(added)
}

/// The purposes, if it has an extension that lists some.
fn purposes_of(leaf: &Certificate<'_>) -> Result<Option<Vec<ObjectIdentifier>>, VerifyError> {
    let mut found: Option<Vec<ObjectIdentifier>> = None;
    for extension in leaf.x509.extensions() {
        let oids = if extension.oid == OID_X509_EXT_EXTENDED_KEY_USAGE {
            ExtendedKeyUsage::from_der(extension.value).map(|purposes| purposes.0)
        } else if extension.oid.to_id_string() == APPLICATION_POLICIES {
            x509_cert::ext::pkix::CertificatePolicies::from_der(extension.value)
                .map(|policies| policies.0.into_iter().map(|policy| policy.policy_identifier).collect())
        } else {
            continue;
        };
        let oids = oids.map_err(|_| VerifyError::unreadable_extension(&extension.oid))?;
        found.get_or_insert_default().extend(oids);
    }
    Ok(found)
}

fn flag_name(bit: u16) -> String {
    let is_named = |usage: &&Usage| matches!(extensions::meaning(**usage), Meaning::Flag(flag) if FlagSet::from(flag).bits() == 1 << bit);
    Usage::ALL.iter().find(is_named).map_or_else(|| format!("key usage bit {bit}"), Usage::to_string)
}

fn purpose_name(oid: &ObjectIdentifier) -> String {
    let is_named = |usage: &&Usage| extensions::meaning(**usage) == Meaning::Purpose(*oid);
    Usage::ALL.iter().find(is_named).map_or_else(|| oid.to_string(), Usage::to_string)
}

fn added_extensions(leaf: &Certificate<'_>) -> Vec<String> {
    let oids = leaf.x509.extensions().iter().map(|extension| extension.oid.to_id_string());
    oids.filter(|oid| !ACCEPTED_EXTENSIONS.iter().any(|(accepted, _)| accepted == oid)).collect()
}

/// Refuses a leaf that has an extension twice (RFC 5280 section 4.2), or basic constraints or a key usage that do not parse:
/// different readers would see different things in it.
pub(super) fn check_extensions(leaf: &Certificate<'_>) -> Result<(), VerifyError> {
    let all = leaf.x509.extensions();
    for (index, extension) in all.iter().enumerate() {
        let is_repeated = all[..index].iter().any(|earlier| earlier.oid == extension.oid);
        let is_needed = [OID_X509_EXT_BASIC_CONSTRAINTS, OID_X509_EXT_KEY_USAGE].contains(&extension.oid);
        let parses = !matches!(extension.parsed_extension(), ParsedExtension::ParseError { .. });
        if is_repeated || is_needed && !parses {
            return Err(VerifyError::unreadable_extension(&extension.oid));
        }
    }
    Ok(())
}
