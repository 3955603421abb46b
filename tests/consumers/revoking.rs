//! A CA of openssl that revokes, with its list on a web server, and clients of servers that have the list in their volumes.

use crate::crl::Server as WebServer;
use crate::program::{Running, outcome};
use crate::support::{Node, eventually, openssl};
use crate::{node, pod};
use certlet_kubelet::{Kubelet, Pod};
use nix::mount::{MsFlags, mount};
use nix::sys::signal::Signal;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The SPIFFE ID of the clients.
pub(crate) const CLIENT: &str = "spiffe://example.org/ns/shop/sa/cart";
/// The file with the list in the server's volume.
pub(crate) const CRL: &str = "ca.crl";
/// How often the driver asks for the list.
const REFRESH: Duration = Duration::from_secs(2);
/// What a refresh may take until a server refuses the client: the pause, the fetch, the files, and the server's reload.
const WITHIN: Duration = Duration::from_secs(4);

/// A CA in files, as `openssl ca` keeps it.
struct OpensslCa(TempDir);

impl OpensslCa {
    fn new() -> Self {
        let ca = Self(tempfile::tempdir().unwrap());
        let config = format!(
            "[ca]\ndefault_ca=ca\n[ca]\ndatabase={0}/index\ncrlnumber={0}/number\ndefault_md=sha256\ndefault_crl_days=1\n\
             certificate={0}/cert\nprivate_key={0}/key\n[req]\ndistinguished_name=name\n[name]\n[root]\n\
             basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n",
            ca.0.path().display()
        );
        for (name, text) in [("config", config.as_str()), ("index", ""), ("number", "01\n")] {
            fs::write(ca.path(name), text).unwrap();
        }
        let new =
            ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "9"];
        let subject = ["-subj", "/O=Example/CN=openssl CA", "-extensions", "root"];
        ca.run(&new, &[&subject[..], &["-keyout", &ca.path("key"), "-out", &ca.path("cert")]].concat());
        ca
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn run(&self, command: &[&str], arguments: &[&str]) {
        openssl(&[command, &["-config", &self.path("config")], arguments].concat());
    }

    /// Its present list, PEM.
    fn list(&self) -> Vec<u8> {
        self.run(&["ca", "-gencrl"], &["-out", &self.path("crl")]);
        fs::read(self.path("crl")).unwrap()
    }

    fn revoke(&self, certificate: &Path) {
        self.run(&["ca", "-revoke", &certificate.display().to_string()], &[]);
    }
}

/// A driver that signs with such a CA and fetches its list.
pub(crate) struct Revoking {
    ca: OpensslCa,
    web: WebServer,
    pub(crate) node: Node,
    kubelet: Kubelet,
}

impl Revoking {
    pub(crate) async fn start() -> Self {
        let (ca, web) = (OpensslCa::new(), WebServer::start());
        web.serve("/crl", ca.list());
        let mut node = node(&[
            &format!("--local-ca-cert={}", ca.path("cert")),
            &format!("--local-ca-key={}", ca.path("key")),
            &format!("--crl={}", web.url("/crl")),
            &format!("--crl-refresh-interval={}s", REFRESH.as_secs()),
        ]);
        let kubelet = node.started().await;
        Self { ca, web, node, kubelet }
    }

    async fn publish(&self, pod: &Pod) -> PathBuf {
        let volume = self.kubelet.publish(pod).await.unwrap();
        let mounted = self.node.root.join(&pod.name);
        fs::create_dir(&mounted).unwrap();
        mount(Some(&volume), &mounted, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        mounted
    }

    /// The volume of a server, with the list and these attributes.
    pub(crate) async fn server(&self, name: &str, attributes: &[(&str, &str)]) -> PathBuf {
        let usages = ("key-usages", "digital signature, key encipherment, server auth");
        let usual = [("dns-names", "localhost"), ("crl-file", CRL), usages];
        self.publish(&pod(name, &[&usual[..], attributes].concat())).await
    }

    /// The volume of a client.
    pub(crate) async fn client(&self, name: &str) -> PathBuf {
        let usages = ("key-usages", "digital signature, key encipherment, client auth");
        self.publish(&pod(name, &[("common-name", "app"), ("uri-sans", CLIENT), usages])).await
    }

    /// Revokes one of two clients, and checks that a server refuses it within one refresh, and not the other one. `answers` says whether
    /// the server answers the client with this volume.
    pub(crate) async fn assert_refused(
        &self,
        revoked: &Path,
        other: &Path,
        mut answers: impl FnMut(&Path) -> bool,
    ) {
        for client in [revoked, other] {
            eventually("an answer", async || answers(client)).await;
        }
        self.ca.revoke(&revoked.join("tls.crt"));
        let started = Instant::now();
        self.web.serve("/crl", self.ca.list());
        eventually("the refusal", async || !answers(revoked)).await;
        let took = started.elapsed();
        println!("refused after {:.1} s", took.as_secs_f64());
        assert!(took < WITHIN, "only after {took:?}");
        assert!(answers(other), "the other client is refused too");
    }
}

/// Tells a program to load its files again when they have changed, as something beside it does in a pod.
pub(crate) struct Reloader<'a> {
    volume: &'a Path,
    seen: PathBuf,
    program: &'a Running,
    signal: Signal,
}

impl<'a> Reloader<'a> {
    pub(crate) fn new(volume: &'a Path, program: &'a Running, signal: Signal) -> Self {
        Self { volume, seen: Self::generation(volume), program, signal }
    }

    fn generation(volume: &Path) -> PathBuf {
        fs::read_link(volume.join("..data")).unwrap()
    }

    pub(crate) fn reload_if_changed(&mut self) {
        let now = Self::generation(self.volume);
        if now != self.seen {
            self.program.signal(self.signal);
            self.seen = now;
            std::thread::sleep(Duration::from_millis(500));
        }
    }
}

/// Whether a server answers a client with `hello`.
pub(crate) fn is_answered(port: u64, client: &Path) -> bool {
    let said = get(&port.to_string(), "/", client);
    said.contains("200 OK") && said.contains("hello")
}

/// What a server answers a client that asks for a path.
pub(crate) fn get(port: &str, path: &str, client: &Path) -> String {
    let file = |name: &str| client.join(name).display().to_string();
    let request = format!(
        "printf 'GET {path} HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' | openssl s_client -quiet -ign_eof -servername localhost -connect 127.0.0.1:{port} -CAfile {} \
         -cert {} -key {}",
        file("ca.crt"),
        file("tls.crt"),
        file("tls.key")
    );
    outcome(Command::new("sh").args(["-c", &request])).1
}
