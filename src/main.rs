//! The certlet command: parse, start telemetry, run.

use certlet::cli::{Cli, Command, NodeArgs, PolicyArgs, PolicyCheckError};
use certlet::{demo, node, telemetry};
use clap::Parser;
use std::process::ExitCode;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What a command line ends with that cannot be carried out.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return explain(&error),
    };
    match cli.command {
        Command::Node(args) => run_node(*args),
        Command::Demo(args) => demo::run(&args),
        Command::Status(args) => print(args.render()),
        Command::Policy(args) => explain_policy(&args),
        Command::Reference(args) => print::<std::convert::Infallible>(Ok(args.render())),
    }
}

/// Help and version as clap has them; a fault as one line.
fn explain(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        let _printed = error.print();
        return ExitCode::SUCCESS;
    }
    let text = error.to_string();
    let fault: Vec<&str> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    eprintln!("certlet: {}; see certlet --help", fault.join(" ").trim_start_matches("error: "));
    ExitCode::from(USAGE)
}

/// A denial is an explanation too, and is printed as one.
fn explain_policy(args: &PolicyArgs) -> ExitCode {
    match args.render() {
        Err(PolicyCheckError::Denied(explanation)) => {
            print!("{explanation}");
            ExitCode::FAILURE
        }
        rendered => print(rendered),
    }
}

fn print<E: std::fmt::Display>(result: Result<String, E>) -> ExitCode {
    match result {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error),
    }
}

fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("certlet: {error}");
    ExitCode::FAILURE
}

fn run_node(args: NodeArgs) -> ExitCode {
    if let Err(error) = telemetry::init_logging(args.log_format, &args.log_level) {
        eprintln!("certlet: {error}");
        return ExitCode::from(USAGE);
    }
    if let Err(error) = certlet::hardening::keep_memory_private() {
        return fail(&format!("the process's memory cannot be kept out of core dumps: {error}"));
    }
    let runtime = match runtime(args.worker_threads) {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("the runtime cannot start: {error}")),
    };
    let config = match args.into_config() {
        Ok(config) => config,
        Err(error) => {
            eprintln!("certlet: {error}");
            return ExitCode::from(USAGE);
        }
    };
    let ended = runtime.block_on(async {
        let shutdown = CancellationToken::new();
        stop_on_signals(&shutdown)?;
        node::run(config, shutdown).await.map_err(|error| error.to_string())
    });
    // Blocking work may be stuck on a disk; the process ends all the same.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error, "certlet cannot run");
            fail(&error)
        }
    }
}

fn runtime(worker_threads: Option<u16>) -> std::io::Result<Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    // The other half is the pods'. More threads wake and wait for each other more than they get done: what takes long is
    // waiting for a signer, or goes to the blocking threads.
    let workers = (cores / 2).clamp(1, 4);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(worker_threads.map_or(workers, usize::from))
        // Few: they do short work on a tmpfs, and mounts go one at a time in the kernel anyway. More of them only wait for
        // each other, which shows in the slowest of fifty publishes, and in memory.
        .max_blocking_threads((2 * cores).clamp(4, 16))
        .enable_all()
        .build()
}

/// The first SIGTERM or SIGINT ends in good order, the second at once.
fn stop_on_signals(shutdown: &CancellationToken) -> Result<(), String> {
    let watch = |kind| signal(kind).map_err(|error| format!("signals cannot be watched: {error}"));
    let (mut terminate, mut interrupt) = (watch(SignalKind::terminate())?, watch(SignalKind::interrupt())?);
    let shutdown = shutdown.clone();
    tokio::spawn(async move {
        let mut stopping = false;
        loop {
            let signal = tokio::select! {
                _ = terminate.recv() => SignalKind::terminate(),
                _ = interrupt.recv() => SignalKind::interrupt(),
            };
            if stopping {
                // 128 + the signal, as a shell would say it.
                std::process::exit(128 + signal.as_raw_value());
            }
            stopping = true;
            shutdown.cancel();
        }
    });
    Ok(())
}
