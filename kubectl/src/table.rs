//! Tables, times and colours. What other people wrote is shown without control characters: a terminal obeys those.

use jiff::Timestamp;

/// How a cell is shown on a terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Color {
    #[default]
    None,
    Red,
    Yellow,
}

/// One cell.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cell {
    text: String,
    color: Color,
}

impl Cell {
    pub(crate) fn new(text: &str, color: Color) -> Self {
        let text = plain(text);
        Self { text: if text.is_empty() { "-".to_owned() } else { text }, color }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::new(text, Color::None)
    }
}

/// Lines whose columns are as wide as their longest cell.
pub(crate) fn render(header: &[&str], rows: &[Vec<Cell>], color: bool) -> String {
    let header: Vec<Cell> = header.iter().map(|title| Cell::from(*title)).collect();
    let lines: Vec<&Vec<Cell>> = std::iter::once(&header).chain(rows).collect();
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        cells.map(|cell| cell.text.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let mut text = String::new();
    for line in lines {
        for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
            text.push_str(&paint(&cell.text, if color { cell.color } else { Color::None }));
            if column + 1 < line.len() {
                text.push_str(&" ".repeat(width.saturating_sub(cell.text.chars().count()) + 2));
            }
        }
        text.push('\n');
    }
    text
}

/// A text in its colour.
pub(crate) fn paint(text: &str, color: Color) -> String {
    match color {
        Color::None => text.to_owned(),
        Color::Red => format!("\x1b[31m{text}\x1b[0m"),
        Color::Yellow => format!("\x1b[33m{text}\x1b[0m"),
    }
}

/// The text on one line, without what a terminal obeys or what reorders it.
pub(crate) fn plain(text: &str) -> String {
    let obeyed = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.trim()
        .chars()
        .map(|c| {
            if c == '\n' || c == '\t' {
                ' '
            } else if obeyed(c) {
                '?'
            } else {
                c
            }
        })
        .collect()
}

/// How far a time is from now, with one unit: `in 41m`, `3d ago`.
pub(crate) fn relative(at: Timestamp, now: Timestamp) -> String {
    let seconds = at.duration_since(now).as_secs();
    let (size, is_past) = (seconds.unsigned_abs(), seconds < 0);
    let span = match size {
        0..120 => format!("{size}s"),
        120..7_200 => format!("{}m", size / 60),
        7_200..172_800 => format!("{}h", size / 3_600),
        _ => format!("{}d", size / 86_400),
    };
    if is_past { format!("{span} ago") } else { format!("in {span}") }
}

/// A time, to the second.
pub(crate) fn timestamp(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_one_unit() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        for (seconds, text) in [
            (0, "in 0s"),
            (119, "in 119s"),
            (-119, "119s ago"),
            (2_460, "in 41m"),
            (7_200, "in 2h"),
            (-200_000, "2d ago"),
        ] {
            assert_eq!(relative(Timestamp::from_second(1_000_000 + seconds).unwrap(), now), text);
        }
    }

    #[test]
    fn what_a_terminal_obeys_is_not_printed() {
        assert_eq!(plain("a\x1b[2J\nb\u{202e}c\u{9b}"), "a?[2J b?c?");
        let table = render(&["A"], &[vec![Cell::new("\x1b]0;title\x07", Color::Red)]], false);
        assert!(!table.contains('\x1b') && !table.contains('\x07'), "{table:?}");
    }

    #[test]
    fn colours_do_not_move_columns() {
        let rows = [vec![Cell::new("x", Color::Red), "y".into()]];
        assert_eq!(render(&["ONE", "TWO"], &rows, false), "ONE  TWO\nx    y\n");
        assert_eq!(render(&["ONE", "TWO"], &rows, true), "ONE  TWO\n\x1b[31mx\x1b[0m    y\n");
    }
}
