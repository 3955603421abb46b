//! Acts as the kubelet for the release binary and measures how long a publish takes, what an idle driver costs, how soon a
//! killed driver is ready again, how soon a changed trust source reaches every
//! volume, and how soon a renewed certificate reaches the clients of the sockets; and what a sidecar costs. Prints the budgets of docs/architecture.md beside the measured values.
//!
//! Needs no root: like `certlet demo`, it makes a mount namespace of its own. Client and driver share the machine's
//! cores, so the CPU time of each is reported separately.

mod load;
mod node;
mod process;
mod report;
mod scenes;
mod sidecar;
mod sockets;
mod trust;

use certlet_kubelet::namespace;
use clap::{Parser, Subcommand};
use report::Report;
use sockets::client::ClientArgs;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Any error that ends the measurement.
type Failure = Box<dyn Error + Send + Sync>;

/// Measures the certlet driver against its budgets.
#[derive(Debug, Parser)]
#[command(name = "certlet-bench")]
struct Args {
    /// The driver's binary. Default: the `certlet` in the directory of this program.
    #[arg(long, env = "CERTLET_BIN", value_name = "FILE")]
    certlet: Option<PathBuf>,

    /// The file that gets the numbers as JSON. Default: bench.json in the parent of this program's directory.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Use fewer volumes and shorter waits, to check that the benchmark works. Do not compare its numbers with the budgets.
    #[arg(long)]
    quick: bool,

    /// A flag for the driver, to compare settings. May be repeated.
    #[arg(long = "driver-flag", value_name = "FLAG", allow_hyphen_values = true)]
    driver_flags: Vec<String>,

    /// Run only the scenes whose name begins with this text: publish, idle, restart, renewal, trust, sidecar, sockets.
    #[arg(long)]
    only: Option<String>,

    /// Measure SPIRE's agent beside certlet in the scene of the sockets. The directory has `spire-agent` and `spire-server`.
    /// Needs root, because each client runs as a user of its own.
    #[arg(long, value_name = "DIRECTORY")]
    spire: Option<PathBuf>,

    /// How often the scene of the sockets runs. The report has the median.
    #[arg(long, default_value_t = 1)]
    rounds: usize,

    #[command(subcommand)]
    command: Option<Part>,
}

/// The parts that this program plays for itself.
#[derive(Debug, Subcommand)]
enum Part {
    /// One client of a socket.
    #[command(hide = true)]
    Client(ClientArgs),
}

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match &args.command {
        Some(Part::Client(client)) => sockets::client::run(client),
        None => run(&args).map(|report| println!("\n{report}")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("certlet-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<Report, Failure> {
    let beside = std::env::current_exe()?.parent().map(Path::to_owned).unwrap_or_default();
    let binary = args.certlet.clone().unwrap_or_else(|| beside.join("certlet"));
    if !binary.exists() {
        return Err(format!("{} does not exist: build it, or set CERTLET_BIN", binary.display()).into());
    }
    let json = args.json.clone().unwrap_or_else(|| beside.join("../bench.json"));
    // The directory's name must be short, because a Unix socket's path has at most 107 bytes.
    let root = std::env::temp_dir().join(format!("certlet-bench-{}", std::process::id()));
    namespace::enter()?;
    namespace::scratch(&root)?;
    // One thread, because more threads would only take CPU from the driver.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let bench = scenes::Bench {
        binary,
        root: root.clone(),
        flags: args.driver_flags.clone(),
        quick: args.quick,
        only: args.only.clone(),
        spire: args.spire.clone(),
        rounds: args.rounds,
    };
    let measured = runtime.block_on(bench.run());
    let _unmounted = nix::mount::umount2(&root, nix::mount::MntFlags::MNT_DETACH);
    let _removed = std::fs::remove_dir(&root);
    let report = measured?.with_budget();
    std::fs::write(&json, serde_json::to_vec_pretty(&report)?)
        .map_err(|error| format!("{}: {error}", json.display()))?;
    println!("numbers as JSON: {}", json.display());
    Ok(report)
}
