//! `certlet reload`

use super::shared::LogArgs;
use super::values;
use crate::reload::{Action, ReloadConfig, Target};
use clap::Args;
use nix::sys::signal::Signal;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;
use thiserror::Error;

/// `certlet reload`
#[derive(Clone, Debug, Args)]
pub struct ReloadArgs {
    /// Directory of the certificate, where the link ..data is: the mount of a volume, or the directory of a sidecar. It may not exist
    /// yet. Can be given several times; in the environment each on a line of its own.
    #[arg(long, env = "CERTLET_WATCH", value_name = "DIR", value_delimiter = '\n', required = true)]
    pub watch: Vec<PathBuf>,

    /// Signal to send once for each generation, with SIG or without it, such as HUP. A signal that would end the process, because it
    /// has no handler for it, is not sent, except for TERM, INT, QUIT, ABRT and KILL.
    #[arg(long, env = "CERTLET_SIGNAL", value_name = "SIGNAL", value_parser = values::signal, conflicts_with = "exec")]
    pub signal: Option<Signal>,

    /// With --signal: the file with the id of the process that gets it.
    #[arg(
        long,
        env = "CERTLET_PID_FILE",
        value_name = "FILE",
        requires = "signal",
        conflicts_with_all = ["process", "exec"]
    )]
    pub pid_file: Option<PathBuf>,

    /// With --signal: the name of the processes that get it, as ps -e shows it. Of a process and its children with this name it is
    /// the parent.
    #[arg(long, env = "CERTLET_PROCESS", value_name = "NAME", requires = "signal", conflicts_with = "exec", value_parser = values::process_name)]
    pub process: Option<String>,

    /// Command to run once for each generation. It is split into words as a shell does it, and no shell runs it: for pipes and
    /// variables write sh -c '...'. A sidecar runs it also for the generation that is there when it starts.
    #[arg(long, env = "CERTLET_EXEC", value_name = "COMMAND", value_parser = values::command_line)]
    pub exec: Option<CommandLine>,

    /// With --exec: after this time the command is killed. It is run again, as after a failure.
    #[arg(long, env = "CERTLET_EXEC_TIMEOUT", value_name = "DURATION", default_value = "1m", value_parser = values::duration)]
    pub exec_timeout: Duration,

    /// What is logged.
    #[command(flatten)]
    pub logs: LogArgs,

    /// The program to start, with its arguments. certlet passes signals on to it and ends with its exit code. Without a program certlet
    /// is a sidecar.
    #[arg(last = true, value_name = "PROGRAM")]
    pub program: Vec<OsString>,
}

/// A program and its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine(pub(super) Vec<OsString>);

/// Flags that do not go together.
#[derive(Debug, Error)]
pub enum ReloadUsageError {
    /// Nothing to do after a renewal.
    #[error(
        "--signal or --exec: one of them says what to do after a renewal; accepted: --signal HUP, or --exec COMMAND"
    )]
    NoAction,
    /// Nobody to signal.
    #[error(
        "--signal: whose is not said; accepted: --pid-file FILE, --process NAME, or a program to start, after --"
    )]
    NoTarget,
}

impl ReloadArgs {
    /// What the flags ask for.
    pub fn into_config(self) -> Result<ReloadConfig, ReloadUsageError> {
        let action = match (self.signal, self.exec) {
            (Some(signal), _) => {
                let target = match (self.pid_file, self.process) {
                    (Some(path), _) => Target::PidFile(path),
                    (None, Some(name)) => Target::Name(name),
                    (None, None) if self.program.is_empty() => return Err(ReloadUsageError::NoTarget),
                    (None, None) => Target::Program,
                };
                Action::Signal { signal, target }
            }
            (None, Some(CommandLine(command))) => Action::Run { command, timeout: self.exec_timeout },
            (None, None) => return Err(ReloadUsageError::NoAction),
        };
        Ok(ReloadConfig { directories: self.watch, action, program: self.program })
    }
}
