//! Attacks on the driver and on the neighbours on its node: one file for each kind.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod admin;
mod answers;
mod answers_memory;
#[path = "../support/cert_manager.rs"]
mod cert_manager;
#[path = "../support/certificate_requests.rs"]
mod certificate_requests;
#[allow(dead_code, reason = "pca_fake tests the error cases of AWS Private CA")]
#[path = "../support/fake_pca/mod.rs"]
mod fake_pca;
#[path = "../support/in_process.rs"]
mod in_process;
mod patterns;
mod queues;
mod requests;
mod spending;
mod store;
#[path = "../support/mod.rs"]
mod support;

use certlet_kubelet::Pod;

/// A pod of a namespace, with a volume from the local signer.
fn pod(namespace: &str, number: usize) -> Pod {
    let attributes = [
        ("csi.certlet.io/signer", "local"),
        ("csi.certlet.io/dns-names", "${POD_NAME}.${POD_NAMESPACE}.svc.cluster.local"),
    ];
    Pod::new(namespace, &format!("web-{number}"), attributes)
}
