//! Runs kubectl.

use crate::args::ClusterArgs;
use serde::de::DeserializeOwned;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use thiserror::Error;

/// Limit on what kubectl prints of objects: a list of all pods of a large cluster.
pub(crate) const MAX_OBJECTS_BYTES: u64 = 512 << 20;
/// Limit on what a command in a driver's pod prints: a report of all volumes of a node.
pub(crate) const MAX_DRIVER_BYTES: u64 = 16 << 20;
/// Limit on what a command in a sidecar prints. A sidecar is its tenant's, who can make it print anything.
pub(crate) const MAX_SIDECAR_BYTES: u64 = 1 << 20;
/// Time limit of a call, and what is added to the time of a command in a pod.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);
/// Calls at the same time.
const MAX_PARALLEL: usize = 16;
/// How often the end of a call is checked.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Why a call has no answer.
#[derive(Debug, Error)]
pub(crate) enum KubectlError {
    #[error("kubectl cannot be run: {0}; accepted: a kubectl in PATH")]
    Missing(io::Error),
    #[error("kubectl has not ended within {} s: {call}", .after.as_secs())]
    TimedOut { call: String, after: Duration },
    #[error("more than {max_bytes} bytes were printed: {call}")]
    TooLong { call: String, max_bytes: u64 },
    /// The user may not do this. It is the API server's answer, and never the text of a command in a container.
    #[error("{}", .0.trim())]
    Forbidden(String),
    #[error("{}", .0.trim())]
    Failed(String),
    #[error("kubectl has not printed the JSON that this plugin reads: {0}")]
    Json(#[from] serde_json::Error),
}

impl KubectlError {
    /// Whether the user may not do this.
    pub(crate) fn is_forbidden(&self) -> bool {
        matches!(self, Self::Forbidden(_))
    }

    /// kubectl's own failure, from what it alone has printed on standard error.
    fn of_kubectl(stderr: String) -> Self {
        let refuses = |line: &str| {
            line.starts_with("Error from server (Forbidden)")
                || (line.starts_with("error: ") && line.contains(" is forbidden: "))
        };
        if stderr.lines().any(refuses) { Self::Forbidden(stderr) } else { Self::Failed(stderr) }
    }
}

/// What a command in a container, or kubectl itself, has printed.
#[derive(Debug)]
pub(crate) struct Printed {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) is_success: bool,
}

impl Printed {
    /// Whether a command has run in the container, and failed: kubectl ends with this line. Without it the failure is kubectl's.
    fn has_failed_in_container(&self) -> bool {
        let end = self.stderr.trim_end().rsplit_once("command terminated with exit code ");
        let is_code = |code: &str| !code.is_empty() && code.bytes().all(|byte| byte.is_ascii_digit());
        !self.is_success && end.is_some_and(|(_, code)| is_code(code))
    }
}

/// A container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ContainerRef {
    pub(crate) namespace: String,
    pub(crate) pod: String,
    pub(crate) container: String,
}

/// kubectl with the flags for the cluster.
#[derive(Clone, Debug)]
pub(crate) struct Kubectl {
    flags: Vec<OsString>,
}

impl Kubectl {
    pub(crate) fn new(cluster: &ClusterArgs) -> Self {
        let mut flags = Vec::new();
        let mut flag = |name: &str, value: &OsStr| {
            let mut flag = OsString::from(format!("--{name}="));
            flag.push(value);
            flags.push(flag);
        };
        if let Some(file) = &cluster.kubeconfig {
            flag("kubeconfig", file.as_os_str());
        }
        for (name, value) in [("context", &cluster.context), ("as", &cluster.as_user)] {
            if let Some(value) = value {
                flag(name, value.as_ref());
            }
        }
        for group in &cluster.as_group {
            flag("as-group", group.as_ref());
        }
        Self { flags }
    }

    /// Gets objects.
    pub(crate) fn get<T: DeserializeOwned>(&self, args: &[&str]) -> Result<T, KubectlError> {
        let args: Vec<&str> = ["get"].iter().chain(args).chain(&["--output=json"]).copied().collect();
        let printed = self.run(&args, TIMEOUT, MAX_OBJECTS_BYTES)?;
        if !printed.is_success {
            return Err(KubectlError::of_kubectl(printed.stderr));
        }
        Ok(serde_json::from_str(&printed.stdout)?)
    }

    /// The namespace that is given, or else that of the kubeconfig's context.
    pub(crate) fn namespace(&self, given: Option<&String>) -> Result<String, KubectlError> {
        if let Some(given) = given {
            return Ok(given.clone());
        }
        let args = ["config", "view", "--minify", "--output=jsonpath={..namespace}"];
        let printed = self.run(&args, TIMEOUT, MAX_OBJECTS_BYTES)?;
        let name = printed.stdout.trim();
        // Without a kubeconfig, kubectl in a pod works in the pod's own namespace, or in `default`.
        Ok(if printed.is_success && !name.is_empty() { name } else { "default" }.to_owned())
    }

    /// Runs a command in a container. A command that ran and failed is no error.
    pub(crate) fn exec(
        &self,
        of: &ContainerRef,
        command: &[&str],
        timeout: Duration,
        max_bytes: u64,
    ) -> Result<Printed, KubectlError> {
        let (namespace, container) =
            (format!("--namespace={}", of.namespace), format!("--container={}", of.container));
        let mut args = vec!["exec", &namespace, &of.pod, &container, "--"];
        args.extend(command);
        let printed = self.run(&args, timeout, max_bytes)?;
        if printed.is_success || printed.has_failed_in_container() {
            return Ok(printed);
        }
        // A command that has printed something was not forbidden, but its connection has ended.
        Err(if printed.stdout.is_empty() {
            KubectlError::of_kubectl(printed.stderr)
        } else {
            KubectlError::Failed(printed.stderr)
        })
    }

    /// Runs kubectl to its end, for `timeout` at most. `max_bytes` is for standard output and standard error each.
    pub(crate) fn run(
        &self,
        args: &[&str],
        timeout: Duration,
        max_bytes: u64,
    ) -> Result<Printed, KubectlError> {
        let mut command = Command::new("kubectl");
        // Flags first: what follows `--` belongs to a command in a pod.
        command.args(&self.flags).args(args).stdin(Stdio::null());
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(KubectlError::Missing)?;
        let (stdout, stderr) = (read(child.stdout.take(), max_bytes), read(child.stderr.take(), max_bytes));
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().map_err(KubectlError::Missing)? {
                break status;
            }
            if begun.elapsed() > timeout {
                let _killed = child.kill();
                let _reaped = child.wait();
                return Err(KubectlError::TimedOut { call: args.join(" "), after: timeout });
            }
            thread::sleep(POLL_INTERVAL);
        };
        let text = |reader: thread::JoinHandle<Vec<u8>>| {
            let bytes = reader.join().unwrap_or_default();
            if bytes.len() as u64 > max_bytes {
                return Err(KubectlError::TooLong { call: args.join(" "), max_bytes });
            }
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        Ok(Printed { stdout: text(stdout)?, stderr: text(stderr)?, is_success: status.success() })
    }
}

/// Reads one byte more than the limit at most, and then closes the stream, which ends kubectl.
fn read(stream: Option<impl Read + Send + 'static>, max_bytes: u64) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(stream) = stream {
            // What cannot be read is missing in the JSON, which says so.
            let _read = stream.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes);
        }
        bytes
    })
}

/// Runs `f` for every item, several at a time. The results are in the order of the items.
pub(crate) fn in_parallel<T: Sync, R: Send>(items: &[T], f: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..items.len().min(MAX_PARALLEL) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(index) else { return };
                    let result = f(item);
                    results.lock().unwrap_or_else(PoisonError::into_inner).push((index, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refusal_without_a_command_that_ran_is_forbidden() {
        let refusal =
            "Error from server (Forbidden): pods \"x\" is forbidden: User \"jane\" cannot create pods/exec";
        for (stderr, is_forbidden) in [
            (refusal.to_owned(), true),
            (format!("Warning: old\n{refusal}\n"), true),
            ("error: unable to upgrade streaming request: pods \"x\" is forbidden: User".to_owned(), true),
            ("error: Internal error occurred: the text (Forbidden)".to_owned(), false),
            ("the issuer: x is forbidden: no".to_owned(), false),
        ] {
            assert_eq!(KubectlError::of_kubectl(stderr.clone()).is_forbidden(), is_forbidden, "{stderr}");
        }
        for (stderr, has_failed) in [
            (format!("{refusal}\ncommand terminated with exit code 1\n"), true),
            ("no line break: command terminated with exit code 137\n".to_owned(), true),
            (refusal.to_owned(), false),
            ("command terminated with exit code 1\nerror: unexpected EOF\n".to_owned(), false),
        ] {
            let printed = Printed { stdout: String::new(), stderr, is_success: false };
            assert_eq!(printed.has_failed_in_container(), has_failed, "{}", printed.stderr);
        }
    }

    #[test]
    fn results_come_in_the_order_of_the_items() {
        let items: Vec<u64> = (0..40).collect();
        let doubled = in_parallel(&items, |item| {
            thread::sleep(Duration::from_millis((40 - item) % 7));
            item * 2
        });
        assert_eq!(doubled, items.iter().map(|item| item * 2).collect::<Vec<_>>());
    }
}
