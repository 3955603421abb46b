//! `certlet reload`: tells a program that its certificate has been renewed.
//!
//! It follows the link `..data` of a volume's directory. Once for each generation it sends a signal or runs a command. As a wrapper it
//! starts the program too: it passes signals on, reaps processes as PID 1 must, and exits as the program does. As a sidecar it acts on
//! a process of another container, in a process namespace that both share.

mod action;
mod children;
mod generation;
mod process;

pub use action::{Action, Target};

use action::Actor;
use children::{Children, Started};
use generation::{Directories, Generation};
use nix::sys::signal::{self, Signal};
use nix::unistd::{Pid, getpid, getsid};
use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitStatus;
use thiserror::Error;
use tokio::signal::unix::SignalKind;
use tokio::sync::{mpsc, oneshot, watch};

/// What to watch, and what to do.
#[derive(Clone, Debug)]
pub struct ReloadConfig {
    /// The directories of the volumes.
    pub directories: Vec<PathBuf>,
    /// What happens once for each generation.
    pub action: Action,
    /// The program to start, with its arguments. Empty: a sidecar, which starts none.
    pub program: Vec<OsString>,
}

/// Why it cannot run.
#[derive(Debug, Error)]
pub enum ReloadError {
    /// The program does not start.
    #[error("{}: {source}; accepted: a program and its arguments after --", program.display())]
    Program {
        /// The program.
        program: OsString,
        /// The system's error.
        source: io::Error,
    },
    /// The system refuses signal handlers.
    #[error("signal handlers cannot be installed: {0}")]
    Signals(#[from] io::Error),
}

impl ReloadError {
    /// The exit code, as a shell has it: 127 for a program that does not exist, 126 for one that cannot be run.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Program { source, .. } if source.kind() == io::ErrorKind::NotFound => 127,
            Self::Program { .. } => 126,
            Self::Signals(_) => 1,
        }
    }
}

/// Runs until the program ends, or without a program until SIGTERM or SIGINT.
///
/// Returns the exit code. Must run on a runtime with one thread: only then a child cannot end before it is known.
pub async fn run(config: ReloadConfig) -> Result<u8, ReloadError> {
    let children = Children::start()?;
    let signals = received_signals()?;
    // The program reads what is there when it starts.
    let is_sidecar = config.program.is_empty();
    let mut directories = Directories::new(config.directories);
    if !is_sidecar {
        directories.skip_present();
    }
    let (program, ended) = match start(&children, &config.program)? {
        Some(Started { pid, ended }) => (Some(pid), Some(ended)),
        None => (None, None),
    };
    let (newest, generations) = watch::channel(None::<Generation>);
    let actor = Actor::new(config.action, program, children);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), sidecar = is_sidecar, "certlet reload starts");
    tokio::select! {
        biased;
        status = program_end(ended) => Ok(status),
        () = pass_on(signals, program) => Ok(0),
        () = directories.follow(&newest) => Ok(0),
        () = actor.run(generations) => Ok(0),
    }
}

/// Starts the program, if there is one.
fn start(children: &Children, command: &[OsString]) -> Result<Option<Started>, ReloadError> {
    let Some(program) = command.first().cloned() else { return Ok(None) };
    children.spawn_program(command).map(Some).map_err(|source| ReloadError::Program { program, source })
}

/// Waits for the program's end. Without a program it waits for ever.
async fn program_end(ended: Option<oneshot::Receiver<ExitStatus>>) -> u8 {
    let Some(ended) = ended else { return std::future::pending().await };
    let Ok(status) = ended.await else { return std::future::pending().await };
    tracing::info!(%status, "the program has ended");
    children::exit_code(status)
}

/// The signals that are passed on to the program.
const PASSED_ON: [Signal; 9] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGHUP,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGWINCH,
    Signal::SIGCONT,
];

/// The signals that this process receives from now on.
fn received_signals() -> io::Result<mpsc::UnboundedReceiver<Signal>> {
    let (sender, signals) = mpsc::unbounded_channel();
    for signal in PASSED_ON {
        let mut receiver = tokio::signal::unix::signal(SignalKind::from_raw(signal as i32))?;
        let sender = sender.clone();
        tokio::spawn(async move { while receiver.recv().await.is_some() && sender.send(signal).is_ok() {} });
    }
    Ok(signals)
}

/// Passes signals on to the program. Without a program, returns at the first SIGTERM or SIGINT.
async fn pass_on(mut signals: mpsc::UnboundedReceiver<Signal>, program: Option<Pid>) {
    // A shell's terminal sends these to the program itself, which is in the same process group. In a container with a terminal, whose
    // first process leads the session, they can be the kubelet's stop signal.
    let has_shell = io::stdin().is_terminal() && getsid(None) != Ok(getpid());
    let from_terminal =
        |signal: Signal| has_shell && matches!(signal, Signal::SIGINT | Signal::SIGQUIT | Signal::SIGWINCH);
    while let Some(signal) = signals.recv().await {
        match program {
            Some(program) if !from_terminal(signal) => {
                let sent = signal::kill(program, signal);
                tracing::debug!(%signal, error = sent.err().map(tracing::field::display), "signal passed on");
            }
            Some(_) => {}
            None if matches!(signal, Signal::SIGTERM | Signal::SIGINT) => return,
            None => tracing::debug!(%signal, "signal ignored: there is no program to pass it on to"),
        }
    }
}
