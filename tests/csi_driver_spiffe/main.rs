//! In place of csi-driver-spiffe: under its name, with its flags, for its volumes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "other tests use more of it")]
#[path = "../support/cert_manager.rs"]
mod cert_manager;
#[path = "../support/certificate_requests.rs"]
mod certificate_requests;
#[allow(dead_code, reason = "pca_fake tests the error cases of AWS Private CA")]
#[path = "../support/fake_pca/mod.rs"]
mod fake_pca;
mod issuer;
#[path = "../support/mod.rs"]
mod support;

use base64ct::{Base64, Base64UrlUnpadded, Encoding};
use cert_manager::{Authority, Cluster};
use certlet_kubelet::{Kubelet, Pod};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyUsagePurpose};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use support::openssl;
use tonic::Code;

const DRIVER: &str = "spiffe.csi.cert-manager.io";
const ID: &str = "spiffe://cluster.local/ns/shop/sa/default";
const IDENTITY: &str = "spiffe.csi.cert-manager.io/identity";
/// The flags of the modes in which requests come from the driver's account.
const OWN_ACCOUNT: &str = "--use-own-service-account=true";

/// A driver with the name of csi-driver-spiffe.
async fn start(flags: &[&str]) -> Cluster {
    Cluster::start(|node| {
        node.driver(DRIVER);
        for flag in flags {
            node.flag(flag);
        }
    })
    .await
}

/// A pod whose volume has these attributes, given without their prefix.
fn pod(name: &str, attributes: &[(&str, &str)]) -> Pod {
    Pod::new("shop", name, attributes.iter().map(|(key, value)| (format!("{DRIVER}/{key}"), *value)))
}

/// Publishes a volume that the CA signs, and returns its request.
async fn publish(cluster: &Cluster, pod: &Pod) -> Value {
    let authority = Authority::new("spiffe-ca");
    let mut request = Value::Null;
    cluster
        .publish_with(pod, |object| {
            request = object.clone();
            authority.sign(object, with_usages)
        })
        .await
        .unwrap();
    request
}

/// The usages that cert-manager takes from the CertificateRequest.
fn with_usages(params: &mut CertificateParams) {
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
}

/// What openssl shows of a signing request.
fn shown(request: &Value) -> String {
    let csr = Base64::decode_vec(request["spec"]["request"].as_str().unwrap()).unwrap();
    let file = std::env::temp_dir().join("request.pem");
    fs::write(&file, csr).unwrap();
    let text = openssl(&["req", "-in", file.to_str().unwrap(), "-noout", "-text", "-verify"]).stdout;
    String::from_utf8(text).unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
}

fn names(volume: &Path) -> BTreeSet<String> {
    let names = fs::read_dir(volume).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| !name.starts_with("..")).collect()
}

/// The kubelet's publish with a token of the pod.
async fn publish_with_token(kubelet: &Kubelet, pod: &Pod) -> String {
    let claims = json!({ "kubernetes.io": {
        "namespace": pod.namespace, "pod": { "name": pod.name, "uid": pod.uid },
        "serviceaccount": { "name": pod.service_account },
    }});
    let token = format!("e30.{}.c2ln", Base64UrlUnpadded::encode_string(claims.to_string().as_bytes()));
    let tokens = json!({ "": { "token": token, "expirationTimestamp": "2130-01-01T00:00:00Z" } });
    let mut request = kubelet.publish_request(pod);
    request.volume_context.insert("csi.storage.k8s.io/serviceAccount.tokens".to_owned(), tokens.to_string());
    fs::create_dir_all(kubelet.target(pod).parent().unwrap()).unwrap();
    kubelet.publish_with(request).await.unwrap();
    token
}

node_test! {
    async fn a_volume_without_attributes_is_served_as_csi_driver_spiffe_serves_it() {
        let cluster = start(&[OWN_ACCOUNT]).await;
        let pod = pod("web-0", &[]);
        let request = publish(&cluster, &pod).await;
        assert_eq!(request["metadata"]["namespace"], "shop");
        assert_eq!(request["metadata"]["annotations"][IDENTITY], ID);
        let spec = &request["spec"];
        assert_eq!(spec["issuerRef"], json!({ "name": "my-spiffe-ca", "kind": "ClusterIssuer", "group": "cert-manager.io" }));
        assert_eq!(spec["usages"], json!(["digital signature", "key encipherment", "server auth", "client auth"]));
        assert_eq!((&spec["duration"], &spec["isCA"]), (&json!("1h0m0s"), &Value::Null));
        let text = shown(&request);
        assert!(text.contains("Subject: Subject Public Key Info:") && text.contains("ASN1 OID: prime256v1"), "{text}");
        assert!(text.contains(&format!("Requested Extensions: X509v3 Subject Alternative Name: critical URI:{ID} Signature")), "{text}");
        let volume = cluster.kubelet.target(&pod);
        assert_eq!(names(&volume), ["tls.crt", "tls.key"].map(str::to_owned).into());
        assert!(fs::read_to_string(volume.join("tls.key")).unwrap().starts_with("-----BEGIN PRIVATE KEY-----"));
        let key = fs::metadata(volume.join("tls.key")).unwrap();
        assert_eq!((key.permissions().mode() & 0o777, key.uid(), key.gid()), (0o440, 0, 0));
        assert!(!cluster.node.log().contains("served as csi-driver-spiffe does"));
        let status: Value = serde_json::from_str(&cluster.node.status(&["--json", "--driver-name", DRIVER])).unwrap();
        assert!(status[0]["remark"].is_null(), "{status}");
    }
}

node_test! {
    async fn requests_come_from_the_pods_account_unless_the_driver_uses_its_own() {
        for (flags, is_pods) in [(&[][..], true), (&["--use-own-service-account=false"], true), (&["--use-own-service-account"], false)] {
            let mut cluster = start(flags).await;
            let signing = cluster.sign_all(Authority::new("spiffe-ca"));
            let token = publish_with_token(&cluster.kubelet, &pod("web-0", &[])).await;
            signing.abort();
            assert_eq!(cluster.server.tokens(), [is_pods.then_some(token)], "{flags:?}");
            cluster.kubelet.unpublish(&pod("web-0", &[])).await.unwrap();
            cluster.node.stop();
        }
    }
}

node_test! {
    async fn the_flags_of_csi_driver_spiffe_are_accepted_as_they_are() {
        let mut cluster = Cluster::start(|node| {
            node.driver(DRIVER);
            // As its chart gives them, with other values.
            for flag in [
                "--log-level=3", "--certificate-request-duration=30m", "--issuer-name=ca", "--issuer-kind=Issuer",
                "--issuer-group=example.org", "--trust-domain=example.org", "--file-name-certificate=svid.pem",
                "--file-name-key=svid.key", "--file-name-ca=roots.pem", "--runtime-issuance-config-map-name=",
                "--runtime-issuance-config-map-namespace=cert-manager",
                "--extra-certificate-request-annotations=hello=world,example.org/test=annotation,spiffe.csi.cert-manager.io/identity=x",
                OWN_ACCOUNT,
            ] {
                node.flag(flag);
            }
        }).await;
        let pod = pod("web-0", &[]);
        let request = publish(&cluster, &pod).await;
        let annotations = &request["metadata"]["annotations"];
        assert_eq!((&annotations["hello"], &annotations["example.org/test"]), (&json!("world"), &json!("annotation")));
        assert_eq!(annotations[IDENTITY], "spiffe://example.org/ns/shop/sa/default");
        assert_eq!(request["spec"]["issuerRef"], json!({ "name": "ca", "kind": "Issuer", "group": "example.org" }));
        assert_eq!(request["spec"]["duration"], "30m0s");
        assert_eq!(names(&cluster.kubelet.target(&pod)), ["svid.key", "svid.pem"].map(str::to_owned).into());
        assert!(cluster.node.log().contains("--extra-certificate-request-annotations: left out"), "{}", cluster.node.log());
        cluster.node.stop();
    }
}

node_test! {
    async fn with_a_source_of_trust_anchors_there_is_a_file_of_them_and_the_issuers_ca_is_ignored() {
        let roots = Authority::new("roots").pem;
        let cluster = Cluster::start(|node| {
            let file = node.root.join("roots.pem");
            fs::write(&file, &roots).unwrap();
            node.driver(DRIVER);
            node.flag(OWN_ACCOUNT);
            node.flag(&format!("--source-ca-bundle={}", file.display()));
        }).await;
        let pod = pod("web-0", &[]);
        publish(&cluster, &pod).await;
        let volume = cluster.kubelet.target(&pod);
        assert_eq!(names(&volume), ["ca.crt", "tls.crt", "tls.key"].map(str::to_owned).into());
        let anchors = fs::read_to_string(volume.join("ca.crt")).unwrap();
        assert_eq!(anchors.split_whitespace().collect::<String>(), roots.split_whitespace().collect::<String>());
    }
}

node_test! {
    async fn the_group_of_the_files_is_the_attributes_or_else_the_pods() {
        let cluster = start(&[OWN_ACCOUNT]).await;
        let mut of_pod = pod("web-0", &[]);
        of_pod.fs_group = Some(3000);
        let mut of_attribute = pod("web-1", &[("fs-group", "2000")]);
        of_attribute.fs_group = Some(3000);
        for (pod, group) in [(of_pod, 3000), (of_attribute, 2000)] {
            publish(&cluster, &pod).await;
            let key = fs::metadata(cluster.kubelet.target(&pod).join("tls.key")).unwrap();
            assert_eq!((key.permissions().mode() & 0o777, key.gid()), (0o440, group));
        }
        for odd in ["0", "-1", "4294967296", "staff"] {
            let refused = cluster.kubelet.publish(&pod("web-2", &[("fs-group", odd)])).await.unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument, "{odd}");
            assert!(refused.message().contains("spiffe.csi.cert-manager.io/fs-group") && refused.message().contains("from 1 to"), "{refused:?}");
        }
        let mut writable = cluster.kubelet.publish_request(&pod("web-3", &[]));
        writable.readonly = false;
        assert_eq!(cluster.kubelet.publish_with(writable).await.unwrap_err().code(), Code::InvalidArgument);
    }
}

node_test! {
    async fn attributes_that_the_operator_does_not_allow_are_ignored_with_a_warning_that_names_the_flag() {
        let asked = [("duration", "2h"), ("renew-before", "30m"), ("dns-names", "web.shop.svc"), ("frobnicate", "1")];
        for (flags, duration, dns, warned) in [
            (&[OWN_ACCOUNT][..], "1h0m0s", false, &["duration", "renew-before", "dns-names"][..]),
            (&[OWN_ACCOUNT, "--spiffe-attributes=duration,renew-before,dns-names"], "2h0m0s", true, &[]),
            (&[OWN_ACCOUNT, "--spiffe-attributes=duration"], "2h0m0s", false, &["renew-before", "dns-names"]),
        ] {
            let mut cluster = start(flags).await;
            let pod = Pod { attributes: [&pod("web-0", &asked).attributes[..], &[("example.org/team".into(), "shop".into())]].concat(), ..pod("web-0", &[]) };
            let request = publish(&cluster, &pod).await;
            assert_eq!(request["spec"]["duration"], duration, "{flags:?}");
            assert!(request["metadata"]["annotations"]["example.org/team"].is_null());
            let text = shown(&request);
            assert_eq!(text.contains("DNS:web.shop.svc"), dns, "{text}");
            assert!(text.contains("Alternative Name: critical") && text.contains(&format!("URI:{ID}")), "{text}");
            let log = cluster.node.log();
            let line = log.lines().rev().find(|line| line.contains("served as csi-driver-spiffe does")).unwrap();
            for (name, _) in &asked[..3] {
                let flag = format!("--spiffe-attributes={name}");
                assert_eq!(line.contains(&flag), warned.contains(name), "{flags:?} {name}: {line}");
            }
            assert!(line.contains("frobnicate") && line.contains("example.org/team"), "{line}");
            cluster.kubelet.unpublish(&pod).await.unwrap();
            cluster.node.stop();
        }
    }
}

node_test! {
    async fn names_that_the_issuer_adds_are_served() {
        let cluster = start(&[OWN_ACCOUNT]).await;
        let authority = Authority::new("spiffe-ca");
        let pod = pod("web-0", &[]);
        cluster.publish_with(&pod, |object| authority.sign(object, |params| {
            with_usages(params);
            params.subject_alt_names.push(rcgen::SanType::DnsName("web".try_into().unwrap()));
        })).await.unwrap();
        assert!(cluster.node.log().contains("the certificate is in use, but"), "{}", cluster.node.log());
    }
}

node_test! {
    async fn a_running_volume_is_renewed_after_a_restart() {
        let mut cluster = start(&[OWN_ACCOUNT, "--min-renewal-interval=0", "--spiffe-attributes=renew-before"]).await;
        let pod = pod("web-0", &[("renew-before", "59m55s")]);
        publish(&cluster, &pod).await;
        let volume = cluster.kubelet.target(&pod);
        let first = support::serial(&volume);
        cluster.restart(|_| {}).await;
        let signing = cluster.sign_all(Authority::new("spiffe-ca"));
        support::eventually("a renewal", async || support::serial(&volume) != first).await;
        signing.abort();
        assert_eq!(names(&volume), ["tls.crt", "tls.key"].map(str::to_owned).into());
    }
}

#[test]
fn flags_that_cannot_work_end_the_driver_with_their_name() {
    for (flags, named) in [
        (&["--issuer-name="][..], "--issuer-name: is empty"),
        (&["--file-name-key=a/b"], "--file-name-key: \"a/b\" has a slash"),
        (&["--file-name-key=tls.crt"], "--file-name-key: \"tls.crt\" is also another file"),
        (
            &["--extra-certificate-request-annotations=a b=c"],
            "--extra-certificate-request-annotations: \"a b\"",
        ),
        (&["--extra-certificate-request-annotations=a"], "--extra-certificate-request-annotations"),
        (&["--spiffe-attributes=key-size"], "--spiffe-attributes"),
        (&["--use-own-service-account=perhaps"], "--use-own-service-account"),
        (&["--use-own-service-account", "--use-token-request"], "--use-own-service-account"),
        (&["--runtime-issuance-config-map-name=issuer"], "--runtime-issuance-config-map-namespace"),
        (&["--certificate-request-duration=0"], "--certificate-request-duration"),
        (&["--log-level=11"], "--log-level"),
    ] {
        let mut command = std::process::Command::new(support::CERTLET);
        let output =
            command.args(["node", "--node-id=n", "--csi-driver-name", DRIVER]).args(flags).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{flags:?}: {said}");
        assert!(said.contains(named), "{flags:?}: {said}");
    }
}
