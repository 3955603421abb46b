//! SPIRE's agent with a server on the same machine, for comparison.
//!
//! Each client is a process with a user of its own, and each user has a registration entry. So the agent attests it by the
//! selector `unix:uid`, and has as many certificates to renew as certlet.

use super::agent::{Agent, Due};
use super::clients::{Moment, Target};
use crate::Failure;
use jiff::Timestamp;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;
use serde_json::json;
use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The user of the first client. The others follow.
const FIRST_USER: usize = 100_000;
const TRUST_DOMAIN: &str = "bench.example";
/// The agent renews a certificate at half of its life. The server dates it ten seconds back, so that a life of 30 s is renewed
/// eight to twelve seconds after the issue.
const TTL_SOON: u32 = 30;
const TTL_LATER: u32 = 3600;
/// Time for the server and for the agent to start.
const START: Duration = Duration::from_secs(30);

/// A server, an agent, and a registration entry for each client.
pub(crate) struct Spire {
    agent: Process,
    _server: Process,
    programs: PathBuf,
    root: PathBuf,
    count: usize,
}

impl Agent for Spire {
    /// The directory of `spire-agent` and `spire-server`.
    type Setup = PathBuf;
    const NAME: &'static str = "SPIRE";

    async fn start(programs: &PathBuf, root: &Path, count: usize, due: Due) -> Result<Self, Failure> {
        fs::create_dir_all(root)?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        fs::write(root.join("server.conf"), server_configuration(root, port))?;
        fs::write(root.join("agent.conf"), agent_configuration(root, port, due))?;
        let server = Process::start(&programs.join("spire-server"), root, "server", &[])?;
        let begun = Instant::now();
        while ask_server(programs, root, &["healthcheck"]).is_err() {
            if begun.elapsed() > START {
                return Err(format!("SPIRE's server does not start:\n{}", log(root, "server")).into());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let node = format!("spiffe://{TRUST_DOMAIN}/node");
        let token = ask_server(programs, root, &["token", "generate", "-spiffeID", &node])?;
        let token =
            token.trim().strip_prefix("Token: ").ok_or(format!("SPIRE's server answered {token:?}"))?;
        let entries = root.join("entries.json");
        fs::write(&entries, serde_json::to_vec(&registration_entries(count, due))?)?;
        ask_server(programs, root, &["entry", "create", "-data", &entries.display().to_string()])?;
        let agent = Process::start(&programs.join("spire-agent"), root, "agent", &["-joinToken", token])?;
        let spire = Self { agent, _server: server, programs: programs.clone(), root: root.to_owned(), count };
        spire.wait_for_socket().await?;
        Ok(spire)
    }

    fn id(&self) -> u32 {
        self.agent.0.id()
    }

    fn targets(&self) -> Vec<Target> {
        let socket = self.root.join("agent.sock");
        let user = |number| u32::try_from(FIRST_USER + number).ok();
        (0..self.count).map(|number| Target { socket: socket.clone(), user: user(number) }).collect()
    }

    fn renewals(&self) -> Result<Vec<Moment>, Failure> {
        let text = fs::read_to_string(self.root.join("agent.log"))?;
        let moments = text.lines().filter_map(|line| {
            let Line { time, msg, spiffe_id } = serde_json::from_str(line).ok()?;
            let identity = spiffe_id.rsplit_once("/pod-")?.1.parse().ok()?;
            (msg == "SVID updated").then_some(Moment { identity, at: time })
        });
        Ok(moments.collect())
    }

    fn signal(&self, signal: Signal) -> Result<(), Failure> {
        Ok(kill(Pid::from_raw(self.id().try_into()?), signal)?)
    }

    async fn kill_and_start(self) -> Result<Self, Failure> {
        let Self { agent, _server: server, programs, root, count } = self;
        drop(agent);
        let agent = Process::start(&programs.join("spire-agent"), &root, "agent", &[])?;
        Ok(Self { agent, _server: server, programs, root, count })
    }

    fn stop(self) -> Result<(), Failure> {
        Ok(())
    }
}

impl Spire {
    async fn wait_for_socket(&self) -> Result<(), Failure> {
        let begun = Instant::now();
        while std::os::unix::net::UnixStream::connect(self.root.join("agent.sock")).is_err() {
            if begun.elapsed() > START {
                return Err(format!("SPIRE's agent does not start:\n{}", log(&self.root, "agent")).into());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }
}

/// A program that ends with this value.
struct Process(Child);

impl Process {
    fn start(program: &Path, root: &Path, name: &str, arguments: &[&str]) -> Result<Self, Failure> {
        let output = File::create(root.join(format!("{name}.out")))?;
        let child = Command::new(program)
            .arg("run")
            .arg("-config")
            .arg(root.join(format!("{name}.conf")))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .map_err(|error| format!("{}: {error}", program.display()))?;
        Ok(Self(child))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _killed = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Runs a command of the server, and returns what it printed.
fn ask_server(programs: &Path, root: &Path, command: &[&str]) -> Result<String, Failure> {
    let output = Command::new(programs.join("spire-server"))
        .args(command)
        .arg("-socketPath")
        .arg(root.join("server.sock"))
        .output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    Err(format!("spire-server {}: {}{}", command.join(" "), text(&output.stdout), text(&output.stderr))
        .into())
}

fn server_configuration(root: &Path, port: u16) -> String {
    let root = root.display();
    format!(
        r#"server {{
  bind_address = "127.0.0.1"
  bind_port = "{port}"
  socket_path = "{root}/server.sock"
  trust_domain = "{TRUST_DOMAIN}"
  data_dir = "{root}/server"
  log_level = "WARN"
}}
plugins {{
  DataStore "sql" {{ plugin_data {{ database_type = "sqlite3" connection_string = "{root}/server.sqlite3" }} }}
  KeyManager "memory" {{ plugin_data {{}} }}
  NodeAttestor "join_token" {{ plugin_data {{}} }}
}}
"#
    )
}

/// The key manager is on disk, because with a join token an agent cannot start again otherwise.
fn agent_configuration(root: &Path, port: u16, due: Due) -> String {
    let root = root.display();
    let level = if due == Due::Soon { "DEBUG" } else { "INFO" };
    format!(
        r#"agent {{
  server_address = "127.0.0.1"
  server_port = "{port}"
  socket_path = "{root}/agent.sock"
  trust_domain = "{TRUST_DOMAIN}"
  insecure_bootstrap = true
  data_dir = "{root}/agent"
  log_level = "{level}"
  log_format = "json"
  log_file = "{root}/agent.log"
}}
plugins {{
  KeyManager "disk" {{ plugin_data {{ directory = "{root}/agent" }} }}
  NodeAttestor "join_token" {{ plugin_data {{}} }}
  WorkloadAttestor "unix" {{ plugin_data {{}} }}
}}
"#
    )
}

fn registration_entries(count: usize, due: Due) -> serde_json::Value {
    let ttl = if due == Due::Soon { TTL_SOON } else { TTL_LATER };
    let entry = |number: usize| {
        json!({
            "selectors": [{ "type": "unix", "value": format!("uid:{}", FIRST_USER + number) }],
            "spiffe_id": format!("spiffe://{TRUST_DOMAIN}/pod-{number}"),
            "parent_id": format!("spiffe://{TRUST_DOMAIN}/node"),
            "x509_svid_ttl": ttl,
        })
    };
    json!({ "entries": (0..count).map(entry).collect::<Vec<_>>() })
}

fn log(root: &Path, name: &str) -> String {
    fs::read_to_string(root.join(format!("{name}.out"))).unwrap_or_default()
}

/// A line of the agent's log about an identity.
#[derive(Deserialize)]
struct Line {
    time: Timestamp,
    msg: String,
    spiffe_id: String,
}
