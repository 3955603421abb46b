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

/// Limit on what kubectl prints: a list of all pods of a large cluster.
const MAX_BYTES: u64 = 512 << 20;
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
    #[error("{}", .0.trim())]
    Failed(String),
    #[error("kubectl has not printed the JSON that this plugin reads: {0}")]
    Json(#[from] serde_json::Error),
}

impl KubectlError {
    /// Whether the user may not do this.
    pub(crate) fn is_forbidden(&self) -> bool {
        matches!(self, Self::Failed(said) if said.contains("(Forbidden)") || said.contains("is forbidden:"))
    }
}

/// What a command in a container, or kubectl itself, has printed.
#[derive(Debug)]
pub(crate) struct Printed {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) is_success: bool,
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
        let printed = self.run(&args, TIMEOUT)?;
        if !printed.is_success {
            return Err(KubectlError::Failed(printed.stderr));
        }
        Ok(serde_json::from_str(&printed.stdout)?)
    }

    /// The namespace of the kubeconfig's context.
    pub(crate) fn namespace(&self) -> Result<String, KubectlError> {
        let args = ["config", "view", "--minify", "--output=jsonpath={..namespace}"];
        let printed = self.run(&args, TIMEOUT)?;
        let name = printed.stdout.trim();
        // Without a kubeconfig, kubectl in a pod works in the pod's own namespace, or in `default`.
        Ok(if printed.is_success && !name.is_empty() { name } else { "default" }.to_owned())
    }

    /// Runs a command in a container.
    pub(crate) fn exec(
        &self,
        of: &ContainerRef,
        command: &[&str],
        timeout: Duration,
    ) -> Result<Printed, KubectlError> {
        let (namespace, container) =
            (format!("--namespace={}", of.namespace), format!("--container={}", of.container));
        let mut args = vec!["exec", &namespace, &of.pod, &container, "--"];
        args.extend(command);
        let printed = self.run(&args, timeout)?;
        // kubectl's own failures, and not the command's.
        let is_own = ["Error from server", "error: unable to", "error: Internal error", "Unable to connect"];
        if !printed.is_success && is_own.iter().any(|begin| printed.stderr.contains(begin)) {
            return Err(KubectlError::Failed(printed.stderr));
        }
        Ok(printed)
    }

    /// Runs kubectl to its end, for `timeout` at most.
    pub(crate) fn run(&self, args: &[&str], timeout: Duration) -> Result<Printed, KubectlError> {
        let mut command = Command::new("kubectl");
        // Flags first: what follows `--` belongs to a command in a pod.
        command.args(&self.flags).args(args).stdin(Stdio::null());
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(KubectlError::Missing)?;
        let (stdout, stderr) = (read(child.stdout.take()), read(child.stderr.take()));
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
            String::from_utf8_lossy(&reader.join().unwrap_or_default()).into_owned()
        };
        Ok(Printed { stdout: text(stdout), stderr: text(stderr), is_success: status.success() })
    }
}

fn read(stream: Option<impl Read + Send + 'static>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(stream) = stream {
            // What cannot be read is missing in the JSON, which says so.
            let _read = stream.take(MAX_BYTES).read_to_end(&mut bytes);
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
    fn results_come_in_the_order_of_the_items() {
        let items: Vec<u64> = (0..40).collect();
        let doubled = in_parallel(&items, |item| {
            thread::sleep(Duration::from_millis((40 - item) % 7));
            item * 2
        });
        assert_eq!(doubled, items.iter().map(|item| item * 2).collect::<Vec<_>>());
    }
}
