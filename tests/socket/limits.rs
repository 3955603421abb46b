//! What one pod can take: connections, streams, message sizes.

use crate::client::{connect, next, sds, short_connect, socket_in, svids};
use crate::raw_http2::RawClient;
use crate::support::{DEADLINE, Node, peak_memory};
use crate::{node_test, spiffe_pod};
use certlet_kubelet::proto::workload::X509svidRequest;
use certlet_kubelet::proto::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use certlet_kubelet::proto::xds::envoy::service::discovery::v3::DiscoveryRequest;
use certlet_kubelet::proto::xds::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
use futures_util::{StreamExt, stream};
use http_body_util::StreamBody;
use hyper::body::{Bytes, Frame};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::task::JoinSet;
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
    async fn a_peer_that_sends_before_it_knows_the_settings_may_send_the_rest() {
        let mut node = Node::new();
        let kubelet = node.started().await;
        let volume = kubelet.publish(&spiffe_pod("web-0", &[])).await.unwrap();
        let mut client = RawClient::over(short_connect(&socket_in(&volume)).await.unwrap()).await;
        let path = "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets";
        let window = client.window_after_early_part(path, b"\x41\x0e/spiffe/socket").await;
        assert!(window > 0, "the peer waits for a window update, with {window} bytes");
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

/// Begins SDS requests on all streams of all connections, each with all but the last byte of the largest message, and never ends them.
async fn begin_requests(volume: &Path, held: &mut JoinSet<()>, refused: &Arc<AtomicUsize>) {
    const LENGTH: u32 = 64 * 1024;
    for _ in 0..16 {
        let stream = short_connect(&socket_in(volume)).await.unwrap();
        let connecting =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (client, connection) = connecting.unwrap();
        held.spawn(async move { drop(connection.await) });
        for _ in 0..16 {
            let prefix = [&[0][..], &LENGTH.to_be_bytes()].concat();
            let chunks = std::iter::once(prefix).chain((0..63).map(|_| vec![7; 1024]));
            let frames = chunks.map(|chunk| Ok::<_, Infallible>(Frame::data(Bytes::from(chunk))));
            let body = StreamBody::new(stream::iter(frames).chain(stream::pending()));
            let request = http::Request::post(
                "http://localhost/envoy.service.secret.v3.SecretDiscoveryService/FetchSecrets",
            )
            .header("content-type", "application/grpc")
            .header("x-large", "x".repeat(6000));
            let mut client = client.clone();
            let request = request.body(body).unwrap();
            let refused = Arc::clone(refused);
            held.spawn(async move {
                if let Ok(answer) = client.send_request(request).await
                    && answer.headers().get("grpc-status").is_some_and(|status| status == "8")
                {
                    refused.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    }
}

node_test! {
    async fn requests_that_never_end_take_little_memory_and_others_are_served() {
        let mut node = Node::new();
        let kubelet = node.started().await;
        let mut volumes = Vec::new();
        for number in 0..12 {
            volumes.push(kubelet.publish(&spiffe_pod(&format!("web-{number}"), &[])).await.unwrap());
        }
        let mut other = spiffe_pod("other", &[]);
        other.namespace = "other".to_owned();
        let other = kubelet.publish(&other).await.unwrap();
        let before = peak_memory(&node);
        let (mut held, refused) = (JoinSet::new(), Arc::default());
        for volume in &volumes {
            begin_requests(volume, &mut held, &refused).await;
        }
        crate::support::eventually("a refusal", async || refused.load(Ordering::Relaxed) > 0).await;
        // Whatever is sent and not refused has arrived by then.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let more = peak_memory(&node) - before;
        assert!(more < 48 << 20, "{} KiB more for {} requests", more >> 10, 12 * 256);
        let secrets = sds(&other).await.fetch_secrets(DiscoveryRequest {
            version_info: "x".repeat(60 * 1024),
            ..DiscoveryRequest::default()
        }).await.unwrap();
        assert!(!secrets.into_inner().resources.is_empty());
        held.shutdown().await;
        crate::support::eventually("an answer to the volume's own", async || {
            let Ok(channel) = connect(&socket_in(&volumes[0])).await else { return false };
            SecretDiscoveryServiceClient::new(channel).fetch_secrets(DiscoveryRequest::default()).await.is_ok()
        }).await;
        node.stop();
    }
}
