//! `certlet demo` as a person runs it: its width, Ctrl-C, a reader that ends early.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const CERTLET: &str = env!("CARGO_BIN_EXE_certlet");
const DEADLINE: Duration = Duration::from_secs(30);

/// A demo in a process group of its own, as a shell starts it. Whatever a test does, nothing of it stays.
///
/// A test that is killed closes the pipe of the output, which ends the demo too.
struct Demo {
    directory: TempDir,
    child: Child,
    out: Option<BufReader<ChildStdout>>,
}

impl Demo {
    /// Starts the demo with its files in a directory of its own.
    fn start(flags: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new(CERTLET);
        command.arg("demo").args(flags).env("TMPDIR", directory.path()).process_group(0);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let out = child.stdout.take().map(BufReader::new);
        Self { directory, child, out }
    }

    fn id(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    /// Reads lines until one has this text.
    fn read_until(&mut self, text: &str) -> Vec<String> {
        let mut lines = Vec::new();
        while lines.last().is_none_or(|line: &String| !line.contains(text)) {
            let mut line = String::new();
            let read = self.out.as_mut().unwrap().read_line(&mut line).unwrap();
            assert!(read > 0, "{text:?} is not in {lines:#?}");
            lines.push(line.trim_end().to_owned());
        }
        lines
    }

    /// Closes the output.
    fn close(&mut self) {
        self.out = None;
    }

    fn read_to_end(&mut self) -> String {
        let mut rest = String::new();
        self.out.as_mut().unwrap().read_to_string(&mut rest).unwrap();
        rest
    }

    /// Its exit code and its errors.
    fn end(&mut self) -> (Option<i32>, String) {
        let status = self.wait().expect("it ends");
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (status.code(), said)
    }

    fn wait(&mut self) -> Option<ExitStatus> {
        let begun = Instant::now();
        while begun.elapsed() < DEADLINE {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            sleep(Duration::from_millis(5));
        }
        None
    }

    /// Nothing is left of the demo: no directory, and no driver with files in it.
    fn assert_gone(&self) {
        assert_eq!(fs::read_dir(self.directory.path()).unwrap().count(), 0);
        assert_eq!(self.processes(), []);
    }

    /// The processes with the directory in their command lines: the driver.
    fn processes(&self) -> Vec<Pid> {
        let mark = self.directory.path().display().to_string();
        let ids = fs::read_dir("/proc").unwrap().flatten();
        let ids = ids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let is_its = |id: &i32| {
            let command = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&command).contains(&mark)
        };
        ids.filter(is_its).map(Pid::from_raw).collect()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        self.close();
        if let Ok(None) = self.child.try_wait() {
            let _ended = killpg(self.id(), Signal::SIGTERM);
            if self.wait().is_none() {
                let _killed = killpg(self.id(), Signal::SIGKILL);
                let _reaped = self.child.wait();
            }
        }
        for process in self.processes() {
            let _killed = kill(process, Signal::SIGKILL);
        }
    }
}

#[test]
fn keep_prints_commands_that_work_and_ends_with_ctrl_c() {
    let mut demo = Demo::start(&["--keep", "--duration=5s"]);
    let lines = demo.read_until("cat /proc/");
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
    killpg(demo.id(), Signal::SIGINT).unwrap();
    let rest = demo.read_to_end();
    let (code, said) = demo.end();
    assert_eq!(code, Some(0), "{rest}{said}");
    assert!(rest.contains("no mount, file or key is left"), "{rest}");
    demo.assert_gone();
}

#[test]
fn a_reader_that_ends_early_leaves_nothing_behind() {
    let mut demo = Demo::start(&["--duration=5s"]);
    demo.read_until("certlet gives every pod");
    demo.close();
    assert_eq!(demo.end(), (Some(0), String::new()));
    demo.assert_gone();
}

#[test]
fn a_demo_that_is_kept_ends_with_its_reader() {
    let mut demo = Demo::start(&["--keep", "--duration=5s"]);
    demo.read_until("cat /proc/");
    sleep(Duration::from_millis(300));
    assert!(demo.child.try_wait().unwrap().is_none(), "its reader is still there");
    demo.close();
    assert_eq!(demo.end(), (Some(0), String::new()));
    demo.assert_gone();
}

#[test]
fn an_interrupted_demo_stops_its_driver() {
    let mut demo = Demo::start(&["--duration=1h"]);
    demo.read_until("waiting for");
    kill(demo.id(), Signal::SIGINT).unwrap();
    let (code, said) = demo.end();
    assert_eq!(code, Some(130), "{said}");
    assert!(said.contains("certlet demo: interrupted"), "{said}");
    demo.assert_gone();
}

#[test]
fn a_test_that_fails_leaves_no_process() {
    let mut demo = Demo::start(&["--keep", "--duration=1h"]);
    demo.read_until("waiting for");
    let (id, mark) = (demo.id(), demo.directory.path().to_owned());
    assert_eq!(demo.processes().len(), 1, "the driver");
    drop(demo);
    assert!(kill(id, None).is_err() && !mark.exists());
}
