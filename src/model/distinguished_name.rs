//! Distinguished names: the value of `literal-subject`, and the string form of RFC 4514.

use super::hex;
use const_oid::ObjectIdentifier;
use const_oid::db::rfc4519::{C, CN, DC, L, O, OU, SERIAL_NUMBER, ST, STREET, UID};
use std::fmt;

/// The keywords that cert-manager supports: those of RFC 4514 section 3 and `SERIALNUMBER`. Other types are written as
/// dotted object identifiers.
pub(crate) const KEYWORDS: [(&str, ObjectIdentifier); 10] = [
    ("CN", CN),
    ("C", C),
    ("L", L),
    ("ST", ST),
    ("STREET", STREET),
    ("O", O),
    ("OU", OU),
    ("DC", DC),
    ("UID", UID),
    ("SERIALNUMBER", SERIAL_NUMBER),
];

/// A distinguished name: its parts (relative distinguished names) in the order written. As in RFC 4514, the most specific
/// one is the first. Each part has at least one attribute, and no attribute twice.
///
/// It prints in a form that all parsers of RFC 4514 read alike: keywords in upper case, no space between the parts, every
/// special character as a hexadecimal pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DistinguishedName {
    pub(crate) parts: Vec<Vec<NameAttribute>>,
}

/// One `type=value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameAttribute {
    /// The attribute type.
    pub oid: ObjectIdentifier,
    /// The value.
    pub value: NameValue,
}

/// The value of a [`NameAttribute`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameValue {
    /// Text: not empty, without control characters.
    Text(String),
    /// The DER encoding of one value.
    Der(Vec<u8>),
}

impl fmt::Display for DistinguishedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = self.parts.iter().map(|part| {
            part.iter().map(|attribute| {
                let keyword = KEYWORDS.iter().find(|(_, oid)| *oid == attribute.oid);
                let name = keyword.map_or_else(|| attribute.oid.to_string(), |(name, _)| (*name).to_owned());
                (name, attribute.value.clone())
            })
        });
        f.write_str(&rfc4514(parts, Escape::Strict))
    }
}

/// How [`rfc4514`] escapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Escape {
    /// `\2C`: all parsers read it alike.
    Strict,
    /// `\,`: for people. Hexadecimal digits are in lower case.
    Readable,
}

/// A name in the form of RFC 4514, from its parts, the most specific one first. A part has types and values.
pub(crate) fn rfc4514(
    parts: impl Iterator<Item = impl Iterator<Item = (String, NameValue)>>,
    escape: Escape,
) -> String {
    let attribute = |(name, value)| match (value, escape) {
        (NameValue::Text(text), _) => format!("{name}={}", escaped(&text, escape)),
        (NameValue::Der(der), Escape::Strict) => format!("{name}=#{}", hex(&der).to_uppercase()),
        (NameValue::Der(der), Escape::Readable) => format!("{name}=#{}", hex(&der)),
    };
    let parts = parts.map(|part| part.map(attribute).collect::<Vec<_>>().join("+"));
    parts.collect::<Vec<_>>().join(",")
}

fn escaped(text: &str, escape: Escape) -> String {
    let last = text.len().saturating_sub(1);
    let escaped = text.char_indices().map(|(at, c)| {
        let special =
            "\"+,;<>\\".contains(c) || (c == '#' && at == 0) || (c == ' ' && (at == 0 || at == last));
        match escape {
            Escape::Strict if special => format!("\\{:02X}", u32::from(c)),
            Escape::Readable if special => format!("\\{c}"),
            _ if c.is_control() => {
                c.to_string().bytes().fold(String::new(), |text, byte| text + "\\" + &hex(&[byte]))
            }
            _ => c.to_string(),
        }
    });
    escaped.collect()
}
