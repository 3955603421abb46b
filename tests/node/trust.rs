//! Trust bundles that the operator keeps in a file.

use crate::node_test;
use crate::support::{Node, eventually, pod, serial};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use tonic::Code;

/// A root, PEM.
fn root(name: &str) -> String {
    let mut params = CertificateParams::new([]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    without_cr(&params.self_signed(&key).unwrap().pem())
}

fn without_cr(text: &str) -> String {
    text.replace('\r', "")
}

/// A directory as the kubelet mounts a ConfigMap with the key `ca.crt`.
struct MountedConfigMap(PathBuf);

impl MountedConfigMap {
    fn new(directory: PathBuf, text: &str) -> Self {
        fs::create_dir_all(&directory).unwrap();
        let mounted = Self(directory);
        mounted.set(text);
        symlink("..data/ca.crt", mounted.file()).unwrap();
        mounted
    }

    /// Swaps `..data`, as the kubelet does.
    fn set(&self, text: &str) {
        let name = format!("..{}", fs::read_dir(&self.0).unwrap().count());
        fs::create_dir(self.0.join(&name)).unwrap();
        fs::write(self.0.join(&name).join("ca.crt"), text).unwrap();
        symlink(&name, self.0.join("..data_tmp")).unwrap();
        fs::rename(self.0.join("..data_tmp"), self.0.join("..data")).unwrap();
    }

    fn file(&self) -> PathBuf {
        self.0.join("ca.crt")
    }
}

/// A driver whose pods trust what is in the file.
fn node(flag: &str, file: &Path) -> Node {
    Node::with_flags(&["--allow-local-signer", &format!("--{flag}={}", file.display())])
}

fn ca(volume: &Path) -> String {
    fs::read_to_string(volume.join("ca.crt")).unwrap_or_default()
}

async fn trusts(volume: &Path, roots: &str) {
    eventually("the other trust bundle", async || ca(volume) == roots).await;
}

node_test! {
    async fn a_changed_file_reaches_every_volume_without_a_new_certificate() {
        let scratch = tempfile::tempdir().unwrap();
        let (first, second) = (root("first"), root("second"));
        let mounted = MountedConfigMap::new(scratch.path().join("ca"), &first);
        let mut node = node("source-ca-bundle", &mounted.file());
        let kubelet = node.started().await;
        let volume = kubelet.publish(&pod("web-0")).await.unwrap();
        let other = kubelet.publish(&pod("web-1")).await.unwrap();
        assert_eq!(ca(&volume), first);
        let before = (serial(&volume), fs::read(volume.join("tls.key")).unwrap());
        for roots in [format!("{first}{second}"), second.clone(), format!("# text\n{first}")] {
            mounted.set(&roots);
            let roots = roots.trim_start_matches("# text\n");
            trusts(&volume, roots).await;
            trusts(&other, roots).await;
        }
        assert_eq!((serial(&volume), fs::read(volume.join("tls.key")).unwrap()), before);
        node.stop();
    }
}

node_test! {
    async fn a_change_while_no_driver_runs_is_handed_over_at_the_start_and_nothing_else_is_written() {
        let scratch = tempfile::tempdir().unwrap();
        let (first, second) = (root("first"), root("second"));
        let mounted = MountedConfigMap::new(scratch.path().join("ca"), &first);
        let mut node = node("ca-source", &mounted.file());
        let volume = node.started().await.publish(&pod("web-0")).await.unwrap();
        let generation = || fs::read_link(volume.join("..data")).unwrap();
        let before = generation();
        node.kill();
        let kubelet = node.started().await;
        // Published later than the start has read the file.
        kubelet.publish(&pod("web-1")).await.unwrap();
        assert_eq!(generation(), before, "the same trust bundle was written again");
        node.kill();
        mounted.set(&second);
        node.started().await;
        trusts(&volume, &second).await;
        node.stop();
    }
}

node_test! {
    async fn a_file_that_cannot_be_used_leaves_the_last_trust_bundle_and_is_told() {
        let scratch = tempfile::tempdir().unwrap();
        let first = root("first");
        let mounted = MountedConfigMap::new(scratch.path().join("ca"), &first);
        let mut node = node("ca-source", &mounted.file());
        let kubelet = node.started().await;
        let volume = kubelet.publish(&pod("web-0")).await.unwrap();
        let leaf = fs::read_to_string(volume.join("tls.crt")).unwrap();
        for (text, said) in [("", "is empty"), ("no PEM", "is not PEM"), (&leaf, "not a CA certificate")] {
            mounted.set(text);
            eventually(said, async || node.status(&[]).contains(said)).await;
            assert!(node.status(&[]).contains("its last anchors stay in use"), "{}", node.status(&[]));
        }
        fs::remove_file(mounted.file()).unwrap();
        eventually("the missing file", async || node.status(&[]).contains("cannot be read")).await;
        assert_eq!(ca(&volume), first);
        // A later volume gets the last anchors too.
        let later = kubelet.publish(&pod("web-1")).await.unwrap();
        assert_eq!(ca(&later), first);
        symlink("..data/ca.crt", mounted.file()).unwrap();
        mounted.set(&first);
        eventually("no fault", async || !node.status(&[]).contains("trust source")).await;
        node.stop();
    }
}

node_test! {
    async fn without_anchors_a_volume_is_refused_and_a_running_one_is_renewed_with_its_last() {
        let scratch = tempfile::tempdir().unwrap();
        let first = root("first");
        let mounted = MountedConfigMap::new(scratch.path().join("ca"), &first);
        let mut node = node("ca-source", &mounted.file());
        node.flag("--min-renewal-interval=0");
        let renewed = crate::support::pod_with("web-0", &[("duration", "10m"), ("renew-before", "9m58s")]);
        let volume = node.started().await.publish(&renewed).await.unwrap();
        node.kill();
        fs::remove_dir_all(&mounted.0).unwrap();
        let before = serial(&volume);
        let kubelet = node.started().await;
        let refused = kubelet.publish(&pod("web-1")).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
        assert!(refused.message().contains("the trust source file:") && refused.message().contains("cannot be read"), "{refused:?}");
        eventually("a renewal", async || fs::metadata(volume.join("tls.crt")).is_ok() && serial(&volume) != before).await;
        assert_eq!(ca(&volume), first);
        // The directory comes back, as after a mistake in a mount.
        let second = root("second");
        let _mounted = MountedConfigMap::new(mounted.0.clone(), &second);
        trusts(&volume, &second).await;
        kubelet.publish(&pod("web-1")).await.unwrap();
        node.stop();
    }
}

node_test! {
    async fn several_sources_are_joined_and_what_is_no_source_ends_the_driver() {
        let scratch = tempfile::tempdir().unwrap();
        let (one, other) = (scratch.path().join("one.pem"), scratch.path().join("other.pem"));
        let (first, second) = (root("first"), root("second"));
        fs::write(&one, &first).unwrap();
        fs::write(&other, format!("{second}{first}")).unwrap();
        let mut node = node("ca-source", &one);
        node.flag(&format!("--ca-source=file:{}", other.display()));
        let volume = node.started().await.publish(&pod("web-0")).await.unwrap();
        assert_eq!(ca(&volume), format!("{first}{second}"));
        node.stop();
        let output = Node::with_flags(&["--ca-source=configmap:roots"]).command().output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.contains("--ca-source") && error.contains("configmap:NAMESPACE/NAME[/KEY]"), "{error}");
    }
}
