//! Classes of identity: what a volume gets by naming one, or by saying nothing.

use crate::node_test;
use crate::support::{Node, assert_whole, eventually, get_from, openssl, serial};
use certlet_kubelet::Pod;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use tonic::Code;

/// A class for every pod, whose certificates are renewed every two seconds.
const MESH: &str = "
version: 1
default: mesh
classes:
  mesh:
    attributes:
      signer: local
      dns-names: ${POD_NAME}.one.example
      duration: 10m
      renew-before: 9m58s
      socket-file: api.sock
    allow: [owner, certificate-file]
";

/// The file of classes, beside the driver's directories.
pub(crate) struct ClassFile(PathBuf);

impl ClassFile {
    pub(crate) fn new(scratch: &Path, text: &str) -> Self {
        let file = Self(scratch.join("classes.yaml"));
        file.set(text);
        file
    }

    /// Replaces the file as a whole.
    pub(crate) fn set(&self, text: &str) {
        let next = self.0.with_extension("next");
        fs::write(&next, text).unwrap();
        fs::rename(next, &self.0).unwrap();
    }

    pub(crate) fn flag(&self) -> String {
        format!("--classes={}", self.0.display())
    }

    /// A driver with these classes.
    fn node(&self) -> Node {
        Node::with_flags(&["--allow-local-signer", "--min-renewal-interval=0", &self.flag()])
    }
}

pub(crate) fn pod(name: &str, attributes: &[(&str, &str)]) -> Pod {
    Pod::new("shop", name, attributes.iter().map(|(key, value)| (format!("csi.certlet.io/{key}"), *value)))
}

/// The text of the leaf in a file.
fn text(leaf: &Path) -> String {
    let output = openssl(&["x509", "-in", leaf.to_str().unwrap(), "-noout", "-text"]);
    String::from_utf8(output.stdout).unwrap()
}

/// The files that a pod sees.
pub(crate) fn names(volume: &Path) -> BTreeSet<String> {
    let names = fs::read_dir(volume).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| !name.starts_with("..")).collect()
}

fn is_socket(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.file_type().is_socket())
}

node_test! {
    async fn a_volume_has_what_its_class_gives_and_what_the_class_lets_its_pod_set() {
        let scratch = tempfile::tempdir().unwrap();
        let mut node = ClassFile::new(scratch.path(), MESH).node();
        let kubelet = node.started().await;
        let named = kubelet.publish(&pod("web-0", &[("class", "mesh"), ("certificate-file", "own.crt")])).await.unwrap();
        assert!(text(&named.join("own.crt")).contains("DNS:web-0.one.example"));
        assert!(is_socket(&named.join("api.sock")));
        let bare = kubelet.publish(&pod("web-1", &[])).await.unwrap();
        assert_whole(&bare);
        assert!(text(&bare.join("tls.crt")).contains("DNS:web-1.one.example"));
        let status = node.status(&["--json"]);
        assert_eq!(status.matches("\"class\": \"mesh\"").count(), 2, "{status}");

        let refused = kubelet.publish(&pod("web-2", &[("class", "mesh"), ("duration", "1h"), ("layout", "istio")])).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        for part in [
            "csi.certlet.io/duration: is decided by the class \"mesh\", and a pod cannot change it; accepted: remove it",
            "csi.certlet.io/layout: cannot be set by a pod of the class \"mesh\"; accepted: remove it; pods of this class may set: certificate-file, owner",
        ] {
            assert!(refused.message().contains(part), "{refused:?}");
        }
        // Volumes without a class are as they ever were.
        let own = pod("web-3", &[("signer", "local"), ("dns-names", "own.example")]);
        assert!(text(&kubelet.publish(&own).await.unwrap().join("tls.crt")).contains("DNS:own.example"));
        node.stop();
    }
}

node_test! {
    async fn a_class_is_for_the_pods_that_it_names_and_the_others_do_not_see_it() {
        let scratch = tempfile::tempdir().unwrap();
        let file = ClassFile::new(scratch.path(), "
version: 1
classes:
  shop: { use: { namespaces: [\"sh*\"], serviceAccounts: [\"*/default\"] }, attributes: { signer: local, dns-names: a.example } }
  bank: { use: { namespaces: [bank] }, attributes: { signer: local, dns-names: b.example } }
");
        let mut node = file.node();
        let kubelet = node.started().await;
        kubelet.publish(&pod("web-0", &[("class", "shop")])).await.unwrap();
        let refused = kubelet.publish(&pod("web-1", &[("class", "bank")])).await.unwrap_err();
        let said = "csi.certlet.io/class: the class \"bank\" is not for the service account \"default\" in the namespace \"shop\"; accepted: shop";
        assert_eq!((refused.code(), refused.message()), (Code::InvalidArgument, said));
        let unknown = kubelet.publish(&pod("web-2", &[("class", "bunk")])).await.unwrap_err();
        assert_eq!(unknown.message(), "csi.certlet.io/class: \"bunk\" is not a class; accepted: shop");
        node.stop();
    }
}

node_test! {
    async fn with_a_required_class_only_volumes_in_use_go_without() {
        let scratch = tempfile::tempdir().unwrap();
        let file = ClassFile::new(scratch.path(), MESH);
        let mut node = file.node();
        let own = |name| pod(name, &[("signer", "local"), ("dns-names", "own.example"), ("duration", "10m"), ("renew-before", "9m58s")]);
        let volume = node.started().await.publish(&own("web-0")).await.unwrap();
        node.stop();
        let before = serial(&volume);
        node.flag("--require-class");
        let kubelet = node.started().await;
        eventually("its renewal", async || serial(&volume) != before).await;
        kubelet.publish(&own("web-0")).await.unwrap();
        let theirs = Pod::new("shop", "web-2", [("csi.cert-manager.io/issuer-name".to_owned(), "ca")]);
        for refused in [own("web-1"), theirs] {
            let refused = kubelet.publish(&refused).await.unwrap_err();
            let said = "csi.certlet.io/class: is required (--require-class); accepted: mesh";
            assert_eq!((refused.code(), refused.message()), (Code::InvalidArgument, said));
        }
        kubelet.publish(&pod("web-3", &[])).await.unwrap();
        node.stop();
    }
}

node_test! {
    async fn a_changed_class_applies_at_the_next_renewal_and_the_socket_stays() {
        let scratch = tempfile::tempdir().unwrap();
        let file = ClassFile::new(scratch.path(), MESH);
        let mut node = file.node();
        let kubelet = node.started().await;
        let volume = kubelet.publish(&pod("web-0", &[])).await.unwrap();
        let all = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(names(&volume), all(&["api.sock", "ca.crt", "tls.crt", "tls.key"]));
        let other = MESH
            .replace(".one.", ".two.")
            .replace("socket-file: api.sock", "layout: istio\n      key-algorithm: RSA")
            .replace(", certificate-file", "");
        file.set(&other);
        let expected = all(&["api.sock", "cert-chain.pem", "key.pem", "root-cert.pem"]);
        eventually("the files of the other layout", async || names(&volume) == expected).await;
        assert!(is_socket(&volume.join("api.sock")), "clients of a running pod are connected to it");
        let leaf = volume.join("cert-chain.pem");
        let read = || fs::read_to_string(&leaf).unwrap_or_default();
        assert!(text(&leaf).contains("DNS:web-0.two.example"));
        // The record knows what the files were made by.
        node.kill();
        let before = read();
        node.started().await;
        eventually("a renewal after a restart", async || !read().is_empty() && read() != before).await;
        assert_eq!(names(&volume), expected);
        assert!(!node.log().contains("cannot be read"), "{}", node.log());
        node.stop();
    }
}

node_test! {
    async fn a_class_that_refuses_a_running_volume_leaves_its_certificate_until_it_is_put_right() {
        let scratch = tempfile::tempdir().unwrap();
        let file = ClassFile::new(scratch.path(), MESH);
        let mut node = file.node();
        let kubelet = node.started().await;
        let web = pod("web-0", &[("class", "mesh")]);
        let bare = pod("web-1", &[]);
        let volumes = [kubelet.publish(&web).await.unwrap(), kubelet.publish(&bare).await.unwrap()];
        file.set("version: 1\nclasses: {}\n");
        for (pod, said) in [(&web, "\"mesh\" is not a class; accepted: no class"), (&bare, "was the default class \"mesh\"")] {
            eventually(said, async || node.last_error(pod).is_some_and(|error| error.contains(said))).await;
        }
        let before = volumes.each_ref().map(|volume| serial(volume));
        // A restart reads the file again, and serves what it served.
        node.kill();
        let kubelet = node.started().await;
        assert!(!node.status(&["--json"]).contains("unreadable"));
        kubelet.publish(&web).await.unwrap();
        assert_eq!(volumes.each_ref().map(|volume| serial(volume)), before);
        assert!(volumes.iter().all(|volume| is_socket(&volume.join("api.sock"))));
        file.set(MESH);
        for (volume, before) in volumes.iter().zip(&before) {
            eventually("a renewal", async || serial(volume) != *before).await;
        }
        eventually("no failure any more", async || node.last_error(&web).is_none()).await;
        node.stop();
    }
}

node_test! {
    async fn a_file_that_is_not_valid_leaves_the_last_classes_and_ends_a_driver_that_starts() {
        let scratch = tempfile::tempdir().unwrap();
        let file = ClassFile::new(scratch.path(), MESH);
        let mut node = file.node();
        node.flag("--metrics-bind-address=127.0.0.1:19407");
        let is_invalid = async |value: u8| {
            let (_, page) = get_from("127.0.0.1:19407", "/metrics").await.unwrap();
            assert!(page.contains(&format!("\ncertlet_classes_invalid {value}\n")), "{page}");
        };
        let kubelet = node.started().await;
        is_invalid(0).await;
        for (text, said) in [
            (MESH.replace("duration: 10m", "duraton: 10m"), "\"duraton\" is not an attribute of a volume"),
            (MESH.replace("default: mesh", "default: mash"), "default: \"mash\" is not one of the classes; the nearest is \"mesh\""),
            ("version: 2\nclasses: {}".to_owned(), "version: 2; accepted: 1"),
            (MESH.replace("allow:", "alow:"), "alow"),
        ] {
            file.set(&text);
            eventually(said, async || node.status(&[]).contains(said)).await;
            assert!(node.log().contains("THE OLD CLASSES STAY IN FORCE"));
            is_invalid(1).await;
        }
        kubelet.publish(&pod("web-0", &[("class", "mesh")])).await.unwrap();
        node.stop();
        let output = node.command().output().unwrap();
        assert!(!output.status.success());
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains("--classes") && error.contains("alow"), "{error}");
    }
}
