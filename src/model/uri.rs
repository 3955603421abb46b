//! URIs as names.

/// The first percent-encoding (RFC 3986 section 2.1) of a character that separates parts of a URI, or of a percent sign.
/// Programs differ in whether they decode it before they split the URI, so they can read different names in it.
pub(crate) fn encoded_separator(uri: &str) -> Option<&str> {
    let escapes = uri.match_indices('%').filter_map(|(at, _)| uri.get(at..at + 3));
    escapes.into_iter().find(|escape| {
        let byte = escape.get(1..).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        byte.is_some_and(|byte| b"/?#@:%\\".contains(&byte))
    })
}

#[cfg(test)]
mod tests {
    use super::encoded_separator;

    #[test]
    fn only_separators_are_found() {
        assert_eq!(encoded_separator("spiffe://example.org/a%20b%2fc%3A"), Some("%2f"));
        assert_eq!(encoded_separator("spiffe://example.org/%252F"), Some("%25"));
        for plain in
            ["spiffe://example.org/a%20b", "spiffe://example.org/%", "%2", "spiffe://example.org/é%C3%A9"]
        {
            assert_eq!(encoded_separator(plain), None, "{plain}");
        }
    }
}
