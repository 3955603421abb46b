//! DER (X.690) for PKCS#12, whose structures no library in the tree has.

use der::asn1::AnyRef;
use der::{Encode, Tag, TagNumber};

/// `[0]` holding a primitive value.
pub(super) const CONTEXT_0_PRIMITIVE: Tag = Tag::ContextSpecific { constructed: false, number: TagNumber(0) };
/// `[0]` holding a constructed value.
pub(super) const CONTEXT_0: Tag = Tag::ContextSpecific { constructed: true, number: TagNumber(0) };

/// One value: tag, length, and content.
pub(super) fn tlv(tag: Tag, content: &[u8]) -> der::Result<Vec<u8>> {
    AnyRef::new(tag, content)?.to_der()
}

/// A `SEQUENCE` of the items.
pub(super) fn sequence(items: &[Vec<u8>]) -> der::Result<Vec<u8>> {
    tlv(Tag::Sequence, &items.concat())
}

/// A `SET OF` the items, in the order that DER asks for (X.690 section 11.6).
pub(super) fn set_of(mut items: Vec<Vec<u8>>) -> der::Result<Vec<u8>> {
    items.sort();
    tlv(Tag::Set, &items.concat())
}

/// An `OCTET STRING`.
pub(super) fn octet_string(bytes: &[u8]) -> der::Result<Vec<u8>> {
    tlv(Tag::OctetString, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_over_127_take_the_long_form() {
        assert_eq!(octet_string(&[7; 127]).unwrap()[..2], [4, 127]);
        assert_eq!(octet_string(&[7; 128]).unwrap()[..3], [4, 0x81, 128]);
        assert_eq!(octet_string(&[7; 300]).unwrap()[..4], [4, 0x82, 1, 44]);
    }

    #[test]
    fn integers_are_minimal_and_never_negative() {
        assert_eq!(0_u32.to_der().unwrap(), [2, 1, 0]);
        assert_eq!(0x7f_u32.to_der().unwrap(), [2, 1, 0x7f]);
        assert_eq!(0x80_u32.to_der().unwrap(), [2, 2, 0, 0x80]);
    }
}
