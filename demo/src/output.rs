//! The output of the demo: a label, a sentence, and the elapsed time, in lines of at most 80 columns.

use crate::EarlyEnd;
use crate::mtls::Failure;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::time::Instant;
use tokio::io::Interest;
use tokio::net::unix::pipe;

/// The width of a terminal that nobody has made wider.
const COLUMNS: usize = 80;
/// The width of the labels, with the space after them.
const INDENT: usize = 12;

/// Prints the demo's lines, in colour on a terminal.
pub(super) struct Output {
    color: bool,
}

impl Output {
    pub(super) fn new() -> Self {
        Self { color: io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub(super) fn title(&self, text: &str) -> Result<(), Failure> {
        write_line(&format!("\n{}\n", self.paint("1", text)))
    }

    pub(super) fn done(&self, label: &str, text: &str, started: Instant) -> Result<(), Failure> {
        let elapsed = started.elapsed();
        let elapsed = if elapsed.as_secs() > 0 {
            format!("({:.1} s)", elapsed.as_secs_f64())
        } else {
            format!("({:.1} ms)", elapsed.as_secs_f64() * 1e3)
        };
        let mut lines = wrapped(text);
        let last = lines.last().map_or(0, |line| line.chars().count());
        let end = self.paint("2", &elapsed);
        match lines.last_mut() {
            Some(line) if last + 2 + elapsed.len() <= COLUMNS - INDENT => line.extend(["  ", &end]),
            _ => lines.push(end),
        }
        write_line(&self.labelled("32", label, &lines))
    }

    pub(super) fn info(&self, label: &str, text: &str) -> Result<(), Failure> {
        write_line(&self.labelled("36", label, &wrapped(text)))
    }

    /// A command to copy, in one line whatever its length.
    #[expect(clippy::unused_self, reason = "as the other methods")]
    pub(super) fn command(&self, command: &str) -> Result<(), Failure> {
        write_line(&format!("{:INDENT$}{command}", ""))
    }

    fn labelled(&self, color: &str, label: &str, lines: &[String]) -> String {
        let label = self.paint(color, &format!("{label:>10}"));
        format!("{label}  {}", lines.join(&format!("\n{:INDENT$}", "")))
    }
}

/// Writes a line. A reader that has had enough, such as head, ends the demo.
fn write_line(line: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => EarlyEnd::OutputClosed.into(),
        _ => format!("standard output: {error}").into(),
    })
}

/// Waits until nobody reads the pipe that the output is. For a file it waits for ever.
pub(super) async fn closed() {
    // Unchecked: the pipe stays as it is, and is not made one that does not block.
    let out = io::stdout().as_fd().try_clone_to_owned().map(File::from);
    match out.and_then(pipe::Sender::from_file_unchecked) {
        Ok(out) => drop(out.ready(Interest::ERROR).await),
        Err(_) => std::future::pending().await,
    }
}

/// The text in lines that fit beside a label. A longer word has a line of its own.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.chars().count() + 1 + word.chars().count() <= COLUMNS - INDENT => {
                line.extend([" ", word]);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
