//! Finds the known name that a mistyped name resembles most.

/// Longer names are cut: a name has no length limit, and the cost of the edit distance grows with the length.
const MAX_CHARACTERS: usize = 64;

/// The candidate with the smallest edit distance; the first of several.
pub(crate) fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let name: String = name.chars().take(MAX_CHARACTERS).collect::<String>().to_lowercase();
    candidates.min_by_key(|candidate| strsim::levenshtein(&name, candidate))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_name_wins() {
        let names = ["issuer-name", "common-name", "dns-names"];
        assert_eq!(nearest("DNS-Name", names.into_iter()), Some("dns-names"));
        assert_eq!(nearest("comon-name", names.into_iter()), Some("common-name"));
        assert_eq!(nearest(&"x".repeat(100_000), names.into_iter()), Some("issuer-name"));
    }
}
