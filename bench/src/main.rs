//! Plays the kubelet against the release binary and measures: what a publish takes, what an idle driver costs, how soon
//! a killed one is back. Prints the budget of docs/architecture.md beside what was measured.
//!
//! Needs no root: like `certlet demo`, it makes a mount namespace of its own. Client and driver share the machine's
//! cores, so their CPU is told apart.

mod load;
mod node;
mod process;
mod report;
mod scenes;

use certlet::demo::namespace;
use clap::Parser;
use report::Report;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Anything that ends the measuring.
type Failure = Box<dyn Error + Send + Sync>;

/// Measures the certlet driver against its budgets.
#[derive(Debug, Parser)]
#[command(name = "certlet-bench")]
struct Args {
    /// The driver; without it, the `certlet` beside this program.
    #[arg(long, env = "CERTLET_BIN", value_name = "FILE")]
    certlet: Option<PathBuf>,

    /// Where the numbers go as JSON; without it, bench.json beside the directory of this program.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Fewer volumes and shorter waits, to see whether it works. Its numbers are no budget.
    #[arg(long)]
    quick: bool,

    /// A flag for the driver, for comparing; may be repeated.
    #[arg(long = "driver-flag", value_name = "FLAG", allow_hyphen_values = true)]
    driver_flags: Vec<String>,

    /// Only the scenes whose name begins so: publish, idle, restart, renewal.
    #[arg(long)]
    only: Option<String>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(report) => {
            println!("\n{report}");
            ExitCode::SUCCESS
        }
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
        return Err(format!("{} is not there: build it, or set CERTLET_BIN", binary.display()).into());
    }
    let json = args.json.clone().unwrap_or_else(|| beside.join("../bench.json"));
    // The directory's name must be short: a Unix socket's path has 107 bytes.
    let root = std::env::temp_dir().join(format!("certlet-bench-{}", std::process::id()));
    namespace::enter()?;
    namespace::scratch(&root)?;
    // One thread: more of them would only take cores from the driver.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let bench = scenes::Bench {
        binary,
        root: root.clone(),
        flags: args.driver_flags.clone(),
        quick: args.quick,
        only: args.only.clone(),
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
