//! Values and texts of other people as messages and logs show them.

/// How many characters of a value a message shows: an Event holds 1,024 bytes, and there may be several faults.
const MAX_SHOWN_CHARACTERS: usize = 80;
/// The elements of a list that are shown.
const MAX_SHOWN_ELEMENTS: usize = 20;

/// Bytes that are kept of a message of other people: as many as an Event's note holds.
pub(crate) const MAX_MESSAGE_BYTES: usize = 1024;

/// A value as a message shows it: quoted, control characters escaped, long ones cut.
pub(crate) fn shown(value: &str) -> String {
    let mut characters = value.chars();
    let head: String = characters.by_ref().take(MAX_SHOWN_CHARACTERS).collect();
    if characters.next().is_none() { format!("{head:?}") } else { format!("{head:?}...") }
}

/// A text of other people for a terminal: on one line, with a question mark for what a terminal obeys or what reorders the line.
pub(crate) fn plain(text: &str) -> String {
    let is_obeyed = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let shown = |c| match c {
        '\n' | '\t' => ' ',
        c if is_obeyed(c) => '?',
        c => c,
    };
    text.chars().map(shown).collect()
}

/// The beginning of a text. It has at most `max_bytes`, the dots included that stand for the rest.
pub(crate) fn clipped(text: &str, max_bytes: usize) -> String {
    const DOTS: &str = " ...";
    if text.len() <= max_bytes {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(max_bytes.saturating_sub(DOTS.len()));
    format!("{}{DOTS}", &text[..end])
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
    fn a_terminal_obeys_nothing_of_a_text() {
        assert_eq!(plain("a\u{1b}[2Jb\nc\u{202e}d \u{e9}"), "a?[2Jb c?d \u{e9}");
    }

    #[test]
    fn a_long_value_is_cut_and_control_characters_are_escaped() {
        assert_eq!(shown("a\nb"), r#""a\nb""#);
        assert_eq!(shown(&"x".repeat(80)).len(), 82);
        assert_eq!(shown(&"x".repeat(81)), format!("\"{}\"...", "x".repeat(80)));
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(clipped("short", 5), "short");
        assert_eq!(clipped("0123456789", 9), "01234 ...");
        let cut = clipped(&format!("x{}", "\u{e9}".repeat(30_000)), MAX_MESSAGE_BYTES);
        assert!(cut.len() <= MAX_MESSAGE_BYTES && cut.ends_with("\u{e9} ..."), "{} bytes", cut.len());
    }

    #[test]
    fn a_long_list_ends_with_a_number() {
        assert_eq!(shown_list(&["a", "b"], ", "), "a, b");
        let many: Vec<u32> = (1..=22).collect();
        assert!(shown_list(&many, "; ").ends_with("; 20; and 2 more"));
    }
}
