//! The output of the demo: a label, a sentence, and the elapsed time.

use std::io::IsTerminal;
use std::time::Instant;

/// Prints the demo's lines, in colour on a terminal.
pub(super) struct Output {
    color: bool,
}

impl Output {
    pub(super) fn new() -> Self {
        Self { color: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub(super) fn title(&self, text: &str) {
        println!("\n{}\n", self.paint("1", text));
    }

    pub(super) fn done(&self, label: &str, text: &str, started: Instant) {
        let elapsed = started.elapsed();
        let elapsed = if elapsed.as_secs() > 0 {
            format!("{:.1} s", elapsed.as_secs_f64())
        } else {
            format!("{:.1} ms", elapsed.as_secs_f64() * 1e3)
        };
        let label = self.paint("32", &format!("{label:>10}"));
        println!("{label}  {text}  {}", self.paint("2", &format!("({elapsed})")));
    }

    pub(super) fn info(&self, label: &str, text: &str) {
        println!("{}  {text}", self.paint("36", &format!("{label:>10}")));
    }
}
