//! Against an API server whose answers are scripted.

mod server;

use super::*;
use crate::attributes::{Attributes, IssuerRef, PodIdentity, PodTokens, VolumeContext, VolumeId};
use crate::x509::testing::attributes;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use server::{Mishap, Server};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

struct HandClock(Mutex<Timestamp>);

impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }

    fn wait_until(&self, _deadline: Option<Timestamp>) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }
}

struct Uncounted;

impl ApiObserver for Uncounted {
    fn api_call(&self, _verb: &'static str, _code: u16) {}
    fn watch_restarted(&self) {}
}

#[derive(Default)]
struct Notes(Mutex<Option<String>>);

impl Progress for Notes {
    fn load(&self) -> Option<String> {
        self.0.lock().unwrap().clone()
    }

    fn save(&self, note: &str) -> Result<(), SignError> {
        *self.0.lock().unwrap() = Some(note.to_owned());
        Ok(())
    }
}

/// A driver beside the server, with one volume.
struct Driver {
    server: Server,
    address: SocketAddr,
    clock: Arc<HandClock>,
    signer: CertManager,
    notes: Notes,
    volume: VolumeId,
    pod: PodIdentity,
    tokens: PodTokens,
    attributes: Attributes,
}

impl Driver {
    async fn new() -> Self {
        Self::with(CertManagerOptions::default()).await
    }

    async fn with(options: CertManagerOptions) -> Self {
        let (server, address) = Server::start().await;
        let clock = Arc::new(HandClock(Mutex::new("2026-05-01T12:00:00Z".parse().unwrap())));
        let issuer = IssuerRef { name: "ca".into(), kind: "Issuer".into(), group: "cert-manager.io".into() };
        let driver = Self {
            signer: signer(address, &clock, options),
            server,
            address,
            clock,
            notes: Notes::default(),
            volume: VolumeId::new(format!("csi-{}", "0a".repeat(32))),
            pod: PodIdentity {
                namespace: "shop".into(),
                name: "web-0".into(),
                uid: "uid-1".into(),
                service_account: "web".into(),
            },
            tokens: PodTokens::default(),
            attributes: Attributes { issuer: Some(issuer), ..attributes() },
        };
        driver.server.watched(1).await;
        driver
    }

    /// The process ends, and another takes its place.
    async fn restart(&mut self) {
        self.signer = signer(self.address, &self.clock, CertManagerOptions::default());
        self.server.watched(2).await;
    }

    async fn sign(&self) -> Result<SignedChain, SignError> {
        self.sign_csr(b"csr").await
    }

    async fn sign_csr(&self, csr_der: &[u8]) -> Result<SignedChain, SignError> {
        let request = SigningRequest {
            volume: &self.volume,
            pod: &self.pod,
            tokens: &self.tokens,
            attributes: &self.attributes,
            csr_der,
            progress: &self.notes,
            purpose: crate::signer::Purpose::Publish,
        };
        let patience = Duration::from_secs(20);
        tokio::time::timeout(patience, self.signer.sign(&request)).await.expect("an answer within 20 s")
    }

    /// Signs while something is done to the one request there is.
    async fn sign_while(&self, act: impl AsyncFnOnce(&Server, String)) -> Result<SignedChain, SignError> {
        let acting = async { act(&self.server, self.server.only().await).await };
        tokio::join!(self.sign(), acting).0
    }

    async fn sign_and_issue(&self) {
        let signed = self.sign_while(async |server, name| server.issue(&name)).await.unwrap();
        assert_eq!((signed.chain.as_slice(), signed.ca.as_deref()), (&b"leaf"[..], Some(&b"root"[..])));
    }

    fn signed_volume(&self) -> SignedVolume<'_> {
        SignedVolume {
            id: &self.volume,
            pod: &self.pod,
            attributes: &self.attributes,
            serial: None,
            superseded: None,
        }
    }
}

fn signer(address: SocketAddr, clock: &Arc<HandClock>, options: CertManagerOptions) -> CertManager {
    let options = CertManagerOptions { node: "node-1".into(), ..options };
    let cluster = Cluster::at(address, Arc::new(Uncounted));
    let clock = Arc::clone(clock) as Arc<dyn Clock>;
    let signer = CertManager::new(cluster, options, clock, Arc::new(Uncounted), CancellationToken::new());
    signer.ensure_watching();
    signer
}

fn permanent(result: Result<SignedChain, SignError>) -> String {
    match result {
        Err(SignError::Permanent { reason }) => reason,
        other => panic!("{other:?}"),
    }
}

fn transient(result: Result<SignedChain, SignError>) -> String {
    match result {
        Err(SignError::Transient { reason }) => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_certificate_costs_one_create_and_no_get() {
    let driver = Driver::new().await;
    driver.sign_and_issue().await;
    let object = driver.server.object(&driver.server.only().await);
    assert_eq!((driver.server.calls("create"), driver.server.calls("get")), (1, 0));
    assert_eq!(object["metadata"]["ownerReferences"][0]["uid"], "uid-1");
    assert_eq!(object["metadata"]["labels"]["certlet.io/node"], "node-1");
    assert_eq!(object["metadata"]["annotations"]["certlet.io/volume-id"], driver.volume.as_str());
    assert_eq!(object["spec"]["duration"], "24h0m0s");
    assert_eq!(object["spec"]["usages"], json!(["digital signature", "key encipherment"]));
    assert_eq!(
        object["spec"]["issuerRef"],
        json!({"name": "ca", "kind": "Issuer", "group": "cert-manager.io"})
    );
}

#[tokio::test]
async fn a_create_whose_answer_was_lost_is_found_again() {
    let driver = Driver::new().await;
    driver.server.next_create(Mishap::LoseAnswer);
    transient(driver.sign().await);
    driver.sign_and_issue().await;
    assert_eq!(driver.server.names().len(), 1);
}

#[tokio::test]
async fn a_watch_that_closed_is_taken_up_where_it_was() {
    let driver = Driver::new().await;
    let signed = driver
        .sign_while(async |server, name| {
            server.close_watches(true);
            server.issue(&name);
            tokio::time::sleep(Duration::from_millis(500)).await;
            server.close_watches(false);
        })
        .await;
    signed.unwrap();
    assert_eq!(driver.server.calls("get"), 0);
}

#[tokio::test]
async fn an_expired_resource_version_costs_a_new_list_and_loses_nothing() {
    let driver = Driver::new().await;
    let signed = driver
        .sign_while(async |server, name| {
            server.close_watches(true);
            server.issue(&name);
            server.expire();
        })
        .await;
    signed.unwrap();
    assert!(driver.server.calls("list") >= 2);
}

#[tokio::test]
async fn a_throttled_create_says_for_how_long() {
    let driver = Driver::new().await;
    let body = "Too many requests, please try again later.\n".to_owned();
    driver.server.next_create(Mishap::Refuse { code: 429, body, retry_after: Some(7) });
    let Err(SignError::Throttled { retry_after, .. }) = driver.sign().await else { panic!("not throttled") };
    assert_eq!(retry_after, Some(Duration::from_secs(7)));
    driver.sign_and_issue().await;
}

#[tokio::test]
async fn a_failing_server_is_asked_again_under_the_same_name() {
    let driver = Driver::new().await;
    driver.server.next_create(Mishap::Refuse { code: 500, body: "oops".into(), retry_after: None });
    transient(driver.sign().await);
    let before = driver.notes.load();
    driver.sign_and_issue().await;
    assert_eq!(driver.notes.load(), before);
}

#[tokio::test]
async fn a_denied_request_stands_for_a_while_and_says_who_denied_it() {
    let driver = Driver::new().await;
    let denied =
        [("Denied", "True", "policy.cert-manager.io", "no such name"), ("Ready", "False", "Denied", "")];
    let reason =
        permanent(driver.sign_while(async |server, name| server.set(&name, &denied, &json!({}))).await);
    assert!(reason.contains("policy.cert-manager.io: no such name"), "{reason}");
    for _ in 0..3 {
        let again = permanent(driver.sign().await);
        assert!(again.contains("no such name") && again.contains("12:10:00Z"), "{again}");
    }
    let first = driver.server.only().await;
    assert_eq!(driver.server.calls("create"), 1);

    *driver.clock.0.lock().unwrap() += SignedDuration::from_mins(10);
    let mended = async {
        let names = driver.server.number(1).await;
        let mut second = names[0].clone();
        while second == first {
            tokio::time::sleep(Duration::from_millis(10)).await;
            second = driver.server.names().into_iter().find(|name| *name != first).unwrap_or(second);
        }
        driver.server.issue(&second);
    };
    let (signed, ()) = tokio::join!(driver.sign(), mended);
    signed.unwrap();
    assert_ne!(driver.server.only().await, first);
}

#[tokio::test]
async fn an_invalid_request_is_permanent() {
    let driver = Driver::new().await;
    let invalid = [("InvalidRequest", "True", "BadSubject", "too long"), ("Ready", "False", "Failed", "x")];
    let reason =
        permanent(driver.sign_while(async |server, name| server.set(&name, &invalid, &json!({}))).await);
    assert!(reason.contains("BadSubject: too long"), "{reason}");
}

#[tokio::test]
async fn a_failed_request_is_replaced_by_another_for_the_same_key() {
    let driver = Driver::new().await;
    let failed = [("Approved", "True", "", ""), ("Ready", "False", "Failed", "backend down")];
    let reason =
        transient(driver.sign_while(async |server, name| server.set(&name, &failed, &json!({}))).await);
    assert!(reason.contains("backend down"), "{reason}");
    let first = driver.server.only().await;
    let csr = driver.server.object(&first)["spec"]["request"].clone();
    let again = async {
        loop {
            if let Some(second) = driver.server.names().into_iter().find(|name| *name != first) {
                assert_eq!(driver.server.object(&second)["spec"]["request"], csr);
                return driver.server.issue(&second);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let (signed, ()) = tokio::join!(driver.sign(), again);
    signed.unwrap();
    assert_ne!(driver.server.only().await, first);
}

#[tokio::test]
async fn a_request_nobody_approves_says_so_and_is_signed_once_somebody_does() {
    let driver = Driver::new().await;
    let waiting = tokio::time::timeout(Duration::from_millis(300), driver.sign()).await;
    assert!(waiting.is_err());
    let words = driver.signer.describe(&driver.notes.load().unwrap());
    assert!(
        words.contains("CertificateRequest shop/web-0-") && words.contains("not approved yet"),
        "{words}"
    );
    driver.sign_and_issue().await;
    assert_eq!(driver.server.calls("create"), 1);
}

#[tokio::test]
async fn a_restart_takes_up_the_request_that_waits() {
    let mut driver = Driver::new().await;
    let waiting = tokio::time::timeout(Duration::from_millis(300), driver.sign()).await;
    assert!(waiting.is_err());
    driver.restart().await;
    driver.sign_and_issue().await;
    assert_eq!(driver.server.calls("create"), 1);
}

#[tokio::test]
async fn a_request_signed_while_nobody_ran_is_found_signed() {
    let mut driver = Driver::new().await;
    let waiting = tokio::time::timeout(Duration::from_millis(300), driver.sign()).await;
    assert!(waiting.is_err());
    driver.server.issue(&driver.server.only().await);
    driver.restart().await;
    driver.sign().await.unwrap();
    assert_eq!(driver.server.names().len(), 1);
}

#[tokio::test]
async fn a_request_that_somebody_deletes_is_made_again() {
    let driver = Driver::new().await;
    transient(driver.sign_while(async |server, name| server.delete(&name)).await);
    driver.sign_and_issue().await;
}

#[tokio::test]
async fn only_the_newest_requests_are_kept_and_none_of_a_volume_that_went() {
    let driver = Driver::new().await;
    driver.sign_and_issue().await;
    let first = driver.server.only().await;
    *driver.notes.0.lock().unwrap() = None;
    let renewal = async {
        let names = driver.server.number(2).await;
        driver.server.issue(names.iter().find(|name| **name != first).unwrap());
    };
    tokio::join!(driver.sign_csr(b"another csr"), renewal).0.unwrap();
    driver.signer.delivered(&driver.signed_volume()).await;
    assert_ne!(driver.server.only().await, first);
    driver.signer.removed(&driver.signed_volume()).await;
    driver.server.number(0).await;
}

#[tokio::test]
async fn a_request_that_turns_up_after_its_volume_went_goes_too() {
    let mut driver = Driver::new().await;
    let waiting = tokio::time::timeout(Duration::from_millis(300), driver.sign()).await;
    assert!(waiting.is_err());
    // The new process hears of the volume's end before its first list.
    driver.signer = signer(driver.address, &driver.clock, CertManagerOptions::default());
    driver.signer.removed(&driver.signed_volume()).await;
    driver.server.number(0).await;
}

#[tokio::test]
async fn requests_are_made_with_the_pods_token_while_it_lasts() {
    let options = CertManagerOptions { token_audience: Some(String::new()), ..CertManagerOptions::default() };
    let mut driver = Driver::with(options).await;
    let missing = transient(driver.sign().await);
    assert!(missing.contains("tokenRequests"), "{missing}");

    driver.tokens = tokens("2026-05-01T12:10:00Z");
    driver.sign_and_issue().await;
    assert_eq!(driver.server.tokens(), [Some("pods-own".to_owned())]);

    *driver.clock.0.lock().unwrap() += SignedDuration::from_mins(10);
    *driver.notes.0.lock().unwrap() = None;
    let expired = transient(driver.sign_csr(b"another").await);
    assert!(expired.contains("expired at 2026-05-01T12:10:00Z"), "{expired}");
    assert_eq!(driver.server.calls("create"), 1);
}

fn tokens(expires: &str) -> PodTokens {
    let pod = [("pod.name", "p"), ("pod.namespace", "n"), ("pod.uid", "u"), ("serviceAccount.name", "s")];
    let mut context: HashMap<String, String> =
        pod.iter().map(|(key, value)| (format!("csi.storage.k8s.io/{key}"), (*value).to_owned())).collect();
    context.insert("csi.storage.k8s.io/ephemeral".into(), "true".into());
    let tokens = json!({ "": { "token": "pods-own", "expirationTimestamp": expires } }).to_string();
    context.insert("csi.storage.k8s.io/serviceAccount.tokens".into(), tokens);
    VolumeContext::parse(context, HashMap::new()).unwrap().tokens
}

#[tokio::test]
async fn nothing_is_asked_for_before_the_gates_open() {
    let gates = vec!["pod-ip:any".parse().unwrap()];
    let driver = Driver::with(CertManagerOptions { gates, ..CertManagerOptions::default() }).await;
    driver.server.put_pod("web-0", json!({ "metadata": {}, "status": {} }));
    let Err(SignError::NotReady { reason, .. }) = driver.sign().await else { panic!("ready") };
    assert!(reason.contains("no any address") || reason.contains("address yet"), "{reason}");
    assert_eq!(driver.server.calls("create"), 0);
    driver.server.put_pod("web-0", json!({ "metadata": {}, "status": { "podIPs": [{ "ip": "10.0.0.1" }] } }));
    driver.sign_and_issue().await;
}
