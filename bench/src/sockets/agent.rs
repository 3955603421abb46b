//! What serves the sockets: certlet's driver, or SPIRE's agent beside it.

use super::clients::{Moment, Target};
use crate::Failure;
use crate::node::{Node, Pods};
use crate::scenes::DUE_AFTER_TEN_SECONDS;
use jiff::Timestamp;
use nix::sys::signal::Signal;
use serde::Deserialize;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// When the certificates of a scene are due for renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// About ten seconds after they are issued. Renewals are logged.
    Soon,
    /// Not before the scene ends.
    Later,
}

/// A program that serves one identity to each client.
pub(crate) trait Agent: Sized {
    /// What it needs to start.
    type Setup;
    /// Its name.
    const NAME: &'static str;

    /// Starts it with `count` identities under `root`, a new directory.
    async fn start(setup: &Self::Setup, root: &Path, count: usize, due: Due) -> Result<Self, Failure>;
    /// Its process id.
    fn id(&self) -> u32;
    /// The socket of each identity.
    fn targets(&self) -> Vec<Target>;
    /// When it had each new certificate, from its log.
    fn renewals(&self) -> Result<Vec<Moment>, Failure>;
    /// Sends a signal.
    fn signal(&self, signal: Signal) -> Result<(), Failure>;
    /// Kills it with SIGKILL, and starts it again.
    async fn kill_and_start(self) -> Result<Self, Failure>;
    /// Ends it.
    fn stop(self) -> Result<(), Failure>;
}

/// certlet's driver, with one volume for each identity.
pub(crate) struct Certlet {
    node: Node,
    pods: Pods,
    setup: CertletSetup,
    root: PathBuf,
}

/// What the driver needs.
#[derive(Clone)]
pub(crate) struct CertletSetup {
    pub(crate) binary: PathBuf,
    pub(crate) flags: Vec<String>,
}

const FLAGS: [&str; 2] = ["--trust-domain=cluster.local", "--min-renewal-interval=1s"];
/// Logs when the chain of each certificate is verified.
const LOG_RENEWALS: [&str; 2] = ["--log-format=json", "--log-level=info,certlet::credential=debug"];
/// Publishes per second where renewals are due soon. As the publishes, so the renewals come one after the other.
const SPREAD: u32 = 25;

impl CertletSetup {
    async fn start(&self, root: &Path, due: Due) -> Result<Node, Failure> {
        let log: &[&str] = if due == Due::Soon { &LOG_RENEWALS } else { &[] };
        let own = FLAGS.iter().chain(log).map(|flag| (*flag).to_owned());
        let flags: Vec<String> = own.chain(self.flags.iter().cloned()).collect();
        Ok(Node::start(&self.binary, root, &flags).await?.0)
    }
}

impl Agent for Certlet {
    type Setup = CertletSetup;
    const NAME: &'static str = "certlet";

    async fn start(setup: &CertletSetup, root: &Path, count: usize, due: Due) -> Result<Self, Failure> {
        let node = setup.start(root, due).await?;
        let pods = match due {
            Due::Soon => {
                let pods = node.pods_with_sockets(count, &DUE_AFTER_TEN_SECONDS)?;
                node.publish_steadily(&pods, SPREAD, 50).await?;
                pods
            }
            Due::Later => {
                let pods = node.pods_with_sockets(count, &[])?;
                node.publish(&pods, 50).await?;
                pods
            }
        };
        Ok(Self { node, pods, setup: setup.clone(), root: root.to_owned() })
    }

    fn id(&self) -> u32 {
        self.node.id()
    }

    fn targets(&self) -> Vec<Target> {
        self.pods.sockets().map(|socket| Target { socket, user: None }).collect()
    }

    fn renewals(&self) -> Result<Vec<Moment>, Failure> {
        let numbers: HashMap<&str, usize> = self.pods.volume_ids().zip(0..).collect();
        let moments = self.node.log()?;
        let moments = moments.lines().filter_map(|line| {
            let Line { timestamp, message, volume } = serde_json::from_str(line).ok()?;
            let identity = *numbers.get(volume.as_str())?;
            (message == "the chain is verified").then_some(Moment { identity, at: timestamp })
        });
        Ok(moments.collect())
    }

    fn signal(&self, signal: Signal) -> Result<(), Failure> {
        self.node.signal(signal)
    }

    async fn kill_and_start(self) -> Result<Self, Failure> {
        let Self { node, pods, setup, root } = self;
        // Dropping the node kills the driver with SIGKILL and waits for it.
        drop(node);
        let node = setup.start(&root, Due::Later).await?;
        Ok(Self { node, pods, setup, root })
    }

    fn stop(self) -> Result<(), Failure> {
        self.node.stop()
    }
}

/// A line of the driver's log about a volume.
#[derive(Deserialize)]
struct Line {
    timestamp: Timestamp,
    message: String,
    volume: String,
}
