//! `certlet explain`: what attributes ask for, offline.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use serde_json::Value;
use std::process::{Command, Output};
use support::{CERTLET, openssl};

fn run(flags: &[&str], attributes: &[&str]) -> Output {
    let mut command = Command::new(CERTLET);
    command.arg("explain").args(flags);
    for attribute in attributes {
        command.args(["--attributes", attribute]);
    }
    command.output().unwrap()
}

fn explained(flags: &[&str], attributes: &[&str]) -> String {
    let output = run(flags, attributes);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What openssl reads in the request of an output.
fn request(text: &str) -> String {
    let begin = text.find("-----BEGIN CERTIFICATE REQUEST-----").unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &text[begin..]).unwrap();
    let output = openssl(&["req", "-in", file.path().to_str().unwrap(), "-noout", "-verify", "-text"]);
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

const POD: [&str; 2] = ["--pod=shop/cart-0", "--service-account=cart"];

#[test]
fn words_and_request_say_the_same() {
    let attributes =
        ["issuer-name=internal-ca", "services=cart", "common-name=${POD_NAME}", "ip-sans=10.0.0.1"];
    let text = explained(&POD, &attributes);
    for line in [
        "pod shop/cart-0, service account cart",
        "signed by:     cert-manager, Issuer internal-ca (cert-manager.io) in the namespace shop",
        "subject:       CN=cart-0",
        "DNS names:     cart\n               cart.shop\n               cart.shop.svc\n               cart.shop.svc.cluster.local",
        "IP addresses:  10.0.0.1",
        "lifetime:      24h, as far as the signer allows; renewed when a third of it is left",
        "private key:   ECDSA, 256 bits, PKCS8, a new one for each certificate",
        "files:         tls.crt: the certificate and its intermediates",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert!(!text.contains("warning"), "{text}");
    let request = request(&text);
    let names =
        "DNS:cart, DNS:cart.shop, DNS:cart.shop.svc, DNS:cart.shop.svc.cluster.local, IP Address:10.0.0.1";
    assert!(request.contains(names) && request.contains("Subject: CN = cart-0"), "{request}");
}

#[test]
fn the_operators_flags_shape_the_spec() {
    let flags = [
        &POD[..],
        &["--trust-domain=example.org", "--default-issuer-name=mesh", "--ca-source=clustertrustbundle:roots"],
    ]
    .concat();
    let text = explained(&flags, &["spiffe=true", "layout=spiffe"]);
    for line in [
        "cert-manager, the operator's issuer, ClusterIssuer mesh (cert-manager.io)",
        "URIs:          spiffe://example.org/ns/shop/sa/cart",
        "example.org.spiffe-trust-bundle.x509.pem: the trust anchors",
        "trusts:        clustertrustbundle:roots",
        "lifetime:      1h,",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert!(request(&text).contains("URI:spiffe://example.org/ns/shop/sa/cart"));
}

#[test]
fn the_address_of_the_pod_is_filled_in_or_asked_for() {
    let attributes = ["signer=local", "ip-sans=${POD_IP}", "dns-names=${NODE_NAME}"];
    let flags = ["--node-name=node-1"];
    let text = explained(&flags, &attributes);
    assert!(text.contains("${POD_IP}: the address of the pod, once it has one"), "{text}");
    assert!(text.contains("warning: ${POD_IP}: the signing request below lacks the address"), "{text}");
    let text = explained(&[&flags[..], &["--pod-ip=10.1.2.3"]].concat(), &attributes);
    assert!(text.contains("IP addresses:  10.1.2.3") && !text.contains("warning"), "{text}");
    assert!(request(&text).contains("DNS:node-1, IP Address:10.1.2.3"));
}

const CLASSES: &str = "
version: 1
default: mesh
classes:
  mesh:
    use: { namespaces: [shop] }
    attributes: { issuer-name: internal-ca, issuer-kind: ClusterIssuer, spiffe: 'true', duration: 1h }
    trustDomain: mesh.example
    allow: [layout, duration]
  bank:
    use: { namespaces: [bank] }
    attributes: { issuer-name: bank, dns-names: a.example }
";

/// The output with [`CLASSES`].
fn of_class(flags: &[&str], attributes: &[&str]) -> Output {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), CLASSES).unwrap();
    let classes = format!("--class={}", file.path().display());
    run(&[flags, &[&classes]].concat(), attributes)
}

#[test]
fn what_a_class_gives_and_what_a_pod_may_set_is_told() {
    let output = of_class(&POD, &["class=mesh", "duration=2h"]);
    let text = String::from_utf8(output.stdout).unwrap();
    for line in [
        "class:         mesh\n",
        "class gives:   issuer-kind: ClusterIssuer\n               issuer-name: internal-ca\n               spiffe: true\n               trustDomain: mesh.example\n",
        "pod may set:   duration, layout\n",
        "signed by:     cert-manager, ClusterIssuer internal-ca (cert-manager.io)\n",
        "URIs:          spiffe://mesh.example/ns/shop/sa/cart\n",
        "lifetime:      2h,",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    let json: Value =
        serde_json::from_slice(&of_class(&[&POD[..], &["-o", "json"]].concat(), &[]).stdout).unwrap();
    assert_eq!((&json["class"]["name"], &json["class"]["is_default"]), (&"mesh".into(), &true.into()));
    assert_eq!(json["class"]["gives"]["duration"], "1h");
    assert_eq!(json["class"]["allows"], serde_json::json!(["duration", "layout"]));
    // Volumes without a class are as they are without the file.
    let own = of_class(&POD, &["signer=local", "dns-names=a"]);
    assert!(own.status.success() && !String::from_utf8(own.stdout).unwrap().contains("class"));
}

#[test]
fn what_a_class_refuses_is_refused_with_the_words_of_the_event() {
    for (flags, attributes, said) in [
        (
            &POD[..],
            &["class=mesh", "issuer-name=other"][..],
            "csi.certlet.io/issuer-name: is decided by the class \"mesh\", and a pod cannot change it",
        ),
        (
            &POD,
            &["class=bank"],
            "csi.certlet.io/class: the class \"bank\" is not for the service account \"cart\" in the namespace \"shop\"; accepted: mesh",
        ),
        (&POD, &["class=other"], "csi.certlet.io/class: \"other\" is not a class; accepted: mesh"),
        (
            &[&POD[..], &["--require-class"]].concat(),
            &["signer=local", "dns-names=a"],
            "csi.certlet.io/class: is required (--require-class)",
        ),
    ] {
        let output = of_class(flags, attributes);
        let found = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && found.starts_with(&format!("certlet: {said}")), "{found}");
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), CLASSES.replace("duration: 1h", "duration: 1d")).unwrap();
    let classes = format!("--class={}", file.path().display());
    let found = String::from_utf8(run(&[&classes], &[]).stderr).unwrap();
    let said = format!(
        "certlet: --classes {}: class \"mesh\": csi.certlet.io/duration: \"1d\" has",
        file.path().display()
    );
    assert!(found.starts_with(&said), "{found}");
    let found = String::from_utf8(run(&[], &["class=mesh"]).stderr).unwrap();
    assert!(found.contains("\"mesh\" is not a class: the driver runs without --classes"), "{found}");
}

#[test]
fn json_has_the_same() {
    let attributes = ["csi.cert-manager.io/issuer-name=ca", "csi.cert-manager.io/dns-names=a."];
    let json: Value = serde_json::from_str(&explained(&["-o", "json"], &attributes)).unwrap();
    assert_eq!(json["prefix"], "csi.cert-manager.io");
    assert_eq!(json["dns_names"], serde_json::json!(["a."]));
    assert_eq!(json["key"]["algorithm"], "RSA");
    assert_eq!(json["usages"], serde_json::json!(["digital signature", "key encipherment"]));
    assert!(json["warnings"][0].as_str().unwrap().contains("has an empty label"), "{json}");
    assert!(request(json["certificate_request"].as_str().unwrap()).contains("DNS:a."));
}

#[test]
fn a_password_is_not_shown() {
    let attributes = ["signer=local", "dns-names=a", "pkcs12-enable=true", "pkcs12-password=hunter22"];
    for form in ["text", "json"] {
        let text = explained(&["-o", form], &attributes);
        assert!(text.contains("keystore.p12") && !text.contains("hunter"), "{text}");
    }
}

#[test]
fn faults_are_those_of_the_pods_events_and_wrong_flags_have_code_2() {
    let output = run(&POD, &["duration=1d"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said.starts_with("certlet: 2 faults: (1) csi.certlet.io/duration: \"1d\" has the unknown unit"),
        "{said}"
    );
    for (flag, wrong) in [
        ("--pod", &["--pod=web"][..]),
        ("--cluster-domain", &["--cluster-domain=Cluster.Local"]),
        ("--pod-ip", &["--pod-ip=web"]),
        ("--default-issuer-kind", &["--default-issuer-kind=Issuer"]),
        ("--trust-domain", &["--trust-domain=A"]),
    ] {
        let output = run(wrong, &["signer=local"]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), said.lines().count()), (Some(2), 1), "{wrong:?}: {said}");
        assert!(said.contains(flag), "{said}");
    }
}
