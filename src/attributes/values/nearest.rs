//! Which known name a mistyped one was meant to be.

/// The candidate at the smallest edit distance; among equals, the first.
pub(in crate::attributes) fn nearest<'a>(
    name: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    // A key has no length limit, and the distance costs length times length; past this it resembles nothing anyway.
    let name: String = name.chars().take(64).collect();
    candidates.min_by_key(|candidate| distance(&name.to_lowercase(), candidate))
}

/// Levenshtein distance, one row at a time.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_single_edits() {
        for (a, b, expected) in
            [("", "abc", 3), ("kitten", "sitting", 3), ("same", "same", 0), ("dns-name", "dns-names", 1)]
        {
            assert_eq!(distance(a, b), expected, "{a} {b}");
            assert_eq!(distance(b, a), expected, "{b} {a}");
        }
    }

    #[test]
    fn the_closest_name_wins() {
        let names = ["issuer-name", "common-name", "dns-names"];
        assert_eq!(nearest("DNS-Name", names.into_iter()), Some("dns-names"));
        assert_eq!(nearest("comon-name", names.into_iter()), Some("common-name"));
        assert_eq!(nearest(&"x".repeat(100_000), names.into_iter()), Some("issuer-name"));
    }
}
