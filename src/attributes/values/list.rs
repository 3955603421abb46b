//! Comma-separated lists. An element that holds a comma is quoted as in CSV (RFC 4180), as cert-manager reads such
//! annotations. A backslash is an ordinary character, as in CSV.

/// Limit on the elements of a list, so that a pod cannot fill the node's memory. No certificate has so many names.
const MAX_ELEMENTS: usize = 500;

/// Splits a list into its elements and trims white space around them. No element is empty.
pub(in crate::attributes) fn split(text: &str) -> Result<Vec<String>, String> {
    let mut elements = Vec::new();
    let mut rest = text;
    loop {
        let number = elements.len() + 1;
        let (element, after) = match rest.trim_start().strip_prefix('"') {
            Some(quoted) => quoted_element(quoted, number)?,
            None => plain_element(rest, number)?,
        };
        if element.is_empty() {
            return Err(format!("has nothing in element {number} of the list"));
        }
        if number > MAX_ELEMENTS {
            return Err(too_many());
        }
        elements.push(element);
        match after {
            Some(after) => rest = after,
            None => return Ok(elements),
        }
    }
}

/// Splits a list as cert-manager's csi-driver splits names and usages: at every comma, with white space trimmed (Go's
/// `strings.Split` and `strings.TrimSpace`). Elements can be empty.
pub(in crate::attributes) fn split_at_commas(text: &str) -> Result<Vec<String>, String> {
    limited(text.split(',').map(|element| element.trim().to_owned()).collect())
}

/// Splits a list as cert-manager's csi-driver splits the fields of a subject: one record of Go's `encoding/csv`. White space
/// belongs to the element, and elements can be empty.
pub(in crate::attributes) fn split_as_csv(text: &str) -> Result<Vec<String>, String> {
    let mut rest = text.trim_start_matches(['\r', '\n']);
    let mut elements = Vec::new();
    if rest.is_empty() {
        return Ok(elements);
    }
    loop {
        let number = elements.len() + 1;
        let (element, after) = if let Some(quoted) = rest.strip_prefix('"') {
            quoted_text(quoted, number)?
        } else {
            let (element, after) = rest.split_at(rest.find([',', '\n']).unwrap_or(rest.len()));
            if element.contains('"') {
                return Err(stray_quote(number));
            }
            (element.to_owned(), after)
        };
        elements.push(element.trim_end_matches('\r').to_owned());
        match after.strip_prefix(',') {
            Some(after) => rest = after,
            None if after.trim_start_matches(['\r', '\n']).is_empty() => return limited(elements),
            None if after.starts_with(['\r', '\n']) => return Err("has several lines".into()),
            None => return Err(text_after_quote(number)),
        }
    }
}

/// Splits a list of a peer's volume that was published before. The peer's rules decide, so that the names stay the same. Our own
/// rules decide where the peer's refuse the list, or would take quotes for parts of names: then an earlier build has published it.
pub(in crate::attributes) fn split_stored(
    text: &str,
    split_as_peer: impl Fn(&str) -> Result<Vec<String>, String>,
    passes: impl Fn(&str) -> bool,
) -> Result<Vec<String>, String> {
    let all_pass = |elements: &[String]| elements.iter().all(|element| passes(element));
    let theirs = split_as_peer(text);
    let is_theirs = theirs
        .as_deref()
        .is_ok_and(|theirs| all_pass(theirs) && !theirs.iter().any(|element| element.contains('"')));
    match split(text) {
        Ok(ours) if !is_theirs && all_pass(&ours) => Ok(ours),
        _ => theirs,
    }
}

fn limited(elements: Vec<String>) -> Result<Vec<String>, String> {
    if elements.len() > MAX_ELEMENTS { Err(too_many()) } else { Ok(elements) }
}

fn too_many() -> String {
    format!("has more than {MAX_ELEMENTS} elements")
}

fn stray_quote(number: usize) -> String {
    format!("has a stray quote in element {number} of the list (quote the whole element, double the quote)")
}

fn text_after_quote(number: usize) -> String {
    format!("has text after the closing quote in element {number} of the list")
}

/// An element without quotes, and the text after its comma.
fn plain_element(text: &str, number: usize) -> Result<(String, Option<&str>), String> {
    let (element, after) = match text.split_once(',') {
        Some((element, after)) => (element, Some(after)),
        None => (text, None),
    };
    let element = element.trim();
    if element.contains('"') {
        return Err(stray_quote(number));
    }
    // A line break is allowed around an element. Within an element it means that a comma is missing.
    if element.contains(['\n', '\r']) {
        return Err(format!("has a line break without a comma in element {number} of the list"));
    }
    Ok((element.to_owned(), after))
}

/// An element after its opening quote, and the text after its comma.
fn quoted_element(text: &str, number: usize) -> Result<(String, Option<&str>), String> {
    let (element, after) = quoted_text(text, number)?;
    let after = after.trim_start();
    match after.strip_prefix(',') {
        None if after.is_empty() => Ok((element, None)),
        None => Err(text_after_quote(number)),
        Some(after) => Ok((element, Some(after))),
    }
}

/// The text after an opening quote up to the closing one, and what follows that.
fn quoted_text(text: &str, number: usize) -> Result<(String, &str), String> {
    let mut element = String::new();
    let mut rest = text;
    loop {
        let Some((head, tail)) = rest.split_once('"') else {
            return Err(format!("has an open quote in element {number} of the list"));
        };
        element.push_str(head);
        let Some(after) = tail.strip_prefix('"') else { return Ok((element, tail)) };
        element.push('"');
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn quoted(elements: &[String]) -> String {
        let quoted: Vec<_> = elements.iter().map(|e| format!("\"{}\"", e.replace('"', "\"\""))).collect();
        quoted.join(",")
    }

    #[test]
    fn elements_are_split_at_commas_and_trimmed() {
        assert_eq!(split("a, b ,c"), Ok(vec!["a".into(), "b".into(), "c".into()]));
        assert_eq!(split("  a,\n  b\n"), Ok(vec!["a".into(), "b".into()]));
    }

    #[test]
    fn a_list_with_too_many_elements_is_refused() {
        assert_eq!(split(&"a,".repeat(30_000)), Err("has more than 500 elements".into()));
        assert_eq!(split(&["a"; 500].join(",")).map(|elements| elements.len()), Ok(500));
    }

    #[test]
    fn a_quoted_element_keeps_its_commas_quotes_and_spaces() {
        assert_eq!(
            split(r#""10 Downing Street, Westminster",  "the ""big"" one " , Leeds"#),
            Ok(vec!["10 Downing Street, Westminster".into(), r#"the "big" one "#.into(), "Leeds".into()])
        );
    }

    #[test]
    fn a_backslash_is_an_ordinary_character() {
        assert_eq!(split(r"a\,b"), Ok(vec![r"a\".into(), "b".into()]));
    }

    #[test]
    fn empty_elements_stray_quotes_and_broken_lines_are_refused() {
        for text in
            ["", " ", ",", "a,", ",a", "a,,b", "\"\"", "\"a", "\"a\"b", "a\"b\"", "a\nb", "\"a\" \"b\""]
        {
            assert!(split(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn names_are_split_as_csi_driver_splits_them() {
        for (text, expected) in [
            ("a, b ,\nc\n", &["a", "b", "c"][..]),
            ("a,,b,", &["a", "", "b", ""]),
            ("\"a,b\"", &["\"a", "b\""]),
            ("a\nb", &["a\nb"]),
        ] {
            assert_eq!(split_at_commas(text).unwrap(), expected, "{text:?}");
        }
        assert!(split_at_commas(&"a,".repeat(500)).is_err());
    }

    #[test]
    fn the_fields_of_a_subject_are_split_as_csi_driver_splits_them() {
        for (text, expected) in [
            ("Acme, Foo ", &["Acme", " Foo "][..]),
            ("\"Acme, Inc.\",\"the \"\"big\"\" one\"", &["Acme, Inc.", "the \"big\" one"]),
            ("a,", &["a", ""]),
            ("\n\na,b\r\n", &["a", "b"]),
            ("\"a\nb\",c", &["a\nb", "c"]),
            (r"a\,b", &[r"a\", "b"]),
            ("", &[]),
        ] {
            assert_eq!(split_as_csv(text).unwrap(), expected, "{text:?}");
        }
        for text in ["a\nb", "a, \"b\"", "a\"b", "\"a\"b", "\"a\" ", "\"a"] {
            assert!(split_as_csv(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn an_escaped_list_reads_back(elements in proptest::collection::vec("(?s).{1,12}", 1..6)) {
            prop_assert_eq!(split(&quoted(&elements)), Ok(elements));
        }

        #[test]
        fn a_list_of_plain_elements_reads_back(
            elements in proptest::collection::vec("[a-z\\\\.*-]{1,8}( [a-z]{1,3})?", 1..6),
            comma in "[ \n\t]{0,2},[ \n\t]{0,2}",
        ) {
            prop_assert_eq!(split(&elements.join(&comma)), Ok(elements));
        }

        #[test]
        fn no_text_makes_it_panic_or_gives_an_empty_element(text in "(?s)[ab\", \n]{0,12}|.{0,12}") {
            if let Ok(elements) = split(&text) {
                prop_assert!(elements.iter().all(|e| !e.is_empty()));
            }
        }
    }
}
