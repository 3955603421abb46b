//! Error cases of AWS Private CA and STS, with a fake of both: the tests call the driver's socket and count the calls of AWS.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::type_complexity, reason = "a table of cases")]

#[path = "../support/fake_pca/mod.rs"]
mod fake_pca;
mod faults;
mod issuing;
mod roles;
#[path = "../support/mod.rs"]
mod support;

use certlet_kubelet::{Kubelet, Pod};
use fake_pca::{CA, FakePca};
use support::{Node, pca};

const ISSUE: &str = "IssueCertificate";
const GET: &str = "GetCertificate";
const DESCRIBE: &str = "DescribeCertificateAuthority";
const AUTHORITY: &str = "GetCertificateAuthorityCertificate";
const ASSUME: &str = "AssumeRoleWithWebIdentity";

const POLICY: &str = r#"
version: 2
rules:
  - name: shop
    match: {namespaces: [shop]}
    allow:
      certificateAuthorities: ["arn:aws:acm-pca:eu-central-1:123456789012:certificate-authority/*"]
      templates: ["*/V1"]
      callers: [driver, "arn:aws:iam::123456789012:role/{namespace}-{serviceAccount}"]
      usages: [digital signature, key encipherment, server auth, client auth, code signing, email protection, timestamping, cert sign, crl sign]
      minRenewalInterval: 1s
      maxDuration: 2160h
      minDuration: 1s
      commonNames: ["**"]
      dnsNames: ["*.{namespace}.svc.cluster.local"]
      isCa: true
"#;

async fn started() -> (FakePca, Node, Kubelet) {
    let fake = FakePca::start().await;
    let mut node = pca::node(POLICY, fake.endpoint());
    let kubelet = node.started().await;
    (fake, node, kubelet)
}

fn pod(name: &str, attributes: &[(&str, &str)]) -> Pod {
    pca::pod(name, CA, attributes)
}
