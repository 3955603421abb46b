//! Clients that send the socket's path as `:authority`, as gRPC for Java does.

use crate::client::{short_connect, socket_in};
use crate::in_process::started;
use crate::raw_http2::RawClient;
use crate::{SPIFFE_ID, node_test, spiffe_pod};
use certlet_kubelet::proto::workload::{X509svidRequest, X509svidResponse};
use std::path::Path;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

const FETCH: &str = "/SpiffeWorkloadAPI/FetchX509SVID";
const CHECK: &str = "/grpc.health.v1.Health/Check";
/// The security header of the Workload API.
const SECURED: &[u8] = b"\x00\x12workload.spiffe.io\x04true";

async fn client(volume: &Path) -> RawClient {
    RawClient::over(short_connect(&socket_in(volume)).await.unwrap()).await
}

node_test! {
    async fn a_volumes_socket_answers_whatever_authority_a_client_sends() {
        let (_node, driver, kubelet) = started(false).await;
        let volume = kubelet.publish(&spiffe_pod("web-0", &[])).await.unwrap();
        // Java's client names the field by its index in the static table, and C's by its text. Both send the socket's path.
        for authority in [&b"\x41\x0e/spiffe/socket"[..], b"\x40\x0a:authority\x0e/spiffe/socket", b"\x41\x8a\x61\x15\x9a\x59\x4a\xc2\x0e\x4e\xa5\x4f"] {
            let mut client = client(&volume).await;
            let health: HealthCheckResponse =
                client.call(CHECK, authority, &HealthCheckRequest::default()).await.unwrap();
            assert_eq!(health.status(), ServingStatus::Serving);
            // From the second call on, the authority is the newest entry of the dynamic table.
            let secured = [b"\xbe", SECURED].concat();
            let svids: X509svidResponse = client.call(FETCH, &secured, &X509svidRequest {}).await.unwrap();
            assert_eq!(svids.svids[0].spiffe_id, SPIFFE_ID);
        }
        driver.stop().await;
    }
}

node_test! {
    async fn a_client_with_malformed_headers_loses_its_own_connection_only() {
        let (_node, driver, kubelet) = started(false).await;
        let volume = kubelet.publish(&spiffe_pod("web-0", &[])).await.unwrap();
        let mut other = client(&volume).await;
        // Lengths beyond the block, an index that no table has, and a Huffman code that ends in zeros.
        for malformed in [&b"\x41\x7f\xff\xff\xff\xff\xff\xff"[..], b"\x41\x70%2F", b"\xff\xff\x01", b"\x00\x81\x00\x01v"] {
            let mut hostile = client(&volume).await;
            let refused = hostile.call::<HealthCheckResponse>(CHECK, malformed, &HealthCheckRequest::default()).await;
            refused.expect_err(&malformed.escape_ascii().to_string());
            let health: HealthCheckResponse =
                other.call(CHECK, b"\x41\x02/s", &HealthCheckRequest::default()).await.unwrap();
            assert_eq!(health.status(), ServingStatus::Serving);
        }
        driver.stop().await;
    }
}

node_test! {
    async fn reflection_lists_every_service_of_the_socket() {
        let (_node, driver, kubelet) = started(false).await;
        let volume = kubelet.publish(&spiffe_pod("web-0", &[])).await.unwrap();
        let list = ServerReflectionRequest {
            message_request: Some(MessageRequest::ListServices(String::new())),
            ..ServerReflectionRequest::default()
        };
        let path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
        let answer: ServerReflectionResponse =
            client(&volume).await.call(path, b"\x41\x02/s", &list).await.unwrap();
        let Some(MessageResponse::ListServicesResponse(listed)) = answer.message_response else { panic!("{answer:?}") };
        let mut names: Vec<_> = listed.service.into_iter().map(|service| service.name).collect();
        names.sort();
        assert_eq!(
            names,
            [
                "SpiffeWorkloadAPI",
                "envoy.service.secret.v3.SecretDiscoveryService",
                "grpc.health.v1.Health",
                "grpc.reflection.v1.ServerReflection",
            ]
        );
        driver.stop().await;
    }
}
