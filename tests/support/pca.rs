//! Nodes and pods with certificates from AWS Private CA.

use super::{DNS_NAME, Node, pod_of};
use certlet_kubelet::Pod;
use std::fs;

/// The access key of the driver itself.
pub const DRIVER_KEY: &str = "AKIADRIVER";

/// A node with this policy and this address of AWS. It is not started yet.
pub fn node(policy: &str, endpoint: &str) -> Node {
    // Logs everything, so that the tests can check the log for secrets.
    let mut node = Node::with_flags(&["--log-level=trace"]);
    // In a directory of its own: the driver watches it, and at level trace each write of the log would cause the next.
    let directory = node.root.join("policy");
    fs::create_dir(&directory).unwrap();
    let file = directory.join("policy.yaml");
    fs::write(&file, policy).unwrap();
    node.flag(&format!("--pca-policy={}", file.display()));
    for (name, value) in
        [("AWS_ENDPOINT_URL", endpoint), ("AWS_ACCESS_KEY_ID", DRIVER_KEY), ("AWS_SECRET_ACCESS_KEY", "s")]
    {
        node.env(name, value);
    }
    node
}

/// A pod of the service account `web` with a volume from this CA. The other attributes have no prefix.
pub fn pod(name: &str, authority: &str, attributes: &[(&str, &str)]) -> Pod {
    let usual = [("signer", "acm-pca"), ("certificate-authority-arn", authority), ("dns-names", DNS_NAME)];
    let mut pod = pod_of(&usual, name, attributes);
    "web".clone_into(&mut pod.service_account);
    pod
}
