//! Real consumers of what certlet hands over, run as a user that is not root. `make consumers` builds them and runs these tests.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../support/cert_manager.rs"]
#[allow(dead_code, reason = "tests/attacks uses all of it")]
mod cert_manager;
#[path = "../support/certificate_requests.rs"]
mod certificate_requests;
#[path = "../support/crl.rs"]
mod crl;
mod documented;
mod envoy;
mod etcd;
#[path = "../support/fake_pca/mod.rs"]
#[allow(dead_code, reason = "only its CA is used here")]
mod fake_pca;
mod federated;
mod go;
mod go_spiffe;
mod grpc;
mod haproxy;
mod java;
mod kafka;
mod mariadb;
mod nginx;
mod node;
mod openssl;
mod page;
mod postgresql;
mod program;
mod python;
mod redis;
mod revoking;
mod rotating;
#[path = "../support/spiffe_ids.rs"]
mod spiffe_ids;
mod spring_boot;
#[path = "../support/mod.rs"]
mod support;
mod workload_api;

use certlet_kubelet::Pod;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use support::{Node, pod_of, serial};

/// Attributes of a certificate that is valid for ten minutes and renewed after about five seconds.
const RENEWED: [(&str, &str); 2] = [("duration", "10m"), ("renew-before", "9m55s")];

/// A node with the local signer, whose volumes any user reaches, as in a container.
fn node(flags: &[&str]) -> Node {
    let flags = [&["--allow-local-signer", "--min-renewal-interval=0"], flags].concat();
    let node = Node::with_flags(&flags);
    let_users_reach_volumes(&node);
    node
}

/// Opens the directory above the volumes, which is root's. A container has its volume elsewhere. The store stays closed.
fn let_users_reach_volumes(node: &Node) {
    fs::set_permissions(&node.root, fs::Permissions::from_mode(0o711)).unwrap();
}

/// A pod with a certificate from the local signer, whose key the user of [`program::command`] may read.
fn pod(name: &str, attributes: &[(&str, &str)]) -> Pod {
    let usual: &[(&str, &str)] = match program::OWNER.as_deref() {
        Some(owner) => &[("signer", "local"), ("owner", owner)],
        None => &[("signer", "local")],
    };
    pod_of(usual, name, attributes)
}

/// The serial number of the leaf in a volume, as a number is written.
fn number(volume: &Path) -> String {
    serial(volume).trim_start_matches('0').to_owned()
}

/// Makes an intermediate CA, and returns the flags that let the local signer use it, and its root in PEM. Its certificate alone
/// becomes the trust anchor.
fn intermediate_ca(directory: &Path) -> ([String; 2], String) {
    let (root, root_pem) = fake_pca::ca::authority("root", None);
    let (intermediate, certificate) = fake_pca::ca::authority("intermediate", Some(&root));
    let flag = |name: &str, text: &str| {
        let file = directory.join(name);
        fs::write(&file, text).unwrap();
        format!("--local-ca-{name}={}", file.display())
    };
    ([flag("cert", &certificate), flag("key", &intermediate.key().serialize_pem())], root_pem)
}
