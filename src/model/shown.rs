//! Values of other people as messages and logs show them.

/// How many characters of a value a message shows: an Event holds 1,024 bytes, and there may be several faults.
const MAX_SHOWN_CHARACTERS: usize = 80;
/// The elements of a list that are shown.
const MAX_SHOWN_ELEMENTS: usize = 20;

/// A value as a message shows it: quoted, control characters escaped, long ones cut.
pub(crate) fn shown(value: &str) -> String {
    let mut characters = value.chars();
    let head: String = characters.by_ref().take(MAX_SHOWN_CHARACTERS).collect();
    if characters.next().is_none() { format!("{head:?}") } else { format!("{head:?}...") }
}

/// Elements as a message shows them: joined, those after the first twenty only counted.
pub(crate) fn shown_list(elements: &[impl ToString], separator: &str) -> String {
    let first: Vec<String> = elements.iter().take(MAX_SHOWN_ELEMENTS).map(ToString::to_string).collect();
    let first = first.join(separator);
    match elements.len().saturating_sub(MAX_SHOWN_ELEMENTS) {
        0 => first,
        more => format!("{first}{separator}and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_value_is_cut_and_control_characters_are_escaped() {
        assert_eq!(shown("a\nb"), r#""a\nb""#);
        assert_eq!(shown(&"x".repeat(80)).len(), 82);
        assert_eq!(shown(&"x".repeat(81)), format!("\"{}\"...", "x".repeat(80)));
    }

    #[test]
    fn a_long_list_ends_with_a_number() {
        assert_eq!(shown_list(&["a", "b"], ", "), "a, b");
        let many: Vec<u32> = (1..=22).collect();
        assert!(shown_list(&many, "; ").ends_with("; 20; and 2 more"));
    }
}
