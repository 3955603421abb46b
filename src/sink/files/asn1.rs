//! DER (X.690) writing for PKCS#12, whose structures no library in the tree has: a value is a tag and its parts.

use const_oid::ObjectIdentifier;

/// Tags, of the universal class unless the name says otherwise.
pub(super) mod tag {
    pub(crate) const INTEGER: u8 = 0x02;
    pub(crate) const OCTET_STRING: u8 = 0x04;
    pub(crate) const NULL: u8 = 0x05;
    pub(crate) const OID: u8 = 0x06;
    pub(crate) const BMP_STRING: u8 = 0x1e;
    pub(crate) const SEQUENCE: u8 = 0x30;
    pub(crate) const SET: u8 = 0x31;
    /// `[0]` holding a primitive value.
    pub(crate) const CONTEXT_0_PRIMITIVE: u8 = 0x80;
    /// `[0]` holding a constructed value.
    pub(crate) const CONTEXT_0: u8 = 0xa0;
}

/// One value: tag, length, and the parts one after the other.
pub(super) fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = Vec::with_capacity(length + 6);
    out.push(tag);
    if let Ok(short @ 0..=0x7f) = u8::try_from(length) {
        out.push(short);
    } else {
        let bytes = length.to_be_bytes();
        let digits = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
        // At most eight digits follow, so the count fits beside the flag.
        out.push(0x80 | u8::try_from(digits.len()).unwrap_or(8));
        out.extend_from_slice(digits);
    }
    for part in parts {
        out.extend_from_slice(part);
    }
    out
}

/// A `SEQUENCE` of the parts.
pub(super) fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    tlv(tag::SEQUENCE, parts)
}

/// A `SEQUENCE OF` the items.
pub(super) fn sequence_of(items: &[Vec<u8>]) -> Vec<u8> {
    tlv(tag::SEQUENCE, &items.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

/// A `SET OF` the items, in the order that DER asks for (X.690 section 11.6).
pub(super) fn set_of(mut items: Vec<Vec<u8>>) -> Vec<u8> {
    items.sort();
    tlv(tag::SET, &items.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

/// An `OBJECT IDENTIFIER`.
pub(super) fn oid(oid: &ObjectIdentifier) -> Vec<u8> {
    tlv(tag::OID, &[oid.as_bytes()])
}

/// A `NULL`.
pub(super) fn null() -> Vec<u8> {
    tlv(tag::NULL, &[])
}

/// A non-negative `INTEGER`, from its big-endian bytes.
pub(super) fn unsigned(bytes: &[u8]) -> Vec<u8> {
    let digits = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
    match digits.first() {
        None => tlv(tag::INTEGER, &[&[0]]),
        Some(0x80..) => tlv(tag::INTEGER, &[&[0], digits]),
        Some(_) => tlv(tag::INTEGER, &[digits]),
    }
}

/// An `OCTET STRING`.
pub(super) fn octet_string(bytes: &[u8]) -> Vec<u8> {
    tlv(tag::OCTET_STRING, &[bytes])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_over_127_take_the_long_form() {
        assert_eq!(tlv(4, &[&[7; 127]])[..2], [4, 127]);
        assert_eq!(tlv(4, &[&[7; 128]])[..3], [4, 0x81, 128]);
        assert_eq!(tlv(4, &[&[7; 200], &[7; 100]])[..4], [4, 0x82, 1, 44]);
    }

    #[test]
    fn integers_are_minimal_and_never_negative() {
        assert_eq!(unsigned(&[0, 0]), [2, 1, 0]);
        assert_eq!(unsigned(&[0, 0x7f]), [2, 1, 0x7f]);
        assert_eq!(unsigned(&[0x80]), [2, 2, 0, 0x80]);
    }
}
