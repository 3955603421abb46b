//! A node whose signer's root the test replaces, and pods that follow its volumes.

use crate::program::{Running, command};
use crate::support::{Node, eventually};
use crate::{RENEWED, fake_pca, let_users_reach_volumes, node, number, pod};
use certlet_kubelet::{Kubelet, Pod};
use nix::mount::{MsFlags, mount};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The socket in a volume.
pub(crate) const SOCKET: &str = "socket";

/// A node with a local signer from files.
pub(crate) struct RotatingNode {
    pub(crate) node: Node,
    pub(crate) kubelet: Kubelet,
    ca: TempDir,
}

impl RotatingNode {
    pub(crate) async fn start() -> Self {
        Self::start_beside(None, &[]).await
    }

    /// As [`Self::start`], with more flags. Beside other nodes it has a name.
    pub(crate) async fn start_beside(name: Option<&str>, flags: &[String]) -> Self {
        let ca = tempfile::tempdir().unwrap();
        new_root(ca.path());
        let [certificate, key] =
            ["cert", "key"].map(|name| format!("--local-ca-{name}={}", ca.path().join(name).display()));
        let mut node = node(&[&certificate, &key]);
        if let Some(name) = name {
            node.root = node.root.join(name);
            fs::create_dir_all(node.root.join("plugins_registry")).unwrap();
            let_users_reach_volumes(&node);
        }
        for flag in flags {
            node.flag(flag);
        }
        let kubelet = node.started().await;
        Self { node, kubelet, ca }
    }

    /// Kills the driver with SIGKILL, lets `meanwhile` run without it, and starts it again.
    pub(crate) async fn kill(&mut self, meanwhile: impl FnOnce()) {
        self.node.kill();
        meanwhile();
        self.kubelet = self.node.started().await;
    }

    /// Gives the signer a new root, for which the driver has to be killed and started again. Pods get it with their next renewal.
    pub(crate) async fn replace_root(&mut self) {
        let ca = self.ca.path().to_owned();
        self.kill(|| new_root(&ca)).await;
    }

    /// As [`Self::replace_root`], by this root.
    pub(crate) async fn replace_root_by(&mut self, certificate: &str, key: &str) {
        let ca = self.ca.path().to_owned();
        self.kill(|| write_root(&ca, certificate, key)).await;
    }

    /// A new volume, at a short path as in a container.
    pub(crate) async fn publish(&self, pod: &Pod) -> PathBuf {
        let volume = self.kubelet.publish(pod).await.unwrap();
        let mounted = self.node.root.join(&pod.name);
        fs::create_dir(&mounted).unwrap();
        mount(Some(&volume), &mounted, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        mounted
    }

    /// The file of the signer's present root.
    pub(crate) fn root(&self) -> PathBuf {
        self.ca.path().join("cert")
    }

    /// Whether a volume has the signer's present root.
    pub(crate) fn has_present_root(&self, volume: &Path) -> bool {
        let root = fs::read_to_string(self.root()).unwrap();
        fs::read_to_string(volume.join("ca.crt")).is_ok_and(|anchors| anchors.contains(root.trim()))
    }
}

fn new_root(directory: &Path) {
    let (root, certificate) = fake_pca::ca::authority("root", None);
    write_root(directory, &certificate, &root.key().serialize_pem());
}

fn write_root(directory: &Path, certificate: &str, key: &str) {
    fs::write(directory.join("cert"), certificate).unwrap();
    fs::write(directory.join("key"), key).unwrap();
}

/// A pod with a SPIFFE ID and a socket, whose certificate is renewed every five seconds.
pub(crate) fn socket_pod(name: &str, id: &str) -> Pod {
    spiffe_pod(name, id, &[("socket-file", SOCKET)])
}

/// A pod with a SPIFFE ID and other attributes, whose certificate is renewed every five seconds.
pub(crate) fn spiffe_pod(name: &str, id: &str, attributes: &[(&str, &str)]) -> Pod {
    let usages = ("key-usages", "digital signature, key encipherment, server auth, client auth");
    pod(name, &[&[("uri-sans", id), usages], &RENEWED[..], attributes].concat())
}

/// `SPIFFE_ENDPOINT_SOCKET` for a volume.
pub(crate) fn endpoint(volume: &Path) -> String {
    format!("unix://{}", volume.join(SOCKET).display())
}

/// A client that prints the serial number of its current certificate for each line of input, and what identifies it.
pub(crate) struct Follower {
    client: Running,
    volume: PathBuf,
    id: &'static str,
}

impl Follower {
    pub(crate) fn start(program: &mut std::process::Command, volume: &Path, id: &'static str) -> Self {
        Self { client: Running::start(program), volume: volume.to_owned(), id }
    }

    /// What it has now. It never has an error to tell, because it keeps what it has.
    pub(crate) fn current(&mut self) -> String {
        let current = self.client.ask("");
        assert!(!current.starts_with("error"), "{current}");
        current
    }

    /// Waits until it has another certificate, which is the one in the files.
    pub(crate) async fn renewed(&mut self) {
        let before = self.current();
        eventually("the renewed certificate at the client", async || {
            let now = self.current();
            now != before && self.is_in_files(&now)
        })
        .await;
    }

    /// Waits until it has the certificate that is in the files, whatever errors it tells until then.
    pub(crate) async fn caught_up(&mut self) {
        eventually("the certificate of the files at the client", async || {
            let now = self.client.ask("");
            self.is_in_files(&now)
        })
        .await;
    }

    fn is_in_files(&self, shown: &str) -> bool {
        shown.strip_prefix(&number(&self.volume)).is_some_and(|rest| rest.trim() == self.id)
    }
}

/// Checks that a client keeps what it has and follows: three renewals, the driver's kill -9, and a new root.
pub(crate) async fn assert_follows(cluster: &mut RotatingNode, program: &Path, arguments: &[&str]) {
    const ID: &str = "spiffe://example.org/ns/shop/sa/web";
    let volume = cluster.publish(&socket_pod("web-0", ID)).await;
    let mut program = command(program);
    program.args(arguments).arg(endpoint(&volume));
    let mut follower = Follower::start(&mut program, &volume, ID);
    for _ in 0..3 {
        follower.renewed().await;
    }
    cluster.kill(|| assert!(follower.current().ends_with(ID))).await;
    follower.renewed().await;
    cluster.replace_root().await;
    eventually("the new root", async || cluster.has_present_root(&volume)).await;
    // The client verifies its certificate against its own anchors.
    follower.renewed().await;
}
