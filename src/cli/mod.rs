//! The command line: one struct per subcommand, every flag also an environment variable.

mod cluster;
mod node;
mod policy;
mod reference;
mod status;
mod values;

pub use node::{NodeArgs, UsageError};
pub use policy::{CheckArgs, PolicyAction, PolicyArgs, PolicyCheckError};
pub use reference::{ReferenceArgs, command_reference};
pub use status::StatusArgs;

use clap::{Args, Parser, Subcommand};
use std::time::Duration;

/// Gives every Kubernetes pod its own short-lived X.509 certificate.
#[derive(Debug, Parser)]
#[command(name = "certlet", version, propagate_version = true, max_term_width = 110)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What certlet can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the CSI node driver.
    Node(Box<NodeArgs>),
    /// Show this node's volumes and how their certificates stand.
    Status(StatusArgs),
    /// See it work: real driver, local signer, no cluster, no root.
    Demo(DemoArgs),
    /// Look at a policy file for AWS Private CA.
    Policy(PolicyArgs),
    /// Print a page of the documentation that is generated from the code.
    Reference(ReferenceArgs),
}

/// `certlet demo`
#[derive(Clone, Debug, Args)]
pub struct DemoArgs {
    /// How many pods get a certificate; the first two talk to each other.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(2..=500))]
    pub pods: u16,

    /// How long each certificate lives: a Go duration, five seconds or more. The demo waits for one rotation, at about
    /// two thirds of it.
    #[arg(long, default_value = "20s", value_parser = values::demo_duration)]
    pub duration: Duration,

    /// Leave driver and volumes up, and say where they are, until Ctrl-C.
    #[arg(long)]
    pub keep: bool,
}
