//! Distinguished names as strings (RFC 4514).
//!
//! A space after the comma is accepted, as by cert-manager: `CN=a, O=b`.

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
        let der = der.filter(|der| AnyRef::from_der(der).is_ok()).map(NameValue::Der);
        return der.ok_or_else(|| "is not the hexadecimal form of a DER value".into());
    }
    let value = unescaped(text.as_bytes())?;
    let checked = match oid {
        _ if reading == Reading::AsGo => Ok(value),
        _ if value.is_empty() => Err("is empty".into()),
        C => country(&value),
        SERIAL_NUMBER => serial_number(&value),
        CN | O | OU => common_name(&value),
        L | ST | STREET => locality(&value),
        POSTAL_CODE => postal_code(&value),
        DC if !value.is_ascii() => Err("is not ASCII".into()),
        _ => subject_text(&value),
    };
    checked.map(NameValue::Text)
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn strict(text: &str) -> Result<String, String> {
        text.parse().map(|name: DistinguishedName| name.to_string())
    }

    #[test]
    fn a_name_is_printed_in_its_strict_form_with_its_parts_in_order() {
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
    fn a_value_has_at_most_1024_bytes() {
        let length = 1024;
        for (keyword, value) in [("UID", "a"), ("DC", "A"), ("1.2.3", "\u{fc}")] {
            let longest = format!("{keyword}={},O=b", value.repeat(length / value.len()));
            assert!(strict(&longest).is_ok(), "{keyword}");
            let longer = format!("{keyword}={},O=b", value.repeat(length / value.len() + 1));
            assert!(
                strict(&longer).unwrap_err().contains("bytes long (at most 1024 are accepted)"),
                "{keyword}"
            );
        }
        for (longest, longer) in [("CN=", 65), ("C=D", 2), ("O=", 65), ("L=", 129), ("SERIALNUMBER=", 65)]
            .map(|(start, length)| {
                (format!("{start}{}", "a".repeat(length - 1)), format!("{start}{}", "a".repeat(length)))
            })
        {
            assert!(strict(&longest).is_ok() && strict(&longer).is_err(), "{longest}");
        }
        let der = |bytes: usize| format!("CN=#0482{:04x}{}", bytes - 4, "61".repeat(bytes - 4));
        assert!(strict(&der(length)).is_ok());
        assert!(strict(&der(length + 1)).unwrap_err().contains("is 1025 bytes long"));
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

    #[test]
    fn a_long_name_is_cut_in_the_message() {
        for text in ["x".repeat(60_000), format!("{}=a", "x".repeat(60_000))] {
            let problem = strict(&text).unwrap_err();
            assert!(problem.len() < 150, "{}", problem.len());
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
            let attribute = NameAttribute { oid: CN, value: NameValue::Text(value) };
            let name = DistinguishedName { parts: vec![vec![attribute]] };
            prop_assert_eq!(name.to_string().parse(), Ok(name));
        }

        #[test]
        fn no_text_makes_it_panic(text in "(?s)(CN=)?[\\\\#,+= \"0-9a-fC\u{fc}]{0,16}|.{0,20}") {
            let _ = text.parse::<DistinguishedName>();
        }
    }
}
