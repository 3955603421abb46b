//! SHA-256, and fingerprints and jitter that are derived from it.

use aws_lc_rs::digest::{Context, SHA256};
use std::fmt::Write;

/// SHA-256 of the concatenated parts.
pub(crate) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

/// 128 bits of SHA-256 over the parts and their lengths, hexadecimal. `["ab", "c"]` differs from `["a", "bc"]`.
pub(crate) fn fingerprint(parts: &[&[u8]]) -> String {
    let lengths: Vec<[u8; 8]> = parts.iter().map(|part| (part.len() as u64).to_be_bytes()).collect();
    let framed: Vec<&[u8]> =
        lengths.iter().zip(parts).flat_map(|(length, part)| [length.as_slice(), *part]).collect();
    hex(&sha256(&framed)[..16])
}

/// A number in [0, 1) that depends on the arguments only. It spreads work that would otherwise start at the same time.
pub(crate) fn jitter(id: &str, seed: &[u8]) -> f64 {
    let [a, b, c, d, ..] = sha256(&[seed, id.as_bytes()]);
    f64::from(u32::from_be_bytes([a, b, c, d])) / (f64::from(u32::MAX) + 1.0)
}

/// Lower-case hexadecimal, without separators.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_covers_all_parts_and_a_fingerprint_their_lengths_too() {
        assert!(hex(&sha256(&[b"ab", b"c"])).starts_with("ba7816bf8f01cfea"));
        assert_ne!(fingerprint(&[b"ab", b"c"]), fingerprint(&[b"a", b"bc"]));
        assert_eq!(fingerprint(&[b"ab"]).len(), 32);
    }

    #[test]
    fn jitter_is_deterministic_and_spreads() {
        assert!((jitter("a", b"1") - jitter("a", b"1")).abs() < f64::EPSILON);
        let upper = (0..1000).filter(|n| jitter(&format!("csi-{n}"), b"") >= 0.5).count();
        assert!((400..600).contains(&upper), "{upper}");
    }
}
