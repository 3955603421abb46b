//! Distinguished names as strings (RFC 4514).
//!
//! People write `CN=a, O=b` with a space after the comma, and cert-manager takes it.

use super::names::{printable, subject_text};
use crate::attributes::distinguished_name::{DistinguishedName, NameAttribute, NameValue};
use crate::attributes::name_types::{COUNTRY, DOMAIN_COMPONENT, KEYWORDS, SERIAL_NUMBER};
use const_oid::ObjectIdentifier;
use der::Decode;
use der::asn1::AnyRef;
use std::collections::HashSet;

/// Reads a distinguished name, parts in the order written.
pub(in crate::attributes) fn parse(text: &str) -> Result<DistinguishedName, String> {
    let mut parts = Vec::new();
    let mut part = Vec::new();
    let mut joined = HashSet::new();
    let mut rest = text;
    loop {
        let (keyword, after) = keyword(rest)?;
        let (value, separator, after) = value(&keyword, after)?;
        let attribute = NameAttribute { oid: keyword.oid, value };
        // What `+` joins is a set in X.501.
        if !joined.insert((attribute.oid, content(&attribute.value))) {
            return Err(format!("has the same value of {} twice in one part", keyword.written));
        }
        part.push(attribute);
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

/// What a value comes to, be it given as text or in its encoding.
fn content(value: &NameValue) -> Option<Vec<u8>> {
    match value {
        NameValue::Text(text) => Some(text.as_bytes().to_vec()),
        NameValue::Der(der) => AnyRef::from_der(der).ok().map(|value| value.value().to_vec()),
    }
}

/// An attribute type.
struct Keyword {
    oid: ObjectIdentifier,
    /// In upper case, or as a dotted object identifier.
    written: String,
}

/// The attribute type in front of the `=`, and what follows it.
fn keyword(text: &str) -> Result<(Keyword, &str), String> {
    let (name, after) = text.split_once('=').ok_or_else(|| format!("has no = in {:?}", text.trim()))?;
    let name = name.trim();
    let keyword = KEYWORDS.iter().find(|(keyword, _)| keyword.eq_ignore_ascii_case(name));
    let keyword = match keyword {
        Some((keyword, oid)) => Keyword { oid: *oid, written: (*keyword).to_owned() },
        None => Keyword {
            oid: ObjectIdentifier::new(name).map_err(|_| format!("has the unknown keyword {name:?}"))?,
            written: name.to_owned(),
        },
    };
    Ok((keyword, after))
}

/// One value, the separator after it, and what follows that.
fn value<'a>(keyword: &Keyword, text: &'a str) -> Result<(NameValue, Option<char>, &'a str), String> {
    let written = &keyword.written;
    let text = text.trim_start_matches(' ');
    if let Some(hex) = text.strip_prefix('#') {
        return encoded_value(written, hex);
    }
    let mut bytes = Vec::new();
    // How much of `bytes` stays when the spaces in front of the separator are dropped; escaped ones are not.
    let mut kept = 0;
    let mut characters = text.char_indices();
    let mut end = (None, "");
    while let Some((at, c)) = characters.next() {
        match c {
            ',' | '+' => {
                end = (Some(c), &text[at + 1..]);
                break;
            }
            '"' | ';' => return Err(format!("has an unescaped {c} in the value of {written} (write \\{c})")),
            '\\' => {
                bytes.push(
                    escaped(&text[at + 1..])
                        .ok_or_else(|| format!("has a bad escape in the value of {written}"))?,
                );
                let hex = text[at + 1..].starts_with(|c: char| c.is_ascii_hexdigit());
                let _ = characters.nth(usize::from(hex));
                kept = bytes.len();
            }
            _ => {
                bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                kept = if c == ' ' { kept } else { bytes.len() };
            }
        }
    }
    bytes.truncate(kept);
    let value =
        String::from_utf8(bytes).map_err(|_| format!("has a value of {written} that is not UTF-8"))?;
    check(&keyword.oid, &value).map_err(|problem| format!("has a value of {written} that {problem}"))?;
    Ok((NameValue::Text(value), end.0, end.1))
}

/// A value given as `#` and the hexadecimal digits of its DER encoding.
fn encoded_value<'a>(written: &str, text: &'a str) -> Result<(NameValue, Option<char>, &'a str), String> {
    let end = text.find([',', '+']).unwrap_or(text.len());
    let digits = text[..end].trim_end_matches(' ').as_bytes();
    let bytes: Option<Vec<u8>> =
        digits.len().is_multiple_of(2).then(|| digits.chunks(2).map(hex_pair).collect()).flatten();
    let der = bytes
        .filter(|bytes| AnyRef::from_der(bytes).is_ok())
        .ok_or_else(|| format!("has a value of {written} that is not the hexadecimal form of a DER value"))?;
    Ok((NameValue::Der(der), text[end..].chars().next(), text.get(end + 1..).unwrap_or_default()))
}

/// The byte that the text after a backslash stands for: a special character, or two hexadecimal digits.
fn escaped(text: &str) -> Option<u8> {
    match text.as_bytes() {
        [c @ (b' ' | b'"' | b'#' | b'+' | b',' | b';' | b'<' | b'=' | b'>' | b'\\'), ..] => Some(*c),
        pair => hex_pair(pair),
    }
}

fn hex_pair(pair: &[u8]) -> Option<u8> {
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?)
}

fn check(oid: &ObjectIdentifier, value: &str) -> Result<(), String> {
    if value.is_empty() {
        return Err("is empty".into());
    }
    match *oid {
        COUNTRY | SERIAL_NUMBER => printable(value).map(drop),
        DOMAIN_COMPONENT if !value.is_ascii() => Err("is not ASCII".into()),
        _ => subject_text(value).map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attributes::name_types::COMMON_NAME;
    use proptest::prelude::*;

    fn strict(text: &str) -> Result<String, String> {
        parse(text).map(|name| name.to_string())
    }

    #[test]
    fn a_name_is_brought_into_its_strict_form_in_the_order_written() {
        for (text, expected) in [
            ("CN=example.com", "CN=example.com"),
            ("cn = a , o= b c  ,C=US", "CN=a,O=b c,C=US"),
            (
                "SERIALNUMBER=42, L=here, ST=there, STREET=1 Road",
                "SERIALNUMBER=42,L=here,ST=there,STREET=1 Road",
            ),
            ("OU=Sales+CN=J.  Smith,DC=example,DC=net", "OU=Sales+CN=J.  Smith,DC=example,DC=net"),
            (r#"CN=James \"Jim\" Smith\, III,UID=js"#, r"CN=James \22Jim\22 Smith\2C III,UID=js"),
            (r"CN=a\\\,b", r"CN=a\5C\2Cb"),
            (r"CN=\ a\20", r"CN=\20a\20"),
            (r"CN=\#a#b=c", r"CN=\23a#b=c"),
            (r"CN=Lu\C4\8Di\C4\87", "CN=Lu\u{10d}i\u{107}"),
            ("CN=B\u{fc}cher", "CN=B\u{fc}cher"),
            ("1.3.6.1.4.1.1466.0=#04024869", "1.3.6.1.4.1.1466.0=#04024869"),
            ("1.2.840.113549.1.9.1=a@b.example, O=x", "1.2.840.113549.1.9.1=a@b.example,O=x"),
            ("2.5.4.3=#0c0161 ,O=b", "CN=#0C0161,O=b"),
        ] {
            assert_eq!(strict(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_distinguished_name_is_refused() {
        for text in [
            "",
            "CN",
            "=a",
            "CN=",
            "CN= ",
            "CN=a,",
            "CN=a,,O=b",
            ",CN=a",
            "CN=a+",
            "XX=a",
            "1.2.x=a",
            "CN=a;O=b",
            "CN=\"a\"",
            r"CN=a\",
            r"CN=a\z",
            r"CN=a\4",
            r"CN=\FF",
            "CN=#",
            "CN=#0",
            "CN=#zz",
            "CN=#0402",
            "CN=#0402486900",
            "C=\u{d6}",
            "DC=\u{fc}",
            "SERIALNUMBER=a_b",
            "CN=a\nb",
            r"CN=a\00",
            "CN=a+CN=a",
            "CN=a+2.5.4.3=a",
            "CN=a+CN=#0c0161",
            "2.5.4.6=\u{d6}",
            "/CN=a",
            "CN=#\u{fc}\u{fc}",
            "C=a*",
        ] {
            assert!(strict(text).is_err(), "{text:?} -> {:?}", strict(text));
        }
    }

    proptest! {
        #[test]
        fn the_strict_form_of_a_strict_form_is_itself(text in "(CN|o|1\\.2\\.3) ?= ?[a-z\\\\,+#\" ]{1,8}(, ?O=[a-z]{1,3})?") {
            if let Ok(once) = strict(&text) {
                prop_assert_eq!(strict(&once), Ok(once));
            }
        }

        #[test]
        fn an_escaped_value_reads_back(value in "[^\\p{Cc}]{1,20}") {
            let attribute = NameAttribute { oid: COMMON_NAME, value: NameValue::Text(value) };
            let name = DistinguishedName { parts: vec![vec![attribute]] };
            prop_assert_eq!(parse(&name.to_string()), Ok(name));
        }

        #[test]
        fn no_text_makes_it_panic(text in "(?s)(CN=)?[\\\\#,+= \"0-9a-fC\u{fc}]{0,16}|.{0,20}") {
            let _ = parse(&text);
        }
    }
}
