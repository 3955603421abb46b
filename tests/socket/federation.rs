//! Federated trust bundles: those of other trust domains, on the socket and as files.

use crate::client::{bundles_request, next, sds, svids, workload_api};
use crate::support::{Node, eventually, serial};
use crate::{SPIFFE_ID, node_test, spiffe_pod};
use base64ct::{Base64, Encoding};
use certlet_kubelet::proto::xds::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, Secret, SpiffeCertValidatorConfig, secret,
};
use certlet_kubelet::proto::xds::envoy::service::discovery::v3::DiscoveryRequest;
use prost::Message;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use tonic::Code;

const SUFFIX: &str = ".spiffe-trust-bundle.x509.pem";

/// A root: DER.
fn root(name: &str) -> Vec<u8> {
    let mut params = CertificateParams::new([]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
}

fn pem(der: &[u8]) -> String {
    let base64 = Base64::encode_string(der);
    let lines: Vec<&str> = base64.as_bytes().chunks(64).map(|line| str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

/// A SPIFFE bundle document, as a trust domain publishes it.
fn document(roots: &[&[u8]]) -> String {
    let key = |root: &&[u8]| json!({ "kty": "EC", "use": "x509-svid", "x5c": [Base64::encode_string(root)] });
    let mut keys: Vec<_> = roots.iter().map(key).collect();
    keys.push(json!({ "kty": "RSA", "use": "jwt-svid", "kid": "1", "n": "AQAB", "e": "AQAB" }));
    json!({ "spiffe_sequence": 7, "spiffe_refresh_hint": 300, "keys": keys }).to_string()
}

/// Replaces a file as a whole.
fn put(file: &Path, text: &str) {
    let next = file.with_extension("next");
    fs::write(&next, text).unwrap();
    fs::rename(next, file).unwrap();
}

/// A driver that federates with `partner.org` by a SPIFFE bundle document, and with `third.org` by PEM.
struct Federated {
    node: Node,
    partner: PathBuf,
    third: PathBuf,
    roots: [Vec<u8>; 2],
}

impl Federated {
    fn new() -> Self {
        let mut node = Node::new();
        let [partner, third] = ["partner.json", "third.pem"].map(|name| node.root.join(name));
        let roots = ["partner", "third"].map(root);
        put(&partner, &document(&[&roots[0]]));
        put(&third, &pem(&roots[1]));
        node.flag(&partner_flag(&partner));
        node.flag(&third_flag(&third));
        Self { node, partner, third, roots }
    }
}

fn partner_flag(file: &Path) -> String {
    format!("--federated-bundle=partner.org=spiffe-bundle:{}", file.display())
}

fn third_flag(file: &Path) -> String {
    format!("--federated-bundle=third.org=file:{}", file.display())
}

fn in_file(volume: &Path, domain: &str) -> Option<String> {
    fs::read_to_string(volume.join(format!("{domain}{SUFFIX}"))).ok()
}

/// The trust bundles of a volume's socket, ordered by trust domain.
async fn on_socket(volume: &Path) -> Vec<(String, Vec<u8>)> {
    let mut client = workload_api(volume).await;
    let mut stream = client.fetch_x509_bundles(bundles_request()).await.unwrap().into_inner();
    let mut all: Vec<_> = next(&mut stream).await.unwrap().bundles.into_iter().collect();
    all.sort();
    all
}

/// Those of other trust domains. The local signer's own is another one after a restart.
async fn others(volume: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all = on_socket(volume).await;
    all.retain(|(id, _)| id != "spiffe://example.org");
    all
}

/// The trust domains of the validator in the secret of a volume's socket.
async fn validated(volume: &Path, name: &str) -> Vec<String> {
    let request = DiscoveryRequest { resource_names: vec![name.to_owned()], ..DiscoveryRequest::default() };
    let response = sds(volume).await.fetch_secrets(request).await.unwrap().into_inner();
    let secret = Secret::decode(response.resources[0].value.as_slice()).unwrap();
    let Some(secret::Type::ValidationContext(CertificateValidationContext {
        custom_validator_config, ..
    })) = secret.r#type
    else {
        panic!("no trust bundle")
    };
    let config = custom_validator_config.unwrap().typed_config.unwrap();
    let config = SpiffeCertValidatorConfig::decode(config.value.as_slice()).unwrap();
    config.trust_domains.into_iter().map(|domain| domain.name).collect()
}

node_test! {
    async fn each_trust_domain_is_apart_on_the_socket_and_in_the_files() {
        let mut federated = Federated::new();
        let kubelet = federated.node.started().await;
        let volume = kubelet.publish(&spiffe_pod("web-0", &[("federated-bundles", "*")])).await.unwrap();
        let message = next(&mut svids(&volume).await.unwrap()).await.unwrap();
        let [partner, third] = &federated.roots;
        let expected = [("spiffe://partner.org", partner), ("spiffe://third.org", third)];
        let mut got: Vec<_> = message.federated_bundles.iter().map(|(id, der)| (id.as_str(), der)).collect();
        got.sort();
        assert_eq!(got, expected);
        let own = message.svids[0].bundle.clone();
        let all = on_socket(&volume).await;
        assert_eq!(all[0], ("spiffe://example.org".to_owned(), own.clone()));
        assert_eq!(all[1..].iter().map(|(id, der)| (id.as_str(), der)).collect::<Vec<_>>(), expected);
        assert_eq!(validated(&volume, "ALL").await, ["example.org", "partner.org", "third.org"]);
        assert_eq!(validated(&volume, "spiffe://third.org").await, ["third.org"]);
        assert_eq!(in_file(&volume, "partner.org").unwrap(), pem(partner));
        assert_eq!(in_file(&volume, "third.org").unwrap(), pem(third));
        assert_eq!(fs::read_to_string(volume.join("ca.crt")).unwrap(), pem(&own), "a federated root speaks for everybody");
        // A pod that asks for one of them gets no other, and one that does not ask gets none.
        let one = kubelet.publish(&spiffe_pod("web-1", &[("federated-bundles", "third.org")])).await.unwrap();
        let ids = |all: Vec<(String, Vec<u8>)>| all.into_iter().map(|(id, _)| id).collect::<Vec<_>>();
        assert_eq!(ids(on_socket(&one).await), ["spiffe://example.org", "spiffe://third.org"]);
        let none = kubelet.publish(&spiffe_pod("web-2", &[])).await.unwrap();
        assert_eq!(ids(on_socket(&none).await), ["spiffe://example.org"]);
        federated.node.stop();
    }
}

node_test! {
    async fn a_change_reaches_an_open_stream_and_the_files_without_a_new_certificate() {
        let mut federated = Federated::new();
        let kubelet = federated.node.started().await;
        let pod = spiffe_pod("web-0", &[("federated-bundles", "partner.org"), ("files", "false")]);
        let volume = kubelet.publish(&pod).await.unwrap();
        let with_files = kubelet.publish(&spiffe_pod("web-1", &[("federated-bundles", "*")])).await.unwrap();
        let before = serial(&with_files);
        let mut stream = svids(&volume).await.unwrap();
        let first = next(&mut stream).await.unwrap();
        let second = root("partner 2");
        put(&federated.partner, &document(&[&federated.roots[0], &second]));
        let changed = next(&mut stream).await.unwrap();
        assert_eq!(changed.federated_bundles["spiffe://partner.org"], [&federated.roots[0][..], &second].concat());
        assert_eq!(changed.svids[0].x509_svid, first.svids[0].x509_svid);
        put(&federated.partner, &document(&[&second]));
        assert_eq!(next(&mut stream).await.unwrap().federated_bundles["spiffe://partner.org"], second);
        eventually("the file", async || in_file(&with_files, "partner.org") == Some(pem(&second))).await;
        assert_eq!(serial(&with_files), before);
        // What cannot be used changes nothing, and is told.
        for (text, said) in [("", "is empty"), ("{\"keys\": []}", "has no key with the use x509-svid"), ("{", "is not JSON")] {
            put(&federated.partner, text);
            eventually(said, async || federated.node.status(&[]).contains(said)).await;
        }
        assert!(federated.node.status(&[]).contains("its last anchors stay in use"));
        put(&federated.third, &pem(&root("third 2")));
        eventually("the other one", async || in_file(&with_files, "third.org") != Some(pem(&federated.roots[1]))).await;
        assert_eq!(in_file(&with_files, "partner.org"), Some(pem(&second)));
        federated.node.stop();
    }
}

node_test! {
    async fn a_restart_keeps_what_a_pod_has_although_the_source_is_gone() {
        let mut federated = Federated::new();
        federated.node.flag("--min-renewal-interval=0");
        let kubelet = federated.node.started().await;
        let asked = ("federated-bundles", "*");
        let on_disk = spiffe_pod("web-0", &[asked, ("duration", "10m"), ("renew-before", "9m58s")]);
        let in_files = kubelet.publish(&on_disk).await.unwrap();
        let by_socket = kubelet.publish(&spiffe_pod("web-1", &[asked, ("files", "false")])).await.unwrap();
        let before = others(&in_files).await;
        assert_eq!(before.len(), 2);
        assert_eq!(others(&by_socket).await, before);
        federated.node.kill();
        fs::remove_file(&federated.partner).unwrap();
        let kubelet = federated.node.started().await;
        let renewed = serial(&in_files);
        assert_eq!((others(&in_files).await, others(&by_socket).await), (before.clone(), before.clone()));
        eventually("a renewal", async || fs::metadata(in_files.join("tls.crt")).is_ok() && serial(&in_files) != renewed).await;
        assert_eq!(others(&in_files).await, before);
        assert!(federated.node.status(&[]).contains("partner.json cannot be read"), "{}", federated.node.status(&[]));
        // A new pod does not wait for another trust domain.
        let late = kubelet.publish(&spiffe_pod("web-2", &[asked])).await.unwrap();
        let ids = |all: Vec<(String, Vec<u8>)>| all.into_iter().map(|(id, _)| id).collect::<Vec<_>>();
        assert_eq!(ids(on_socket(&late).await), ["spiffe://example.org", "spiffe://third.org"]);
        assert_eq!(in_file(&late, "partner.org"), None);
        assert!(federated.node.log().contains("served without a federated trust bundle until it can be read: the trust bundle of partner.org: "));
        let mut stream = svids(&late).await.unwrap();
        next(&mut stream).await.unwrap();
        put(&federated.partner, &document(&[&federated.roots[0]]));
        assert_eq!(next(&mut stream).await.unwrap().federated_bundles.len(), 2);
        federated.node.stop();
    }
}

node_test! {
    async fn a_federated_change_is_handed_over_while_the_own_source_cannot_be_read() {
        let mut federated = Federated::new();
        let (own_file, own) = (federated.node.root.join("own.pem"), root("own"));
        put(&own_file, &pem(&own));
        federated.node.flag(&format!("--ca-source={}", own_file.display()));
        let kubelet = federated.node.started().await;
        let volume = kubelet.publish(&spiffe_pod("web-0", &[("federated-bundles", "*")])).await.unwrap();
        federated.node.kill();
        fs::remove_file(&own_file).unwrap();
        federated.node.started().await;
        let next = root("third 2");
        put(&federated.third, &pem(&next));
        eventually("the change", async || in_file(&volume, "third.org") == Some(pem(&next))).await;
        assert_eq!(fs::read_to_string(volume.join("ca.crt")).unwrap(), pem(&own));
        assert_eq!(on_socket(&volume).await[0], ("spiffe://example.org".to_owned(), own));
        federated.node.stop();
    }
}

node_test! {
    async fn a_trust_domain_that_the_operator_removes_is_not_trusted_any_more() {
        let mut federated = Federated::new();
        let kubelet = federated.node.started().await;
        let volume = kubelet.publish(&spiffe_pod("web-0", &[("federated-bundles", "*")])).await.unwrap();
        let before = serial(&volume);
        federated.node.kill();
        federated.node.replace_flag(&third_flag(&federated.third), "--log-level=info");
        let kubelet = federated.node.started().await;
        eventually("the file is gone", async || in_file(&volume, "third.org").is_none()).await;
        assert_eq!(on_socket(&volume).await.len(), 2);
        assert_eq!(in_file(&volume, "partner.org"), Some(pem(&federated.roots[0])));
        assert_eq!(serial(&volume), before);
        let refused = kubelet.publish(&spiffe_pod("web-1", &[("federated-bundles", "third.org")])).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains("federates with: partner.org"), "{refused:?}");
        // Without any of them, a running volume stays.
        federated.node.kill();
        federated.node.replace_flag(&partner_flag(&federated.partner), "--min-renewal-interval=0");
        federated.node.started().await;
        eventually("no file is left", async || in_file(&volume, "partner.org").is_none()).await;
        assert_eq!(on_socket(&volume).await.len(), 1);
        federated.node.stop();
    }
}

node_test! {
    async fn a_trust_domain_that_grows_too_large_displaces_nothing() {
        let mut federated = Federated::new();
        let kubelet = federated.node.started().await;
        let volume = kubelet.publish(&spiffe_pod("web-0", &[("federated-bundles", "*")])).await.unwrap();
        let many: Vec<_> = (0..60).map(|number| root(&format!("partner {number}"))).collect();
        put(&federated.partner, &document(&many.iter().map(Vec::as_slice).collect::<Vec<_>>()));
        eventually("a warning", async || federated.node.log().contains("a federated trust bundle is too large")).await;
        assert_eq!(in_file(&volume, "partner.org"), Some(pem(&federated.roots[0])));
        let third = root("third 2");
        put(&federated.third, &pem(&third));
        eventually("the other one", async || in_file(&volume, "third.org") == Some(pem(&third))).await;
        assert_eq!(in_file(&volume, "partner.org"), Some(pem(&federated.roots[0])));
        federated.node.stop();
    }
}

node_test! {
    async fn flags_that_cannot_be_are_refused() {
        let refused = |flags: &[&str]| {
            let output = Node::with_flags(flags).command().output().unwrap();
            assert!(!output.status.success(), "{flags:?}");
            String::from_utf8_lossy(&output.stderr).into_owned()
        };
        let own = refused(&["--trust-domain=example.org", "--federated-bundle=example.org=/a.pem"]);
        assert!(own.contains("--federated-bundle example.org: is the --trust-domain of this driver"), "{own}");
        let long = format!("--federated-bundle={}=/a.pem", "a".repeat(230));
        for (flag, said) in [
            ("--federated-bundle=partner.org", "has no ="),
            ("--federated-bundle=spiffe://partner.org=/a.pem", "has the character ':'"),
            ("--federated-bundle=Partner.org=/a.pem", "has the character 'P'"),
            ("--federated-bundle=partner.org=a.pem", "is no trust source"),
            ("--federated-bundle=partner.org=spiffe-bundle:a.json", "or spiffe-bundle: with a file or a ConfigMap"),
            ("--federated-bundle=partner.org=signer", "names no anchors of partner.org"),
            (&long, "is 230 bytes long"),
        ] {
            let error = refused(&[flag]);
            assert!(error.contains(said), "{flag}: {error}");
        }
    }
}

node_test! {
    async fn the_own_trust_bundle_can_be_a_spiffe_bundle_document_too() {
        let mut node = Node::new();
        let (file, own) = (node.root.join("own.json"), root("own"));
        put(&file, &document(&[&own]));
        node.flag(&format!("--ca-source=spiffe-bundle:{}", file.display()));
        let volume = node.started().await.publish(&spiffe_pod("web-0", &[])).await.unwrap();
        assert_eq!(on_socket(&volume).await, [("spiffe://example.org".to_owned(), own.clone())]);
        assert_eq!(fs::read_to_string(volume.join("ca.crt")).unwrap(), pem(&own));
        node.stop();
    }
}

node_test! {
    async fn the_layout_envoy_has_one_file_with_all_trust_domains() {
        let mut federated = Federated::new();
        let kubelet = federated.node.started().await;
        let pod = spiffe_pod("web-0", &[("federated-bundles", "*"), ("layout", "envoy")]);
        let volume = kubelet.publish(&pod).await.unwrap();
        let text = fs::read_to_string(volume.join("ALL.yaml")).unwrap();
        for domain in ["example.org", "partner.org", "third.org"] {
            assert_eq!(text.matches(&format!("- name: \"{domain}\"")).count(), 1, "{text}");
        }
        let own = fs::read_to_string(volume.join("ROOTCA.yaml")).unwrap();
        assert_eq!(own.matches("BEGIN CERTIFICATE").count(), 1);
        let spiffe = spiffe_pod("web-1", &[("federated-bundles", "*"), ("layout", "spiffe")]);
        let volume = kubelet.publish(&spiffe).await.unwrap();
        for domain in ["example.org", "partner.org", "third.org"] {
            assert_eq!(in_file(&volume, domain).unwrap().matches("BEGIN CERTIFICATE").count(), 1, "{SPIFFE_ID}");
        }
        federated.node.stop();
    }
}
