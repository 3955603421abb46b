//! `certlet demo` as a person runs it: its width, Ctrl-C, a reader that ends early.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

const CERTLET: &str = env!("CARGO_BIN_EXE_certlet");

/// Starts the demo with its directory in `directory`, in a process group of its own, as a shell does.
fn start(directory: &Path, flags: &[&str]) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut command = Command::new(CERTLET);
    command.arg("demo").args(flags).env("TMPDIR", directory).process_group(0);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    (child, out)
}

fn id(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap())
}

/// Reads lines until one has this text.
fn read_until(out: &mut impl BufRead, text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    while lines.last().is_none_or(|line: &String| !line.contains(text)) {
        let mut line = String::new();
        assert!(out.read_line(&mut line).unwrap() > 0, "{text:?} is not in {lines:#?}");
        lines.push(line.trim_end().to_owned());
    }
    lines
}

fn stderr(child: &mut Child) -> String {
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    text
}

/// Nothing is left of the demo: no directory, and no driver with files in it.
fn assert_gone(directory: &Path) {
    assert_eq!(fs::read_dir(directory).unwrap().count(), 0);
    let mark = directory.display().to_string();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&command).contains(&mark), "{} runs", entry.path().display());
    }
}

#[test]
fn keep_prints_commands_that_work_and_ends_with_ctrl_c() {
    let directory = tempfile::tempdir().unwrap();
    let (mut child, mut out) = start(directory.path(), &["--keep", "--duration=5s"]);
    let lines = read_until(&mut out, "cat /proc/");
    for line in &lines {
        assert!(line.chars().count() <= 80, "{} columns: {line}", line.chars().count());
    }
    let commands: Vec<&str> =
        lines.iter().map(|line| line.trim()).filter(|line| line.contains("/proc/")).collect();
    let [orders, payments, log] = commands.as_slice() else { panic!("{commands:?}") };
    for (command, expected) in [(orders, "tls.key"), (payments, "tls.key"), (log, "certlet starts")] {
        let said = Command::new("sh").args(["-c", command]).output().unwrap();
        let text = String::from_utf8_lossy(&said.stdout);
        assert!(said.status.success() && text.contains(expected), "{command}: {said:?}");
    }
    // The terminal sends it to the whole process group.
    killpg(id(&child), Signal::SIGINT).unwrap();
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(0), "{rest}{}", stderr(&mut child));
    assert!(rest.contains("no mount, file or key is left"), "{rest}");
    assert_gone(directory.path());
}

#[test]
fn a_reader_that_ends_early_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let (mut child, mut out) = start(directory.path(), &["--duration=5s"]);
    read_until(&mut out, "certlet gives every pod");
    drop(out);
    let status = child.wait().unwrap();
    assert_eq!((status.code(), stderr(&mut child).as_str()), (Some(0), ""));
    assert_gone(directory.path());
}

#[test]
fn an_interrupted_demo_stops_its_driver() {
    let directory = tempfile::tempdir().unwrap();
    let (mut child, mut out) = start(directory.path(), &["--duration=1h"]);
    read_until(&mut out, "waiting for");
    kill(id(&child), Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let said = stderr(&mut child);
    assert!(said.contains("certlet demo: interrupted"), "{said}");
    assert_gone(directory.path());
}
