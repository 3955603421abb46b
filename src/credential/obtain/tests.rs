use super::*;
use crate::model::{KeyAlgorithm, OperatorIssuer, Pkcs12};
use crate::signer::{IssuedCertificate, LocalCa, SignedChain, SignerNotification};
use crate::sink::files;
use crate::store::TrustRecord;
use crate::x509::testing::{ALL_ALGORITHMS, StoppedClock, attributes, openssl, pod};
use std::time::Instant;
use tempfile::TempDir;

/// A signer that always gives this answer, and keeps whether each request replaces a certificate.
struct Scripted {
    answer: Result<SignedChain, Failure>,
    replaces: parking_lot::Mutex<Vec<bool>>,
}

impl Scripted {
    fn new(answer: Result<SignedChain, Failure>) -> Arc<Self> {
        Arc::new(Self { answer, replaces: parking_lot::Mutex::default() })
    }
}

impl Signer for Scripted {
    fn kind(&self) -> SignerKind {
        SignerKind::Local
    }

    fn is_resumable(&self) -> bool {
        false
    }

    fn needs_token(&self, _spec: &CertificateSpec) -> bool {
        false
    }

    fn describe(&self, checkpoint: &str) -> String {
        checkpoint.to_owned()
    }

    fn sign<'a>(&'a self, request: &'a SigningRequest<'a>) -> BoxFuture<'a, Result<SignedChain, Failure>> {
        self.replaces.lock().push(request.replaces_certificate);
        Box::pin(async { self.answer.clone() })
    }
}

impl SignerNotification for Scripted {
    fn next_completed(&self) -> BoxFuture<'_, RequestId> {
        Box::pin(std::future::pending())
    }

    fn in_use(&self, _issued: &IssuedCertificate<'_>) {}

    fn removed(&self, _issued: &IssuedCertificate<'_>) {}
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(StoppedClock(Timestamp::now()))
}

/// An obtainer whose store is in a directory of a tmpfs.
fn obtainer(signers: Vec<ConfiguredSigner>) -> (Obtainer, TempDir) {
    pinned(signers, Pins::default())
}

fn pinned(signers: Vec<ConfiguredSigner>, pins: Pins) -> (Obtainer, TempDir) {
    let root = tempfile::tempdir_in("/dev/shm").unwrap();
    let (store, _) = Store::open(root.path()).unwrap();
    (Obtainer::new(signers, Arc::new(store), clock(), pins, OperatorIssuer::default()), root)
}

fn local() -> (Obtainer, TempDir) {
    obtainer(vec![ConfiguredSigner::new(Arc::new(LocalCa::ephemeral(clock()).unwrap()))])
}

async fn obtain(obtainer: &Obtainer, spec: &CertificateSpec) -> Result<Obtained, Failure> {
    let identity = pod();
    let workload = Workload {
        id: &VolumeId::new("csi-1"),
        identity: &identity,
        tokens: &PodTokens::default(),
        spec,
        in_use: None,
        not_ready_count: 0,
        key_in_use: &|| None,
    };
    let options = IssueOptions { purpose: Purpose::Publish, timeout: None, cancel: CancellationToken::new() };
    obtainer.obtain(workload, &options).await
}

fn encode(obtained: &Obtained, spec: &CertificateSpec) -> Vec<crate::store::NewFile> {
    files::encode(&obtained.credential, &obtained.trust, spec, None, None).unwrap()
}

#[tokio::test]
async fn an_issuance_with_every_key_algorithm_gives_a_credential_that_openssl_verifies() {
    let (obtainer, _root) = local();
    let mut spec = attributes();
    for algorithm in ALL_ALGORITHMS {
        spec.key.algorithm = algorithm;
        let issued = obtain(&obtainer, &spec).await.unwrap();
        assert_eq!(issued.credential.key.algorithm(), algorithm);
        let folder = tempfile::tempdir().unwrap();
        let mut arguments = vec!["verify".to_owned(), "-x509_strict".to_owned(), "-CAfile".to_owned()];
        for file in encode(&issued, &spec) {
            std::fs::write(folder.path().join(&file.name), &*file.contents).unwrap();
        }
        for name in ["ca.crt", "tls.crt"] {
            arguments.push(folder.path().join(name).to_str().unwrap().to_owned());
        }
        openssl(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), b"");
    }
}

#[tokio::test]
async fn the_error_for_a_signer_that_is_not_configured_says_how_to_configure_it() {
    let (obtainer, _root) = obtainer(Vec::new());
    let failure = obtain(&obtainer, &attributes()).await.unwrap_err();
    assert_eq!(
        failure.to_string(),
        "signer: \"local\" is not available here: certlet offers it only with --allow-local-signer, \
         which is for development"
    );
    assert_eq!(failure.kind, FailureKind::Permanent);
    assert!(obtainer.signer(SignerKind::AcmPca).err().unwrap().to_string().contains("AWS Private CA"));
}

#[tokio::test]
async fn failures_are_told_apart_by_kind() {
    let failure = async |answer| {
        let (obtainer, _root) = obtainer(vec![ConfiguredSigner::new(Scripted::new(answer))]);
        obtain(&obtainer, &attributes()).await.unwrap_err()
    };
    let retry_after = Some(Duration::from_secs(3));
    let throttled = failure(Err(Failure::throttled("no", retry_after))).await;
    assert_eq!((throttled.kind, throttled.retry_after), (FailureKind::Throttled, retry_after));
    assert_eq!(failure(Err(Failure::transient("no"))).await.kind, FailureKind::Transient);
    assert_eq!(failure(Err(Failure::permanent("no"))).await.kind, FailureKind::Permanent);
    let junk = SignedChain { chain: b"junk".to_vec(), ca: None, warning: None, template_usages: &[] };
    assert_eq!(failure(Ok(junk)).await.kind, FailureKind::Permanent);
    let expired = x509::VerifyError::Expired(String::new(), Timestamp::now());
    assert!(expired.may_pass());
}

/// Prints how long each step of an issuance takes. It asserts nothing, because machines differ.
#[tokio::test]
async fn the_cost_of_each_step_is_printed() {
    const ROUNDS: u32 = 300;
    let (obtainer, _root) = local();
    let mut spec = attributes();
    for algorithm in ALL_ALGORITHMS.into_iter().skip(3) {
        spec.key.algorithm = algorithm;
        let start = Instant::now();
        for _ in 0..ROUNDS {
            PrivateKey::generate(algorithm).unwrap();
        }
        let key = start.elapsed() / ROUNDS;
        let start = Instant::now();
        for _ in 0..ROUNDS {
            encode(&obtain(&obtainer, &spec).await.unwrap(), &spec);
        }
        println!(
            "{algorithm:?}: key {key:?}, key + csr + local signature + verify + encode {:?}",
            start.elapsed() / ROUNDS
        );
    }
    spec.key.algorithm = KeyAlgorithm::EcdsaP256;
    spec.files.pkcs12 = Some(Pkcs12::modern("keystore.p12"));
    let issued = obtain(&obtainer, &spec).await.unwrap();
    let start = Instant::now();
    for _ in 0..ROUNDS {
        encode(&issued, &spec);
    }
    println!("encode with PKCS#12: {:?}", start.elapsed() / ROUNDS);
}

#[tokio::test]
async fn a_certificate_that_does_not_lead_to_a_pinned_anchor_is_refused_and_pods_trust_only_the_pinned_ones()
{
    let directory = tempfile::tempdir().unwrap();
    let pins = |name: &str, anchors: &[Vec<u8>]| {
        let file = directory.path().join(name);
        std::fs::write(&file, pem::certificates(anchors.iter().map(Vec::as_slice))).unwrap();
        Pins::new(vec![format!("local={}", file.display()).parse().unwrap()]).unwrap()
    };
    let ca = || Arc::new(LocalCa::ephemeral(clock()).unwrap());
    let anchors_of = async |ca: Arc<LocalCa>, pins: Pins| {
        let (obtainer, _root) = pinned(vec![ConfiguredSigner::new(ca)], pins);
        obtain(&obtainer, &attributes()).await.map(|obtained| obtained.trust.anchors)
    };
    let (ours, other) = (ca(), ca());
    let pinned_anchors = anchors_of(Arc::clone(&ours), Pins::default()).await.unwrap();
    let others = anchors_of(Arc::clone(&other), Pins::default()).await.unwrap();
    let failure = anchors_of(other, pins("ours", &pinned_anchors)).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Permanent);
    assert!(failure.message.contains("that --pin-ca pins in"), "{failure}");
    let both = [pinned_anchors, others].concat();
    assert_eq!(anchors_of(ours, pins("both", &both)).await.unwrap(), both);
}

#[tokio::test]
async fn a_signer_is_told_whether_a_certificate_in_use_is_replaced() {
    let signer = Scripted::new(Err(Failure::transient("no")));
    let (obtainer, _root) = obtainer(vec![ConfiguredSigner::new(Arc::clone(&signer))]);
    let (local, _folder) = local();
    let spec = attributes();
    let facts = obtain(&local, &spec).await.unwrap().credential.facts;
    let now = Timestamp::now();
    let issued = IssuedRecord {
        facts,
        issued_at: now,
        renew_at: now,
        generation: 1,
        warning: None,
        trust: TrustRecord::default(),
    };
    for in_use in [None, Some(&issued)] {
        let workload = Workload {
            id: &VolumeId::new("csi-1"),
            identity: &pod(),
            tokens: &PodTokens::default(),
            spec: &spec,
            in_use,
            not_ready_count: 0,
            key_in_use: &|| None,
        };
        let cancel = CancellationToken::new();
        let options = IssueOptions { purpose: Purpose::Renewal, timeout: None, cancel };
        obtainer.obtain(workload, &options).await.unwrap_err();
    }
    assert_eq!(*signer.replaces.lock(), [false, true]);
}

/// A signer that is asked and does not answer yet. It keeps the requests, and whether each was resumed.
#[derive(Default)]
struct Undecided(parking_lot::Mutex<Vec<(Vec<u8>, bool)>>);

impl Signer for Undecided {
    fn kind(&self) -> SignerKind {
        SignerKind::Local
    }

    fn is_resumable(&self) -> bool {
        true
    }

    fn needs_token(&self, _spec: &CertificateSpec) -> bool {
        false
    }

    fn describe(&self, checkpoint: &str) -> String {
        checkpoint.to_owned()
    }

    fn sign<'a>(&'a self, request: &'a SigningRequest<'a>) -> BoxFuture<'a, Result<SignedChain, Failure>> {
        self.0.lock().push((request.csr_der.to_vec(), request.checkpoint.load().is_some()));
        Box::pin(async {
            request.checkpoint.save("asked").unwrap();
            Err(Failure::transient("not yet"))
        })
    }
}

impl SignerNotification for Undecided {
    fn next_completed(&self) -> BoxFuture<'_, RequestId> {
        Box::pin(std::future::pending())
    }

    fn in_use(&self, _issued: &IssuedCertificate<'_>) {}

    fn removed(&self, _issued: &IssuedCertificate<'_>) {}
}

fn record() -> crate::store::Record {
    crate::store::Record {
        volume_id: VolumeId::new("csi-1"),
        target: "/target".into(),
        pod: pod(),
        attributes: [].into_iter().collect(),
        fs_group: None,
        signer: "local".into(),
        class: None,
        issued: None,
        last_error: None,
    }
}

#[tokio::test]
async fn a_pending_request_is_resumed_until_the_spec_asks_for_other_names() {
    let signer = Arc::new(Undecided::default());
    let (obtainer, _root) = obtainer(vec![ConfiguredSigner::new(Arc::clone(&signer))]);
    // Checkpoints are in the directory of a volume.
    obtainer.store.write_record(&record()).unwrap();
    let mut spec = attributes();
    let asked = async |spec: &CertificateSpec| {
        obtain(&obtainer, spec).await.unwrap_err();
        signer.0.lock().pop().unwrap()
    };
    let (first, is_resumed) = asked(&spec).await;
    assert!(!is_resumed);
    assert_eq!(asked(&spec).await, (first.clone(), true));
    // Another trust domain, for example.
    spec.sans.uris = vec!["spiffe://example.net/ns/shop/sa/web".into()];
    let (other, is_resumed) = asked(&spec).await;
    assert!(other != first && !is_resumed);
    assert_eq!(asked(&spec).await, (other, true));
}
