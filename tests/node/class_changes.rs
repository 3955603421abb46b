//! A class that changes while a volume of it is in use: its signer, trust sources, CRLs and layout.

use crate::cert_manager::{Authority, Cluster, SIGNED};
use crate::certificate_requests::Server as ApiServer;
use crate::classes::{ClassFile, names, pod};
use crate::crl::{Ca, List, Server};
use crate::crls::pem;
use crate::node_test;
use crate::support::{Node, assert_whole, eventually, openssl, serial};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// The only class, with these attributes. Its certificates live for 30 seconds, and are renewed after two.
fn mesh(attributes: &[&str]) -> String {
    let lines = attributes.join("\n      ");
    format!(
        "
version: 1
default: mesh
classes:
  mesh:
    attributes:
      dns-names: ${{POD_NAME}}.example
      duration: 30s
      renew-before: 28s
      {lines}
"
    )
}

/// A CA for the local signer, and a file of classes.
struct Setup {
    ca: Ca,
    file: ClassFile,
    scratch: TempDir,
}

impl Setup {
    fn new(attributes: &[&str]) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        Self { ca: Ca::root("local-ca"), file: ClassFile::new(scratch.path(), &mesh(attributes)), scratch }
    }

    /// A driver that has these flags too.
    fn node(&self, flags: &[&str]) -> Node {
        let mut node = Node::with_flags(&[]);
        self.configure(&mut node, flags);
        node
    }

    /// The same, with an API server.
    async fn cluster(&self, flags: &[&str]) -> Cluster {
        Cluster::start(|node| self.configure(node, flags)).await
    }

    fn configure(&self, node: &mut Node, flags: &[&str]) {
        for flag in self.ca.flags(self.scratch.path(), &[]).iter().chain([&self.file.flag()]) {
            node.flag(flag);
        }
        for flag in ["--allow-local-signer", "--min-renewal-interval=0"].iter().chain(flags) {
            node.flag(flag);
        }
    }

    fn set(&self, attributes: &[&str]) {
        self.file.set(&mesh(attributes));
    }

    /// Writes a file beside the file of classes.
    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.scratch.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

/// The name of the CA that has signed the certificate in use.
fn issuer(volume: &Path) -> String {
    let leaf = volume.join("tls.crt");
    let output = openssl(&["x509", "-in", leaf.to_str().unwrap(), "-noout", "-issuer"]);
    String::from_utf8(output.stdout).unwrap()
}

fn trusted(volume: &Path) -> String {
    fs::read_to_string(volume.join("ca.crt")).unwrap_or_default()
}

fn assert_usual_files(volume: &Path) {
    assert_eq!(names(volume), ["ca.crt", "tls.crt", "tls.key"].map(str::to_owned).into());
}

async fn is_renewed(volume: &Path) {
    let before = serial(volume);
    eventually("a renewal", async || serial(volume) != before).await;
}

/// Signs each request, as cert-manager does, until the task is aborted.
fn sign_all(server: &ApiServer, authority: Authority) -> tokio::task::JoinHandle<()> {
    let server = server.clone();
    tokio::spawn(async move {
        loop {
            for request in server.open() {
                let name = request["metadata"]["name"].as_str().unwrap();
                let signed = authority.sign(&request, |params| {
                    params.not_after = params.not_before + Duration::from_secs(90);
                });
                server.set(name, &SIGNED, &signed);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
}

node_test! {
    async fn another_signer_gets_the_next_request_and_the_old_one_forgets_the_volume() {
        let setup = Setup::new(&["signer: local"]);
        let mut cluster = setup.cluster(&[]).await;
        let volume = cluster.kubelet.publish(&pod("web-0", &[])).await.unwrap();
        assert!(issuer(&volume).contains("local-ca"));

        setup.set(&["issuer-name: ca"]);
        cluster.server.only().await;
        assert!(issuer(&volume).contains("local-ca"), "the old certificate stays as long as the new signer has not signed");
        let authority = Authority::new("cluster-ca");
        let roots = [setup.ca.pem.clone(), authority.pem.replace('\r', "")];
        let signing = sign_all(&cluster.server, authority);
        eventually("the certificate of the other signer", async || issuer(&volume).contains("cluster-ca")).await;
        assert_usual_files(&volume);
        // Peers may still have a certificate of the old signer.
        let both = trusted(&volume);
        assert!(roots.iter().all(|root| both.contains(root)), "{both}");
        assert!(cluster.node.status(&["--json"]).contains("\"signer\": \"cert-manager\""));

        // The record knows the new signer.
        cluster.restart(|_| {}).await;
        is_renewed(&volume).await;
        assert!(issuer(&volume).contains("cluster-ca"));

        // Killed while a request waits. At the next start the class has the first signer again.
        signing.abort();
        eventually("a request that nobody signs", async || !cluster.server.open().is_empty()).await;
        cluster.node.kill();
        setup.set(&["signer: local"]);
        cluster.kubelet = cluster.node.started().await;
        eventually("the certificate of the first signer", async || issuer(&volume).contains("local-ca")).await;
        eventually("the requests to the other one are deleted", async || cluster.server.names().is_empty()).await;
        is_renewed(&volume).await;
        cluster.node.stop();
    }
}

node_test! {
    async fn a_keystore_that_a_running_volume_has_no_password_for_costs_no_certificate() {
        let setup = Setup::new(&["signer: local"]);
        let mut cluster = setup.cluster(&[]).await;
        let web = pod("web-0", &[]);
        let volume = cluster.kubelet.publish(&web).await.unwrap();
        setup.set(&["issuer-name: ca", "pkcs12-enable: \"true\""]);
        let is_refused = async || cluster.node.last_error(&web).is_some_and(|error| error.contains("keystore's password"));
        eventually("the refusal", is_refused).await;
        assert!(cluster.server.names().is_empty(), "the signer was asked");
        assert_whole(&volume);
        setup.set(&["signer: local"]);
        is_renewed(&volume).await;
        assert_eq!(cluster.node.last_error(&web), None);
        cluster.node.stop();
    }
}

node_test! {
    async fn other_trust_sources_are_obeyed_from_the_next_certificate_on() {
        let setup = Setup::new(&["signer: local"]);
        let (local, other) = (setup.ca.pem.clone(), Ca::root("other").pem);
        let roots = setup.write("roots.pem", &other);
        let sources = [format!("--trust-source=roots={}", roots.display()), "--trust-source=gone=/nonexistent/ca.pem".to_owned()];
        let mut node = setup.node(&[&sources[0], &sources[1]]);
        let web = pod("web-0", &[]);
        let volume = node.started().await.publish(&web).await.unwrap();
        assert_eq!(trusted(&volume), local);

        setup.set(&["signer: local", "ca-source: roots"]);
        eventually("the root of the source", async || trusted(&volume) == other).await;
        let status = node.status(&[]);
        assert!(status.contains("its root (CN=local-ca) is not in its trust bundle"), "{status}");
        let both = format!("{local}{other}");
        fs::write(&roots, &both).unwrap();
        eventually("both roots", async || trusted(&volume) == both).await;

        // A source that cannot be read takes nothing away, neither now nor after a restart.
        setup.set(&["signer: local", "ca-source: gone"]);
        eventually("the fault", async || node.status(&[]).contains("/nonexistent/ca.pem")).await;
        is_renewed(&volume).await;
        assert_eq!(trusted(&volume), both);
        node.kill();
        node.started().await;
        is_renewed(&volume).await;
        assert_eq!(trusted(&volume), both);

        // What the signer names has not been in the volume as such, so nothing of the sources is kept for its sake.
        setup.set(&["signer: local"]);
        eventually("the root of the signer alone", async || trusted(&volume) == local).await;
        node.stop();
    }
}

node_test! {
    async fn a_signer_whose_root_the_trust_source_lacks_has_its_certificate_held_back() {
        let setup = Setup::new(&["signer: local", "ca-source: roots"]);
        let roots = setup.write("roots.pem", &setup.ca.pem);
        let cluster = setup.cluster(&[&format!("--trust-source=roots={}", roots.display())]).await;
        let web = pod("web-0", &[]);
        let volume = cluster.kubelet.publish(&web).await.unwrap();
        let authority = Authority::new("cluster-ca");
        let both = setup.ca.pem.clone() + &authority.pem.replace('\r', "");
        let signing = sign_all(&cluster.server, authority);
        setup.set(&["issuer-name: ca", "ca-source: roots"]);
        let is_held_back = async || cluster.node.last_error(&web).is_some_and(|error| error.contains("held back"));
        eventually("the failure", is_held_back).await;
        assert!(issuer(&volume).contains("local-ca"));
        fs::write(&roots, &both).unwrap();
        eventually("the certificate of the other signer", async || issuer(&volume).contains("cluster-ca")).await;
        assert_eq!((trusted(&volume), cluster.node.last_error(&web)), (both, None));
        signing.abort();
    }
}

node_test! {
    async fn crls_come_and_go_with_the_class_and_are_refused_where_the_driver_has_none() {
        let setup = Setup::new(&["signer: local"]);
        let server = Server::start();
        server.serve("/crl", setup.ca.list(&List::number(1)));
        let url = format!("--crl={}", server.url("/crl"));
        let mut node = setup.node(&[&url, "--crl-refresh-interval=500ms"]);
        let web = pod("web-0", &[]);
        let volume = node.started().await.publish(&web).await.unwrap();
        assert_usual_files(&volume);
        setup.set(&["signer: local", "crl-file: ca.crl"]);
        let list = volume.join("ca.crl");
        eventually("the CRL", async || list.exists()).await;
        let newer = setup.ca.list(&List::number(2));
        server.serve("/crl", newer.clone());
        eventually("the newer CRL", async || fs::read_to_string(&list).is_ok_and(|text| text == pem(&newer))).await;
        setup.set(&["signer: local"]);
        eventually("no CRL", async || !list.exists()).await;
        node.stop();

        node.replace_flag(&url, "--max-crl-size=1Mi");
        node.started().await;
        setup.set(&["signer: local", "crl-file: ca.crl"]);
        let said = "crl-file: the driver has no CRLs; accepted: remove the attribute, or have the operator set --crl";
        eventually(said, async || node.last_error(&web).is_some_and(|error| error.contains(said))).await;
        assert_usual_files(&volume);
        let before = serial(&volume);
        setup.set(&["signer: local"]);
        eventually("a renewal", async || serial(&volume) != before).await;
        assert_eq!(node.last_error(&web), None);
        node.stop();
    }
}

node_test! {
    async fn a_crash_between_files_and_record_costs_one_renewal() {
        let setup = Setup::new(&["signer: local"]);
        let mut node = setup.node(&[]);
        let web = pod("web-0", &[]);
        let volume = node.started().await.publish(&web).await.unwrap();
        let record = node.stored_at(&web).join("record.json");
        let before = fs::read(&record).unwrap();
        setup.set(&["signer: local", "layout: istio", "reuse-private-key: \"true\""]);
        let leaf = volume.join("cert-chain.pem");
        eventually("the files of the other layout", async || leaf.exists()).await;
        node.kill();
        // As if the process had ended before it wrote the record: the record says that the files are of the first layout.
        fs::write(&record, before).unwrap();
        let files = fs::read(&leaf).unwrap();
        node.started().await;
        eventually("the next certificate", async || fs::read(&leaf).is_ok_and(|found| found != files)).await;
        assert_eq!(names(&volume), ["cert-chain.pem", "key.pem", "root-cert.pem"].map(str::to_owned).into());
        assert_eq!(node.last_error(&web), None);
        node.stop();
    }
}

node_test! {
    /// Each round changes the class, and kills the driver at another time.
    async fn a_kill_at_any_point_leaves_the_files_of_one_version_of_the_class() {
        let of_layout = |layout: &str| mesh(&["signer: local", layout, "key-algorithm: ECDSA"]).replace("28s", "29s900ms");
        let setup = Setup::new(&["signer: local"]);
        let mut node = setup.node(&[]);
        let web = pod("web-0", &[]);
        let layouts = [("layout: istio", ["cert-chain.pem", "key.pem", "root-cert.pem"]), ("layout: default", ["tls.crt", "tls.key", "ca.crt"])];
        setup.file.set(&of_layout(layouts[1].0));
        let volume = node.started().await.publish(&web).await.unwrap();
        for round in 0..40_u64 {
            let (layout, _) = layouts[usize::from(round.is_multiple_of(2))];
            setup.file.set(&of_layout(layout));
            tokio::time::sleep(Duration::from_micros(80_000 + round * 7919 % 120 * 400)).await;
            node.kill();
            // A link of the other version leads nowhere.
            let found: BTreeSet<String> = names(&volume).into_iter().filter(|name| volume.join(name).exists()).collect();
            assert!(layouts.iter().any(|(_, names)| found == names.map(str::to_owned).into()), "round {round}: {found:?}");
            node.started().await;
        }
        setup.file.set(&of_layout("layout: default"));
        eventually("the last layout", async || volume.join("tls.crt").exists()).await;
        is_renewed(&volume).await;
        assert_whole(&volume);
        assert_usual_files(&volume);
        assert!(!node.status(&["--json"]).contains("unreadable"));
        node.stop();
    }
}
