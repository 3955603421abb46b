use super::*;
use crate::attributes::KeyEncoding;
use crate::issue::Bundle;
use crate::signer::testing::NoProgress;
use crate::signer::{LocalCa, SignedChain};
use crate::x509::testing::{ALL_ALGORITHMS, Stopped, attributes, openssl};
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use std::time::Instant;

/// Answers what it is told to.
struct Scripted(Result<SignedChain, SignError>);

impl Signer for Scripted {
    fn kind(&self) -> SignerKind {
        SignerKind::Local
    }

    fn is_slow(&self) -> bool {
        false
    }

    fn sign<'a>(&'a self, _request: &'a SigningRequest<'a>) -> BoxFuture<'a, Result<SignedChain, SignError>> {
        Box::pin(async { self.0.clone() })
    }
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(Stopped(Timestamp::now()))
}

fn local() -> Issuer {
    Issuer::new(vec![Arc::new(LocalCa::ephemeral(clock()).unwrap())], clock())
}

async fn run(issuer: &Issuer, attributes: &Attributes) -> Result<Bundle, IssueError> {
    let key = issuer.make_key(attributes.key.algorithm).await?;
    let csr_der = issuer.csr(attributes, &key)?;
    let pod = PodIdentity {
        namespace: "shop".into(),
        name: "web-0".into(),
        uid: "u".into(),
        service_account: "web".into(),
    };
    let chain = issuer
        .issue(IssueRequest {
            volume: &VolumeId::new("csi-1"),
            pod: &pod,
            tokens: &PodTokens::default(),
            attributes,
            key: &key,
            csr_der: &csr_der,
            progress: &NoProgress,
            purpose: crate::signer::Purpose::Publish,
        })
        .await?;
    Ok(Bundle::new(key, chain))
}

#[tokio::test]
async fn an_issuance_with_every_key_algorithm_gives_a_bundle_that_openssl_verifies() {
    let issuer = local();
    let mut attributes = attributes();
    for algorithm in ALL_ALGORITHMS {
        attributes.key.algorithm = algorithm;
        let bundle = run(&issuer, &attributes).await.unwrap();
        assert_eq!(bundle.key.algorithm(), algorithm);
        let folder = tempfile::tempdir().unwrap();
        let mut arguments = vec!["verify".to_owned(), "-x509_strict".to_owned(), "-CAfile".to_owned()];
        for file in crate::delivery::encode(&bundle, &attributes.files, KeyEncoding::Pkcs8).unwrap() {
            std::fs::write(folder.path().join(&file.name), &*file.contents).unwrap();
        }
        for name in ["ca.crt", "tls.crt"] {
            arguments.push(folder.path().join(name).to_str().unwrap().to_owned());
        }
        openssl(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), b"");
    }
}

#[tokio::test]
async fn a_signer_that_is_not_configured_is_named_with_what_configures_it() {
    let issuer = Issuer::new(Vec::new(), clock());
    let error = run(&issuer, &attributes()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "signer: \"local\" is not available on this node: certlet node offers it only with --allow-local-signer, \
         which is for development"
    );
    assert_eq!(error.class(), FailureClass::Permanent);
    assert!(issuer.signer(SignerKind::AcmPca).err().unwrap().to_string().contains("AWS Private CA"));
}

#[tokio::test]
async fn failures_are_told_apart_by_class() {
    let class = async |answer| {
        let issuer = Issuer::new(vec![Arc::new(Scripted(answer))], clock());
        run(&issuer, &attributes()).await.unwrap_err().class()
    };
    let reason = String::from("no");
    let retry_after = Some(Duration::from_secs(3));
    let throttled = Err(SignError::Throttled { reason: reason.clone(), retry_after });
    assert_eq!(class(throttled).await, FailureClass::Throttled { retry_after });
    assert_eq!(class(Err(SignError::Transient { reason: reason.clone() })).await, FailureClass::Transient);
    assert_eq!(class(Err(SignError::Permanent { reason })).await, FailureClass::Permanent);
    let junk = SignedChain { chain: b"junk".to_vec(), ca: None, remark: None };
    assert_eq!(class(Ok(junk)).await, FailureClass::Permanent);
    let expired =
        IssueError::Refused(VerifyError::Expired { subject: String::new(), not_after: Timestamp::now() });
    assert_eq!(expired.class(), FailureClass::Transient);
}

#[tokio::test]
async fn a_burst_of_rsa_keys_leaves_room_for_others() {
    let issuer = Arc::new(local());
    let burst: Vec<_> = (0..8)
        .map(|_| {
            let issuer = Arc::clone(&issuer);
            tokio::spawn(async move { issuer.make_key(KeyAlgorithm::Rsa2048).await })
        })
        .collect();
    tokio::task::yield_now().await;
    issuer.make_key(KeyAlgorithm::EcdsaP256).await.unwrap();
    assert!(burst.iter().any(|task| !task.is_finished()));
    for task in burst {
        task.await.unwrap().unwrap();
    }
}

/// Prints what each step of an issuance costs; asserts nothing, machines differ.
#[tokio::test]
async fn the_cost_of_each_step_is_printed() {
    const ROUNDS: u32 = 300;
    let issuer = local();
    let mut attributes = attributes();
    for algorithm in ALL_ALGORITHMS.into_iter().skip(3) {
        attributes.key.algorithm = algorithm;
        let start = Instant::now();
        for _ in 0..ROUNDS {
            PrivateKey::generate(algorithm).unwrap();
        }
        let key = start.elapsed() / ROUNDS;
        let start = Instant::now();
        for _ in 0..ROUNDS {
            let bundle = run(&issuer, &attributes).await.unwrap();
            crate::delivery::encode(&bundle, &attributes.files, KeyEncoding::Pkcs8).unwrap();
        }
        println!(
            "{algorithm:?}: key {key:?}, key + csr + local signature + verify + encode {:?}",
            start.elapsed() / ROUNDS
        );
    }
    attributes.key.algorithm = KeyAlgorithm::EcdsaP256;
    let password = secrecy::SecretString::from("changeit");
    attributes.files.pkcs12 = Some(crate::attributes::Pkcs12 { file: "keystore.p12".into(), password });
    let bundle = run(&issuer, &attributes).await.unwrap();
    let start = Instant::now();
    for _ in 0..ROUNDS {
        crate::delivery::encode(&bundle, &attributes.files, KeyEncoding::Pkcs8).unwrap();
    }
    println!("encode with PKCS#12: {:?}", start.elapsed() / ROUNDS);
}
