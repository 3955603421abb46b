//! PEM (RFC 7468). Reading accepts what tools and people write: text around and between the blocks, CRLF, any line width.

use base64ct::{Base64, Encoding};
use thiserror::Error;
use zeroize::Zeroizing;

/// One block.
pub(crate) struct Block {
    /// The text between `BEGIN` and the dashes.
    pub(crate) label: String,
    /// The decoded contents; zeroized, as they may be a key.
    pub(crate) der: Zeroizing<Vec<u8>>,
}

/// Why something is not PEM. Blocks are counted from one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PemError {
    /// There is no `-----BEGIN ...-----` line.
    #[error("holds no PEM block (a line \"-----BEGIN ...-----\")")]
    NoBlock,
    /// A block does not end.
    #[error("PEM block {0} ends without its \"-----END ...-----\" line")]
    Unterminated(usize),
    /// A block holds something that is not Base64.
    #[error("PEM block {0} is not valid Base64")]
    NotBase64(usize),
    /// A block's last line names another label than its first.
    #[error("PEM block {0} ends with another label than it begins with")]
    Mismatched(usize),
}

/// Reads every block; there is at least one.
pub(crate) fn blocks(text: &[u8]) -> Result<Vec<Block>, PemError> {
    let mut blocks = Vec::new();
    let mut lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    while let Some(line) = lines.next() {
        let Some(label) = boundary(line, b"-----BEGIN ") else { continue };
        let number = blocks.len() + 1;
        // Allocated once: growing would leave a copy of the key in freed memory.
        let mut base64 = Zeroizing::new(Vec::with_capacity(text.len()));
        loop {
            let line = lines.next().ok_or(PemError::Unterminated(number))?;
            match boundary(line, b"-----END ") {
                Some(end) if end == label => break,
                Some(_) => return Err(PemError::Mismatched(number)),
                None if line.starts_with(b"-----") => return Err(PemError::Unterminated(number)),
                None => base64.extend_from_slice(line),
            }
        }
        let base64 = std::str::from_utf8(&base64).map_err(|_| PemError::NotBase64(number))?;
        let der = Base64::decode_vec(base64).map_err(|_| PemError::NotBase64(number))?;
        blocks.push(Block { label: String::from_utf8_lossy(label).into_owned(), der: Zeroizing::new(der) });
    }
    if blocks.is_empty() { Err(PemError::NoBlock) } else { Ok(blocks) }
}

fn boundary<'a>(line: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    line.strip_prefix(prefix)?.strip_suffix(b"-----")
}

/// Appends one block: 64 characters a line, LF.
///
/// Where `der` is a key, `out` must have [`encoded_len`] bytes of spare capacity: growing would leave a copy of the key behind.
pub(crate) fn encode_into(out: &mut Vec<u8>, label: &str, der: &[u8]) {
    let base64 = Zeroizing::new(Base64::encode_string(der));
    out.extend_from_slice(format!("-----BEGIN {label}-----\n").as_bytes());
    for line in base64.as_bytes().chunks(64) {
        out.extend_from_slice(line);
        out.push(b'\n');
    }
    out.extend_from_slice(format!("-----END {label}-----\n").as_bytes());
}

/// How many bytes [`encode_into`] appends.
pub(crate) fn encoded_len(label: &str, der: &[u8]) -> usize {
    let base64 = der.len().div_ceil(3) * 4;
    base64 + base64.div_ceil(64) + 2 * label.len() + "-----BEGIN -----\n-----END -----\n".len()
}

/// A PKCS#10 request.
pub(crate) fn certificate_request(der: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_into(&mut out, "CERTIFICATE REQUEST", der);
    out
}

/// Certificates, one block each.
pub(crate) fn certificates<'a>(certificates: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut out = Vec::new();
    for der in certificates {
        encode_into(&mut out, "CERTIFICATE", der);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_around_the_blocks_and_crlf_are_skipped() {
        let text = b"subject=CN = a\r\n-----BEGIN A-----\r\nAQID\r\n-----END A-----\r\n\r\nmore text\n  -----BEGIN B-----\nBA\n==\n-----END B-----";
        let found = blocks(text).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].label.as_str(), found[0].der.as_slice()), ("A", [1, 2, 3].as_slice()));
        assert_eq!((found[1].label.as_str(), found[1].der.as_slice()), ("B", [4].as_slice()));
    }

    #[test]
    fn broken_blocks_are_refused() {
        let error = |text: &[u8]| blocks(text).err().unwrap();
        assert_eq!(error(b""), PemError::NoBlock);
        assert_eq!(error(b"\xff\xfe not pem"), PemError::NoBlock);
        assert_eq!(error(b"-----BEGIN A-----\nAQID\n"), PemError::Unterminated(1));
        assert_eq!(error(b"-----BEGIN A-----\n-----BEGIN A-----\n"), PemError::Unterminated(1));
        assert_eq!(error(b"-----BEGIN A-----\nAQID\n-----END B-----\n"), PemError::Mismatched(1));
        assert_eq!(error(b"-----BEGIN A-----\n\xff\n-----END A-----\n"), PemError::NotBase64(1));
    }

    #[test]
    fn the_announced_length_is_the_length() {
        for length in 0..200 {
            let der = vec![7; length];
            let mut out = Vec::new();
            encode_into(&mut out, "PRIVATE KEY", &der);
            assert_eq!(out.len(), encoded_len("PRIVATE KEY", &der));
            assert_eq!(*blocks(&out).unwrap()[0].der, der);
        }
    }
}
