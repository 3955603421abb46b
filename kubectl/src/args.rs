//! The command line.

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use std::path::PathBuf;

/// The certificates of certlet in a cluster.
///
/// Runs kubectl. With permission to exec into the driver's pods it shows what these know; without it, what the Pods, Events and
/// CertificateRequests of a namespace show.
#[derive(Debug, Parser)]
#[command(name = "kubectl-certlet", bin_name = "kubectl certlet", version, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Which cluster, namespace and drivers.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ClusterArgs {
    /// The namespace [default: that of the kubeconfig's context]
    #[arg(short, long, global = true, value_parser = object_name)]
    pub(crate) namespace: Option<String>,

    /// A context of the kubeconfig; for kubectl.
    #[arg(long, global = true)]
    pub(crate) context: Option<String>,

    /// The kubeconfig file; for kubectl.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,

    /// Act as this user; for kubectl.
    #[arg(long = "as", global = true, value_name = "USER")]
    pub(crate) as_user: Option<String>,

    /// Act as a member of this group; for kubectl. Can be repeated.
    #[arg(long, global = true, value_name = "GROUP")]
    pub(crate) as_group: Vec<String>,

    /// The namespace of the drivers [default: all]
    #[arg(long, global = true, env = "CERTLET_DRIVER_NAMESPACE", value_name = "NS", value_parser = object_name)]
    pub(crate) driver_namespace: Option<String>,

    /// The labels of the drivers' pods.
    #[arg(
        long,
        global = true,
        env = "CERTLET_DRIVER_SELECTOR",
        value_name = "SELECTOR",
        default_value = "app.kubernetes.io/name=certlet"
    )]
    pub(crate) driver_selector: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show volumes and the state of their certificates, of all nodes in one table.
    #[command(after_help = "Example: kubectl certlet status -n shop")]
    Status(StatusArgs),
    /// Explain a pod's certificates: what was asked for, the last error, the request, its issuer, Events, the next try.
    #[command(after_help = "Example: kubectl certlet why -n shop web-0")]
    Why(WhyArgs),
    /// Renew the certificates of pods now. Execs into the driver's pod, which is root on the node.
    #[command(after_help = "Example: kubectl certlet renew -n shop -l app=web")]
    Renew(RenewArgs),
    /// Show which roots are in use where, and which of them can be removed. Execs into the drivers' pods.
    #[command(after_help = "Example: kubectl certlet trust")]
    Trust(TrustArgs),
    /// Print a shell's completion script.
    #[command(after_help = "Example: source <(kubectl certlet completion bash)")]
    Completion {
        /// The shell.
        shell: Shell,
    },
}

/// Where the answer comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum From {
    /// The drivers, or what the namespace's objects show if those may not be asked.
    #[default]
    Auto,
    /// The drivers.
    Drivers,
    /// Pods, Events and CertificateRequests.
    Api,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For programs.
    Json,
    /// More columns, and times in place of durations.
    Wide,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct StatusArgs {
    /// One pod.
    #[arg(value_parser = object_name)]
    pub(crate) pod: Option<String>,

    /// All namespaces.
    #[arg(short = 'A', long, conflicts_with_all = ["namespace", "pod"])]
    pub(crate) all_namespaces: bool,

    /// The output's format.
    #[arg(short, long, value_enum)]
    pub(crate) output: Option<Format>,

    /// Where the answer comes from.
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) from: From,

    /// Ask sidecars too: pods with a container `certlet`, by exec into it.
    #[arg(long)]
    pub(crate) sidecars: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct WhyArgs {
    /// The pod.
    #[arg(value_parser = object_name)]
    pub(crate) pod: String,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct RenewArgs {
    /// The pods.
    #[arg(value_name = "POD", value_parser = object_name, required_unless_present_any = ["all", "selector"])]
    pub(crate) pods: Vec<String>,

    /// All pods of the namespace.
    #[arg(long, conflicts_with_all = ["pods", "selector"])]
    pub(crate) all: bool,

    /// Pods with these labels.
    #[arg(short = 'l', long, conflicts_with = "pods")]
    pub(crate) selector: Option<String>,

    /// With --all or --selector: of all namespaces.
    #[arg(short = 'A', long, conflicts_with_all = ["namespace", "pods"])]
    pub(crate) all_namespaces: bool,

    /// How many seconds to wait for the certificates.
    #[arg(long, value_name = "SECONDS", default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub(crate) timeout: u32,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct TrustArgs {
    /// The output's format.
    #[arg(short, long, value_enum)]
    pub(crate) output: Option<Format>,
}

/// The name of a namespace or a pod, which is never a flag of kubectl.
fn object_name(text: &str) -> Result<String, String> {
    let of_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    let is_name = text.len() <= 253 && text.chars().all(of_name);
    let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    if is_name && begins { Ok(text.to_owned()) } else { Err("accepted: the name of an object".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn every_subcommand_has_an_example_that_parses() {
        for command in Cli::command().get_subcommands().filter(|command| command.get_name() != "help") {
            let name = command.get_name();
            let help =
                command.get_after_help().unwrap_or_else(|| panic!("{name} has no example")).to_string();
            let (_, line) =
                help.split_once("kubectl certlet ").unwrap_or_else(|| panic!("{name}: no command: {help}"));
            let words = line.trim_end_matches(')').split(' ');
            assert!(line.starts_with(name) && help.len() <= 80, "{name}: {help}");
            if let Err(error) = Cli::try_parse_from(std::iter::once("kubectl-certlet").chain(words)) {
                panic!("{name}: {help}\n{error}");
            }
        }
    }
}
