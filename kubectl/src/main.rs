//! `kubectl certlet`: the certificates of a whole cluster in one table, why one fails, renewals, and which roots are in use.
//!
//! It speaks to the cluster by running `kubectl`, which everybody has who has a plugin of it: so kubeconfig, credential helpers and
//! proxies are those of kubectl. Details of a node come from `certlet status --report` in the driver's pod. Who may not exec into
//! that pod sees what Pods, Events and CertificateRequests show.

mod args;
mod certificate;
mod complete;
mod drivers;
mod kubectl;
mod objects;
mod renew;
mod report;
mod requests;
mod status;
mod table;
mod trust;
mod why;

use args::{Cli, Command};
use clap::{CommandFactory, Parser};
use kubectl::{Kubectl, KubectlError};
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::process::ExitCode;
use thiserror::Error;

/// This plugin's version. The driver has the same, unless they are of different releases.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Why a command cannot answer.
#[derive(Debug, Error)]
enum PluginError {
    /// kubectl.
    #[error(transparent)]
    Kubectl(#[from] KubectlError),
    /// What was asked for does not exist, or is not accepted.
    #[error("{0}")]
    Usage(String),
}

/// What a command prints.
#[derive(Debug, Default)]
struct Output {
    text: String,
    /// Lines for standard error: where the answer comes from, and what is missing in it.
    notices: Vec<String>,
    /// Whether something is missing, or has failed.
    is_incomplete: bool,
}

fn main() -> ExitCode {
    if complete::is_called() {
        return print(&complete::candidates(&std::env::args().skip(1).collect::<Vec<_>>()));
    }
    let cli = Cli::parse();
    let color = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let kubectl = Kubectl::new(&cli.cluster);
    let output = match &cli.command {
        Command::Status(args) => status::run(&kubectl, &cli.cluster, args, color),
        Command::Why(args) => why::run(&kubectl, &cli.cluster, args, color),
        Command::Renew(args) => renew::run(&kubectl, &cli.cluster, args),
        Command::Trust(args) => trust::run(&kubectl, &cli.cluster, args),
        Command::Completion { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "kubectl-certlet", &mut text);
            Ok(Output { text: String::from_utf8_lossy(&text).into_owned(), ..Output::default() })
        }
    };
    match output {
        Ok(output) => show(&output),
        Err(error) => {
            // It can be the text of the API server, of a webhook or of a container.
            eprintln!("kubectl certlet: {}", table::plain(&error.to_string()));
            ExitCode::FAILURE
        }
    }
}

fn show(output: &Output) -> ExitCode {
    let printed = print(&output.text);
    for notice in &output.notices {
        eprintln!("{}", table::plain(notice));
    }
    if output.is_incomplete { ExitCode::FAILURE } else { printed }
}

/// A reader that has seen enough, such as `head`, is no failure.
fn print(text: &str) -> ExitCode {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            eprintln!("kubectl certlet: {error}");
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}
