//! Envoy's Secret Discovery Service.

use crate::client::{next, sds};
use crate::in_process::started;
use crate::support::{eventually, serial};
use crate::{SPIFFE_ID, node_test, spiffe_pod};
use certlet_kubelet::proto::xds::envoy::extensions::transport_sockets::tls::v3::{
    Secret, data_source, secret,
};
use certlet_kubelet::proto::xds::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DiscoveryRequest, DiscoveryResponse,
};
use certlet_kubelet::proto::xds::google::rpc;
use jiff::SignedDuration;
use prost::Message;
use std::fs;
use std::path::Path;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

fn asking(names: &[&str]) -> DiscoveryRequest {
    DiscoveryRequest {
        resource_names: names.iter().map(ToString::to_string).collect(),
        ..DiscoveryRequest::default()
    }
}

fn acknowledge(names: &[&str], response: &DiscoveryResponse) -> DiscoveryRequest {
    DiscoveryRequest {
        version_info: response.version_info.clone(),
        response_nonce: response.nonce.clone(),
        ..asking(names)
    }
}

/// The bytes of the secrets of a response: chain, key, or anchors.
fn contents(response: &DiscoveryResponse) -> Vec<Vec<u8>> {
    let bytes = |source: Option<_>| {
        let certlet_kubelet::proto::xds::envoy::extensions::transport_sockets::tls::v3::DataSource {
            specifier: Some(data_source::Specifier::InlineBytes(bytes)),
        } = source.unwrap()
        else {
            panic!("inline bytes")
        };
        bytes
    };
    let secrets = response.resources.iter().map(|any| Secret::decode(any.value.as_slice()).unwrap());
    secrets
        .flat_map(|found| match found.r#type.unwrap() {
            secret::Type::TlsCertificate(pair) => {
                vec![bytes(pair.certificate_chain), bytes(pair.private_key)]
            }
            secret::Type::ValidationContext(context) => vec![bytes(context.trusted_ca)],
        })
        .collect()
}

fn files(volume: &Path, names: &[&str]) -> Vec<Vec<u8>> {
    names.iter().map(|name| fs::read(volume.join(name)).unwrap()).collect()
}

node_test! {
    async fn an_envoy_gets_each_secret_at_once_and_again_when_it_changes() {
        let (_node, driver, kubelet) = started(false).await;
        let pod = spiffe_pod("web-0", &[]);
        let volume = kubelet.publish(&pod).await.unwrap();
        let mut client = sds(&volume).await;
        let (requests, receiver) = mpsc::channel(4);
        requests.send(asking(&["default"])).await.unwrap();
        let mut stream = client.stream_secrets(ReceiverStream::new(receiver)).await.unwrap().into_inner();
        let first = next(&mut stream).await.unwrap();
        assert_eq!(contents(&first), files(&volume, &["tls.crt", "tls.key"]));
        requests.send(acknowledge(&["default"], &first)).await.unwrap();
        let before = serial(&volume);
        eventually("the renewal", async || {
            driver.clock.advance(SignedDuration::from_hours(1));
            serial(&volume) != before
        }).await;
        let second = next(&mut stream).await.unwrap();
        assert_eq!(contents(&second), files(&volume, &["tls.crt", "tls.key"]));
        // An Envoy that does not accept it shows in `certlet status`.
        let error_detail = Some(rpc::Status { code: 3, message: "no private key".into() });
        requests.send(DiscoveryRequest { error_detail, ..acknowledge(&["default"], &second) }).await.unwrap();
        let fetched = client.fetch_secrets(asking(&["ROOTCA", SPIFFE_ID])).await.unwrap().into_inner();
        assert_eq!(contents(&fetched), files(&volume, &["ca.crt", "tls.crt", "tls.key"]));
        driver.stop().await;
    }
}

node_test! {
    async fn a_rejected_secret_shows_in_the_status() {
        let mut node = crate::support::Node::new();
        let kubelet = node.started().await;
        let volume = kubelet.publish(&spiffe_pod("web-0", &[])).await.unwrap();
        let mut client = sds(&volume).await;
        let (requests, receiver) = mpsc::channel(4);
        requests.send(asking(&["default"])).await.unwrap();
        let mut stream = client.stream_secrets(ReceiverStream::new(receiver)).await.unwrap().into_inner();
        let first = next(&mut stream).await.unwrap();
        assert!(!node.status(&[]).contains("does not accept"));
        let error_detail = Some(rpc::Status { code: 3, message: "key too short".into() });
        requests.send(DiscoveryRequest { error_detail, ..acknowledge(&["default"], &first) }).await.unwrap();
        eventually("the rejection", async || {
            node.status(&[]).contains("web-0: Envoy does not accept a secret of this volume: key too short")
        }).await;
        node.stop();
    }
}

node_test! {
    async fn deltas_and_unknown_names() {
        let (_node, driver, kubelet) = started(false).await;
        let volume = kubelet.publish(&spiffe_pod("web-0", &[])).await.unwrap();
        let mut client = sds(&volume).await;
        let (requests, receiver) = mpsc::channel(4);
        let subscribe = |name: &str| DeltaDiscoveryRequest {
            resource_names_subscribe: vec![name.to_owned()],
            ..DeltaDiscoveryRequest::default()
        };
        requests.send(subscribe("ROOTCA")).await.unwrap();
        let mut stream = client.delta_secrets(ReceiverStream::new(receiver)).await.unwrap().into_inner();
        let first = next(&mut stream).await.unwrap();
        assert_eq!(first.resources.iter().map(|secret| secret.name.as_str()).collect::<Vec<_>>(), ["ROOTCA"]);
        requests.send(subscribe("nobody")).await.unwrap();
        assert_eq!(next(&mut stream).await.err().unwrap().code(), Code::InvalidArgument);
        let error = client.fetch_secrets(asking(&["nobody"])).await.err().unwrap();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert!(error.message().contains("ROOTCA"), "{error}");
        driver.stop().await;
    }
}
