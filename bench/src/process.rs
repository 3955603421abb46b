//! Reads CPU time, context switches and memory of a process from the kernel: `proc_pid_stat(5)`, `proc_pid_status(5)`,
//! `proc_pid_smaps(5)`.

use crate::Failure;
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;
use serde::Serialize;
use std::fs;
use std::time::Duration;

/// CPU time of all threads that the process has had, read from its CPU clock. `/proc/pid/stat` counts in ticks, which is
/// far too inexact when work comes in short pieces.
pub(crate) fn cpu(process: u32) -> Result<Duration, Failure> {
    Ok(clock_getcpuclockid(Pid::from_raw(process.try_into()?))?.now()?.into())
}

/// What the threads of a process have done so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Activity {
    /// CPU time of the live threads, to the nanosecond.
    pub(crate) cpu: Duration,
    /// Context switches, voluntary and involuntary.
    pub(crate) switches: u64,
    /// Number of live threads.
    pub(crate) threads: u64,
}

/// Sums up the live threads.
pub(crate) fn activity(process: u32) -> Result<Activity, Failure> {
    let mut sum = Activity::default();
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        let thread = thread?.path();
        // A thread may end while its files are read.
        let (Ok(schedstat), Ok(status)) =
            (fs::read_to_string(thread.join("schedstat")), fs::read_to_string(thread.join("status")))
        else {
            continue;
        };
        let nanoseconds = schedstat.split(' ').next().unwrap_or_default().parse()?;
        sum.cpu += Duration::from_nanos(nanoseconds);
        sum.switches += field(&status, "voluntary_ctxt_switches:").unwrap_or(0);
        sum.switches += field(&status, "nonvoluntary_ctxt_switches:").unwrap_or(0);
        sum.threads += 1;
    }
    Ok(sum)
}

/// The machine's load average of the last minute.
pub(crate) fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

/// Memory, in bytes.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Memory {
    /// Resident memory, with the resident pages of the binary.
    pub(crate) resident: u64,
    /// Peak of the resident memory.
    pub(crate) peak: u64,
    /// Resident pages without a file.
    pub(crate) anonymous: u64,
    /// Proportional set size: each shared page is divided by the number of its users. `None` if the kernel does not
    /// report it.
    pub(crate) proportional: Option<u64>,
}

/// Memory of the process.
pub(crate) fn memory(process: u32) -> Result<Memory, Failure> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let bytes =
        |name| field(&status, name).map(|kib| kib * 1024).ok_or(format!("no {name} in /proc/pid/status"));
    let rollup = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).ok();
    Ok(Memory {
        resident: bytes("VmRSS:")?,
        peak: bytes("VmHWM:")?,
        anonymous: bytes("RssAnon:")?,
        proportional: rollup.and_then(|rollup| field(&rollup, "Pss:")).map(|kib| kib * 1024),
    })
}

/// The number that follows `name` on a line that begins with it.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let status = "VmRSS:\t    120 kB\nvoluntary_ctxt_switches:\t7\nnonvoluntary_ctxt_switches:\t2\n";
        assert_eq!(field(status, "VmRSS:"), Some(120));
        assert_eq!(field(status, "voluntary_ctxt_switches:"), Some(7));
        assert_eq!(field(status, "nonvoluntary_ctxt_switches:"), Some(2));
        assert_eq!(field(status, "VmHWM:"), None);
    }

    #[test]
    fn this_process_can_be_measured() {
        let process = std::process::id();
        cpu(process).unwrap();
        assert!(activity(process).unwrap().threads >= 1);
        assert!(memory(process).unwrap().resident > 0);
    }
}
