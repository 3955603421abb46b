//! The command line: one struct per subcommand.

#[cfg(feature = "kubernetes")]
mod approver;
mod classes;
#[cfg(feature = "kubernetes")]
mod cluster;
mod csi_driver_spiffe;
mod examples;
mod explain;
mod federated;
mod health;
mod node;
#[cfg(feature = "aws")]
mod pca;
#[cfg(feature = "aws")]
mod policy;
mod reference;
mod reload;
mod renew;
#[cfg(feature = "kubernetes")]
mod runtime_issuer;
mod shared;
mod sidecar;
mod spiffe;
mod status;
mod trust;
mod values;

#[cfg(feature = "kubernetes")]
pub use approver::{ApproverArgs, ApproverUsageError};
pub use csi_driver_spiffe::{CsiDriverSpiffeArgs, CsiDriverSpiffeError};
pub use explain::{ExplainArgs, ExplainError};
pub use health::{ControlError, HealthArgs};
pub use node::{NodeArgs, UsageError};
#[cfg(feature = "aws")]
pub use pca::{PcaArgs, SidecarPcaArgs};
#[cfg(feature = "aws")]
pub use policy::{CheckArgs, PolicyAction, PolicyCheckError};
pub use reference::ReferenceArgs;
pub use reload::{CommandLine, ReloadArgs, ReloadUsageError};
pub use renew::{RenewArgs, RenewError};
#[cfg(feature = "kubernetes")]
pub use runtime_issuer::{RuntimeIssuerArgs, RuntimeIssuerError};
#[cfg(feature = "kubernetes")]
pub use shared::IssuerArgs;
pub use shared::{ClusterDomainArgs, GivenAddress, LocalSignerArgs, LogArgs, SdsArgs, VariableArgs};
#[cfg(feature = "kubernetes")]
pub use sidecar::SidecarClusterArgs;
pub use sidecar::{Attribute, SidecarArgs};
pub use spiffe::SpiffeArgs;
pub use status::StatusArgs;
pub use trust::TrustArgs;

use clap::{Args, Parser, Subcommand};
use std::time::Duration;

/// Gives every Kubernetes pod its own short-lived X.509 certificate.
#[derive(Debug, Parser)]
#[command(name = "certlet", version, propagate_version = true, max_term_width = 110, after_help = examples::CERTLET)]
pub struct Cli {
    /// The subcommand.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the CSI node driver.
    #[command(after_help = examples::NODE)]
    Node(Box<NodeArgs>),
    /// Give one pod its certificate from inside: as a sidecar, or as an init container.
    #[command(after_help = examples::SIDECAR)]
    Sidecar(Box<SidecarArgs>),
    /// Approve and deny the CertificateRequests of SPIFFE drivers, in place of csi-driver-spiffe's approver.
    #[cfg(feature = "kubernetes")]
    #[command(after_help = examples::APPROVER)]
    Approver(Box<ApproverArgs>),
    /// Tell a program that its certificate has been renewed: as the program's wrapper, or as a sidecar.
    #[command(after_help = examples::RELOAD)]
    Reload(Box<ReloadArgs>),
    /// Show this node's volumes, or a sidecar's, and the state of their certificates.
    #[command(after_help = examples::STATUS)]
    Status(StatusArgs),
    /// Renew certificates of this node's volumes, or a sidecar's, now, and wait until that is done. The limits and budgets of every
    /// renewal apply, and the old certificate stays until the new one is in place.
    #[command(after_help = examples::RENEW)]
    Renew(RenewArgs),
    /// Ask this node's driver, or a sidecar, whether it works; for the kubelet's probes.
    #[command(after_help = examples::HEALTH)]
    Health(HealthArgs),
    /// Say what attributes ask for, in words and as a signing request; needs no cluster.
    #[command(after_help = examples::EXPLAIN)]
    Explain(Box<ExplainArgs>),
    /// Try certlet with the real driver and a local signer; needs no cluster and no root.
    #[command(after_help = examples::DEMO)]
    Demo(DemoArgs),
    /// Check a policy file for AWS Private CA.
    #[cfg(feature = "aws")]
    #[command(subcommand, after_help = examples::POLICY)]
    Policy(PolicyAction),
    /// Print a page of the documentation that is generated from the code.
    #[command(after_help = examples::REFERENCE)]
    Reference(ReferenceArgs),
}

/// `certlet demo`
#[derive(Clone, Debug, Args)]
pub struct DemoArgs {
    /// Number of pods; the first two connect to each other.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(2..=500))]
    pub pods: u16,

    /// Lifetime of each certificate: a Go duration, five seconds or more. The demo waits for one rotation, after about two
    /// thirds of it.
    #[arg(long, default_value = "20s", value_parser = values::demo_duration)]
    pub duration: Duration,

    /// Keep driver and volumes running until Ctrl-C, and print their paths.
    #[arg(long)]
    pub keep: bool,
}
