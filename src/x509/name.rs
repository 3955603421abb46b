//! Distinguished names (RFC 5280 section 4.1.2.4): encoded, and shown to people.

use super::asn1::{self, tag};
use crate::attributes::name_types::{
    COMMON_NAME, COUNTRY, DOMAIN_COMPONENT, KEYWORDS, LOCALITY, ORGANIZATION, ORGANIZATIONAL_UNIT,
    POSTAL_CODE, PROVINCE, SERIAL_NUMBER, STREET,
};
use crate::attributes::{DistinguishedName, NameAttribute, NameValue, Subject, SubjectFields};
use const_oid::ObjectIdentifier;
use std::fmt::Write;
use x509_parser::x509::X509Name;

const EMAIL_ADDRESS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.1");

/// Names of types beside the keywords, which signers' own certificates may well have.
const MORE_NAMES: [(&str, ObjectIdentifier); 2] =
    [("POSTALCODE", POSTAL_CODE), ("EMAILADDRESS", EMAIL_ADDRESS)];

/// The subject as a `Name`, DER.
pub(crate) fn encode(subject: &Subject) -> Vec<u8> {
    match subject {
        Subject::Fields(fields) => from_fields(fields),
        Subject::Literal(name) => from_literal(name),
    }
}

/// One relative distinguished name per type, in the order of Go's `pkix.Name.ToRDNSequence`, which is what
/// cert-manager's driver sends.
fn from_fields(fields: &SubjectFields) -> Vec<u8> {
    let types: [(ObjectIdentifier, &[String]); 9] = [
        (COUNTRY, &fields.countries),
        (PROVINCE, &fields.provinces),
        (LOCALITY, &fields.localities),
        (STREET, &fields.street_addresses),
        (POSTAL_CODE, &fields.postal_codes),
        (ORGANIZATION, &fields.organizations),
        (ORGANIZATIONAL_UNIT, &fields.organizational_units),
        (COMMON_NAME, fields.common_name.as_slice()),
        (SERIAL_NUMBER, fields.serial_number.as_slice()),
    ];
    let rdns: Vec<_> = types
        .iter()
        .filter(|(_, values)| !values.is_empty())
        .map(|(oid, values)| {
            asn1::set_of(values.iter().map(|value| attribute(oid, &asn1::directory_string(value))).collect())
        })
        .collect();
    asn1::sequence_of(&rdns)
}

fn attribute(oid: &ObjectIdentifier, value: &[u8]) -> Vec<u8> {
    asn1::sequence(&[&asn1::oid(oid), value])
}

/// As RFC 4514 has it, and cert-manager does it, the string begins with the most specific part and the `Name` ends with
/// it.
fn from_literal(name: &DistinguishedName) -> Vec<u8> {
    let rdns: Vec<_> =
        name.parts().rev().map(|part| asn1::set_of(part.iter().map(literal_attribute).collect())).collect();
    asn1::sequence_of(&rdns)
}

fn literal_attribute(literal: &NameAttribute) -> Vec<u8> {
    match &literal.value {
        // RFC 5280 appendix A.1: these two are no DirectoryString.
        NameValue::Text(text)
            if [DOMAIN_COMPONENT, EMAIL_ADDRESS].contains(&literal.oid) && text.is_ascii() =>
        {
            attribute(&literal.oid, &asn1::tlv(tag::IA5_STRING, &[text.as_bytes()]))
        }
        NameValue::Text(text) => attribute(&literal.oid, &asn1::directory_string(text)),
        NameValue::Der(der) => attribute(&literal.oid, der),
    }
}

/// Writes a parsed name as an RFC 4514 string. Control characters come out escaped: the string may go to a log.
pub(crate) fn to_rfc4514(name: &X509Name<'_>) -> String {
    let rdns: Vec<_> = name.iter_rdn().collect();
    let mut out = String::new();
    for (index, rdn) in rdns.into_iter().rev().enumerate() {
        if index > 0 {
            out.push(',');
        }
        for (index, attribute) in rdn.iter().enumerate() {
            if index > 0 {
                out.push('+');
            }
            let dotted = attribute.attr_type().to_id_string();
            let known = KEYWORDS.iter().chain(&MORE_NAMES).find(|(_, oid)| oid.to_string() == dotted);
            if let (Some((short, _)), Ok(value)) = (known, attribute.as_str()) {
                let _ = write!(out, "{short}=");
                escape_into(&mut out, value);
            } else {
                let value = attribute.attr_value();
                let tag = value.header.tag().0.to_le_bytes()[0];
                let _ = write!(out, "{dotted}=#");
                for byte in asn1::tlv(tag, &[value.data]) {
                    let _ = write!(out, "{byte:02x}");
                }
            }
        }
    }
    out
}

fn escape_into(out: &mut String, value: &str) {
    let last = value.chars().count().saturating_sub(1);
    for (at, character) in value.chars().enumerate() {
        match character {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => out.extend(['\\', character]),
            ' ' if at == 0 || at == last => out.push_str("\\ "),
            '#' if at == 0 => out.push_str("\\#"),
            control if control.is_control() => {
                let mut bytes = [0; 4];
                for byte in control.encode_utf8(&mut bytes).bytes() {
                    let _ = write!(out, "\\{byte:02x}");
                }
            }
            other => out.push(other),
        }
    }
}

/// Whether a DER `Name` has no attribute.
pub(crate) fn is_empty(name: &[u8]) -> bool {
    name == [tag::SEQUENCE, 0]
}

#[cfg(test)]
mod tests;
