//! Finds the known name that a mistyped name resembles most.

use std::cmp::Reverse;

/// Longer names are cut: a name has no length limit, and the cost of the edit distance grows with the length.
const MAX_CHARACTERS: usize = 64;

/// The candidate with the smallest edit distance; of several the one that begins and ends most alike, and then the first.
pub(crate) fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let name: String = name.chars().take(MAX_CHARACTERS).collect::<String>().to_lowercase();
    let alike = |candidate: &str| {
        let begin = name.chars().zip(candidate.chars()).take_while(|(a, b)| a == b);
        let end = name.chars().rev().zip(candidate.chars().rev()).take_while(|(a, b)| a == b);
        begin.count() + end.count()
    };
    candidates.min_by_key(|candidate| (strsim::levenshtein(&name, candidate), Reverse(alike(candidate))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_name_wins() {
        let names = ["issuer-name", "common-name", "dns-names"];
        assert_eq!(nearest("DNS-Name", names.into_iter()), Some("dns-names"));
        assert_eq!(nearest("uris", ["class", "uri-sans"].into_iter()), Some("uri-sans"));
        assert_eq!(nearest("issuer", ["signer", "is-ca"].into_iter()), Some("signer"));
        assert_eq!(nearest("comon-name", names.into_iter()), Some("common-name"));
        assert_eq!(nearest(&"x".repeat(100_000), names.into_iter()), Some("issuer-name"));
    }
}
