//! Java's own keystores and TLS.

use crate::cert_manager::{Authority, CERT_MANAGER, Cluster, pod as cert_manager_pod};
use crate::program::{OWNER, Running, built, command, output};
use crate::support::{Node, eventually};
use crate::{RENEWED, intermediate_ca, let_users_reach_volumes, node, node_test, number, pod};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Attributes of a pod that talks to itself over TLS on 127.0.0.1, with random passwords.
const TALKS: [(&str, &str); 5] = [
    ("ip-sans", "127.0.0.1"),
    ("key-usages", "digital signature, server auth, client auth"),
    ("pkcs12-enable", "true"),
    ("pkcs12-password-file", "password"),
    ("truststore-file", "truststore.p12"),
];

/// The program Keystores.java.
struct Keystores(PathBuf);

impl Keystores {
    fn of(node: &Node) -> Self {
        Self(built("java", &node.root))
    }

    fn command(&self, name: &str) -> Command {
        let mut command = command("java");
        command.arg("-cp").arg(&self.0).args(["Keystores", name]);
        command
    }

    /// The entries of a keystore: alias, kind, length of a key's chain.
    fn entries(&self, keystore: &Path, password_file: &Path) -> Vec<String> {
        let entries = output(self.command("list").arg(keystore).arg(password_file));
        entries.lines().map(str::to_owned).collect()
    }

    /// Talks to itself whenever it is asked, with the files of a volume, and says which certificate it saw.
    fn talk(&self, volume: &Path) -> Running {
        let mut command = self.command("talk");
        command.args(["keystore.p12", "truststore.p12", "password"].map(|name| volume.join(name)));
        Running::start(&mut command)
    }
}

node_test! {
    #[ignore = "run by make consumers"]
    async fn java_sees_one_entry_of_the_name_1_under_cert_managers_prefix() {
        let cluster = Cluster::start(|_| {}).await;
        let_users_reach_volumes(&cluster.node);
        let keystores = Keystores::of(&cluster.node);
        // Its key is for root and root's group, or for this group.
        let group = OWNER.as_deref().unwrap_or("0");
        let attributes = [("pkcs12-enable", "true"), ("pkcs12-password", "changeit"), ("fs-group", group)];
        let pod = cert_manager_pod(CERT_MANAGER, "shop", "web-0", &attributes);
        let authority = Authority::new("root");
        let volume = cluster.publish_with(&pod, |request| authority.sign(request, |_| {})).await.unwrap();
        let password = cluster.node.root.join("password");
        fs::write(&password, "changeit").unwrap();
        assert_eq!(keystores.entries(&volume.join("keystore.p12"), &password), ["1 key PKCS#8 1"]);
    }
}

node_test! {
    #[ignore = "run by make consumers"]
    async fn java_talks_tls_with_keystore_and_truststore_of_both_profiles_and_sees_a_renewal() {
        let mut node = node(&[]);
        let kubelet = node.started().await;
        let keystores = Keystores::of(&node);
        for profile in ["modern", "legacy"] {
            let attributes = [&TALKS[..], &RENEWED, &[("pkcs12-profile", profile)]].concat();
            let volume = kubelet.publish(&pod(&format!("web-{profile}"), &attributes)).await.unwrap();
            let password = volume.join("password");
            let entries = |name: &str| keystores.entries(&volume.join(name), &password);
            // Java adds the anchor to the chain.
            assert_eq!(entries("keystore.p12"), ["ca trusted", "certificate key PKCS#8 2"], "{profile}");
            assert_eq!(entries("truststore.p12"), ["ca trusted"], "{profile}");
            let first = fs::read(&password).unwrap();
            let mut talking = keystores.talk(&volume);
            let before = talking.ask("");
            eventually("the renewed certificate is used", async || talking.ask("") != before).await;
            assert_ne!(number(&volume), before, "{profile}");
            assert_eq!(fs::read(&password).unwrap(), first, "{profile}");
        }
    }
}

node_test! {
    #[ignore = "run by make consumers"]
    async fn java_trusts_an_intermediate_anchor() {
        let directory = tempfile::tempdir().unwrap();
        let ([certificate, key], _) = intermediate_ca(directory.path());
        let mut node = node(&[&certificate, &key]);
        let kubelet = node.started().await;
        let volume = kubelet.publish(&pod("web-0", &TALKS)).await.unwrap();
        assert_eq!(Keystores::of(&node).talk(&volume).ask(""), number(&volume));
    }
}
