//! One example for each subcommand, at the end of its help. A test reads each with the parser.

pub(super) const CERTLET: &str = "\
Example: see certlet at work, without a cluster
  certlet demo";

pub(super) const NODE: &str = "\
Example: the driver on a development machine, with a CA of its own
  certlet node --node-id node-1 --allow-local-signer --log-format text";

pub(super) const SIDECAR: &str = "\
Example: a certificate of a cert-manager issuer, in a container of the pod
  certlet sidecar --attributes issuer-name=internal-ca \\
    --attributes 'dns-names=${POD_NAME}.${POD_NAMESPACE}.svc'";

#[cfg(feature = "kubernetes")]
pub(super) const APPROVER: &str = "\
Example: approve what the driver asks for with the pods' own tokens
  certlet approver --trust-domain cluster.local --issuer-name my-spiffe-ca";

pub(super) const RELOAD: &str = "\
Examples: start nginx, and tell it of each renewal; tell an nginx of another
container, with shareProcessNamespace; run a command
  certlet reload --watch /tls --signal HUP -- nginx -g 'daemon off;'
  certlet reload --watch /tls --signal HUP --process nginx
  certlet reload --watch /tls --exec 'curl -X POST http://localhost:9/-/reload'";

pub(super) const STATUS: &str = "\
Example: the volumes of the node whose driver is in this pod, as JSON
  certlet status --json";

pub(super) const RENEW: &str = "\
Example: new certificates for a pod whose key may be known to others
  certlet renew shop/web-0";

pub(super) const HEALTH: &str = "\
Example: a readiness probe
  certlet health --readiness";

pub(super) const EXPLAIN: &str = "\
Example: what two attributes ask for in a pod
  certlet explain --pod shop/web-0 \\
    --attributes issuer-name=internal-ca --attributes services=web";

pub(super) const DEMO: &str = "\
Example: stay until Ctrl-C, with certificates of half a minute
  certlet demo --keep --duration 30s";

#[cfg(feature = "aws")]
pub(super) const POLICY: &str = "\
Example: check a file
  certlet policy check policy.yaml";

#[cfg(feature = "aws")]
pub(super) const POLICY_CHECK: &str = "\
Example: would this pod get these names?
  certlet policy check policy.yaml --pod shop/web-0 --service-account web \\
    --attributes dns-names=web.shop.svc,duration=24h";

pub(super) const REFERENCE: &str = "\
Example: the page of all attributes
  certlet reference attributes";

#[cfg(test)]
mod tests {
    use crate::cli::Cli;
    use crate::cli::values::command_line;
    use clap::{Command, CommandFactory, Parser};

    /// The command lines of an example: its indented lines, where a backslash continues one.
    fn command_lines(text: &str) -> Vec<String> {
        let joined = text.replace("\\\n", " ");
        joined.lines().filter(|line| line.starts_with("  ")).map(|line| line.trim().to_owned()).collect()
    }

    fn check(command: &Command, path: &str) {
        let help = command.get_after_help().unwrap_or_else(|| panic!("{path} has no example")).to_string();
        assert!(help.lines().all(|line| line.len() <= 80), "{path}: more than 80 columns:\n{help}");
        let lines = command_lines(&help);
        assert!(!lines.is_empty(), "{path}: {help}");
        for line in lines {
            assert!(line.starts_with(path), "{path}: {line}");
            let words = command_line(&line).unwrap().0;
            if let Err(error) = Cli::try_parse_from(words) {
                panic!("{line}\n{error}");
            }
        }
        for subcommand in command.get_subcommands().filter(|command| command.get_name() != "help") {
            check(subcommand, &format!("{path} {}", subcommand.get_name()));
        }
    }

    #[test]
    fn every_subcommand_has_an_example_that_parses() {
        check(&Cli::command(), "certlet");
    }
}
