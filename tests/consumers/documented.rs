//! Pods as a page of docs/consumers shows them: their volumes, their files, and `certlet reload` beside a program.

use crate::page::Page;
use crate::program::{OWNER, Running, USER, command, directory, outcome, output};
use crate::support::{CERTLET, Node, eventually, pod_of};
use crate::{RENEWED, node, number, pod};
use certlet_kubelet::{Kubelet, Pod};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use std::cell::OnceCell;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

/// A page, and a node that runs what it shows.
pub(crate) struct Documented {
    pub(crate) page: Page,
    pub(crate) node: Node,
    kubelet: Kubelet,
    certlet: OnceCell<PathBuf>,
}

impl Documented {
    /// A node on which these names of a page are names of loopback.
    pub(crate) async fn start(page: &str, names: &[&str]) -> Self {
        let mut node = node(&[]);
        name_loopback(&node.root, names);
        let kubelet = node.started().await;
        Self { page: Page::of(page), node, kubelet, certlet: OnceCell::new() }
    }

    /// The volume of a pod with the manifest that is titled so. It is renewed every five seconds.
    pub(crate) async fn volume(&self, name: &str, manifest: &str) -> PathBuf {
        self.volume_of_page(&self.page, name, manifest).await
    }

    /// As [`Self::volume`], with another page.
    pub(crate) async fn volume_of_page(&self, page: &Page, name: &str, manifest: &str) -> PathBuf {
        let attributes = page.attributes(manifest);
        let attributes = attributes.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let attributes: Vec<_> = attributes.chain(RENEWED).collect();
        let has_group = page.block(manifest, &[]).contains("fsGroup: ");
        let mut pod = pod(name, &attributes);
        if has_group && OWNER.is_some() {
            pod = pod_of(&[("signer", "local")], name, &attributes);
            pod.fs_group = Some(USER);
        }
        self.publish(&pod).await
    }

    /// As [`Self::volume`], for a pod without `fsGroup`. The program's user cannot read the key.
    pub(crate) async fn volume_of_root(&self, name: &str, manifest: &str) -> PathBuf {
        let attributes = self.page.attributes(manifest);
        let attributes: Vec<_> =
            attributes.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        self.publish(&pod_of(&[("signer", "local")], name, &attributes)).await
    }

    /// The volume of a client with more attributes. It is not renewed, so that a connection that fails is the server's fault.
    pub(crate) async fn client(&self, attributes: &[(&str, &str)]) -> PathBuf {
        let usages = ("key-usages", "digital signature, client auth");
        self.publish(&pod("client", &[&[usages][..], attributes].concat())).await
    }

    /// A pod's volume, mounted at a short path as in a container.
    pub(crate) async fn publish(&self, pod: &Pod) -> PathBuf {
        let volume = self.kubelet.publish(pod).await.unwrap();
        let mounted = self.node.root.join(&pod.name);
        fs::create_dir(&mounted).unwrap();
        bind(&volume, &mounted);
        mounted
    }

    /// A new directory of the program's user.
    pub(crate) fn directory(&self, name: &str) -> PathBuf {
        let path = self.node.root.join(name);
        directory(&path);
        path
    }

    /// Writes a block of the page into a file of that name, for this volume and with other paths and ports than in a container.
    pub(crate) fn write(
        &self,
        directory: &Path,
        title: &str,
        volume: &Path,
        others: &[(&str, &str)],
    ) -> PathBuf {
        let file = directory.join(title);
        fs::write(&file, of_volume(&self.page.block(title, others), volume)).unwrap();
        file
    }

    /// `certlet reload` with the arguments of a manifest, for this volume: what follows `args: [` there.
    pub(crate) fn reload(&self, manifest: &str, volume: &Path, others: &[(&str, &str)]) -> Command {
        let manifest = self.page.block(manifest, others);
        let (_, rest) = manifest.split_once("args: [reload, ").expect("the arguments of certlet reload");
        let (arguments, _) = rest.split_once("]\n").unwrap();
        let arguments = of_volume(arguments, volume);
        let mut command = command(self.certlet());
        command.args(["reload", "--log-format=text"]);
        for argument in arguments.split(", ") {
            command.arg(argument.trim().trim_matches(['\'', '"']));
        }
        command
    }

    /// certlet, at a path that every user may enter.
    fn certlet(&self) -> &Path {
        self.certlet.get_or_init(|| {
            let path = self.node.root.join("certlet");
            File::create(&path).unwrap();
            bind(Path::new(CERTLET), &path);
            path
        })
    }
}

/// A text of a page for this volume, which is at `/tls` in a container.
pub(crate) fn of_volume(text: &str, volume: &Path) -> String {
    let volume = volume.display().to_string();
    let mut parts = text.split("/tls");
    let mut replaced = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        // Not the name of a file, such as tls.crt.
        let is_path = !part.starts_with(|c: char| c.is_alphanumeric() || "-_.".contains(c));
        replaced += if is_path { &volume } else { "/tls" };
        replaced += part;
    }
    assert_ne!(text, replaced, "the text does not use the volume");
    replaced
}

/// Gives loopback these names, in the test's own namespace.
pub(crate) fn name_loopback(root: &Path, names: &[&str]) {
    let hosts = root.join("hosts");
    fs::write(&hosts, format!("127.0.0.1 localhost {}\n", names.join(" "))).unwrap();
    bind(&hosts, Path::new("/etc/hosts"));
}

/// Gives the program's user a name, in the test's own namespace.
pub(crate) fn name_user(root: &Path, name: &str) {
    let users = root.join("passwd");
    fs::write(&users, format!("root:x:0:0::/:/bin/sh\n{name}:x:{USER}:{USER}::/:/bin/sh\n")).unwrap();
    bind(&users, Path::new("/etc/passwd"));
}

fn bind(from: &Path, to: &Path) {
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
}

/// A free port of loopback. If another process takes it first, the test fails.
pub(crate) fn free_port() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string()
}

/// The serial number of the certificate that a server on loopback serves to a client with this volume, or nothing if no server answers.
/// The name in the certificate is checked. `more` are more arguments for `openssl s_client`.
pub(crate) fn served(port: &str, name: &str, client: &Path, more: &[&str]) -> Option<String> {
    let file = |name: &str| client.join(name).display().to_string();
    let mut openssl = Command::new("openssl");
    openssl.args(["s_client", "-verify_return_error", "-connect", &format!("127.0.0.1:{port}")]);
    openssl.args(["-servername", name, "-verify_hostname", name, "-CAfile", &file("ca.crt")]);
    openssl.args(["-cert", &file("tls.crt"), "-key", &file("tls.key")]);
    let (_, said) = outcome(openssl.args(more));
    let begin = said.find("-----BEGIN CERTIFICATE-----")?;
    let (_, block) = x509_parser::pem::parse_x509_pem(&said.as_bytes()[begin..]).unwrap();
    let (_, leaf) = x509_parser::parse_x509_certificate(&block.contents).unwrap();
    Some(format!("{:x}", leaf.serial))
}

/// Waits until a server serves its volume's certificate, and then until it serves a renewed one.
pub(crate) async fn assert_renewed(volume: &Path, mut served: impl FnMut() -> Option<String>) {
    let mut before = None;
    eventually("the server serves a certificate", async || {
        before = served();
        before.is_some()
    })
    .await;
    let before = before.unwrap();
    eventually("a renewal", async || number(volume) != before).await;
    eventually("the server serves the renewed certificate", async || {
        served().is_some_and(|now| now != before)
    })
    .await;
}

/// Waits until a server serves a certificate, and then for two renewals during which no connection fails.
pub(crate) async fn assert_renewed_without_failure(mut served: impl FnMut() -> Option<String>) {
    let mut before = None;
    eventually("the server serves a certificate", async || {
        before = served();
        before.is_some()
    })
    .await;
    let mut connections = 0;
    for _ in 0..2 {
        eventually("the server serves the renewed certificate", async || {
            let now = served();
            assert!(now.is_some(), "a connection failed, after {connections} others");
            connections += 1;
            std::mem::replace(&mut before, now.clone()) != now
        })
        .await;
    }
    println!("{connections} connections");
}

/// The processes of a pod with `shareProcessNamespace: true`, which see each other and no others. They end with their owner.
pub(crate) struct Processes {
    pub(crate) running: Vec<Running>,
    pause: Child,
}

impl Processes {
    pub(crate) fn start(commands: Vec<Command>) -> Self {
        // The namespaces are those of one thread and its children. Such a thread cannot start others.
        let spawning = thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS).unwrap();
            // As in a pod, the first process only waits. The others end with it.
            let mut pause = Command::new("sleep");
            pause.arg("infinity").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let pause = pause.spawn().unwrap();
            output(Command::new("mount").args(["-t", "proc", "proc", "/proc"]));
            let children: Vec<Child> =
                commands.into_iter().map(|mut command| Running::spawn(&mut command)).collect();
            (children, pause)
        });
        let (children, pause) = spawning.join().unwrap();
        Self { running: children.into_iter().map(Running::of).collect(), pause }
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        self.running.clear();
        let _killed = self.pause.kill();
        let _reaped = self.pause.wait();
    }
}
