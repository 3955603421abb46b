//! Other processes, as /proc shows them (proc(5)).

use nix::sys::signal::Signal;
use nix::time::{ClockId, clock_gettime};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use thiserror::Error;

/// The names in /proc are cut after so many bytes.
const MAX_NAME_BYTES: usize = 15;
/// The unit of times in /proc/PID/stat, on every architecture that Kubernetes runs on.
const TICKS_PER_SECOND: u64 = 100;
/// Tolerance when times are compared: the clock of files and that of processes are coarse.
const TOLERANCE: Duration = Duration::from_millis(50);

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
    PidFile { path: PathBuf, source: std::io::Error },
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
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        // The name is in parentheses, and can contain them.
        let (before, rest) = stat.rsplit_once(')')?;
        let name = before.split_once('(')?.1.to_owned();
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let is_zombie = matches!(fields.first(), Some(&("Z" | "X")));
        let ticks: u64 = fields.get(19)?.parse().ok()?;
        let started = Duration::from_millis(ticks.saturating_mul(1000 / TICKS_PER_SECOND));
        (!is_zombie).then_some(Self { id, name, parent: fields.get(1)?.parse().ok()?, started })
    }

    /// Whether the process was there before that time. None: the time is before the system's start, if its clock was right then.
    pub(super) fn started_before(&self, time: SystemTime) -> Option<bool> {
        since_boot(time).map(|time| self.started <= time + TOLERANCE)
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
pub(super) fn by_pid_file(path: &Path) -> Result<Process, ProcessError> {
    let failed = |source| ProcessError::PidFile { path: path.to_owned(), source };
    let text = fs::read_to_string(path).map_err(failed)?;
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
    let written = fs::metadata(path).and_then(|metadata| metadata.modified()).map_err(failed)?;
    // A file from before the system's start is one that a volume has kept.
    if process.started_before(written) == Some(true) {
        Ok(process)
    } else {
        Err(stale("is another one, which started after the file was written"))
    }
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

/// Whether a process has this name. A name that the kernel has cut is compared with the program's path too.
fn has_name(process: &Process, name: &str) -> bool {
    if name.len() <= MAX_NAME_BYTES {
        return process.name == name;
    }
    if !name.as_bytes().starts_with(process.name.as_bytes()) || process.name.len() < MAX_NAME_BYTES {
        return false;
    }
    let command = fs::read(format!("/proc/{}/cmdline", process.id)).unwrap_or_default();
    let program =
        String::from_utf8_lossy(command.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned();
    Path::new(&program).file_name().is_some_and(|file| file == name)
}

/// A time on the clock of /proc. None: before the system's start.
fn since_boot(time: SystemTime) -> Option<Duration> {
    let uptime = Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME).ok()?);
    match SystemTime::now().duration_since(time) {
        Ok(ago) => uptime.checked_sub(ago),
        Err(ahead) => Some(uptime + ahead.duration()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_read_as_it_is() {
        let own = Process::read(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert_eq!(own.started_before(SystemTime::now()), Some(true));
        let long_ago = SystemTime::now() - Duration::from_hours(24 * 365);
        assert_ne!(own.started_before(long_ago), Some(true));
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
            let error = by_pid_file(file.path()).unwrap_err().to_string();
            assert!(error.contains(said) && error.starts_with("--pid-file "), "{text:?}: {error}");
        }
        let missing = by_pid_file(Path::new("/nonexistent/pid")).unwrap_err().to_string();
        assert!(missing.contains("No such file"), "{missing}");
    }
}
