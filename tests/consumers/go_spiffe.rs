//! go-spiffe, the SPIFFE library of Go.

use crate::program::{Running, built, command, outcome, output};
use crate::support::{eventually, pod_of};
use crate::{RENEWED, intermediate_ca, node, node_test, number, pod, spiffe_ids};
use certlet_kubelet::Kubelet;
use std::path::Path;
use tonic::Code;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

const CLIENT: &str = "spiffe://example.org/ns/shop/sa/cart";
const SERVER: &str = "spiffe://example.org/ns/shop/sa/orders";

/// What go-spiffe says of a text: nothing, or why it is no SPIFFE ID.
fn verdict(ids: &mut Running, text: &str) -> Result<(), String> {
    match ids.ask(text).as_str() {
        "ok" => Ok(()),
        reason => Err(reason.to_owned()),
    }
}

/// The only URI of the certificate that certlet issues for a value of `uri-sans`, or its refusal.
async fn issued(kubelet: &Kubelet, value: &str) -> Result<String, tonic::Status> {
    let quoted = format!("\"{}\"", value.replace('"', "\"\""));
    let pod = pod_of(&[("signer", "local")], "web-0", &[("uri-sans", &quoted)]);
    let volume = kubelet.publish(&pod).await?;
    let uri = only_uri(&volume);
    kubelet.unpublish(&pod).await.unwrap();
    Ok(uri)
}

fn only_uri(volume: &Path) -> String {
    let chain = std::fs::read(volume.join("tls.crt")).unwrap();
    let (_, block) = x509_parser::pem::parse_x509_pem(&chain).unwrap();
    let (_, leaf) = X509Certificate::from_der(&block.contents).unwrap();
    let names = leaf.subject_alternative_name().unwrap().unwrap();
    let [GeneralName::URI(uri)] = names.value.general_names[..] else { panic!("{names:?}") };
    uri.to_owned()
}

node_test! {
    #[ignore = "run by make consumers"]
    async fn certlet_and_go_spiffe_agree_on_what_a_spiffe_id_is() {
        let mut node = node(&[]);
        let kubelet = node.started().await;
        let mut ids = Running::start(&mut command(built("go", &node.root).join("spiffe-ids")));
        let capital = "SPIFFE://example.org/a".to_owned();
        for id in spiffe_ids::trust_domains() {
            assert_eq!(verdict(&mut ids, &id), Ok(()), "{id}");
            let refused = issued(&kubelet, &id).await.expect_err(&id);
            assert!(refused.message().contains("has no path"), "{id}: {refused:?}");
        }
        for id in spiffe_ids::workloads().into_iter().chain([capital]) {
            let uri = issued(&kubelet, &id).await.unwrap_or_else(|status| panic!("{id}: {}", status.message()));
            assert_eq!(verdict(&mut ids, &uri), Ok(()), "{uri}");
        }
        for text in spiffe_ids::invalid() {
            verdict(&mut ids, &text).expect_err(&text);
            let refused = issued(&kubelet, &text).await.expect_err(&text);
            assert_eq!(refused.code(), Code::InvalidArgument, "{text}: {refused:?}");
            assert!(refused.message().contains("csi.certlet.io/uri-sans: "), "{text}: {refused:?}");
        }
        // go-spiffe has no limits. The standard has, and certlet keeps to them.
        for id in spiffe_ids::too_long() {
            assert_eq!(verdict(&mut ids, &id), Ok(()));
            issued(&kubelet, &id).await.expect_err(&id);
        }
    }
}

node_test! {
    #[ignore = "run by make consumers"]
    async fn a_volume_is_an_x509_svid_with_every_key() {
        let mut node = node(&[]);
        let kubelet = node.started().await;
        let svid = built("go", &node.root).join("svid");
        for (key, size) in [("ECDSA", "256"), ("ECDSA", "384"), ("ECDSA", "521"), ("RSA", "2048"), ("Ed25519", "")] {
            let name = format!("web-{}{size}", key.to_lowercase());
            let pod = pod(&name, &[("uri-sans", CLIENT), ("key-algorithm", key), ("key-size", size)]);
            let volume = kubelet.publish(&pod).await.unwrap();
            assert_eq!(output(command(&svid).arg("verify").arg(&volume)).trim(), CLIENT, "{key} {size}");
        }
    }
}

node_test! {
    #[ignore = "run by make consumers"]
    async fn an_x509_svid_below_an_intermediate_anchor_verifies() {
        let directory = tempfile::tempdir().unwrap();
        let ([certificate, key], _) = intermediate_ca(directory.path());
        let mut node = node(&[&certificate, &key]);
        let kubelet = node.started().await;
        let volume = kubelet.publish(&pod("web-0", &[("uri-sans", CLIENT)])).await.unwrap();
        let svid = built("go", &node.root).join("svid");
        assert_eq!(output(command(svid).arg("verify").arg(volume)).trim(), CLIENT);
    }
}

node_test! {
    #[ignore = "run by make consumers"]
    async fn a_running_server_and_new_clients_use_renewed_x509_svids() {
        let mut node = node(&[]);
        let kubelet = node.started().await;
        let svid = built("go", &node.root).join("svid");
        let usages = ("key-usages", "digital signature, server auth, client auth");
        let [client, server] = [("cart", CLIENT), ("orders", SERVER)]
            .map(|(name, id)| pod(name, &[("uri-sans", id), usages, RENEWED[0], RENEWED[1]]));
        let (client, server) = (kubelet.publish(&client).await.unwrap(), kubelet.publish(&server).await.unwrap());
        let serving = Running::start(command(&svid).arg("serve").arg(&server).arg(CLIENT));
        let address = serving.line();
        let dial = |volume: &Path, id: &str| outcome(command(&svid).arg("dial").arg(volume).args([&address, id]));
        // Both serial numbers.
        let talk = || {
            let (success, seen) = dial(&client, SERVER);
            assert!(success, "{seen}");
            let (server, id) = seen.trim().split_once(' ').unwrap();
            assert_eq!(id, SERVER);
            let seen = serving.line();
            let (client, id) = seen.split_once(' ').unwrap();
            assert_eq!(id, CLIENT);
            [client.to_owned(), server.to_owned()]
        };
        let before = talk();
        eventually("both certificates are renewed", async || {
            let now = talk();
            now.iter().zip(&before).all(|(now, before)| now != before)
        })
        .await;
        assert_ne!(number(&server), before[1]);
        // The wrong peer, on either side.
        let (success, seen) = dial(&client, CLIENT);
        assert!(!success && seen.contains("unexpected ID"), "{seen}");
        assert!(serving.line().starts_with("error: "));
        let (success, seen) = dial(&server, SERVER);
        assert!(!success, "{seen}");
        assert!(serving.line().contains("unexpected ID"));
    }
}
