//! The certlet command: parses the command line and runs the subcommand.

#[cfg(feature = "kubernetes")]
use certlet::cli::ApproverArgs;
#[cfg(feature = "aws")]
use certlet::cli::{CheckArgs, PolicyAction, PolicyCheckError};
use certlet::cli::{
    Cli, Command, DemoArgs, ExplainArgs, ExplainError, NodeArgs, ReloadArgs, RenewArgs, RenewError,
    SidecarArgs,
};
use certlet::run::SidecarEnd;
use certlet::{run, telemetry};
use certlet_demo::DemoOptions;
use clap::Parser;
use clap::error::ErrorKind;
use std::fmt::Display;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The exit code after an invalid command line.
const USAGE: u8 = 2;
/// The exit code after any other failure.
const FAILURE: u8 = 1;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    match cli.command {
        Command::Node(args) => run_node(*args).unwrap_or_else(|code| code),
        Command::Sidecar(args) => run_sidecar(*args),
        #[cfg(feature = "kubernetes")]
        Command::Approver(args) => run_approver(*args).unwrap_or_else(|code| code),
        Command::Demo(DemoArgs { pods, duration, keep }) => {
            certlet_demo::run(&DemoOptions { pods, duration, keep })
        }
        Command::Reload(args) => run_reload(*args).unwrap_or_else(|code| code),
        Command::Status(args) => print(args.render()),
        Command::Renew(args) => renew(&args),
        Command::Explain(args) => explain(*args),
        Command::Health(args) => print(args.run()),
        #[cfg(feature = "aws")]
        Command::Policy(PolicyAction::Check(args)) => check_policy(&args),
        Command::Reference(args) => print::<std::convert::Infallible>(Ok(args.render())),
    }
}

/// Prints help and version as clap formats them, and an error as one line, with clap's tips.
fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = error.print();
        return ExitCode::from(if error.use_stderr() { USAGE } else { 0 });
    }
    let text = error.to_string();
    let lines = || text.lines().map(str::trim);
    let fault: Vec<&str> = lines().take_while(|line| !line.is_empty()).collect();
    let fault = fault.join(" ");
    let parts = std::iter::once(fault.trim_start_matches("error: "));
    let parts = parts.chain(lines().filter(|line| line.starts_with("tip: "))).chain(["see certlet --help"]);
    fail(USAGE)(parts.collect::<Vec<_>>().join("; "))
}

/// Prints the decision to standard output, also if it is a denial.
#[cfg(feature = "aws")]
fn check_policy(args: &CheckArgs) -> ExitCode {
    match args.render() {
        Err(PolicyCheckError::Denied(explanation)) => {
            write_out(&explanation);
            ExitCode::FAILURE
        }
        rendered => print(rendered),
    }
}

/// Prints what has become of each volume to standard output, also if some are not renewed.
fn renew(args: &RenewArgs) -> ExitCode {
    match args.run() {
        Err(RenewError::NotRenewed(lines)) => {
            write_out(&lines);
            ExitCode::FAILURE
        }
        renewed => print(renewed),
    }
}

/// Flags that do not go together have the exit code of a wrong flag.
fn explain(args: ExplainArgs) -> ExitCode {
    match args.render() {
        Err(error @ ExplainError::Usage(_)) => fail(USAGE)(error),
        rendered => print(rendered),
    }
}

fn print<E: Display>(result: Result<String, E>) -> ExitCode {
    match result {
        Ok(text) => write_out(&text),
        Err(error) => fail(FAILURE)(error),
    }
}

/// Writes to standard output. A reader that has had enough, such as head, is no failure.
fn write_out(text: &str) -> ExitCode {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            fail(FAILURE)(format!("standard output: {error}"))
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Prints an error, and returns the exit code.
fn fail<E: Display>(code: u8) -> impl Fn(E) -> ExitCode {
    move |error| {
        eprintln!("certlet: {error}");
        ExitCode::from(code)
    }
}

fn run_node(args: NodeArgs) -> Result<ExitCode, ExitCode> {
    telemetry::init_logging(args.logs.log_format, &args.logs.log_level).map_err(fail(USAGE))?;
    keep_memory_private().map_err(fail(FAILURE))?;
    let worker_threads = args.worker_threads;
    let config = args.into_config().map_err(fail(USAGE))?;
    run_until_stopped(worker_threads, |shutdown| run::run(config, shutdown))
}

#[cfg(feature = "kubernetes")]
fn run_approver(args: ApproverArgs) -> Result<ExitCode, ExitCode> {
    telemetry::init_logging(args.log_format, &args.log_level).map_err(fail(USAGE))?;
    let config = args.into_config().map_err(fail(USAGE))?;
    run_until_stopped(Some(1), |shutdown| run::run_approver(config, shutdown))
}

/// Ends as the program does that it started.
fn run_reload(args: ReloadArgs) -> Result<ExitCode, ExitCode> {
    telemetry::init_logging(args.logs.log_format, &args.logs.log_level).map_err(fail(USAGE))?;
    let config = args.into_config().map_err(fail(USAGE))?;
    let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).enable_all().build();
    let runtime = runtime.map_err(|error| fail(FAILURE)(format!("the runtime cannot start: {error}")))?;
    let ended = runtime.block_on(certlet::reload::run(config));
    runtime.shutdown_background();
    ended.map(ExitCode::from).map_err(|error| fail(error.exit_code())(error))
}

/// Runs a sidecar until its end. Why it failed is also in the file that `kubectl describe pod` shows.
fn run_sidecar(args: SidecarArgs) -> ExitCode {
    let message_path = args.termination_message_path.clone();
    match sidecar(args) {
        Ok(SidecarEnd::Stopped | SidecarEnd::Issued) => ExitCode::SUCCESS,
        Ok(SidecarEnd::Renewed(code)) => ExitCode::from(code),
        Err((code, error)) => {
            write_termination_message(&message_path, &error);
            fail(code)(error)
        }
    }
}

/// The error has its exit code.
fn sidecar(args: SidecarArgs) -> Result<SidecarEnd, (u8, String)> {
    let usage = |error: &dyn Display| (USAGE, error.to_string());
    telemetry::init_logging(args.logs.log_format, &args.logs.log_level).map_err(|error| usage(&error))?;
    keep_memory_private().map_err(|error| (FAILURE, error))?;
    let config = args.into_config().map_err(|error| usage(&error))?;
    // One thread: there is one workload, and memory counts in every pod.
    let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(2).enable_all().build();
    let service = async |shutdown| Ok::<_, String>(run::run_sidecar(config, shutdown).await);
    let ended = block_on(runtime, service).map_err(|error| (FAILURE, error))?;
    ended.map_err(|error| {
        tracing::error!(%error, "certlet cannot run");
        (if error.is_usage() { USAGE } else { FAILURE }, error.to_string())
    })
}

/// Best effort. The kubelet makes the file, and shows at most 4 KiB of it.
fn write_termination_message(path: &Path, message: &str) {
    const MAX_BYTES: usize = 4096;
    let file = OpenOptions::new().write(true).truncate(true).open(path);
    let _written =
        file.and_then(|mut file| file.write_all(&message.as_bytes()[..message.len().min(MAX_BYTES)]));
}

fn keep_memory_private() -> Result<(), String> {
    certlet::platform::keep_memory_private()
        .map_err(|error| format!("the process's memory cannot be excluded from core dumps: {error}"))
}

/// Runs a service until a signal stops it.
fn run_until_stopped<E: Display>(
    worker_threads: Option<u16>,
    service: impl AsyncFnOnce(CancellationToken) -> Result<(), E>,
) -> Result<ExitCode, ExitCode> {
    block_on(runtime(worker_threads), service).map_err(|error| {
        tracing::error!(error, "certlet cannot run");
        fail(FAILURE)(error)
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Runs a service, whose token is cancelled by the first signal.
fn block_on<T, E: Display>(
    runtime: std::io::Result<Runtime>,
    service: impl AsyncFnOnce(CancellationToken) -> Result<T, E>,
) -> Result<T, String> {
    let runtime = runtime.map_err(|error| format!("the runtime cannot start: {error}"))?;
    let ended = runtime.block_on(async {
        let shutdown = CancellationToken::new();
        stop_on_signals(&shutdown)?;
        service(shutdown).await.map_err(|error| error.to_string())
    });
    // Does not wait for blocking work, which may hang on a disk.
    runtime.shutdown_background();
    ended
}

fn runtime(worker_threads: Option<u16>) -> std::io::Result<Runtime> {
    let cores = certlet::platform::cores();
    // The other cores are for the pods. Long work waits for a signer or runs on the blocking threads, so more workers would
    // mostly wait for each other.
    let workers = (cores / 2).clamp(1, 4);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(worker_threads.map_or(workers, usize::from))
        // Few, because they do short work on a tmpfs, and the kernel serializes mounts. More threads cost memory and make the
        // slowest of fifty publishes slower.
        .max_blocking_threads((2 * cores).clamp(4, 16))
        .enable_all()
        .build()
}

/// The first SIGTERM or SIGINT shuts down gracefully, the second one exits at once.
fn stop_on_signals(shutdown: &CancellationToken) -> Result<(), String> {
    let install =
        |kind| signal(kind).map_err(|error| format!("signal handlers cannot be installed: {error}"));
    let (mut terminate, mut interrupt) =
        (install(SignalKind::terminate())?, install(SignalKind::interrupt())?);
    let shutdown = shutdown.clone();
    tokio::spawn(async move {
        let mut received = async || {
            tokio::select! {
                _ = terminate.recv() => SignalKind::terminate(),
                _ = interrupt.recv() => SignalKind::interrupt(),
            }
        };
        received().await;
        shutdown.cancel();
        // 128 plus the signal, as in a shell.
        std::process::exit(128 + received().await.as_raw_value());
    });
    Ok(())
}
