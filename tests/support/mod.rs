//! The harness of the integration tests: a real driver process in its own namespace, and a kubelet for it.

#![allow(unreachable_pub, dead_code, reason = "every test binary uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a harness fails its test by panicking"
)]

pub mod namespace;
pub mod pca;

use certlet_kubelet::{Kubelet, Pod};
use serde_json::{Value, json};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The driver under test.
pub const CERTLET: &str = env!("CARGO_BIN_EXE_certlet");
/// Its name.
pub const DRIVER: &str = "csi.certlet.io";
/// Time limit for anything that a test waits for.
pub const DEADLINE: Duration = Duration::from_mins(1);
/// The DNS name of certificates, unless a test sets another.
const DNS_NAME: &str = "${POD_NAME}.${POD_NAMESPACE}.svc.cluster.local";

/// Declares a test that runs in a mount namespace of its own, with a runtime.
#[macro_export]
macro_rules! node_test {
    ($(#[$attribute:meta])* async fn $name:ident() $body:block) => {
        $(#[$attribute])*
        #[test]
        fn $name() {
            $crate::support::namespace::in_namespace(|_scratch| {
                tokio::runtime::Builder::new_multi_thread()
                    .worker_threads(2)
                    .enable_all()
                    .build()
                    .unwrap()
                    .block_on(async $body);
            });
        }
    };
}

/// One node: a kubelet root on a tmpfs, and the driver that runs on it.
pub struct Node {
    pub root: PathBuf,
    driver: String,
    flags: Vec<String>,
    environment: Vec<(String, String)>,
    child: Option<Child>,
}

impl Node {
    /// A node whose driver has the local signer and is not started yet.
    pub fn new() -> Self {
        Self::with_flags(&["--allow-local-signer"])
    }

    /// A node whose driver has other flags.
    pub fn with_flags(flags: &[&str]) -> Self {
        let root =
            PathBuf::from(std::env::var_os("CERTLET_TEST_SCRATCH").expect("the test runs in_namespace"));
        fs::create_dir_all(root.join("plugins_registry")).unwrap();
        Self {
            root,
            driver: DRIVER.to_owned(),
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            environment: Vec::new(),
            child: None,
        }
    }

    /// Gives the driver another name from its next start on.
    pub fn driver(&mut self, name: &str) {
        name.clone_into(&mut self.driver);
    }

    /// Adds a flag for the driver's next start.
    pub fn flag(&mut self, flag: &str) {
        self.flags.push(flag.to_owned());
    }

    /// Gives a flag another value from the driver's next start on.
    pub fn replace_flag(&mut self, flag: &str, by: &str) {
        let flag = self.flags.iter_mut().find(|given| *given == flag).expect("the flag is given");
        by.clone_into(flag);
    }

    /// Adds an environment variable for the driver's next start.
    pub fn env(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Lets the driver use the API server at this address from its next start on.
    pub fn api_server(&mut self, address: SocketAddr) {
        let kubeconfig = self.root.join("kubeconfig");
        let content = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{ "name": "test", "cluster": { "server": format!("http://{address}") } }],
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "test" } }],
            "users": [{ "name": "test", "user": {} }],
        });
        fs::write(&kubeconfig, content.to_string()).unwrap();
        self.flag(&format!("--kubeconfig={}", kubeconfig.display()));
    }

    /// The command line of the driver.
    pub fn command(&self) -> Command {
        let mut command = Command::new(CERTLET);
        command
            .args(["node", "--node-id", "node-1", "--driver-name", &self.driver])
            .arg("--endpoint")
            .arg(self.endpoint())
            .arg("--data-root")
            .arg(self.data_root())
            .arg("--registration-dir")
            .arg(self.root.join("plugins_registry"));
        for (flag, value) in [("--metrics-bind-address", "0"), ("--log-level", "debug")] {
            if !self.flags.iter().any(|given| given.starts_with(flag)) {
                command.arg(format!("{flag}={value}"));
            }
        }
        command.args(&self.flags).envs(self.environment.iter().cloned());
        command
    }

    /// Starts the driver. Its log is appended to the same file.
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "the driver runs already");
        let log =
            fs::OpenOptions::new().create(true).append(true).open(self.root.join("driver.log")).unwrap();
        let child = self.command().stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        self.child = Some(child);
    }

    /// Starts the driver, and registers it as the kubelet would.
    pub async fn started(&mut self) -> Kubelet {
        self.start();
        self.kubelet().await
    }

    /// Waits until the driver can be registered, and registers it.
    pub async fn kubelet(&mut self) -> Kubelet {
        let socket = self.registration_socket();
        let started = Instant::now();
        loop {
            if socket.exists()
                && let Ok(kubelet) = Kubelet::register(&self.root, &socket).await
            {
                return kubelet;
            }
            let ended = self.child.as_mut().and_then(|child| child.try_wait().unwrap());
            assert!(ended.is_none(), "the driver ended: {ended:?}\n{}", self.log());
            assert!(started.elapsed() < DEADLINE, "the driver does not register\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Kills the driver with SIGKILL and waits for its end.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("the driver runs");
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
    }

    /// Sends a signal to the driver.
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let id = self.child.as_ref().expect("the driver runs").id();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(id.try_into().unwrap()), signal).unwrap();
    }

    /// The driver's process id.
    pub fn id(&self) -> u32 {
        self.child.as_ref().expect("the driver runs").id()
    }

    /// Waits for the driver's end.
    pub fn wait(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("the driver runs");
        let started = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            if started.elapsed() > DEADLINE {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("the driver did not end\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends the driver with SIGTERM.
    pub fn stop(&mut self) {
        self.signal(nix::sys::signal::Signal::SIGTERM);
        let status = self.wait();
        assert!(status.success(), "{status}\n{}", self.log());
    }

    pub fn endpoint(&self) -> PathBuf {
        self.root.join("plugins").join(DRIVER).join("csi.sock")
    }

    pub fn data_root(&self) -> PathBuf {
        self.root.join("plugins").join(DRIVER).join("data")
    }

    pub fn registration_socket(&self) -> PathBuf {
        self.root.join("plugins_registry").join(format!("{}-reg.sock", self.driver))
    }

    /// What the driver has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.root.join("driver.log")).unwrap_or_default()
    }

    /// The directories of the store's volumes.
    pub fn stored(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.data_root().join("volumes")) else { return Vec::new() };
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    /// A volume's directory in the store.
    pub fn stored_at(&self, pod: &Pod) -> PathBuf {
        self.data_root().join("volumes").join(pod.volume_id())
    }

    /// The last failure in a volume's record.
    pub fn last_error(&self, pod: &Pod) -> Option<String> {
        let record = fs::read(self.stored_at(pod).join("record.json")).unwrap();
        let record: Value = serde_json::from_slice(&record).unwrap();
        record["record"]["last_error"]["message"].as_str().map(str::to_owned)
    }

    /// `certlet status`.
    pub fn status(&self, flags: &[&str]) -> String {
        let output = Command::new(CERTLET)
            .args(["status", "--data-root"])
            .arg(self.data_root())
            .args(flags)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// `certlet renew`: its exit code and its output.
    pub fn renew(&self, args: &[&str]) -> (Option<i32>, String) {
        let mut command = Command::new(CERTLET);
        let output =
            command.arg("renew").args(args).arg("--data-root").arg(self.data_root()).output().unwrap();
        (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    }

    /// `certlet health`: its exit code and its output.
    pub fn health(&self, check: &str) -> (Option<i32>, String) {
        health(&self.data_root(), check)
    }
}

/// `certlet health` of the driver with this data root: its exit code and its output.
pub fn health(data_root: &Path, check: &str) -> (Option<i32>, String) {
    let output =
        Command::new(CERTLET).args(["health", check, "--data-root"]).arg(data_root).output().unwrap();
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _killed = child.kill();
            let _reaped = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("the driver's log:\n{}", self.log());
        }
    }
}

/// The most memory that the driver has used so far, in bytes.
pub fn peak_memory(node: &Node) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", node.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

/// Mount points at or below a directory, in the order they were mounted.
pub fn mounts_below(root: &Path) -> Vec<PathBuf> {
    let info = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let targets = info.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    targets.filter(|target| target.starts_with(root)).collect()
}

/// A pod with a volume from the local signer.
pub fn pod(name: &str) -> Pod {
    pod_with(name, &[])
}

/// A pod with a volume from the local signer and other attributes, given without their prefix.
pub fn pod_with(name: &str, attributes: &[(&str, &str)]) -> Pod {
    pod_of(&[("signer", "local"), ("dns-names", DNS_NAME)], name, attributes)
}

/// A pod with a volume of these attributes. Missing attributes are taken from `usual`.
pub fn pod_of(usual: &[(&str, &str)], name: &str, attributes: &[(&str, &str)]) -> Pod {
    let is_given = |key: &str| attributes.iter().any(|(given, _)| *given == key);
    let all = usual.iter().filter(|(key, _)| !is_given(key)).chain(attributes);
    Pod::new("shop", name, all.map(|(key, value)| (format!("csi.certlet.io/{key}"), *value)))
}

/// The serial number of the leaf in a volume.
pub fn serial(volume: &Path) -> String {
    // A swap between following `..data` and opening the file makes the open fail, as in the kubelet's own volumes.
    let found = (0..100).find_map(|_| certlet_kubelet::leaf(volume).ok());
    found.unwrap_or_else(|| panic!("{}: {:?}", volume.display(), certlet_kubelet::leaf(volume))).serial
}

/// The private key in a volume, as written.
pub fn key_in(volume: &Path) -> Vec<u8> {
    fs::read(volume.join("tls.key")).unwrap()
}

/// Checks with openssl that a volume is whole: the chain verifies, and key and certificate belong together.
pub fn assert_whole(volume: &Path) {
    let file = |name: &str| volume.join(name).display().to_string();
    openssl(&["verify", "-CAfile", &file("ca.crt"), "-untrusted", &file("tls.crt"), &file("tls.crt")]);
    let certified = openssl(&["x509", "-in", &file("tls.crt"), "-noout", "-pubkey"]);
    let held = openssl(&["pkey", "-in", &file("tls.key"), "-pubout"]);
    assert_eq!(
        certified.stdout,
        held.stdout,
        "{}: key and certificate do not belong together",
        volume.display()
    );
}

/// Runs openssl, which must succeed.
pub fn openssl(args: &[&str]) -> Output {
    let output = Command::new("openssl").args(args).output().unwrap();
    assert!(output.status.success(), "openssl {args:?}: {output:?}");
    output
}

/// Waits until `done` returns true.
pub async fn eventually(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !done().await {
        assert!(started.elapsed() < DEADLINE, "{what}: not within {DEADLINE:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// One GET from an admin server: status code and body.
pub async fn get_from(address: &str, path: &str) -> Option<(u16, String)> {
    let mut stream = tokio::net::TcpStream::connect(address).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}
