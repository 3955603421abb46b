//! Distinguished names (RFC 5280 section 4.1.2.4), and their string form (RFC 4514).

use super::asn1::{self, tag};
use crate::attributes::{Subject, SubjectFields};
use const_oid::ObjectIdentifier;
use der::Decode;
use der::asn1::AnyRef;
use std::fmt::Write;
use thiserror::Error;
use x509_parser::x509::X509Name;

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
const SERIAL_NUMBER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.5");
const COUNTRY: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.6");
const LOCALITY: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.7");
const PROVINCE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.8");
const STREET: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.9");
const ORGANIZATION: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.10");
const ORGANIZATIONAL_UNIT: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.11");
const POSTAL_CODE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.17");

/// Attribute types by the short name that RFC 4514 and cert-manager give them, and two that are common besides.
const SHORT_NAMES: [(&str, ObjectIdentifier); 12] = [
    ("CN", COMMON_NAME),
    ("L", LOCALITY),
    ("ST", PROVINCE),
    ("O", ORGANIZATION),
    ("OU", ORGANIZATIONAL_UNIT),
    ("C", COUNTRY),
    ("STREET", STREET),
    ("DC", ObjectIdentifier::new_unwrap("0.9.2342.19200300.100.1.25")),
    ("UID", ObjectIdentifier::new_unwrap("0.9.2342.19200300.100.1.1")),
    ("SERIALNUMBER", SERIAL_NUMBER),
    ("POSTALCODE", POSTAL_CODE),
    ("EMAILADDRESS", ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.1")),
];

/// The subject as a `Name`, DER.
pub(crate) fn encode(subject: &Subject) -> Result<Vec<u8>, NameError> {
    match subject {
        Subject::Fields(fields) => Ok(from_fields(fields)),
        Subject::Literal(text) => parse_rfc4514(text),
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

/// Parses an RFC 4514 string into a `Name`, DER. As the RFC has it, and cert-manager does it, the string begins with
/// the most specific part and the `Name` ends with it.
pub fn parse_rfc4514(text: &str) -> Result<Vec<u8>, NameError> {
    if text.trim().is_empty() {
        return Ok(asn1::sequence(&[]));
    }
    let mut rdns = Vec::new();
    for rdn in split_unescaped(text, &[',', ';']) {
        let attributes: Result<Vec<_>, _> =
            split_unescaped(rdn, &['+']).into_iter().map(parse_attribute).collect();
        rdns.push(asn1::set_of(attributes?));
    }
    rdns.reverse();
    Ok(asn1::sequence_of(&rdns))
}

fn split_unescaped<'a>(text: &'a str, separators: &[char]) -> Vec<&'a str> {
    let mut parts = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (at, character) in text.char_indices() {
        if escaped {
            escaped = false;
        } else if character == '\\' {
            escaped = true;
        } else if separators.contains(&character) {
            parts.push(&text[start..at]);
            start = at + 1;
        }
    }
    parts.push(&text[start..]);
    parts
}

fn parse_attribute(text: &str) -> Result<Vec<u8>, NameError> {
    let Some((name, value)) = text.split_once('=') else {
        return Err(NameError::NoType { part: text.trim().to_owned() });
    };
    let (name, value) = (name.trim(), value.trim_start_matches(' '));
    let known = SHORT_NAMES.iter().find(|(short, _)| short.eq_ignore_ascii_case(name)).map(|(_, oid)| *oid);
    let dotted = || ObjectIdentifier::new(name.strip_prefix("OID.").unwrap_or(name)).ok();
    let oid = known.or_else(dotted).ok_or_else(|| NameError::UnknownType { name: name.to_owned() })?;
    let bad = || NameError::BadValue { name: name.to_owned() };
    if let Some(hex) = value.strip_prefix('#') {
        let der = decode_hex(hex.trim_end()).ok_or_else(bad)?;
        AnyRef::from_der(&der).map_err(|_| bad())?;
        return Ok(attribute(&oid, &der));
    }
    let value = unescape(value).ok_or_else(bad)?;
    Ok(attribute(&oid, &asn1::directory_string(&value)))
}

/// Undoes RFC 4514 section 2.4's escapes and drops trailing spaces that are not escaped.
fn unescape(value: &str) -> Option<String> {
    let mut out = Vec::with_capacity(value.len());
    let mut keep = 0;
    let mut bytes = value.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            if byte != b' ' {
                keep = out.len();
            }
            continue;
        }
        match bytes.next()? {
            special if b" \"#+,;<=>\\".contains(&special) => out.push(special),
            high => out.push(hex_pair(high, bytes.next()?)?),
        }
        keep = out.len();
    }
    out.truncate(keep);
    String::from_utf8(out).ok()
}

fn decode_hex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    pairs.map(|pair| hex_pair(pair[0], pair[1])).collect()
}

fn hex_pair(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(high)? << 4 | digit(low)?)
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
            let known = SHORT_NAMES.iter().find(|(_, oid)| oid.to_string() == dotted);
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

/// What can be wrong with a literal subject.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// A part has no `=`.
    #[error(
        "literal-subject: \"{part}\" has no type; accepted is type=value, with , and + in values escaped by a \\"
    )]
    NoType {
        /// The part.
        part: String,
    },
    /// An attribute type without a name we know.
    #[error(
        "literal-subject: \"{name}\" is not a known type; accepted are CN, L, ST, O, OU, C, STREET, DC, UID, \
         SERIALNUMBER, POSTALCODE, EMAILADDRESS and dotted object identifiers"
    )]
    UnknownType {
        /// The type as it was given.
        name: String,
    },
    /// A value with a broken escape, or a `#` that is not followed by DER in hexadecimal.
    #[error(
        "literal-subject: the value of {name} is not valid in RFC 4514; accepted are UTF-8 text and #<DER in hex>"
    )]
    BadValue {
        /// The attribute type.
        name: String,
    },
}

#[cfg(test)]
mod tests;
