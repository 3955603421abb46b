//! AWS Private CA as implemented by moto, a server of another project, on loopback.
//!
//! moto is simpler than AWS. Its certificates are valid for a year from now, whatever the request says, and are ready at once.
//! Its CAs have RSA keys. It has no idempotency tokens, quotas or permissions: `pca_fake` tests those.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use aws_sdk_acmpca::Client;
use aws_sdk_acmpca::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_acmpca::primitives::Blob;
use aws_sdk_acmpca::types::{
    Asn1Subject, CertificateAuthorityConfiguration, CertificateAuthorityType, KeyAlgorithm, SigningAlgorithm,
    Validity, ValidityPeriodType,
};
use certlet_kubelet::Pod;
use std::fs;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use support::{Node, assert_whole, eventually, openssl, pca, serial};

const REGION: &str = "eu-central-1";

/// A moto server with an active root CA.
struct Moto {
    server: Child,
    endpoint: String,
    client: Client,
    authority: String,
}

impl Moto {
    /// Returns none if this machine has no python3.
    async fn start() -> Option<Self> {
        if Command::new("python3").arg("--version").output().is_err() {
            eprintln!("SKIPPED: moto needs python3, which is missing: the API of AWS is not tested");
            return None;
        }
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/moto");
        let installed = Command::new(script).arg("--help").stdout(Stdio::null()).status().unwrap();
        assert!(installed.success(), "moto cannot be installed: {script}: {installed}");
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = Command::new(script)
            .args(["--host", "127.0.0.1", "--port", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let endpoint = format!("http://127.0.0.1:{port}");
        let config = aws_sdk_acmpca::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(REGION))
            .credentials_provider(Credentials::new("test", "test", None, None, "test"))
            .endpoint_url(&endpoint)
            .build();
        let client = Client::from_conf(config);
        eventually("moto answers", async || client.list_certificate_authorities().send().await.is_ok()).await;
        let authority = root(&client).await;
        Some(Self { server, endpoint, client, authority })
    }

    /// A node whose driver calls this server.
    fn node(&self) -> Node {
        pca::node(POLICY, &self.endpoint)
    }

    fn pod(&self, name: &str, attributes: &[(&str, &str)]) -> Pod {
        pca::pod(name, &self.authority, attributes)
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _killed = self.server.kill();
        let _reaped = self.server.wait();
    }
}

const POLICY: &str = r#"
version: 2
rules:
  - name: shop
    match: {namespaces: [shop]}
    allow:
      certificateAuthorities: ["arn:aws:acm-pca:eu-central-1:123456789012:certificate-authority/*"]
      callers: [driver]
      usages: [digital signature, key encipherment, server auth, client auth]
      maxDuration: 24h
      dnsNames: ["*.{namespace}.svc.cluster.local"]
"#;

/// Creates a root CA and installs its certificate.
async fn root(client: &Client) -> String {
    let subject = Asn1Subject::builder().common_name("certlet test root").organization("Acme").build();
    let configuration = CertificateAuthorityConfiguration::builder()
        .key_algorithm(KeyAlgorithm::Rsa2048)
        .signing_algorithm(SigningAlgorithm::Sha256Withrsa)
        .subject(subject)
        .build()
        .unwrap();
    let created = client.create_certificate_authority().certificate_authority_configuration(configuration);
    let created = created.certificate_authority_type(CertificateAuthorityType::Root).send().await.unwrap();
    let arn = created.certificate_authority_arn.unwrap();
    let csr = client.get_certificate_authority_csr().certificate_authority_arn(&arn).send().await.unwrap();
    let validity = Validity::builder().value(10).r#type(ValidityPeriodType::Years).build().unwrap();
    let issued = client
        .issue_certificate()
        .certificate_authority_arn(&arn)
        .csr(Blob::new(csr.csr.unwrap()))
        .signing_algorithm(SigningAlgorithm::Sha256Withrsa)
        .template_arn("arn:aws:acm-pca:::template/RootCACertificate/V1")
        .validity(validity)
        .send()
        .await
        .unwrap();
    let certificate = client
        .get_certificate()
        .certificate_authority_arn(&arn)
        .certificate_arn(issued.certificate_arn.unwrap())
        .send()
        .await
        .unwrap();
    client
        .import_certificate_authority_certificate()
        .certificate_authority_arn(&arn)
        .certificate(Blob::new(certificate.certificate.unwrap()))
        .send()
        .await
        .unwrap();
    arn
}

node_test! {
    async fn a_pod_gets_its_certificate_and_openssl_agrees() {
        let Some(moto) = Moto::start().await else { return };
        let mut node = moto.node();
        let kubelet = node.started().await;
        let volume = kubelet.publish(&moto.pod("web-0", &[])).await.unwrap();
        assert_whole(&volume);
        let certificate = volume.join("tls.crt").display().to_string();
        let text = openssl(&["x509", "-in", &certificate, "-noout", "-text"]).stdout;
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("DNS:web-0.shop.svc.cluster.local"), "{text}");
        assert!(text.contains("Issuer: O = Acme, CN = certlet test root") || text.contains("Issuer: O=Acme"), "{text}");
        let root = fs::read_to_string(volume.join("ca.crt")).unwrap();
        assert_eq!(root.matches("BEGIN CERTIFICATE").count(), 1, "{root}");
        let chain = fs::read_to_string(volume.join("tls.crt")).unwrap();
        assert_eq!(chain.matches("BEGIN CERTIFICATE").count(), 1, "tls.crt does not contain the root");
    }
}

node_test! {
    async fn a_request_that_the_policy_does_not_allow_is_refused_with_the_nearest_rule() {
        let Some(moto) = Moto::start().await else { return };
        let mut node = moto.node();
        let kubelet = node.started().await;
        let mut pod = moto.pod("web-0", &[]);
        pod.attributes.push(("csi.certlet.io/common-name".to_owned(), "admin".to_owned()));
        let refused = kubelet.publish(&pod).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
        assert!(refused.message().contains("rule \"shop\" comes nearest: common-name: \"admin\""), "{refused}");
    }
}

node_test! {
    async fn a_renewal_replaces_the_certificate() {
        let Some(moto) = Moto::start().await else { return };
        let mut node = moto.node();
        node.flag("--min-renewal-interval=1s");
        let kubelet = node.started().await;
        // A certificate is valid for a year, so this renewal is due after a few seconds.
        let volume = kubelet.publish(&moto.pod("web-0", &[("renew-before", "8759h59m56s")])).await.unwrap();
        let before = serial(&volume);
        eventually("the renewal", async || serial(&volume) != before).await;
        assert_whole(&volume);
    }
}

node_test! {
    async fn a_restart_during_the_issuance_resumes_with_the_same_certificate() {
        let Some(moto) = Moto::start().await else { return };
        let mut node = moto.node();
        let kubelet = node.started().await;
        let pod = moto.pod("web-0", &[]);
        let checkpoint = node.stored_at(&pod).join("pending.pem");
        let publishing = tokio::spawn({ let (kubelet, pod) = (kubelet.clone(), pod.clone()); async move { kubelet.publish(&pod).await } });
        let mut saved = String::new();
        eventually("the certificate's ARN in the checkpoint", async || {
            saved = fs::read_to_string(&checkpoint).unwrap_or_default();
            saved.contains(" certificate=arn:")
        }).await;
        node.kill();
        assert!(publishing.await.unwrap().is_err(), "the publish was interrupted");
        let kubelet = node.started().await;
        let volume = kubelet.publish(&pod).await.unwrap();
        let arn = saved.split(' ').find_map(|field| field.strip_prefix("certificate=")).unwrap();
        let first = moto.client.get_certificate().certificate_authority_arn(&moto.authority).certificate_arn(arn);
        let first = first.send().await.unwrap().certificate.unwrap();
        let written = fs::read_to_string(volume.join("tls.crt")).unwrap();
        assert_eq!(written.trim(), first.trim(), "the certificate that was issued before the restart");
        assert!(!checkpoint.exists());
    }
}
