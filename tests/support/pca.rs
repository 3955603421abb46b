//! Nodes and pods that get their certificates from AWS Private CA.

use super::{DNS_NAME, Node, pod_of};
use certlet_kubelet::Pod;
use std::fs;

/// The access key of the driver itself.
pub const DRIVER_KEY: &str = "AKIADRIVER";

/// A node whose driver has this policy and calls AWS at this address; it is not started yet.
pub fn node(policy: &str, endpoint: &str) -> Node {
    // Everything is logged, so that what must not be is seen.
    let mut node = Node::with_flags(&["--log-level=trace"]);
    let file = node.root.join("policy.yaml");
    fs::write(&file, policy).unwrap();
    node.flag(&format!("--pca-policy={}", file.display()));
    for (name, value) in
        [("AWS_ENDPOINT_URL", endpoint), ("AWS_ACCESS_KEY_ID", DRIVER_KEY), ("AWS_SECRET_ACCESS_KEY", "s")]
    {
        node.env(name, value);
    }
    node
}

/// A pod of the service account `web` with a volume from a CA and other attributes, given without their prefix.
pub fn pod(name: &str, authority: &str, attributes: &[(&str, &str)]) -> Pod {
    let usual = [("signer", "acm-pca"), ("certificate-authority-arn", authority), ("dns-names", DNS_NAME)];
    let mut pod = pod_of(&usual, name, attributes);
    "web".clone_into(&mut pod.service_account);
    pod
}
