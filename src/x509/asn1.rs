//! DER (X.690) writing: a value is a tag and the concatenation of its parts.

use const_oid::ObjectIdentifier;
use jiff::Timestamp;
use jiff::tz::Offset;

/// Tags, of the universal class unless the name says otherwise.
pub(crate) mod tag {
    pub(crate) const BOOLEAN: u8 = 0x01;
    pub(crate) const INTEGER: u8 = 0x02;
    pub(crate) const BIT_STRING: u8 = 0x03;
    pub(crate) const OCTET_STRING: u8 = 0x04;
    pub(crate) const NULL: u8 = 0x05;
    pub(crate) const OID: u8 = 0x06;
    pub(crate) const UTF8_STRING: u8 = 0x0c;
    pub(crate) const PRINTABLE_STRING: u8 = 0x13;
    pub(crate) const IA5_STRING: u8 = 0x16;
    pub(crate) const UTC_TIME: u8 = 0x17;
    pub(crate) const GENERALIZED_TIME: u8 = 0x18;
    pub(crate) const BMP_STRING: u8 = 0x1e;
    pub(crate) const SEQUENCE: u8 = 0x30;
    pub(crate) const SET: u8 = 0x31;
    /// `[0]` holding a primitive value.
    pub(crate) const CONTEXT_0_PRIMITIVE: u8 = 0x80;
    /// `[0]` holding a constructed value.
    pub(crate) const CONTEXT_0: u8 = 0xa0;
    /// `[3]` holding a constructed value.
    pub(crate) const CONTEXT_3: u8 = 0xa3;
}

/// One value: tag, length, and the parts one after the other.
pub(crate) fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
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
pub(crate) fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    tlv(tag::SEQUENCE, parts)
}

/// A `SEQUENCE OF` the items.
pub(crate) fn sequence_of(items: &[Vec<u8>]) -> Vec<u8> {
    tlv(tag::SEQUENCE, &items.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

/// A `SET OF` the items, in the order that DER asks for (X.690 section 11.6).
pub(crate) fn set_of(mut items: Vec<Vec<u8>>) -> Vec<u8> {
    items.sort();
    tlv(tag::SET, &items.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

/// An `OBJECT IDENTIFIER`.
pub(crate) fn oid(oid: &ObjectIdentifier) -> Vec<u8> {
    tlv(tag::OID, &[oid.as_bytes()])
}

/// A `NULL`.
pub(crate) fn null() -> Vec<u8> {
    tlv(tag::NULL, &[])
}

/// A non-negative `INTEGER`, from its big-endian bytes.
pub(crate) fn unsigned(bytes: &[u8]) -> Vec<u8> {
    let digits = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
    match digits.first() {
        None => tlv(tag::INTEGER, &[&[0]]),
        Some(0x80..) => tlv(tag::INTEGER, &[&[0], digits]),
        Some(_) => tlv(tag::INTEGER, &[digits]),
    }
}

/// A `BIT STRING` of whole bytes.
pub(crate) fn bit_string(bytes: &[u8]) -> Vec<u8> {
    tlv(tag::BIT_STRING, &[&[0], bytes])
}

/// A `BIT STRING` of named bits: bit 0 is the lowest of `flags`, and trailing zeros are left out (X.690 section 11.2.2).
pub(crate) fn named_bits(flags: u16) -> Vec<u8> {
    let reversed = flags.reverse_bits();
    let length = 16 - reversed.trailing_zeros().min(16);
    let unused = [((8 - length % 8) % 8).to_le_bytes()[0]];
    let bytes = reversed.to_be_bytes();
    tlv(tag::BIT_STRING, &[&unused, &bytes[..length.div_ceil(8) as usize]])
}

/// An `OCTET STRING`.
pub(crate) fn octet_string(bytes: &[u8]) -> Vec<u8> {
    tlv(tag::OCTET_STRING, &[bytes])
}

/// A `DirectoryString`: `PrintableString` where its alphabet suffices, `UTF8String` otherwise.
pub(crate) fn directory_string(text: &str) -> Vec<u8> {
    let printable = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b" '()+,-./:=?".contains(&byte));
    let tag = if printable { tag::PRINTABLE_STRING } else { tag::UTF8_STRING };
    tlv(tag, &[text.as_bytes()])
}

/// A `Time`: `UTCTime` up to 2049, `GeneralizedTime` after (RFC 5280 section 4.1.2.5). Whole seconds.
pub(crate) fn time(at: Timestamp) -> Vec<u8> {
    let at = Offset::UTC.to_datetime(at);
    if (1950..2050).contains(&at.year()) {
        tlv(tag::UTC_TIME, &[at.strftime("%y%m%d%H%M%SZ").to_string().as_bytes()])
    } else {
        tlv(tag::GENERALIZED_TIME, &[at.strftime("%Y%m%d%H%M%SZ").to_string().as_bytes()])
    }
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

    #[test]
    fn named_bits_drop_trailing_zeros() {
        assert_eq!(named_bits(0), [3, 1, 0]);
        assert_eq!(named_bits(0b101), [3, 2, 5, 0xa0]);
        assert_eq!(named_bits(1 << 7), [3, 2, 0, 0x01]);
        assert_eq!(named_bits(1 << 8), [3, 3, 7, 0, 0x80]);
    }

    #[test]
    fn years_from_2050_are_generalized_time() {
        assert_eq!(time("2049-12-31T23:59:59Z".parse().unwrap()), b"\x17\x0d491231235959Z");
        assert_eq!(time("2050-01-01T00:00:00Z".parse().unwrap()), b"\x18\x0f20500101000000Z");
    }
}
