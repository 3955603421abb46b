//! The subject that `literal-subject` spells out, taken apart.

use super::name_types::KEYWORDS;
use const_oid::ObjectIdentifier;
use std::fmt::{self, Write};

/// A distinguished name: its parts in the order written, the most specific one first as RFC 4514 has it. None is empty.
///
/// It prints in one strict form (keywords in upper case, no space between the parts, every special character as a
/// hexadecimal pair) that any RFC 4514 parser reads alike.
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
    /// A value given by its encoding: DER, one value.
    Der(Vec<u8>),
}

impl DistinguishedName {
    /// The parts (relative distinguished names), the most specific one first; each has one attribute or more, all different.
    pub fn parts(&self) -> impl DoubleEndedIterator<Item = &[NameAttribute]> {
        self.parts.iter().map(Vec::as_slice)
    }
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
        write_rfc4514(f, parts, Escape::Strict)
    }
}

/// How [`write_rfc4514`] escapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Escape {
    /// `\2C`: any parser reads it alike.
    Strict,
    /// `\,`: for people. Hexadecimal digits are in lower case.
    Readable,
}

/// Writes a name as RFC 4514 has it: parts from the most specific one on, each of types and values.
pub(crate) fn write_rfc4514(
    out: &mut impl Write,
    parts: impl Iterator<Item = impl Iterator<Item = (String, NameValue)>>,
    escape: Escape,
) -> fmt::Result {
    for (part_index, part) in parts.enumerate() {
        for (index, (name, value)) in part.enumerate() {
            let separator = if index > 0 {
                "+"
            } else if part_index > 0 {
                ","
            } else {
                ""
            };
            write!(out, "{separator}{name}=")?;
            match (value, escape) {
                (NameValue::Text(text), _) => write_escaped(out, &text, escape)?,
                (NameValue::Der(der), Escape::Strict) => {
                    out.write_char('#')?;
                    der.iter().try_for_each(|byte| write!(out, "{byte:02X}"))?;
                }
                (NameValue::Der(der), Escape::Readable) => write!(out, "#{}", super::hex(&der))?,
            }
        }
    }
    Ok(())
}

fn write_escaped(out: &mut impl Write, text: &str, escape: Escape) -> fmt::Result {
    let last = text.len().saturating_sub(1);
    for (at, c) in text.char_indices() {
        let special =
            "\"+,;<>\\".contains(c) || (c == '#' && at == 0) || (c == ' ' && (at == 0 || at == last));
        match escape {
            Escape::Strict if special => write!(out, "\\{:02X}", u32::from(c))?,
            Escape::Readable if special => write!(out, "\\{c}")?,
            _ if c.is_control() => {
                c.encode_utf8(&mut [0; 4]).bytes().try_for_each(|byte| write!(out, "\\{byte:02x}"))?;
            }
            _ => out.write_char(c)?,
        }
    }
    Ok(())
}
