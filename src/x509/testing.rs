//! Helpers for the tests of several modules: openssl, a pod, a simple spec, a stopped clock.

use super::PrivateKey;
use super::certificate::Template;
use super::extensions::basic_constraints;
use crate::model::{
    CertificateSpec, Dialect, Files, KeyAlgorithm, KeyEncoding, KeySpec, Layout, PemFiles, SignerSpec,
    Subject, SubjectAltNames, SubjectFields, Usage, WorkloadIdentity,
};
use crate::platform::Clock;
use der::Encode;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

pub(crate) const ALL_ALGORITHMS: [KeyAlgorithm; 7] = KeyAlgorithm::ALL;

/// Runs a program and gives its output and whether it succeeded.
pub(crate) fn run(program: &str, arguments: &[&str], input: &[u8]) -> (bool, String, Vec<u8>) {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    // The write fails if the program does not read its input. That is not an error here.
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned(), output.stdout)
}

/// Runs openssl, which must succeed.
pub(crate) fn openssl(arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let (success, errors, output) = run("openssl", arguments, input);
    assert!(success, "openssl {arguments:?}: {errors}{}", String::from_utf8_lossy(&output));
    output
}

/// Runs openssl, which must succeed, and gives its output as text.
pub(crate) fn openssl_text(arguments: &[&str], input: &[u8]) -> String {
    String::from_utf8(openssl(arguments, input)).unwrap()
}

/// The `SubjectPublicKeyInfo` that openssl sees in a PEM private key.
pub(crate) fn openssl_public_key(pem: &[u8]) -> Vec<u8> {
    openssl(&["pkey", "-pubout", "-outform", "DER"], pem)
}

/// A string in the form of RFC 4514 as a `Name`, DER.
pub(crate) fn name(text: &str) -> Vec<u8> {
    encoded(&Subject::Literal(text.parse().unwrap()))
}

/// A subject's `Name`, DER.
pub(crate) fn encoded(subject: &Subject) -> Vec<u8> {
    crate::x509::name::encode(subject, Dialect::Certlet).unwrap().to_der().unwrap()
}

/// A pod.
pub(crate) fn pod() -> WorkloadIdentity {
    WorkloadIdentity {
        namespace: "shop".into(),
        name: "web-0".into(),
        uid: "u".into(),
        service_account: "web".into(),
    }
}

/// The spec of a simple volume.
pub(crate) fn attributes() -> CertificateSpec {
    CertificateSpec {
        dialect: Dialect::Certlet,
        signer: SignerSpec::Local,
        is_spiffe: false,
        subject: Subject::Fields(SubjectFields { common_name: Some("web".into()), ..Default::default() }),
        sans: SubjectAltNames {
            dns_names: vec!["web.shop.svc".into()],
            uris: vec!["spiffe://example.org/ns/shop/sa/web".into()],
            ip_addresses: vec!["10.1.2.3".parse().unwrap(), "2001:db8::7".parse().unwrap()],
            emails: Vec::new(),
        },
        services: Vec::new(),
        wants_pod_ip: false,
        duration: Duration::from_hours(24),
        is_ca: false,
        usages: vec![Usage::DigitalSignature, Usage::KeyEncipherment],
        key: KeySpec { algorithm: KeyAlgorithm::EcdsaP256, encoding: KeyEncoding::Pkcs8, reuse: false },
        files: Files {
            layout: Layout::Default(PemFiles {
                certificate: "tls.crt".into(),
                private_key: "tls.key".into(),
                ca: Some("ca.crt".into()),
            }),
            combined: None,
            pkcs12: None,
            truststore: None,
            crl: None,
            socket: None,
            is_socket_only: false,
            password: None,
        },
        fs_group: None,
        owner: None,
        renew_before: None,
        trust_sources: Vec::new(),
        federated: None,
        class: None,
        doubts: crate::model::Doubts::default(),
    }
}

/// A self-signed CA certificate with a key of its own, DER.
pub(crate) fn root(subject: &str, not_before: Timestamp, not_after: Timestamp) -> Vec<u8> {
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let (name, extensions) = (name(subject), [basic_constraints(true).unwrap()]);
    let (serial, spki) = (&[1], key.spki_der());
    let template = Template {
        serial,
        issuer: &name,
        not_before,
        not_after,
        subject: &name,
        spki,
        extensions: &extensions,
    };
    template.sign(&key).unwrap()
}

/// A clock that always shows the same time.
pub(crate) struct StoppedClock(pub(crate) Timestamp);

impl Clock for StoppedClock {
    fn now(&self) -> Timestamp {
        self.0
    }

    fn wait_until(&self, _deadline: Option<Timestamp>) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }
}
