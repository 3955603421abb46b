//! A volume's socket: the SPIFFE Workload API and Envoy's SDS, as the containers that mount the volume see them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod authority;
mod client;
#[path = "../support/crl.rs"]
mod crl;
mod crls;
mod federation;
#[path = "../support/in_process.rs"]
mod in_process;
mod life;
mod limits;
#[path = "../support/raw_http2.rs"]
mod raw_http2;
mod sds;
#[path = "../support/mod.rs"]
mod support;
mod workload_api;

use certlet_kubelet::Pod;

const SPIFFE_ID: &str = "spiffe://example.org/ns/shop/sa/web";

/// A pod whose volume has a socket and a SPIFFE ID.
fn spiffe_pod(name: &str, attributes: &[(&str, &str)]) -> Pod {
    let usual = [
        ("signer", "local"),
        ("uri-sans", SPIFFE_ID),
        ("key-usages", "digital signature,key encipherment,server auth,client auth"),
        ("socket-file", "spiffe.sock"),
    ];
    support::pod_of(&usual, name, attributes)
}
