//! CRLs over a volume's socket.

use crate::client::{bundles_request, next, sds, svids, workload_api};
use crate::crl::{Ca, List, Server};
use crate::support::Node;
use crate::{node_test, spiffe_pod};
use certlet_kubelet::proto::xds::envoy::extensions::transport_sockets::tls::v3::{
    Secret, data_source, secret,
};
use certlet_kubelet::proto::xds::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use prost::Message;
use std::fs;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// The CRLs in a trust bundle's secret, PEM.
fn crl(response: &DiscoveryResponse) -> Option<Vec<u8>> {
    let secret = Secret::decode(response.resources[0].value.as_slice()).unwrap();
    let Some(secret::Type::ValidationContext(context)) = secret.r#type else { panic!("a trust bundle") };
    context.crl.map(|source| match source.specifier {
        Some(data_source::Specifier::InlineBytes(bytes)) => bytes,
        _ => panic!("inline bytes"),
    })
}

node_test! {
    async fn sds_and_the_workload_api_carry_the_crl_and_each_newer_one() {
        let (ca, server, files) = (Ca::root("root"), Server::start(), tempfile::tempdir().unwrap());
        let url = format!("--crl={}", server.url("/crl"));
        let mut node = Node::with_flags(&["--allow-local-signer", "--crl-refresh-interval=200ms", &url]);
        for flag in ca.flags(files.path(), &[]) {
            node.flag(&flag);
        }
        let first = ca.list(&List::number(1));
        server.serve("/crl", first.clone());
        let kubelet = node.started().await;
        let volume = kubelet.publish(&spiffe_pod("web-0", &[("crl-file", "ca.crl")])).await.unwrap();
        let in_file = || fs::read(volume.join("ca.crl")).unwrap();

        let mut identities = svids(&volume).await.unwrap();
        assert_eq!(next(&mut identities).await.unwrap().crl.concat(), first);
        let mut client = workload_api(&volume).await;
        let mut bundles = client.fetch_x509_bundles(bundles_request()).await.unwrap().into_inner();
        assert_eq!(next(&mut bundles).await.unwrap().crl.concat(), first);
        let (requests, receiver) = mpsc::channel(4);
        let asking = |names: &[&str]| DiscoveryRequest {
            resource_names: names.iter().map(ToString::to_string).collect(),
            ..DiscoveryRequest::default()
        };
        requests.send(asking(&["ROOTCA"])).await.unwrap();
        let mut secrets =
            sds(&volume).await.stream_secrets(ReceiverStream::new(receiver)).await.unwrap().into_inner();
        assert_eq!(crl(&next(&mut secrets).await.unwrap()).unwrap(), in_file());

        let second = ca.list(&List { revoked: vec![vec![7]], ..List::number(2) });
        server.serve("/crl", second.clone());
        assert_eq!(next(&mut identities).await.unwrap().crl.concat(), second);
        assert_eq!(next(&mut bundles).await.unwrap().crl.concat(), second);
        assert_eq!(crl(&next(&mut secrets).await.unwrap()).unwrap(), in_file());

        // Read back from the store.
        node.kill();
        node.started().await;
        assert_eq!(next(&mut svids(&volume).await.unwrap()).await.unwrap().crl, [second]);
        // A volume that does not ask for it has none.
        let other = node.kubelet().await.publish(&spiffe_pod("web-1", &[])).await.unwrap();
        assert!(next(&mut svids(&other).await.unwrap()).await.unwrap().crl.is_empty());
        let fetched = sds(&other).await.fetch_secrets(asking(&["ROOTCA"])).await.unwrap().into_inner();
        assert_eq!(crl(&fetched), None);
        node.stop();
    }
}

node_test! {
    async fn a_message_that_clients_would_refuse_for_its_size_has_no_crl() {
        let (ca, files) = (Ca::root("root"), tempfile::tempdir().unwrap());
        let many = List { revoked: (0..120_000_u32).map(|serial| [&[1; 8][..], &serial.to_be_bytes()].concat()).collect(), ..List::number(1) };
        let list = ca.list(&many);
        assert!(list.len() > 3 << 20, "{}", list.len());
        let file = files.path().join("crl");
        fs::write(&file, &list).unwrap();
        let mut node = Node::with_flags(&["--allow-local-signer", &format!("--crl={}", file.display())]);
        for flag in ca.flags(files.path(), &[]) {
            node.flag(&flag);
        }
        let kubelet = node.started().await;
        let volume = kubelet.publish(&spiffe_pod("web-0", &[("crl-file", "ca.crl")])).await.unwrap();
        assert!(next(&mut svids(&volume).await.unwrap()).await.unwrap().crl.is_empty());
        assert!(fs::metadata(volume.join("ca.crl")).unwrap().len() > 4 << 20);
        node.stop();
    }
}
