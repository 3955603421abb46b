//! SPIFFE identities, layouts, and tokens that belong to another pod.

use crate::node_test;
use crate::support::{self, Node, assert_whole, eventually, openssl};
use base64ct::{Base64UrlUnpadded, Encoding};
use certlet_kubelet::Pod;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use tonic::Code;

const ID: &str = "spiffe://example.org/ns/shop/sa/default";
const CREDENTIAL_BUNDLE: &str = "credential-bundle.private-key.x509.pem";

/// A pod with a SPIFFE identity from the local signer.
fn spiffe_pod(name: &str, attributes: &[(&str, &str)]) -> Pod {
    support::pod_of(&[("signer", "local"), ("spiffe", "true")], name, attributes)
}

fn node() -> Node {
    Node::with_flags(&["--allow-local-signer", "--trust-domain=example.org", "--min-renewal-interval=0"])
}

/// A layout with the files that hold key, chain and trust anchors, and all its files.
type Files = (&'static str, [&'static str; 3], &'static [&'static str]);

const LAYOUTS: [Files; 4] = [
    ("default", ["tls.key", "tls.crt", "ca.crt"], &["ca.crt", "tls.crt", "tls.key"]),
    (
        "istio",
        ["key.pem", "cert-chain.pem", "root-cert.pem"],
        &["cert-chain.pem", "key.pem", "root-cert.pem"],
    ),
    (
        "spiffe",
        [CREDENTIAL_BUNDLE, CREDENTIAL_BUNDLE, "example.org.spiffe-trust-bundle.x509.pem"],
        &[CREDENTIAL_BUNDLE, "example.org.spiffe-trust-bundle.x509.pem", "hints.json"],
    ),
    ("envoy", ["default.yaml", "default.yaml", "ROOTCA.yaml"], &["ROOTCA.yaml", "default.yaml"]),
];

/// The PEM blocks of a file whose label ends so, without indentation.
fn blocks(file: &Path, label: &str) -> String {
    let text = fs::read_to_string(file).unwrap();
    let mut found = String::new();
    let mut is_wanted = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with("-----BEGIN ") {
            is_wanted = line.ends_with(&format!("{label}-----"));
        }
        if is_wanted && !line.is_empty() {
            found.push_str(line);
            found.push('\n');
        }
        is_wanted &= !line.starts_with("-----END ");
    }
    found
}

/// A copy of the volume in the layout `default`.
fn as_default(node: &Node, volume: &Path, [key, chain, ca]: [&str; 3]) -> PathBuf {
    let copy = node.root.join("copy");
    fs::create_dir_all(&copy).unwrap();
    for (name, file, label) in
        [("tls.key", key, "PRIVATE KEY"), ("tls.crt", chain, "CERTIFICATE"), ("ca.crt", ca, "CERTIFICATE")]
    {
        fs::write(copy.join(name), blocks(&volume.join(file), label)).unwrap();
    }
    copy
}

fn names(volume: &Path) -> BTreeSet<String> {
    let names = fs::read_dir(volume).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| !name.starts_with("..")).collect()
}

node_test! {
    async fn a_spiffe_volume_has_the_pods_id_and_no_other_name() {
        let mut node = node();
        let kubelet = node.started().await;
        let volume = kubelet.publish(&spiffe_pod("web-0", &[])).await.unwrap();
        assert_whole(&volume);
        let leaf = volume.join("tls.crt");
        let text = openssl(&["x509", "-in", leaf.to_str().unwrap(), "-noout", "-text"]).stdout;
        let text = String::from_utf8(text).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains("Subject: Subject Public Key Info:"), "{text}");
        assert!(text.contains(&format!("X509v3 Subject Alternative Name: critical URI:{ID} ")), "{text}");
        assert!(text.contains("X509v3 Key Usage: critical Digital Signature, Key Encipherment "), "{text}");
        assert!(text.contains("TLS Web Server Authentication, TLS Web Client Authentication"), "{text}");
        assert!(text.contains("ASN1 OID: prime256v1"), "{text}");
    }
}

node_test! {
    async fn every_layout_has_its_files_and_they_are_whole() {
        let mut node = node();
        let kubelet = node.started().await;
        for (layout, parts, all) in LAYOUTS {
            let volume = kubelet.publish(&spiffe_pod(&format!("web-{layout}"), &[("layout", layout)])).await.unwrap();
            assert_eq!(names(&volume), all.iter().map(|name| (*name).to_owned()).collect(), "{layout}");
            assert_whole(&as_default(&node, &volume, parts));
        }
    }
}

node_test! {
    async fn the_key_of_every_layout_is_read_back_after_a_restart() {
        let mut node = node();
        let kubelet = node.started().await;
        let reused = [("reuse-private-key", "true"), ("duration", "10m"), ("renew-before", "9m58s")];
        let mut volumes = Vec::new();
        for (layout, parts, _) in LAYOUTS {
            let pod = spiffe_pod(&format!("web-{layout}"), &[&reused[..], &[("layout", layout)]].concat());
            volumes.push((kubelet.publish(&pod).await.unwrap(), parts));
        }
        node.kill();
        let before: Vec<_> = volumes.iter().map(|(volume, [key, chain, _])| {
            (blocks(&volume.join(key), "PRIVATE KEY"), blocks(&volume.join(chain), "CERTIFICATE"))
        }).collect();
        node.started().await;
        for ((volume, parts), (key, chain)) in volumes.iter().zip(before) {
            // A file that is replaced while it is opened is not found.
            let now = || fs::read_to_string(volume.join(parts[1])).ok().map(|_| blocks(&volume.join(parts[1]), "CERTIFICATE"));
            eventually("a renewal", async || now().is_some_and(|now| now != chain)).await;
            assert_eq!(blocks(&volume.join(parts[0]), "PRIVATE KEY"), key, "{parts:?}");
        }
        // Renewals go on, so files are compared when nothing writes them.
        node.kill();
        for (volume, parts) in volumes {
            assert_whole(&as_default(&node, &volume, parts));
        }
    }
}

node_test! {
    async fn a_changed_trust_domain_applies_at_the_next_renewal_and_a_removed_one_leaves_the_id() {
        let mut node = node();
        let renewed = [("layout", "spiffe"), ("duration", "10m"), ("renew-before", "9m58s")];
        let volume = node.started().await.publish(&spiffe_pod("web-0", &renewed)).await.unwrap();
        node.stop();
        let of = |domain: &str| [CREDENTIAL_BUNDLE.to_owned(), format!("{domain}.spiffe-trust-bundle.x509.pem"), "hints.json".to_owned()].into();
        assert_eq!(names(&volume), of("example.org"));
        let mut other = Node::with_flags(&[
            "--allow-local-signer", "--trust-domain=example.net", "--min-renewal-interval=0",
            "--spiffe-id-template=spiffe://{trustDomain}/{podName}",
        ]);
        other.started().await;
        eventually("the ID of the new trust domain", async || names(&volume) == of("example.net")).await;
        other.stop();
        let leaf = blocks(&volume.join(CREDENTIAL_BUNDLE), "CERTIFICATE");
        let mut without = Node::with_flags(&["--allow-local-signer", "--min-renewal-interval=0"]);
        let kubelet = without.started().await;
        eventually("a renewal without a trust domain", async || {
            fs::read_to_string(volume.join(CREDENTIAL_BUNDLE)).is_ok_and(|_| blocks(&volume.join(CREDENTIAL_BUNDLE), "CERTIFICATE") != leaf)
        }).await;
        assert_eq!(names(&volume), of("example.net"));
        let refused = kubelet.publish(&spiffe_pod("web-1", &[])).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains("csi.certlet.io/spiffe: \"true\" needs a trust domain") && refused.message().contains("--trust-domain"), "{refused:?}");
    }
}

node_test! {
    async fn a_token_of_another_pod_is_refused_and_in_no_log() {
        let mut node = node();
        let kubelet = node.started().await;
        let pod = spiffe_pod("web-0", &[]);
        let with_token = |account: &str| {
            let claims = serde_json::json!({ "kubernetes.io": {
                "namespace": "shop", "pod": { "name": "web-0", "uid": pod.uid }, "serviceaccount": { "name": account },
            }});
            let claims = Base64UrlUnpadded::encode_string(claims.to_string().as_bytes());
            let tokens = format!(r#"{{"":{{"token":"e30.{claims}.c2lnbmF0dXJl","expirationTimestamp":"2030-01-01T00:00:00Z"}}}}"#);
            let mut request = kubelet.publish_request(&pod);
            request.volume_context.insert("csi.storage.k8s.io/serviceAccount.tokens".to_owned(), tokens);
            (request, claims)
        };
        std::fs::create_dir_all(kubelet.target(&pod).parent().unwrap()).unwrap();
        let (other, claims) = with_token("admin");
        let refused = kubelet.publish_with(other).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        for part in ["serviceAccount.tokens: ", "the service account \"admin\"", "the service account \"default\"", "\"shop/web-0\""] {
            assert!(refused.message().contains(part), "{refused:?}");
        }
        assert!(!refused.message().contains(&claims) && !node.log().contains(&claims));
        kubelet.publish_with(with_token("default").0).await.unwrap();
        assert_whole(&kubelet.target(&pod));
    }
}

node_test! {
    async fn flags_that_make_no_spiffe_id_end_the_driver_with_their_name() {
        for (flags, named) in [
            (&["--trust-domain=Example.org"][..], "--trust-domain: \"Example.org\""),
            (&["--trust-domain=example.org", "--spiffe-id-template=spiffe://{trustDomain}/{node}"], "--spiffe-id-template: "),
            (&["--spiffe-id-template=spiffe://{trustDomain}/{namespace}"], "--trust-domain"),
            (&["--default-issuer-name=A b"], "--default-issuer-name"),
            (&["--default-issuer-kind=Issuer"], "--default-issuer-name"),
        ] {
            let output = Node::with_flags(flags).command().output().unwrap();
            assert_eq!(output.status.code(), Some(2), "{output:?}");
            let error = String::from_utf8(output.stderr).unwrap();
            assert!(error.contains(named), "{error}");
        }
    }
}
