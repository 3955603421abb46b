//! The subject that `literal-subject` spells out, taken apart.

use super::name_types::KEYWORDS;
use super::values::distinguished_name;
use const_oid::ObjectIdentifier;
use std::fmt::{self, Write};
use std::str::FromStr;

/// A distinguished name: its parts in the order written, the most specific one first as RFC 4514 has it. None is empty.
///
/// It prints in one strict form (keywords in upper case, no space between the parts, every special character as a
/// hexadecimal pair) that any RFC 4514 parser reads alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DistinguishedName {
    pub(super) parts: Vec<Vec<NameAttribute>>,
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

/// Reads RFC 4514; the error is a phrase that says what is wrong and reads on from the quoted text.
impl FromStr for DistinguishedName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        distinguished_name::parse(text)
    }
}

impl fmt::Display for DistinguishedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, part) in self.parts.iter().enumerate() {
            for (place, attribute) in part.iter().enumerate() {
                match (index, place) {
                    (0, 0) => {}
                    (_, 0) => f.write_char(',')?,
                    _ => f.write_char('+')?,
                }
                attribute.fmt(f)?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for NameAttribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match KEYWORDS.iter().find(|(_, oid)| *oid == self.oid) {
            Some((keyword, _)) => write!(f, "{keyword}=")?,
            None => write!(f, "{}=", self.oid)?,
        }
        match &self.value {
            NameValue::Text(text) => escaped(f, text),
            NameValue::Der(der) => {
                f.write_char('#')?;
                der.iter().try_for_each(|byte| write!(f, "{byte:02X}"))
            }
        }
    }
}

fn escaped(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    let last = text.len().saturating_sub(1);
    for (at, c) in text.char_indices() {
        let special =
            "\"+,;<>\\".contains(c) || (c == '#' && at == 0) || (c == ' ' && (at == 0 || at == last));
        if special {
            write!(f, "\\{:02X}", u32::from(c))?;
        } else {
            f.write_char(c)?;
        }
    }
    Ok(())
}
