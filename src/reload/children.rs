//! The processes that this one starts, and the orphans that the system gives to it.

use nix::errno::Errno;
use nix::sys::signal::killpg;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

/// Reaps every child: those that were started here, and orphans.
#[derive(Debug, Default)]
pub(super) struct Children {
    running: Mutex<HashMap<i32, Running>>,
}

/// A process that was started here, and has not been reaped.
#[derive(Debug)]
struct Running {
    child: Child,
    ended: oneshot::Sender<ExitStatus>,
}

/// A process that has been started.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) pid: Pid,
    /// Its end.
    pub(super) ended: oneshot::Receiver<ExitStatus>,
}

/// Kills a command with its process group when it is dropped, unless the command has ended.
#[derive(Debug)]
pub(super) struct KillOnDrop<'a> {
    children: &'a Children,
    pid: Pid,
}

impl Drop for KillOnDrop<'_> {
    fn drop(&mut self) {
        // While this lock is held nobody reaps the command, and so no other process can have its id.
        let running = self.children.running.lock();
        if running.contains_key(&self.pid.as_raw()) {
            let _has_ended = killpg(self.pid, nix::sys::signal::Signal::SIGKILL);
        }
    }
}

/// The status of a process that was reaped without its status: exit code 255.
fn unknown_status() -> ExitStatus {
    ExitStatus::from_raw(i32::from(u8::MAX) << 8)
}

/// The exit code as a shell has it: that of the process, or 128 and the signal that ended it.
pub(super) fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

impl Children {
    /// Starts reaping. Orphans come to this process also if it is not PID 1.
    pub(super) fn start() -> io::Result<Arc<Self>> {
        nix::sys::prctl::set_child_subreaper(true)?;
        let ends = signal(SignalKind::child())?;
        let children = Arc::<Self>::default();
        tokio::spawn(Arc::clone(&children).reap(ends));
        Ok(children)
    }

    /// Starts the program, with this process's standard input and in its process group.
    pub(super) fn spawn_program(&self, program: &[OsString]) -> io::Result<Started> {
        self.spawn(program, |_| {})
    }

    /// Starts a command in a process group of its own, so that it can be killed with its children. It does not read what is meant
    /// for the program.
    pub(super) fn spawn_command(&self, command: &[OsString]) -> io::Result<(Started, KillOnDrop<'_>)> {
        let started = self.spawn(command, |command| {
            command.process_group(0).stdin(Stdio::null());
        })?;
        let guard = KillOnDrop { children: self, pid: started.pid };
        Ok((started, guard))
    }

    fn spawn(&self, words: &[OsString], change: impl FnOnce(&mut Command)) -> io::Result<Started> {
        let (program, arguments) = words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let mut command = Command::new(program);
        command.args(arguments);
        change(&mut command);
        // While this lock is held, nobody else can reap the child.
        let mut running = self.running.lock();
        let child = command.spawn()?;
        let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
        let (sender, ended) = oneshot::channel();
        running.insert(pid, Running { child, ended: sender });
        Ok(Started { pid: Pid::from_raw(pid), ended })
    }

    async fn reap(self: Arc<Self>, mut ends: Signal) {
        loop {
            self.reap_ended();
            if ends.recv().await.is_none() {
                return;
            }
        }
    }

    fn reap_ended(&self) {
        let mut running = self.running.lock();
        reap_started(&mut running);
        loop {
            let (pid, status) = match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, ExitStatus::from_raw(code << 8)),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, ExitStatus::from_raw(signal as i32)),
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return,
                // Not asked for: a process that was stopped, or goes on.
                Ok(_) | Err(Errno::EINTR) => continue,
                // A process was ended by a real-time signal, which nix does not know. It is reaped, and may be one of the started.
                Err(Errno::EINVAL) => {
                    reap_started(&mut running);
                    continue;
                }
                Err(error) => {
                    tracing::error!(%error, "processes cannot be reaped");
                    return;
                }
            };
            if let Some(Running { ended, .. }) = running.remove(&pid.as_raw()) {
                let _nobody_waits = ended.send(status);
            } else {
                tracing::debug!(process = pid.as_raw(), %status, "orphan reaped");
            }
        }
    }
}

/// Reaps those that were started here.
fn reap_started(running: &mut HashMap<i32, Running>) {
    let own: Vec<i32> = running.keys().copied().collect();
    for pid in own {
        let status = running.get_mut(&pid).and_then(|running| match running.child.try_wait() {
            Ok(status) => status,
            // It is reaped already.
            Err(_) => Some(unknown_status()),
        });
        if let (Some(status), Some(ended)) = (status, status.and_then(|_| running.remove(&pid))) {
            let _nobody_waits = ended.ended.send(status);
        }
    }
}
