use super::*;
use crate::model::{PodTokens, Usage};
use crate::signer::testing::NoCheckpoint;
use crate::x509::extensions::usages;
use crate::x509::testing::{ALL_ALGORITHMS, StoppedClock, attributes, name, openssl, openssl_text, pod};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn now() -> Timestamp {
    "2026-05-01T12:00:00.75Z".parse().unwrap()
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(StoppedClock(now()))
}

fn real_clock() -> Arc<dyn Clock> {
    Arc::new(StoppedClock(Timestamp::now()))
}

/// A request made by openssl, and not by this crate.
fn request(subject: &str, extensions: &[&str]) -> Vec<u8> {
    let key = openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"], b"");
    let mut arguments = vec!["req", "-new", "-key", "/dev/stdin", "-outform", "DER", "-subj", subject];
    for extension in extensions {
        arguments.extend(["-addext", extension]);
    }
    openssl(&arguments, &key)
}

async fn sign(ca: &LocalCa, csr_der: &[u8], attributes: &CertificateSpec) -> Result<SignedChain, Failure> {
    let pod = pod();
    let request = SigningRequest {
        id: &RequestId::new("csi-1"),
        identity: &pod,
        tokens: &PodTokens::default(),
        spec: attributes,
        csr_der,
        checkpoint: &NoCheckpoint,
        needed_by: jiff::Timestamp::MAX,
        replaces_certificate: false,
        not_ready_count: 0,
    };
    ca.sign(&request).await
}

fn text(certificate: &[u8]) -> String {
    let text = openssl_text(&["x509", "-noout", "-text", "-nameopt", "RFC2253"], certificate);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn the_certificate_says_what_the_request_asks_for() {
    let ca = LocalCa::ephemeral(clock()).unwrap();
    let csr = request(
        "/O=acme/CN=web",
        &[
            "subjectAltName=critical,DNS:web,URI:spiffe://a/b,IP:10.0.0.1",
            "keyUsage=critical,digitalSignature",
            "extendedKeyUsage=serverAuth,clientAuth",
            "nsComment=not taken over",
        ],
    );
    let mut attributes = attributes();
    attributes.duration = Duration::from_secs(90);
    let answer = sign(&ca, &csr, &attributes).await.unwrap();
    assert_eq!(answer.warning, None);
    let text = text(&answer.chain);
    for expected in [
        "Issuer: CN=certlet local CA,O=certlet",
        "Not Before: May 1 12:00:00 2026 GMT Not After : May 1 12:01:30 2026 GMT",
        "Subject: CN=web,O=acme",
        "X509v3 Subject Alternative Name: critical DNS:web, URI:spiffe://a/b, IP Address:10.0.0.1",
        "X509v3 Key Usage: critical Digital Signature",
        "X509v3 Extended Key Usage: TLS Web Server Authentication, TLS Web Client Authentication",
        "X509v3 Basic Constraints: critical CA:FALSE",
        "X509v3 Subject Key Identifier:",
        "X509v3 Authority Key Identifier:",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    assert!(!text.contains("Comment"), "{text}");
}

#[tokio::test]
async fn a_ca_is_issued_where_one_is_asked_for() {
    let ca = LocalCa::ephemeral(clock()).unwrap();
    let csr =
        request("/CN=sub", &["basicConstraints=critical,CA:TRUE,pathlen:0", "keyUsage=critical,keyCertSign"]);
    let text = text(&sign(&ca, &csr, &attributes()).await.unwrap().chain);
    assert!(text.contains("X509v3 Basic Constraints: critical CA:TRUE, pathlen:0"), "{text}");
    assert!(text.contains("X509v3 Key Usage: critical Certificate Sign"), "{text}");
}

#[tokio::test]
async fn serial_numbers_do_not_repeat() {
    let ca = LocalCa::ephemeral(clock()).unwrap();
    let csr = request("/CN=web", &[]);
    let mut serials = std::collections::BTreeSet::new();
    for _ in 0..200 {
        let chain = sign(&ca, &csr, &attributes()).await.unwrap().chain;
        let der = &pem::blocks(&chain).unwrap()[0].der;
        let (_, certificate) = x509_parser::parse_x509_certificate(der).unwrap();
        assert!(certificate.raw_serial()[0] < 0x80, "a serial number is positive");
        serials.insert(certificate.raw_serial().to_vec());
    }
    assert_eq!(serials.len(), 200);
}

#[tokio::test]
async fn a_lifetime_ends_with_the_ca_and_the_warning_says_so() {
    let files = Files::new(KeyAlgorithm::EcdsaP256, &["-days", "1"]);
    let ca = files.load(real_clock()).unwrap();
    let mut attributes = attributes();
    for duration in [Duration::from_hours(48), Duration::MAX] {
        attributes.duration = duration;
        let answer = sign(&ca, &request("/CN=web", &[]), &attributes).await.unwrap();
        assert!(
            answer
                .warning
                .unwrap()
                .starts_with("duration: the lifetime was cut short, as the local CA itself expires")
        );
        let der = &pem::blocks(&answer.chain).unwrap()[0].der;
        let (_, certificate) = x509_parser::parse_x509_certificate(der).unwrap();
        assert_eq!(certificate.validity().not_after.timestamp(), ca.not_after.as_second());
    }
}

#[tokio::test]
async fn a_request_that_is_not_signed_by_its_key_is_refused() {
    let ca = LocalCa::ephemeral(clock()).unwrap();
    let good = request("/CN=web", &["subjectAltName=DNS:web"]);
    let mut forged = good.clone();
    let at = forged.windows(3).position(|window| window == b"web").unwrap();
    forged[at] = b'W';
    let error = sign(&ca, &forged, &attributes()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the certificate signing request is refused: the signature does not verify"
    );
    for end in 0..good.len() {
        assert!(sign(&ca, &good[..end], &attributes()).await.is_err());
    }
}

#[tokio::test]
async fn openssl_verifies_what_a_ca_of_any_algorithm_signs() {
    for algorithm in ALL_ALGORITHMS {
        let files = Files::new(algorithm, &[]);
        let ca = files.load(real_clock()).unwrap();
        let answer =
            sign(&ca, &request("/CN=web", &["subjectAltName=DNS:web"]), &attributes()).await.unwrap();
        assert_eq!(answer.ca.as_deref(), Some(ca.anchor_pem()));
        openssl(&["verify", "-x509_strict", "-CAfile", files.certificate.to_str().unwrap()], &answer.chain);
    }
}

#[tokio::test]
async fn an_intermediate_ca_comes_with_its_chain() {
    let root = LocalCa::ephemeral(real_clock()).unwrap();
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP384).unwrap();
    let subject = name("CN=issuing");
    let template = Template {
        serial: &serial().unwrap(),
        issuer: &root.subject,
        not_before: Timestamp::now(),
        not_after: Timestamp::now() + SignedDuration::from_hours(100),
        subject: &subject,
        spki: key.spki_der(),
        extensions: &[basic_constraints(true).unwrap(), usages(&[Usage::CertSign], false).unwrap().remove(0)],
    };
    let issuing = template.sign(&root.key).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key_file) = (folder.path().join("ca.crt"), folder.path().join("ca.key"));
    std::fs::write(&key_file, key.to_pem(crate::model::KeyEncoding::Pkcs1).unwrap()).unwrap();
    let alone = pem::certificates([issuing.as_slice()]);

    std::fs::write(&certificate, [alone.as_slice(), root.anchor_pem()].concat()).unwrap();
    let ca = LocalCa::from_files(&certificate, &key_file, real_clock()).unwrap();
    assert_eq!(ca.anchor_pem(), root.anchor_pem());
    assert_eq!(ca.intermediates, alone);
    let answer = sign(&ca, &request("/CN=web", &[]), &attributes()).await.unwrap();
    assert!(answer.chain.ends_with(&alone) && answer.chain.len() > alone.len());

    // Without the root, the CA's own certificate is the anchor.
    std::fs::write(&certificate, &alone).unwrap();
    let ca = LocalCa::from_files(&certificate, &key_file, real_clock()).unwrap();
    assert_eq!((ca.anchor_pem(), ca.intermediates.as_slice()), (alone.as_slice(), alone.as_slice()));

    std::fs::write(&certificate, [alone.as_slice(), alone.as_slice()].concat()).unwrap();
    let error = LocalCa::from_files(&certificate, &key_file, real_clock()).err().unwrap();
    assert!(error.to_string().contains("is not a chain"), "{error}");
}

/// A CA that openssl made, in files.
struct Files {
    _folder: TempDir,
    certificate: PathBuf,
    key: PathBuf,
}

impl Files {
    fn new(algorithm: KeyAlgorithm, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("ca.crt"), folder.path().join("ca.key"));
        let pem = PrivateKey::generate(algorithm).unwrap().to_pem(crate::model::KeyEncoding::Pkcs8).unwrap();
        std::fs::write(&key, &pem).unwrap();
        let fixed = ["req", "-x509", "-new", "-subj", "/CN=ca", "-addext", "keyUsage=critical,keyCertSign"];
        let files = ["-key", key.to_str().unwrap(), "-out", certificate.to_str().unwrap()];
        openssl(&[&fixed[..], &files, arguments].concat(), b"");
        Self { _folder: folder, certificate, key }
    }

    fn load(&self, clock: Arc<dyn Clock>) -> Result<LocalCa, LocalCaError> {
        LocalCa::from_files(&self.certificate, &self.key, clock)
    }
}

#[test]
fn files_that_cannot_serve_are_refused_with_the_reason() {
    let good = Files::new(KeyAlgorithm::EcdsaP256, &[]);
    let folder = tempfile::tempdir().unwrap();
    let junk = folder.path().join("junk");
    std::fs::write(&junk, "junk").unwrap();
    let error = |certificate: &Path, key: &Path, clock| {
        LocalCa::from_files(certificate, key, clock).err().unwrap().to_string()
    };

    let missing = error(Path::new("/nonexistent/ca.crt"), &good.key, real_clock());
    assert!(missing.starts_with("local CA: /nonexistent/ca.crt: No such file"), "{missing}");
    assert!(
        error(&good.certificate, Path::new("/nonexistent"), real_clock())
            .contains("/nonexistent: No such file")
    );
    assert!(error(&junk, &good.key, real_clock()).contains("junk is not PEM: it holds no PEM block"));
    assert!(error(&good.certificate, &junk, real_clock()).contains("the private key is not PEM"));
    assert!(error(&good.key, &good.key, real_clock()).contains("does not begin with an X.509 certificate"));
    assert!(error(&good.certificate, &good.certificate, real_clock()).contains("holds no private key"));

    let other = Files::new(KeyAlgorithm::EcdsaP256, &[]);
    assert!(
        error(&good.certificate, &other.key, real_clock()).contains("is not the certificate of the CA's key")
    );
    let leaf = Files::new(KeyAlgorithm::EcdsaP256, &["-addext", "basicConstraints=critical,CA:FALSE"]);
    assert!(error(&leaf.certificate, &leaf.key, real_clock()).contains("is not a CA certificate"));
    let later: Arc<dyn Clock> =
        Arc::new(StoppedClock(Timestamp::now() + SignedDuration::from_hours(24 * 60)));
    assert!(error(&good.certificate, &good.key, later).contains(", not now"));
}

#[tokio::test]
async fn a_ca_with_path_length_zero_issues_no_cas() {
    let files =
        Files::new(KeyAlgorithm::EcdsaP256, &["-addext", "basicConstraints=critical,CA:TRUE,pathlen:0"]);
    let ca = files.load(real_clock()).unwrap();
    let csr = request("/CN=sub", &["basicConstraints=critical,CA:TRUE"]);
    let error = sign(&ca, &csr, &attributes()).await.unwrap_err();
    assert!(error.to_string().starts_with("is-ca: the path length"), "{error}");
    sign(&ca, &request("/CN=web", &[]), &attributes()).await.unwrap();
}

#[tokio::test]
async fn an_expired_ca_says_so() {
    let mut ca = LocalCa::ephemeral(clock()).unwrap();
    ca.not_after = now();
    ca.clock = Arc::new(StoppedClock(now() + SignedDuration::from_secs(1)));
    let error = sign(&ca, &request("/CN=web", &[]), &attributes()).await.unwrap_err();
    assert!(error.to_string().starts_with("the local CA expired at 2026-05-01"), "{error}");
}
