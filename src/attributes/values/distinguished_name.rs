//! Distinguished names as strings (RFC 4514).
//!
//! A space after the comma is accepted, as by cert-manager: `CN=a, O=b`.

use super::asn1_text;
use super::names::{
    common_name, country, locality, postal_code, serial_number, subject_length, subject_text,
};
use crate::model::{DistinguishedName, KEYWORDS, NameAttribute, NameValue, shown};
use const_oid::ObjectIdentifier;
use const_oid::db::rfc4519::{C, CN, DC, L, O, OU, POSTAL_CODE, SERIAL_NUMBER, ST, STREET};
use der::Decode;
use der::asn1::AnyRef;
use std::collections::HashSet;

/// Reads RFC 4514; the parts keep their order. The error is a phrase that continues the quoted text and says what is wrong.
impl std::str::FromStr for DistinguishedName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        read(text, Reading::Strict)
    }
}

/// As cert-manager's csi-driver reads it: a semicolon separates too, and what makes no good certificate is served. A value that is
/// given twice in one part counts once, because the part is a set.
pub(in crate::attributes) fn as_go(text: &str) -> Result<DistinguishedName, String> {
    if text.trim().is_empty() {
        return Ok(DistinguishedName { parts: Vec::new() });
    }
    read(text, Reading::AsGo)
}

/// How names are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    Strict,
    AsGo,
}

fn read(text: &str, reading: Reading) -> Result<DistinguishedName, String> {
    let mut parts = Vec::new();
    let mut part = Vec::new();
    let mut joined = HashSet::new();
    let mut rest = text;
    loop {
        let (name, after) =
            rest.split_once('=').ok_or_else(|| format!("has no = in {}", shown(rest.trim())))?;
        let (keyword, oid) = keyword(name.trim())?;
        let (value_text, separator, after) = split_value(after, reading);
        let value = value(oid, value_text, reading)
            .map_err(|problem| format!("has a value of {keyword} that {problem}"))?;
        // X.501: attributes joined by `+` are a set.
        if joined.insert((oid, content(&value))) {
            part.push(NameAttribute { oid, value });
        } else if reading == Reading::Strict {
            return Err(format!("has the same value of {keyword} twice in one part"));
        }
        if separator != Some('+') {
            parts.push(std::mem::take(&mut part));
            joined.clear();
        }
        if separator.is_none() {
            return Ok(DistinguishedName { parts });
        }
        rest = after;
    }
}

/// The content of a value, given as text or as DER.
fn content(value: &NameValue) -> Option<Vec<u8>> {
    match value {
        NameValue::Text(text) => Some(text.as_bytes().to_vec()),
        NameValue::Der(der) => AnyRef::from_der(der).ok().map(|value| value.value().to_vec()),
    }
}

/// The attribute type of a name: a keyword, which is returned in upper case, or a dotted object identifier.
fn keyword(name: &str) -> Result<(&str, ObjectIdentifier), String> {
    if let Some(known) = KEYWORDS.iter().find(|(keyword, _)| keyword.eq_ignore_ascii_case(name)) {
        return Ok(*known);
    }
    let oid = ObjectIdentifier::new(name).map_err(|_| format!("has the unknown keyword {}", shown(name)))?;
    Ok((name, oid))
}

/// The text up to the next unescaped separator, the separator, and the text after it.
fn split_value(text: &str, reading: Reading) -> (&str, Option<char>, &str) {
    let mut escaped = false;
    let end = text.find(|c| {
        let is_separator = !escaped && (matches!(c, ',' | '+') || c == ';' && reading == Reading::AsGo);
        escaped = c == '\\' && !escaped;
        is_separator
    });
    end.map_or((text, None, ""), |at| (&text[..at], text[at..].chars().next(), &text[at + 1..]))
}

/// A value: text, or `#` and its DER encoding in hexadecimal.
fn value(oid: ObjectIdentifier, text: &str, reading: Reading) -> Result<NameValue, String> {
    let text = text.trim_start_matches(' ');
    if let Some(digits) = text.strip_prefix('#') {
        let digits = digits.trim_end_matches(' ').as_bytes();
        subject_length(digits.len() / 2)?;
        let der: Option<Vec<u8>> = digits.chunks(2).map(hex_pair).collect();
        let der = der.filter(|der| AnyRef::from_der(der).is_ok());
        let der = der.ok_or("is not the hexadecimal form of a DER value")?;
        if reading == Reading::Strict {
            match asn1_text::decoded(&der)? {
                Some(text) => check(oid, &text)?,
                None if TEXT_TYPES.contains(&oid) => {
                    return Err(
                        "is no UTF8String, PrintableString, IA5String, TeletexString or BMPString".into()
                    );
                }
                None => {}
            }
        }
        return Ok(NameValue::Der(der));
    }
    let value = unescaped(text.as_bytes())?;
    if reading == Reading::Strict {
        check(oid, &value)?;
    }
    Ok(NameValue::Text(value))
}

/// The attribute types that [`check`] knows: their values are strings (RFC 5280 appendix A.1).
const TEXT_TYPES: [ObjectIdentifier; 10] = [C, SERIAL_NUMBER, CN, O, OU, L, ST, STREET, POSTAL_CODE, DC];

/// Checks a string against the limits of its attribute type.
fn check(oid: ObjectIdentifier, value: &str) -> Result<(), String> {
    match oid {
        _ if value.is_empty() => Err("is empty".into()),
        C => country(value),
        SERIAL_NUMBER => serial_number(value),
        CN | O | OU => common_name(value),
        L | ST | STREET => locality(value),
        POSTAL_CODE => postal_code(value),
        DC if !value.is_ascii() => Err("is not ASCII".into()),
        _ => subject_text(value),
    }
    .map(drop)
}

/// The text without escapes, and without spaces at its end. Escaped spaces are kept.
fn unescaped(mut rest: &[u8]) -> Result<String, String> {
    let mut bytes = Vec::new();
    let mut kept = 0;
    while let [first, after @ ..] = rest {
        let (byte, after) = match first {
            b'"' | b';' => {
                return Err(format!("has an unescaped {0} (write \\{0})", char::from(*first)));
            }
            b'\\' => escaped(after).ok_or("has a bad escape")?,
            _ => (*first, after),
        };
        bytes.push(byte);
        kept = if *first == b' ' { kept } else { bytes.len() };
        rest = after;
    }
    bytes.truncate(kept);
    String::from_utf8(bytes).map_err(|_| "is not UTF-8".into())
}

/// The byte of an escape sequence, and the text after it: a special character, or two hexadecimal digits.
fn escaped(text: &[u8]) -> Option<(u8, &[u8])> {
    match text {
        [c @ (b' ' | b'"' | b'#' | b'+' | b',' | b';' | b'<' | b'=' | b'>' | b'\\'), after @ ..] => {
            Some((*c, after))
        }
        _ => Some((hex_pair(text.get(..2)?)?, &text[2..])),
    }
}

/// The byte of two hexadecimal digits.
fn hex_pair(pair: &[u8]) -> Option<u8> {
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?)
}

#[cfg(test)]
mod tests;
