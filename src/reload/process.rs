//! Other processes, as /proc shows them (proc(5)).

use nix::sys::signal::Signal;
use nix::time::{ClockId, clock_gettime};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use thiserror::Error;

/// The names in /proc are cut after so many bytes.
const MAX_NAME_BYTES: usize = 15;
/// The unit of times in /proc/PID/stat, on every architecture that Kubernetes runs on.
const TICKS_PER_SECOND: u64 = 100;
/// Tolerance when times are compared: the clock of files and that of processes are coarse.
const TOLERANCE: Duration = Duration::from_millis(50);

/// So much of a pid file is read. A process id has ten digits at most.
const MAX_PID_FILE_BYTES: u64 = 64;

/// Compares the times of files, which are those of the wall clock, with the starts of processes, which count from the system's start.
///
/// The wall clock can be set forward after a file was written, as after a pause of a virtual machine. The file then seems older than its
/// process. So the earlier of two starts of the system counts: the one that was computed first, and that of now.
#[derive(Debug)]
pub(super) struct Clock {
    first_boot: SystemTime,
}

impl Clock {
    pub(super) fn new() -> Self {
        Self { first_boot: boot() }
    }

    /// How long after the system's start this was. None: before it.
    fn since_boot(&self, time: SystemTime) -> Option<Duration> {
        time.duration_since(self.first_boot.min(boot())).ok()
    }
}

/// The system's start, if the wall clock was right then.
fn boot() -> SystemTime {
    let uptime = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default();
    SystemTime::now().checked_sub(uptime).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// A process that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) id: i32,
    /// Its name, of which the kernel keeps 15 bytes.
    pub(super) name: String,
    parent: i32,
    /// Since the system's start.
    pub(super) started: Duration,
}

/// Why there is no process to act on. All of this can change by itself.
#[derive(Debug, Error)]
pub(super) enum ProcessError {
    #[error("--pid-file {}: {source}", path.display())]
    PidFile { path: PathBuf, source: io::Error },
    #[error("--pid-file {}: {text:?} is no process id; accepted: a number in the first line", path.display())]
    NotAnId { path: PathBuf, text: String },
    #[error("--pid-file {}: stale: process {id} {why}", path.display())]
    Stale { path: PathBuf, id: i32, why: &'static str },
    #[error("--pid-file {}: process {id} is this one; the pod needs shareProcessNamespace: true", path.display())]
    Own { path: PathBuf, id: i32 },
    #[error(
        "--process {name}: no process has this name; those of other containers are seen only with shareProcessNamespace: true \
         in the pod"
    )]
    Unknown { name: String },
}

impl Process {
    /// The process with that id, if it runs.
    pub(super) fn read(id: i32) -> Option<Self> {
        // The kernel can cut a name in the middle of a character.
        let stat = fs::read(format!("/proc/{id}/stat")).ok()?;
        let stat = String::from_utf8_lossy(&stat);
        // The name is in parentheses, and can contain them.
        let (before, rest) = stat.rsplit_once(')')?;
        let name = before.split_once('(')?.1.to_owned();
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let is_zombie = matches!(fields.first(), Some(&("Z" | "X")));
        let ticks: u64 = fields.get(19)?.parse().ok()?;
        let started = Duration::from_millis(ticks.saturating_mul(1000 / TICKS_PER_SECOND));
        (!is_zombie).then_some(Self { id, name, parent: fields.get(1)?.parse().ok()?, started })
    }

    /// Whether the process was there before that time. None: the time is before the system's start.
    pub(super) fn started_before(&self, time: SystemTime, clock: &Clock) -> Option<bool> {
        clock.since_boot(time).map(|time| self.started <= time + TOLERANCE)
    }

    /// Whether the process has its own handler for a signal, or ignores it.
    pub(super) fn handles(&self, signal: Signal) -> bool {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id)).unwrap_or_default();
        let masks = status
            .lines()
            .filter_map(|line| line.strip_prefix("SigCgt:").or_else(|| line.strip_prefix("SigIgn:")));
        let bit = 1_u64 << (signal as u32 - 1);
        masks.filter_map(|mask| u64::from_str_radix(mask.trim(), 16).ok()).any(|mask| mask & bit != 0)
    }
}

/// The process of a pid file. A file that is older than its process is not that process's: the id has been given anew.
pub(super) fn by_pid_file(path: &Path, clock: &Clock) -> Result<Process, ProcessError> {
    let failed = |source| ProcessError::PidFile { path: path.to_owned(), source };
    let (text, written) = read_pid_file(path).map_err(failed)?;
    let first = text.lines().next().unwrap_or_default().trim();
    let id: i32 = first.parse().ok().filter(|id| *id > 0).ok_or_else(|| ProcessError::NotAnId {
        path: path.to_owned(),
        text: first.chars().take(40).collect(),
    })?;
    if u32::try_from(id) == Ok(std::process::id()) {
        return Err(ProcessError::Own { path: path.to_owned(), id });
    }
    let stale = |why| ProcessError::Stale { path: path.to_owned(), id, why };
    let process = Process::read(id).ok_or_else(|| stale("does not run"))?;
    // A file from before the system's start is one that a volume has kept.
    if process.started_before(written, clock) == Some(true) {
        Ok(process)
    } else {
        Err(stale("is another one, which started after the file was written"))
    }
}

/// The beginning of the file, and when it was written.
fn read_pid_file(path: &Path) -> io::Result<(String, SystemTime)> {
    let metadata = fs::metadata(path)?;
    // Opening a named pipe would block.
    if !metadata.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_PID_FILE_BYTES).read_to_end(&mut bytes)?;
    Ok((String::from_utf8_lossy(&bytes).into_owned(), metadata.modified()?))
}

/// The processes with that name. Of a process and its children with the same name, it is the parent: nginx's workers follow their
/// master.
pub(super) fn by_name(name: &str) -> Result<Vec<Process>, ProcessError> {
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let named =
        ids.filter(|id| *id != own).filter_map(Process::read).filter(|process| has_name(process, name));
    let found: Vec<Process> = named.collect();
    let is_child = |process: &Process| found.iter().any(|other| other.id == process.parent);
    let parents: Vec<Process> = found.iter().filter(|process| !is_child(process)).cloned().collect();
    if parents.is_empty() { Err(ProcessError::Unknown { name: name.to_owned() }) } else { Ok(parents) }
}

/// Whether a process has this name. A name that the kernel has cut is compared with the paths of the program and of its script too.
fn has_name(process: &Process, name: &str) -> bool {
    if name.len() <= MAX_NAME_BYTES {
        return process.name == name;
    }
    // The end of a name that was cut can be a part of a character.
    let start = process.name.trim_end_matches(char::REPLACEMENT_CHARACTER);
    if !name.starts_with(start) || process.name.len() < MAX_NAME_BYTES {
        return false;
    }
    let command = fs::read(format!("/proc/{}/cmdline", process.id)).unwrap_or_default();
    let mut paths = command.split(|byte| *byte == 0).take(2).map(|path| Path::new(OsStr::from_bytes(path)));
    paths.any(|path| path.file_name().is_some_and(|file| file == name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_read_as_it_is() {
        let own = Process::read(i32::try_from(std::process::id()).unwrap()).unwrap();
        let clock = Clock::new();
        assert_eq!(own.started_before(SystemTime::now(), &clock), Some(true));
        let long_ago = SystemTime::now() - Duration::from_hours(24 * 365);
        assert_ne!(own.started_before(long_ago, &clock), Some(true));
        assert!(Process::read(i32::MAX).is_none());
    }

    #[test]
    fn a_pid_file_must_hold_the_id_of_a_process_that_runs() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let own = std::process::id().to_string();
        for (text, said) in [
            ("", "no process id"),
            ("0\n", "no process id"),
            ("-1", "no process id"),
            ("nginx", "no process id"),
            ("2147483647\n", "stale: process 2147483647 does not run"),
            (own.as_str(), "shareProcessNamespace"),
        ] {
            fs::write(file.path(), text).unwrap();
            let error = by_pid_file(file.path(), &Clock::new()).unwrap_err().to_string();
            assert!(error.contains(said) && error.starts_with("--pid-file "), "{text:?}: {error}");
        }
        let missing = by_pid_file(Path::new("/nonexistent/pid"), &Clock::new()).unwrap_err().to_string();
        assert!(missing.contains("No such file"), "{missing}");
    }

    #[test]
    fn a_clock_that_was_set_forward_makes_no_file_older_than_its_process() {
        let own = Process::read(i32::try_from(std::process::id()).unwrap()).unwrap();
        let step = Duration::from_hours(1);
        let written = SystemTime::now() - step;
        assert_ne!(own.started_before(written, &Clock::new()), Some(true));
        let clock = Clock { first_boot: boot() - step };
        assert_eq!(own.started_before(written, &clock), Some(true));
    }

    #[test]
    fn a_pid_file_that_is_a_pipe_or_endless_does_not_block() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for path in [pipe.as_path(), Path::new("/dev/zero")] {
            let error = by_pid_file(path, &Clock::new()).unwrap_err().to_string();
            assert!(error.contains("not a regular file"), "{error}");
        }
    }
}
