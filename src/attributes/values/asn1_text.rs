//! The strings of ASN.1 that a subject can hold (RFC 5280 appendix A.1), from their DER encoding.

use der::asn1::AnyRef;
use der::{Decode, Reader, SliceReader, Tag, Tagged};

/// The text of a DER value; `None` if it is no string. The error is a phrase that continues the quoted value.
///
/// The `der` crate does not read a `UniversalString`, so a value of that type is refused earlier.
pub(super) fn decoded(der: &[u8]) -> Result<Option<String>, String> {
    let value = AnyRef::from_der(der).map_err(|_| NOT_DER)?;
    let bytes = value.value();
    let text = match value.tag() {
        Tag::Utf8String => std::str::from_utf8(bytes).ok().map(str::to_owned),
        Tag::PrintableString => {
            Some(bytes).filter(|bytes| bytes.iter().all(|byte| is_printable(*byte))).map(latin1)
        }
        Tag::Ia5String => Some(bytes).filter(|bytes| bytes.is_ascii()).map(latin1),
        // T.61, which everybody reads as ISO 8859-1.
        Tag::TeletexString => Some(latin1(bytes)),
        Tag::BmpString => bmp(bytes),
        tag if tag.is_constructed() && !are_parts_der(bytes) => return Err(NOT_DER.into()),
        _ => return Ok(None),
    };
    text.map(Some).ok_or_else(|| "has characters that its type of string cannot hold".into())
}

const NOT_DER: &str = "is not DER in its inner parts";

fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

/// The characters of a `PrintableString` (X.680 section 41.4).
fn is_printable(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b" '()+,-./:=?".contains(&byte)
}

/// UTF-16 without surrogates.
fn bmp(bytes: &[u8]) -> Option<String> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|pair| char::from_u32(u32::from(u16::from_be_bytes(*pair)))).collect()
}

/// Whether the contents of a constructed value are DER, at every depth.
fn are_parts_der(contents: &[u8]) -> bool {
    let mut unread = vec![contents];
    while let Some(contents) = unread.pop() {
        let Ok(mut reader) = SliceReader::new(contents) else { return false };
        while !reader.is_finished() {
            let Ok(part) = AnyRef::decode(&mut reader) else { return false };
            if part.tag().is_constructed() {
                unread.push(part.value());
            }
        }
    }
    true
}
