//! Distinguished names as strings (RFC 4514).
//!
//! People write `CN=a, O=b` with a space after the comma, and cert-manager takes it. So the check also brings the name into one
//! strict form (keywords in upper case, no space between the parts, every special character as a hexadecimal pair), which any
//! RFC 4514 parser reads alike.

use super::names::{printable, subject_text};
use std::fmt::Write;
use std::str::FromStr;
use x509_cert::der::asn1::{Any, ObjectIdentifier};
use x509_cert::der::{Decode, Encode};
use x509_cert::name::RdnSequence;

/// The keywords cert-manager knows; anything else is written as a dotted object identifier.
const KEYWORDS: [&str; 10] = ["CN", "C", "L", "ST", "STREET", "O", "OU", "DC", "UID", "SERIALNUMBER"];

/// Checks a distinguished name and gives its strict form, parts in the order written.
pub(in crate::attributes) fn strict(text: &str) -> Result<String, String> {
    let mut strict = String::with_capacity(text.len());
    let mut rest = text;
    let mut together = Vec::new();
    loop {
        let (keyword, after) = keyword(rest)?;
        let (value, separator, after) = value(&keyword, after)?;
        let pair = format!("{keyword}={value}");
        strict.push_str(&pair);
        // What `+` joins is a set in X.501.
        if together.contains(&pair) {
            return Err(format!("has the same value of {keyword} twice in one part"));
        }
        match separator {
            Some('+') => together.push(pair),
            _ => together.clear(),
        }
        match separator {
            Some(separator) => strict.push(separator),
            None => break,
        }
        rest = after;
    }
    // What is left is what only the encoder sees.
    RdnSequence::from_str(&strict)
        .and_then(|name| name.to_der())
        .map_err(|_| "cannot be encoded as a distinguished name")?;
    Ok(strict)
}

/// The attribute type in front of the `=`, and what follows it.
fn keyword(text: &str) -> Result<(String, &str), String> {
    let (name, after) = text.split_once('=').ok_or_else(|| format!("has no = in {:?}", text.trim()))?;
    let name = name.trim();
    let upper = name.to_ascii_uppercase();
    if KEYWORDS.contains(&upper.as_str()) {
        return Ok((upper, after));
    }
    match ObjectIdentifier::new(name) {
        Ok(_) => Ok((name.to_owned(), after)),
        Err(_) => Err(format!("has the unknown keyword {name:?}")),
    }
}

/// One value in its strict form, the separator after it, and what follows that.
fn value<'a>(keyword: &str, text: &'a str) -> Result<(String, Option<char>, &'a str), String> {
    let text = text.trim_start_matches(' ');
    if let Some(hex) = text.strip_prefix('#') {
        return encoded_value(keyword, hex);
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
            '"' | ';' => return Err(format!("has an unescaped {c} in the value of {keyword} (write \\{c})")),
            '\\' => {
                bytes.push(
                    escaped(&text[at + 1..])
                        .ok_or_else(|| format!("has a bad escape in the value of {keyword}"))?,
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
        String::from_utf8(bytes).map_err(|_| format!("has a value of {keyword} that is not UTF-8"))?;
    check(keyword, &value).map_err(|problem| format!("has a value of {keyword} that {problem}"))?;
    Ok((escape(&value), end.0, end.1))
}

/// A value given as `#` and the hexadecimal digits of its DER encoding.
fn encoded_value<'a>(keyword: &str, text: &'a str) -> Result<(String, Option<char>, &'a str), String> {
    let end = text.find([',', '+']).unwrap_or(text.len());
    let digits = text[..end].trim_end_matches(' ');
    let bytes: Option<Vec<u8>> = (digits.len().is_multiple_of(2) && digits.is_ascii())
        .then(|| (0..digits.len()).step_by(2).map(|i| hex_pair(&digits.as_bytes()[i..i + 2])).collect())
        .flatten();
    if bytes.is_none_or(|bytes| Any::from_der(&bytes).is_err()) {
        return Err(format!("has a value of {keyword} that is not the hexadecimal form of a DER value"));
    }
    Ok((format!("#{digits}"), text[end..].chars().next(), text.get(end + 1..).unwrap_or_default()))
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

fn check(keyword: &str, value: &str) -> Result<(), String> {
    if value.is_empty() {
        return Err("is empty".into());
    }
    match keyword {
        "C" | "SERIALNUMBER" => printable(value).map(drop),
        "DC" if !value.is_ascii() => Err("is not ASCII".into()),
        _ => subject_text(value).map(drop),
    }
}

fn escape(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    let last = value.len() - 1;
    for (at, c) in value.char_indices() {
        let special =
            "\"+,;<>\\".contains(c) || (c == '#' && at == 0) || (c == ' ' && (at == 0 || at == last));
        if special {
            let _ = write!(escaped, "\\{:02X}", u32::from(c));
        } else {
            escaped.push(c);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
            ("2.5.4.3=#0C0161 ,O=b", "2.5.4.3=#0C0161,O=b"),
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
            let name = format!("CN={}", escape(&value));
            prop_assert_eq!(strict(&name), Ok(name));
        }

        #[test]
        fn no_text_makes_it_panic(text in "(?s)(CN=)?[\\\\#,+= \"0-9a-fC\u{fc}]{0,16}|.{0,20}") {
            let _ = strict(&text);
        }
    }
}
