//! The real driver, as a child process.

use super::kubelet::Kubelet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long the driver may take to offer its registration.
const START: Duration = Duration::from_secs(10);

/// `certlet node`, running.
#[derive(Debug)]
pub(super) struct Driver {
    child: Child,
    /// Where its files are.
    pub root: PathBuf,
}

/// The driver's name in the demo.
pub(super) const NAME: &str = "csi.certlet.io";

impl Driver {
    /// Starts this very binary as `certlet node` under a kubelet root of the demo's.
    pub(super) fn start(root: &Path) -> io::Result<Self> {
        fs::create_dir_all(root.join("plugins_registry"))?;
        let log = File::create(root.join("driver.log"))?;
        let child = Command::new(std::env::current_exe()?)
            .args(["node", "--allow-local-signer", "--metrics-bind-address=0", "--log-format=text"])
            .args(["--node-id", "demo-node", "--driver-name", NAME])
            .arg("--endpoint")
            .arg(root.join("plugins").join(NAME).join("csi.sock"))
            .arg("--data-root")
            .arg(root.join("plugins").join(NAME).join("data"))
            .arg("--registration-dir")
            .arg(root.join("plugins_registry"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        Ok(Self { child, root: root.to_owned() })
    }

    /// Waits for its registration socket, and registers it.
    pub(super) async fn register(&mut self) -> Result<Kubelet, String> {
        let socket = self.root.join("plugins_registry").join(format!("{NAME}-reg.sock"));
        let started = Instant::now();
        loop {
            if socket.exists()
                && let Ok(kubelet) = Kubelet::register(&self.root, &socket).await
            {
                return Ok(kubelet);
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("the driver ended early ({status}):\n{}", self.last_log_lines()));
            }
            if started.elapsed() > START {
                return Err(format!(
                    "the driver did not register within {} s:\n{}",
                    START.as_secs(),
                    self.last_log_lines()
                ));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Sends SIGTERM and waits.
    pub(super) fn stop(&mut self) -> io::Result<ExitStatus> {
        let id = i32::try_from(self.child.id()).map_err(io::Error::other)?;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(id), nix::sys::signal::Signal::SIGTERM)?;
        self.child.wait()
    }

    /// The process id.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    fn last_log_lines(&self) -> String {
        let log = fs::read_to_string(self.root.join("driver.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(8)..].join("\n")
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // After an error or a panic: no driver outlives its demo.
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}
