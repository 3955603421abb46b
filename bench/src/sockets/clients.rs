//! All clients of a scene, and what they received.

use super::client::{Api, ClientArgs};
use crate::Failure;
use jiff::Timestamp;
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How often the file of the clients is read. The times are in it, so that this can be seldom.
const POLL: Duration = Duration::from_millis(200);
/// Clients that have waited so long for a message count as cut off.
const TIMEOUT: Duration = Duration::from_mins(1);

/// A moment in the life of the identity with this number: a renewal, or the receipt of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) identity: usize,
    pub(crate) at: Timestamp,
}

/// The socket of one identity, and the user who has it.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) socket: PathBuf,
    pub(crate) user: Option<u32>,
}

/// One process for each identity.
pub(crate) struct Clients {
    children: Vec<Child>,
    output: PathBuf,
}

impl Clients {
    /// Starts them, and waits until each has its certificate.
    pub(crate) async fn start(api: Api, targets: &[Target], output: &Path) -> Result<Self, Failure> {
        let started = Timestamp::now();
        File::create(output)?;
        let mut clients = Self { children: Vec::with_capacity(targets.len()), output: output.to_owned() };
        for (number, target) in targets.iter().enumerate() {
            let args = ClientArgs { api, number, socket: target.socket.clone(), user: target.user };
            clients.children.push(spawn(&args, output)?);
        }
        clients.wait_for_messages(started).await?;
        Ok(clients)
    }

    /// Waits until each client has received a message since this time. Returns the time of the last client's first message.
    pub(crate) async fn wait_for_messages(&self, since: Timestamp) -> Result<Timestamp, Failure> {
        let begun = Instant::now();
        loop {
            tokio::time::sleep(POLL).await;
            let mut first: HashMap<usize, Timestamp> = HashMap::new();
            for Received { identity, at, .. } in self.received()? {
                if at >= since {
                    first.entry(identity).or_insert(at);
                }
            }
            if first.len() == self.children.len()
                && let Some(last) = first.values().max()
            {
                return Ok(*last);
            }
            if begun.elapsed() > TIMEOUT {
                let missing = self.children.len() - first.len();
                return Err(format!("{missing} clients have had no message for a minute").into());
            }
        }
    }

    /// When the clients received a certificate that differs from the one before.
    pub(crate) fn receipts(&self) -> Result<Vec<Moment>, Failure> {
        let mut last = HashMap::new();
        let changed = |received: &Received| {
            last.insert(received.identity, received.certificate.clone()).as_ref()
                != Some(&received.certificate)
        };
        let moment = |Received { identity, at, .. }| Moment { identity, at };
        Ok(self.received()?.into_iter().filter(changed).map(moment).collect())
    }

    /// Every message so far.
    fn received(&self) -> Result<Vec<Received>, Failure> {
        let text = fs::read_to_string(&self.output)?;
        // A line that is not complete yet is of the next time.
        let complete = text.rsplit_once('\n').map_or("", |(complete, _)| complete);
        complete.lines().map(Received::parse).collect()
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _killed = child.kill();
        }
        for child in &mut self.children {
            let _reaped = child.wait();
        }
    }
}

fn spawn(args: &ClientArgs, output: &Path) -> Result<Child, Failure> {
    let ClientArgs { api, socket, number, user } = args;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["client", "--api", if *api == Api::Sds { "sds" } else { "workload" }]);
    command.arg("--socket").arg(socket).arg(format!("--number={number}"));
    command.args(user.map(|user| format!("--user={user}")));
    let output = OpenOptions::new().append(true).open(output)?;
    Ok(command.stdin(Stdio::null()).stdout(output).spawn()?)
}

/// A line of the clients' file.
struct Received {
    identity: usize,
    at: Timestamp,
    certificate: String,
}

impl Received {
    fn parse(line: &str) -> Result<Self, Failure> {
        let [identity, at, certificate] = line.split(' ').collect::<Vec<_>>()[..] else {
            return Err(format!("a client wrote {line:?}").into());
        };
        Ok(Self {
            identity: identity.parse()?,
            at: Timestamp::from_nanosecond(at.parse()?)?,
            certificate: certificate.to_owned(),
        })
    }
}
