//! The real driver, as a child process.

use super::kubelet::Kubelet;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long the driver may take to offer its registration.
const START: Duration = Duration::from_secs(10);

/// `certlet node`, running.
#[derive(Debug)]
pub struct Driver {
    child: Child,
    /// Where its files are.
    pub root: PathBuf,
}

/// The driver's name in the demo.
pub(super) const NAME: &str = "csi.certlet.io";

impl Driver {
    /// Starts the certlet `binary` as `certlet node`, with a local signer, under a kubelet root of its own.
    pub fn start(binary: &Path, root: &Path, flags: &[&str]) -> io::Result<Self> {
        fs::create_dir_all(root.join("plugins_registry"))?;
        let log = File::create(root.join("driver.log"))?;
        let child = Command::new(binary)
            .args(["node", "--allow-local-signer", "--node-id", "demo-node", "--driver-name", NAME])
            .arg("--endpoint")
            .arg(endpoint(root))
            .arg("--data-root")
            .arg(root.join("plugins").join(NAME).join("data"))
            .arg("--registration-dir")
            .arg(root.join("plugins_registry"))
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        Ok(Self { child, root: root.to_owned() })
    }

    /// Waits for its registration socket, and registers it.
    pub async fn register(&mut self) -> Result<Kubelet, String> {
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
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let id = i32::try_from(self.child.id()).map_err(io::Error::other)?;
        Ok(nix::sys::signal::kill(Pid::from_raw(id), signal)?)
    }

    /// Sends SIGTERM and waits.
    pub fn stop(&mut self) -> io::Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.child.wait()
    }

    /// Its CSI socket.
    pub fn endpoint(&self) -> PathBuf {
        endpoint(&self.root)
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    fn last_log_lines(&self) -> String {
        let log = fs::read_to_string(self.root.join("driver.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(8)..].join("\n")
    }
}

fn endpoint(root: &Path) -> PathBuf {
    root.join("plugins").join(NAME).join("csi.sock")
}

impl Drop for Driver {
    fn drop(&mut self) {
        // After an error or a panic: no driver outlives its demo.
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}
