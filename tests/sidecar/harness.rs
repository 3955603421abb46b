//! A sidecar in a directory on a tmpfs.

use crate::support::{CERTLET, DEADLINE, eventually, serial};
use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

/// Attributes of a certificate of the local signer.
pub(crate) const LOCAL: [&str; 2] = ["signer=local", "dns-names=${POD_NAME}.${POD_NAMESPACE}.svc"];
/// Attributes of one with a SPIFFE ID and a socket.
pub(crate) const SPIFFE: [&str; 4] = [
    "signer=local",
    "uri-sans=spiffe://example.org/ns/shop/sa/web",
    "key-usages=digital signature,key encipherment,server auth,client auth",
    "socket-file=spiffe.sock",
];

/// A pod's sidecar, which runs or not.
pub(crate) struct Sidecar {
    /// What its containers share.
    pub(crate) directory: PathBuf,
    pub(crate) flags: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
    log: PathBuf,
    child: Option<Child>,
}

impl Sidecar {
    /// In an empty directory of a new tmpfs, with the local signer and these attributes.
    pub(crate) fn new(attributes: &[&str]) -> Self {
        let mut sidecar = Self::without_signer(attributes);
        sidecar.flag("--allow-local-signer");
        sidecar
    }

    pub(crate) fn without_signer(attributes: &[&str]) -> Self {
        let scratch = PathBuf::from(env::var_os("CERTLET_TEST_SCRATCH").expect("the test runs in_namespace"));
        let directory = scratch.join("shared");
        fs::create_dir(&directory).unwrap();
        let (flags, options) = (MsFlags::MS_NOSUID | MsFlags::MS_NODEV, "size=4m,mode=0777");
        mount(Some("tmpfs"), &directory, Some("tmpfs"), flags, Some(options)).unwrap();
        let flags = attributes.iter().map(|attribute| format!("--attributes={attribute}"));
        let of_pod = ["--pod-namespace=shop", "--pod-name=web-0", "--pod-uid=b8f1", "--service-account=web"];
        let others = ["--min-renewal-interval=0", "--log-level=debug"];
        Self {
            directory,
            flags: flags.chain(of_pod.into_iter().chain(others).map(str::to_owned)).collect(),
            environment: Vec::new(),
            log: scratch.join("sidecar.log"),
            child: None,
        }
    }

    pub(crate) fn flag(&mut self, flag: &str) {
        self.flags.push(flag.to_owned());
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(CERTLET);
        command.arg("sidecar").arg("--directory").arg(&self.directory).args(&self.flags);
        command.env_remove("KUBERNETES_SERVICE_HOST").envs(self.environment.iter().cloned());
        command
    }

    /// Runs it to its end.
    pub(crate) fn run(&self) -> Output {
        self.command().stdin(Stdio::null()).output().unwrap()
    }

    pub(crate) fn start(&mut self) {
        assert!(self.child.is_none(), "the sidecar runs already");
        let log = fs::OpenOptions::new().create(true).append(true).open(&self.log).unwrap();
        let child = self.command().stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        self.child = Some(child);
    }

    /// Starts it, and waits until it is ready.
    pub(crate) async fn started(&mut self) {
        self.start();
        self.ready().await;
    }

    pub(crate) async fn ready(&self) {
        eventually("the certificate", async || self.health("--readiness").0 == Some(0)).await;
    }

    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Ends it with a SIGTERM.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        let id = i32::try_from(self.child.as_ref().unwrap().id()).unwrap();
        kill(Pid::from_raw(id), Signal::SIGTERM).unwrap();
        self.wait()
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        let begun = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < DEADLINE, "it does not end: {}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Exit code and what is said.
    pub(crate) fn health(&self, check: &str) -> (Option<i32>, String) {
        self.ask(&["health", check])
    }

    pub(crate) fn status(&self) -> String {
        self.ask(&["status"]).1
    }

    pub(crate) fn renew(&self) -> (Option<i32>, String) {
        self.ask(&["renew"])
    }

    fn ask(&self, args: &[&str]) -> (Option<i32>, String) {
        let output =
            Command::new(CERTLET).args(args).env("CERTLET_DIRECTORY", &self.directory).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub(crate) fn serial(&self) -> String {
        serial(&self.directory)
    }

    /// Waits until another certificate than this one is in place.
    pub(crate) async fn renewed(&self, before: &str) -> String {
        eventually("the renewal", async || self.serial() != before).await;
        self.serial()
    }

    /// The names in its directory.
    pub(crate) fn names(&self) -> Vec<String> {
        names(&self.directory)
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}

/// The names in a directory, sorted.
pub(crate) fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
