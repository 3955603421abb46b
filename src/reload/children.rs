//! The processes that this one starts, and the orphans that the system gives to it.

use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

/// Reaps every child: those that were started here, and orphans.
#[derive(Debug, Default)]
pub(super) struct Children {
    running: Mutex<HashMap<i32, Running>>,
}

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

    /// Starts a process. With a process group of its own it can be killed with its children.
    pub(super) fn spawn(&self, command: &[OsString], own_group: bool) -> io::Result<Started> {
        let (program, arguments) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let mut command = Command::new(program);
        command.args(arguments);
        if own_group {
            command.process_group(0);
        }
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
        let own: Vec<i32> = running.keys().copied().collect();
        for pid in own {
            let status = running.get_mut(&pid).and_then(|running| running.child.try_wait().ok().flatten());
            if let (Some(status), Some(ended)) = (status, status.and_then(|_| running.remove(&pid))) {
                let _nobody_waits = ended.ended.send(status);
            }
        }
        loop {
            let (pid, status) = match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, ExitStatus::from_raw(code << 8)),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, ExitStatus::from_raw(signal as i32)),
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return,
                // A stopped child, or an orphan with a real-time signal: nothing is known of it, and it is reaped.
                Ok(_) | Err(Errno::EINTR | Errno::EINVAL) => continue,
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
