//! What happens once for each generation: a signal, or a command.

use super::children::{Children, Started, exit_code};
use super::generation::Generation;
use super::process::{self, Clock, Process, ProcessError};
use crate::model::short_go_duration;
use crate::platform::Backoff;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::HashSet;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::sync::watch;

/// Pauses between attempts.
const BACKOFF: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_mins(1));

/// What happens once for each generation.
#[derive(Clone, Debug)]
pub enum Action {
    /// A process gets a signal.
    Signal {
        /// The signal.
        signal: Signal,
        /// Whose.
        target: Target,
    },
    /// A command runs.
    Run {
        /// The program and its arguments.
        command: Vec<OsString>,
        /// After this time it is killed.
        timeout: Duration,
    },
}

/// The process that gets the signal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The program that certlet has started.
    Program,
    /// The process whose id is in this file.
    PidFile(PathBuf),
    /// The processes with this name.
    Name(String),
}

/// Why an attempt failed.
#[derive(Debug, Error)]
enum ActionError {
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error(
        "process {id} ({name}) does not handle {signal}, which would end it; accepted: a signal that it handles, or --signal TERM \
         to have it started again"
    )]
    Unhandled { id: i32, name: String, signal: Signal },
    #[error(
        "process {id} ({name}) cannot be signalled: {errno}; certlet needs the same user as the process, or the capability KILL"
    )]
    Kill { id: i32, name: String, errno: Errno },
    #[error("--exec {}: {source}", program.display())]
    Start { program: OsString, source: io::Error },
    #[error("--exec {}: ended with exit code {code}", program.display())]
    Failed { program: OsString, code: u8 },
    #[error("--exec {}: killed after {} (--exec-timeout)", program.display(), short_go_duration(*timeout))]
    TimedOut { program: OsString, timeout: Duration },
}

/// Acts on generations, one after the other. Of those that come meanwhile only the newest counts.
#[derive(Debug)]
pub(super) struct Actor {
    action: Action,
    program: Option<Pid>,
    children: Arc<Children>,
    clock: Clock,
}

impl Actor {
    pub(super) fn new(action: Action, program: Option<Pid>, children: Arc<Children>) -> Self {
        Self { action, program, children, clock: Clock::new() }
    }

    /// Acts on every generation, and again after a failure, until it succeeds or a newer generation comes.
    pub(super) async fn run(self, mut generations: watch::Receiver<Option<Generation>>) {
        while let Ok(()) = generations.changed().await {
            let (mut failures, mut signalled) = (0, HashSet::new());
            loop {
                let Some(generation) = generations.borrow_and_update().clone() else { break };
                let Err(error) = self.act(&generation, &mut signalled).await else { break };
                let pause = BACKOFF.full_pause(failures);
                report(&error, &generation, pause, failures);
                failures += 1;
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    newer = generations.changed() => {
                        if newer.is_err() {
                            return;
                        }
                        generations.mark_changed();
                        break;
                    }
                }
            }
        }
    }

    /// One attempt. `signalled` are the processes that have had their signal for this generation.
    async fn act(
        &self,
        generation: &Generation,
        signalled: &mut HashSet<(i32, Duration)>,
    ) -> Result<(), ActionError> {
        match &self.action {
            Action::Run { command, timeout } => self.execute(generation, command, *timeout).await,
            Action::Signal { signal, target } => self.signal(generation, *signal, target, signalled),
        }
    }

    /// Signals every process of the target that needs it. Returns the first failure, after it has tried all of them.
    fn signal(
        &self,
        generation: &Generation,
        signal: Signal,
        target: &Target,
        signalled: &mut HashSet<(i32, Duration)>,
    ) -> Result<(), ActionError> {
        let mut result = Ok(());
        for process in self.targets(target)? {
            // Started afterwards, it has read the new files.
            let needs_it = *target == Target::Program
                || process.started_before(generation.swapped_at, &self.clock) != Some(false);
            if !needs_it || signalled.contains(&(process.id, process.started)) {
                continue;
            }
            if let Err(error) = send(&process, signal) {
                result = result.and(Err(error));
                continue;
            }
            signalled.insert((process.id, process.started));
            tracing::info!(
                process = process.id, name = process.name, %signal,
                directory = %generation.directory.display(), generation = %generation.name.display(),
                "the process has been told of the renewal"
            );
        }
        result
    }

    fn targets(&self, target: &Target) -> Result<Vec<Process>, ProcessError> {
        match target {
            Target::Program => {
                Ok(self.program.and_then(|id| Process::read(id.as_raw())).into_iter().collect())
            }
            Target::PidFile(path) => process::by_pid_file(path, &self.clock).map(|process| vec![process]),
            Target::Name(name) => process::by_name(name),
        }
    }

    async fn execute(
        &self,
        generation: &Generation,
        command: &[OsString],
        timeout: Duration,
    ) -> Result<(), ActionError> {
        let program = command.first().cloned().unwrap_or_default();
        let (Started { ended, .. }, _killed_at_the_end) = self
            .children
            .spawn_command(command)
            .map_err(|source| ActionError::Start { program: program.clone(), source })?;
        let Ok(status) = tokio::time::timeout(timeout, ended).await else {
            return Err(ActionError::TimedOut { program, timeout });
        };
        match status.map_or(u8::MAX, exit_code) {
            0 => {
                tracing::info!(
                    command = %program.display(), directory = %generation.directory.display(),
                    generation = %generation.name.display(), "the command has run"
                );
                Ok(())
            }
            code => Err(ActionError::Failed { program, code }),
        }
    }
}

/// Logs a failed attempt. The first one is no error: the program may still be starting.
fn report(error: &ActionError, generation: &Generation, pause: Duration, failures: u32) {
    let (directory, name) = (generation.directory.display(), generation.name.display());
    let retry_in_seconds = pause.as_secs();
    if failures == 0 {
        tracing::warn!(%error, %directory, generation = %name, retry_in_seconds, "the program has not been told of the renewal yet");
    } else {
        tracing::error!(%error, %directory, generation = %name, retry_in_seconds, "the program has not been told of the renewal");
    }
}

/// Sends a signal. One that would end the process by accident is not sent: it may not have its handler yet.
fn send(process: &Process, signal: Signal) -> Result<(), ActionError> {
    let (id, name) = (process.id, process.name.clone());
    let is_meant_to_end = matches!(
        signal,
        Signal::SIGTERM | Signal::SIGINT | Signal::SIGQUIT | Signal::SIGKILL | Signal::SIGABRT
    );
    let ends_nothing = matches!(
        signal,
        Signal::SIGCHLD | Signal::SIGCONT | Signal::SIGURG | Signal::SIGWINCH | Signal::SIGSTOP
    );
    if !is_meant_to_end && !ends_nothing && !process.handles(signal) {
        return Err(ActionError::Unhandled { id, name, signal });
    }
    match kill(Pid::from_raw(id), signal) {
        // It ended just now.
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(ActionError::Kill { id, name, errno }),
    }
}
