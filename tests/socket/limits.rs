//! What one pod can take: connections, streams, message sizes.

use crate::client::{connect, next, sds, short_connect, socket_in, svids};
use crate::support::{DEADLINE, Node, peak_memory};
use crate::{node_test, spiffe_pod};
use certlet_kubelet::proto::workload::X509svidRequest;
use certlet_kubelet::proto::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use certlet_kubelet::proto::xds::envoy::service::discovery::v3::DiscoveryRequest;
use std::path::Path;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tonic::Code;

/// Opens connections until one is closed at once.
async fn fill(volume: &Path) -> Vec<UnixStream> {
    let mut open = Vec::new();
    for _ in 0..64 {
        let mut stream = short_connect(&socket_in(volume)).await.unwrap();
        // The server speaks first: its settings. A refused connection ends.
        let mut frame = [0; 9];
        match tokio::time::timeout(DEADLINE, stream.read_exact(&mut frame)).await.expect("no answer") {
            Ok(_) => open.push(stream),
            Err(_) => return open,
        }
    }
    panic!("no connection was refused")
}

node_test! {
    async fn the_connections_of_a_volume_are_limited_and_its_neighbours_are_served() {
        let mut node = Node::new();
        let kubelet = node.started().await;
        let greedy = kubelet.publish(&spiffe_pod("greedy", &[])).await.unwrap();
        let other = kubelet.publish(&spiffe_pod("other", &[])).await.unwrap();
        let open = fill(&greedy).await;
        assert_eq!(open.len(), 16);
        next(&mut svids(&other).await.unwrap()).await.unwrap();
        drop(open);
        crate::support::eventually("a free connection", async || connect(&socket_in(&greedy)).await.is_ok()).await;
        node.stop();
    }
}

node_test! {
    async fn the_streams_of_a_volume_are_limited() {
        let mut node = Node::new();
        let kubelet = node.started().await;
        let volume = kubelet.publish(&spiffe_pod("web-0", &[])).await.unwrap();
        let mut streams = Vec::new();
        let error = 'full: loop {
            let mut client = SpiffeWorkloadApiClient::new(connect(&socket_in(&volume)).await.unwrap());
            for _ in 0..16 {
                let request = crate::client::secured(X509svidRequest {});
                match client.fetch_x509svid(request).await {
                    Ok(stream) => streams.push(stream),
                    Err(error) => break 'full error,
                }
            }
        };
        assert_eq!((error.code(), streams.len()), (Code::ResourceExhausted, 64));
        node.stop();
    }
}

node_test! {
    async fn a_request_that_is_too_large_is_refused() {
        let mut node = Node::new();
        let kubelet = node.started().await;
        let volume = kubelet.publish(&spiffe_pod("web-0", &[])).await.unwrap();
        let request = DiscoveryRequest { version_info: "x".repeat(65 * 1024), ..DiscoveryRequest::default() };
        let error = sds(&volume).await.fetch_secrets(request).await.err().unwrap();
        assert_eq!(error.code(), Code::OutOfRange, "{error}");
        node.stop();
    }
}

node_test! {
    async fn peers_that_read_nothing_take_little_memory() {
        let mut node = Node::new();
        let kubelet = node.started().await;
        let mut held = Vec::new();
        for number in 0..8 {
            let volume = kubelet.publish(&spiffe_pod(&format!("web-{number}"), &[])).await.unwrap();
            let before = peak_memory(&node);
            held.push((fill(&volume).await, before));
        }
        let (first, last) = (held[0].1, peak_memory(&node));
        assert!(last < first + (16 << 20), "{} KiB more for 128 connections", (last - first) >> 10);
        node.stop();
    }
}
