//! The signer against the fake of AWS, with a clock that the test sets.

#[allow(dead_code, reason = "the integration tests use the rest of the fake")]
#[path = "../../../tests/support/fake_pca/mod.rs"]
mod fake_pca;

use super::*;
use crate::model::PcaCaller;
use crate::model::{FailureKind, PcaRequest, PodTokens, SignerSpec};
use crate::signer::Checkpoint;
use crate::signer::testing::{NoCheckpoint, SavedCheckpoint};
use crate::x509::testing::{attributes, pod};
use fake_pca::{CA, FakePca, Fault};
use jiff::{SignedDuration, Timestamp};
use rcgen::{CertificateParams, KeyPair};
use std::sync::Mutex;

const ISSUE: &str = "IssueCertificate";
const DESCRIBE: &str = "DescribeCertificateAuthority";
const GET: &str = "GetCertificate";
const AUTHORITY: &str = "GetCertificateAuthorityCertificate";

const POLICY: &str = r#"
version: 2
rules:
  - name: all
    allow:
      certificateAuthorities: ["**"]
      callers: [driver]
      usages: [digital signature, key encipherment, server auth, client auth, code signing, ocsp signing]
      maxDuration: 24h
      commonNames: ["**"]
      dnsNames: ["**"]
      uris: ["**"]
      ipRanges: ["0.0.0.0/0", "::/0"]
"#;

/// A little more than the minimum time that facts are kept.
const OVER_A_MINUTE: SignedDuration = SignedDuration::from_secs(61);

struct TestClock(Mutex<Timestamp>);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }

    fn wait_until(&self, _deadline: Option<Timestamp>) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }
}

/// The signer, the fake and one certificate request.
struct Stage {
    fake: FakePca,
    clock: Arc<TestClock>,
    signer: AcmPca,
    attributes: CertificateSpec,
    csr_der: Vec<u8>,
}

impl Stage {
    async fn start() -> Self {
        Self::with(POLICY).await
    }

    async fn with(rules: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let policy = directory.path().join("policy.yaml");
        std::fs::write(&policy, rules).unwrap();
        Self::with_policy(Some(Arc::new(LivePolicy::open(&policy).unwrap()))).await
    }

    async fn with_policy(policy: Option<Arc<LivePolicy>>) -> Self {
        let fake = FakePca::start().await;
        let clock = Arc::new(TestClock(Mutex::new(Timestamp::now())));
        let mut signer = AcmPca::new(AcmPcaParts {
            policy,
            fleet: Fleet::DEFAULT,
            name: "node-1".to_owned(),
            is_in_pod: false,
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            metrics: PcaMetrics::default(),
            revocations: None,
            pod_identity: Vec::new(),
        });
        signer.clients = Clients::at(fake.endpoint()).await;
        let mut attributes = attributes();
        attributes.signer = SignerSpec::AcmPca(PcaRequest {
            certificate_authority_arn: Arn::parse(CA).unwrap(),
            // The requests do not depend on the facts of the CA.
            signing_algorithm: Some("SHA256WITHECDSA".to_owned()),
            template_arn: None,
            caller: PcaCaller::Driver,
        });
        let params = CertificateParams::new(vec!["web.shop.svc".to_owned()]).unwrap();
        let csr = params.serialize_request(&KeyPair::generate().unwrap()).unwrap();
        Self { fake, clock, signer, attributes, csr_der: csr.der().to_vec() }
    }

    /// Sets the clock forward.
    fn advance(&self, time: SignedDuration) {
        *self.clock.0.lock().unwrap() += time;
    }

    async fn sign(&self) -> Result<SignedChain, Failure> {
        self.resume(&NoCheckpoint).await
    }

    async fn resume(&self, checkpoint: &dyn Checkpoint) -> Result<SignedChain, Failure> {
        self.sign_for(checkpoint, false).await
    }

    async fn sign_for(
        &self,
        checkpoint: &dyn Checkpoint,
        replaces_certificate: bool,
    ) -> Result<SignedChain, Failure> {
        let pod = pod();
        let request = SigningRequest {
            id: &RequestId::new("csi-1"),
            identity: &pod,
            tokens: &PodTokens::default(),
            spec: &self.attributes,
            csr_der: &self.csr_der,
            checkpoint,
            needed_by: jiff::Timestamp::MAX,
            replaces_certificate,
            not_ready_count: 0,
        };
        self.signer.sign(&request).await
    }

    /// AWS refuses the next issuance.
    async fn refused(&self, code: &'static str) {
        self.fake.fail(ISSUE, &[Fault::Refuse(code, 400)]);
        let refused = self.sign().await.unwrap_err();
        assert!(refused.kind == FailureKind::Permanent && refused.message.contains(code), "{refused}");
    }

    /// The number of queries of the CA's description.
    fn queries(&self) -> usize {
        self.fake.calls(DESCRIBE)
    }
}

#[tokio::test]
async fn a_new_permission_to_describe_the_ca_is_used_within_a_minute() {
    let stage = Stage::start().await;
    for call in [DESCRIBE, AUTHORITY] {
        stage.fake.fail(call, &[Fault::Refuse("AccessDeniedException", 400)]);
    }
    stage.refused("AccessDeniedException").await;
    // From here on AWS allows everything.
    stage.sign().await.unwrap();
    assert_eq!((stage.queries(), stage.fake.calls(AUTHORITY)), (1, 1), "not at each attempt");
    stage.advance(OVER_A_MINUTE);
    stage.sign().await.unwrap();
    assert_eq!(stage.queries(), 2);
    stage.advance(SignedDuration::from_hours(5));
    stage.sign().await.unwrap();
    assert_eq!(stage.queries(), 2, "known facts are kept");
}

#[tokio::test]
async fn after_refusals_the_ca_is_described_at_most_once_a_minute() {
    let stage = Stage::start().await;
    stage.refused("AccessDeniedException").await;
    stage.refused("ValidationException").await;
    assert_eq!(stage.queries(), 1);
    stage.advance(OVER_A_MINUTE);
    for _ in 0..4 {
        stage.refused("ValidationException").await;
    }
    assert_eq!(stage.queries(), 2);
    stage.advance(OVER_A_MINUTE);
    stage.sign().await.unwrap();
    assert_eq!(stage.queries(), 3, "the last refusals shortened the cache time");
    // Hours after the last query, the attempt after a refusal queries again.
    stage.advance(SignedDuration::from_hours(2));
    stage.refused("AccessDeniedException").await;
    assert_eq!(stage.queries(), 3);
    stage.sign().await.unwrap();
    assert_eq!(stage.queries(), 4);
}

#[tokio::test]
async fn every_planned_request_is_taken_from_the_budget_and_a_resumed_one_is_not() {
    let stage = Stage::with(&POLICY.replace("version: 2", "version: 2\nmaxIssuancesPerHour: 3")).await;
    let checkpoint = SavedCheckpoint::default();
    // The plan of a request whose answer was lost.
    let lose_answer = || {
        let text = checkpoint.load().unwrap();
        checkpoint.save(text.split_once(" certificate=").unwrap().0).unwrap();
    };
    stage.resume(&checkpoint).await.unwrap();
    lose_answer();
    stage.resume(&checkpoint).await.unwrap();
    lose_answer();
    // AWS remembers a request for a while. After that it is another one.
    stage.advance(SignedDuration::from_mins(5));
    stage.resume(&checkpoint).await.unwrap();
    // A certificate that cannot be had was charged all the same.
    stage.fake.fail(GET, &[Fault::Refuse("RequestFailedException", 400)]);
    stage.resume(&SavedCheckpoint::default()).await.unwrap_err();
    let beyond = stage.resume(&SavedCheckpoint::default()).await.unwrap_err();
    assert_eq!(beyond.kind, FailureKind::OverBudget, "{beyond}");
    assert!(beyond.message.contains("maxIssuancesPerHour"), "{beyond}");
    assert_eq!(stage.fake.calls(ISSUE), 4);
}

#[tokio::test]
async fn what_the_policy_denies_costs_nothing_and_is_denied_beyond_the_budget_too() {
    let mut stage = Stage::with(&POLICY.replace("version: 2", "version: 2\nmaxIssuancesPerHour: 1")).await;
    let allowed = stage.attributes.duration;
    for _ in 0..2 {
        stage.attributes.duration = std::time::Duration::from_hours(48);
        let denied = stage.sign().await.unwrap_err();
        assert!(denied.kind == FailureKind::Permanent && denied.message.contains("denied"), "{denied}");
        stage.attributes.duration = allowed;
        let _signed_or_beyond = stage.sign().await;
    }
    assert_eq!(stage.fake.calls(ISSUE), 1);
}

#[tokio::test]
async fn without_a_policy_iam_alone_decides_and_the_ca_still_cuts_the_lifetime() {
    let mut stage = Stage::with_policy(None).await;
    stage.fake.describe(|ca| ca.mode = "SHORT_LIVED_CERTIFICATE");
    stage.attributes.duration = std::time::Duration::from_hours(720);
    let signed = stage.sign().await.unwrap();
    assert!(signed.warning.unwrap().contains("cut to 7 days"));
    // No budget limits them.
    for _ in 0..3 {
        stage.sign().await.unwrap();
    }
    let last = stage.fake.requests(ISSUE).pop().unwrap();
    assert_eq!(last["TemplateArn"], "arn:aws:acm-pca:::template/EndEntityCertificate/V1");
    stage.refused("AccessDeniedException").await;
    assert_eq!(stage.fake.calls(ISSUE), 5);
}

/// A rule that allows every template, and usages for digital signatures only.
fn every_template() -> String {
    let usages =
        "[digital signature, key encipherment, server auth, client auth, code signing, ocsp signing]";
    assert!(POLICY.contains(usages));
    POLICY.replace(usages, "[digital signature, key encipherment]\n      templates: [\"**\"]")
}

#[tokio::test]
async fn a_pattern_for_templates_buys_no_usage_that_the_rule_does_not_list() {
    let mut stage = Stage::with(&every_template()).await;
    for (template, fault) in [
        ("OCSPSigningCertificate/V1", "key-usages: \"ocsp signing\", which the certificate would have"),
        ("OCSPSigningCertificate_CSRPassthrough/V1", "key-usages: \"ocsp signing\""),
        ("CodeSigningCertificate_APICSRPassthrough/V1", "key-usages: \"code signing\""),
        ("EndEntityCertificate_CSRPassthrough/V1", "key-usages: \"server auth\""),
        ("OCSPSigningCertificate/V2", "template-arn: certlet does not know which usages"),
    ] {
        let SignerSpec::AcmPca(pca) = &mut stage.attributes.signer else { panic!("another signer") };
        pca.template_arn = Some(format!("arn:aws:acm-pca:::template/{template}"));
        let denied = stage.sign().await.unwrap_err();
        assert_eq!(denied.kind, FailureKind::Permanent, "{template}");
        assert!(denied.message.contains(fault), "{template}: {denied}");
    }
    assert_eq!((stage.queries(), stage.fake.calls(ISSUE)), (0, 0), "denied before any call");
    let SignerSpec::AcmPca(pca) = &mut stage.attributes.signer else { panic!("another signer") };
    pca.template_arn = Some("arn:aws:acm-pca:::template/BlankEndEntityCertificate_CSRPassthrough/V1".into());
    stage.sign().await.unwrap();
}

/// A checkpoint that a full store does not save.
struct FullStore;

impl Checkpoint for FullStore {
    fn load(&self) -> Option<String> {
        None
    }

    fn save(&self, _text: &str) -> Result<(), Failure> {
        Err(Failure::transient("the store is full"))
    }
}

#[tokio::test]
async fn a_request_that_brings_no_certificate_is_given_back_to_the_budget() {
    let stage = Stage::with(&POLICY.replace("version: 2", "version: 2\nmaxIssuancesPerHour: 1")).await;
    stage.refused("AccessDeniedException").await;
    stage.refused("InvalidStateException").await;
    stage.refused("LimitExceededException").await;
    let checkpoint = SavedCheckpoint::default();
    stage.fake.fail(ISSUE, &[Fault::Refuse("MalformedCSRException", 400)]);
    stage.resume(&checkpoint).await.unwrap_err();
    for _ in 0..3 {
        let failure = stage.resume(&FullStore).await.unwrap_err();
        assert_eq!(failure.message, "the store is full");
    }
    stage.resume(&checkpoint).await.unwrap();
    assert_eq!(stage.sign().await.unwrap_err().kind, FailureKind::OverBudget);
}

#[tokio::test]
async fn pods_that_start_all_the_time_leave_certificates_to_renewals() {
    let stage = Stage::with(&POLICY.replace("version: 2", "version: 2\nmaxIssuancesPerHour: 5")).await;
    for _ in 0..4 {
        stage.sign_for(&NoCheckpoint, false).await.unwrap();
    }
    let beyond = stage.sign_for(&NoCheckpoint, false).await.unwrap_err();
    assert_eq!(beyond.kind, FailureKind::OverBudget, "{beyond}");
    stage.sign_for(&NoCheckpoint, true).await.unwrap();
    assert_eq!(stage.sign_for(&NoCheckpoint, true).await.unwrap_err().kind, FailureKind::OverBudget);
}

#[tokio::test]
async fn a_lifetime_that_the_ca_cuts_makes_no_renewal_every_few_minutes() {
    use std::time::Duration;
    let mut stage = Stage::with(&POLICY.replace("maxDuration: 24h", "maxDuration: 720h")).await;
    stage.fake.describe(|ca| ca.mode = "SHORT_LIVED_CERTIFICATE");
    stage.attributes.duration = Duration::from_hours(720);
    stage.attributes.renew_before = Some(Duration::from_mins(167 * 60 + 50));
    let denied = stage.sign().await.unwrap_err();
    assert_eq!(denied.kind, FailureKind::Permanent, "{denied}");
    for part in ["renew-before: the private CA cuts the lifetime to 167h5", "at least 83h5"] {
        assert!(denied.message.contains(part), "{denied}");
    }
    assert_eq!(stage.fake.calls(ISSUE), 0);
    stage.attributes.renew_before = Some(Duration::from_hours(56));
    stage.sign().await.unwrap();
}

#[tokio::test]
async fn near_the_end_of_the_ca_a_usual_renew_before_is_not_denied() {
    use std::time::Duration;
    let mut stage = Stage::start().await;
    stage.fake.describe(|ca| ca.not_after = fake_pca::now() + 12 * 3600);
    stage.attributes.duration = Duration::from_hours(24);
    stage.attributes.renew_before = Some(Duration::from_hours(8));
    stage.sign().await.unwrap();
}

#[tokio::test]
async fn invented_cas_leave_nothing_in_memory() {
    let mut stage = Stage::start().await;
    stage.sign().await.unwrap();
    for number in 0..20 {
        let SignerSpec::AcmPca(pca) = &mut stage.attributes.signer else { panic!("another signer") };
        let id = format!("11111111-2222-3333-4444-{number:012}");
        let (before, _) = CA.rsplit_once('/').unwrap();
        pca.certificate_authority_arn = Arn::parse(&format!("{before}/{id}")).unwrap();
        let refused = stage.sign().await.unwrap_err();
        assert!(refused.message.contains("ResourceNotFoundException"), "{refused}");
    }
    assert_eq!(stage.signer.authorities.len(), (1, 0), "known CAs, and queries");
}

#[tokio::test]
async fn concurrent_callers_make_one_query() {
    let stage = Stage::start().await;
    let signed = futures_util::future::join_all((0..5).map(|_| stage.sign())).await;
    assert!(signed.iter().all(Result::is_ok));
    assert_eq!((stage.queries(), stage.signer.authorities.len()), (1, (1, 0)));
}
