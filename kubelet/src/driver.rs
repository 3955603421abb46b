//! The real driver as a child process.

use crate::kubelet::Kubelet;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Time for the driver to create its registration socket.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// A running `certlet node`.
#[derive(Debug)]
pub struct Driver {
    child: Child,
    /// The directory of its files.
    pub root: PathBuf,
}

/// The name with which [`Driver`] registers.
pub const DRIVER_NAME: &str = "csi.certlet.io";

impl Driver {
    /// Starts the certlet `binary` as `certlet node`, with the local signer and its own kubelet root.
    pub fn start(binary: &Path, root: &Path, flags: &[&str]) -> io::Result<Self> {
        Self::spawn(Command::new(binary), root, flags)
    }

    /// As [`Driver::start`], but a Ctrl-C on the terminal does not reach the driver: its owner stops it.
    pub fn start_in_own_group(binary: &Path, root: &Path, flags: &[&str]) -> io::Result<Self> {
        let mut command = Command::new(binary);
        command.process_group(0);
        Self::spawn(command, root, flags)
    }

    fn spawn(mut command: Command, root: &Path, flags: &[&str]) -> io::Result<Self> {
        fs::create_dir_all(root.join("plugins_registry"))?;
        let log = File::create(root.join("driver.log"))?;
        let child = command
            .args(["node", "--allow-local-signer", "--node-id", "demo-node", "--driver-name", DRIVER_NAME])
            .arg("--endpoint")
            .arg(endpoint(root))
            .arg("--data-root")
            .arg(data_root(root))
            .arg("--registration-dir")
            .arg(root.join("plugins_registry"))
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        Ok(Self { child, root: root.to_owned() })
    }

    /// Waits for the registration socket, and registers the driver.
    pub async fn register(&mut self) -> Result<Kubelet, String> {
        let socket = self.root.join("plugins_registry").join(format!("{DRIVER_NAME}-reg.sock"));
        let started = Instant::now();
        loop {
            if socket.exists()
                && let Ok(kubelet) = Kubelet::register(&self.root, &socket).await
            {
                return Ok(kubelet);
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("the driver exited early ({status}):\n{}", self.last_log_lines()));
            }
            if started.elapsed() > START_TIMEOUT {
                return Err(format!(
                    "the driver did not register within {} s:\n{}",
                    START_TIMEOUT.as_secs(),
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

    /// Its store.
    pub fn data_root(&self) -> PathBuf {
        data_root(&self.root)
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
    root.join("plugins").join(DRIVER_NAME).join("csi.sock")
}

fn data_root(root: &Path) -> PathBuf {
    root.join("plugins").join(DRIVER_NAME).join("data")
}

impl Drop for Driver {
    fn drop(&mut self) {
        // The driver ends with its owner, also after an error or a panic.
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}
