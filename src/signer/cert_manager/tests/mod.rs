//! Tests against an API server with scripted answers.

mod decided;
mod interrupted;
mod polled;
mod preconditions;
#[path = "../../../../tests/support/certificate_requests.rs"]
mod server;

use super::*;
use crate::kube::ApiObserver;
use crate::kube::testing::Uncounted;
use crate::model::{CertificateSpec, FailureKind, IssuerRef, PodTokens, SignerSpec, WorkloadIdentity};
use crate::signer::testing::SavedCheckpoint;
use crate::signer::{Checkpoint, Liveness};
use crate::x509::testing::attributes;
use jiff::Timestamp;
use server::Server;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

struct ManualClock(Mutex<Timestamp>);

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.0.lock()
    }

    fn wait_until(&self, _deadline: Option<Timestamp>) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }
}

/// A signer that uses the server, with one request id.
struct Driver {
    /// Number of times that an approval of everything was seen.
    approved_unchecked: Arc<AtomicUsize>,
    server: Server,
    address: SocketAddr,
    clock: Arc<ManualClock>,
    signer: CertManager,
    following: Following,
    removed: Arc<Removed>,
    checkpoint: SavedCheckpoint,
    /// Whether the pod uses a certificate already.
    replaces_certificate: bool,
    id: RequestId,
    pod: WorkloadIdentity,
    tokens: PodTokens,
    spec: CertificateSpec,
}

impl Driver {
    async fn new() -> Self {
        Self::with(CertManagerOptions::default()).await
    }

    async fn with(options: CertManagerOptions) -> Self {
        let (server, address) = Server::start().await;
        let clock = Arc::new(ManualClock(Mutex::new("2026-05-01T12:00:00Z".parse().unwrap())));
        let issuer = IssuerRef { name: "ca".into(), kind: "Issuer".into(), group: "cert-manager.io".into() };
        let removed = Arc::new(Removed::default());
        let approved_unchecked = Arc::<AtomicUsize>::default();
        let following = options.following;
        let driver = Self {
            signer: signer(
                address,
                &clock,
                options,
                Arc::clone(&removed) as _,
                Arc::clone(&approved_unchecked),
            ),
            following,
            approved_unchecked,
            removed,
            server,
            address,
            clock,
            checkpoint: SavedCheckpoint::default(),
            replaces_certificate: false,
            id: RequestId::new(format!("csi-{}", "0a".repeat(32))),
            pod: WorkloadIdentity {
                namespace: "shop".into(),
                name: "web-0".into(),
                uid: "uid-1".into(),
                service_account: "web".into(),
            },
            tokens: PodTokens::default(),
            spec: CertificateSpec {
                signer: SignerSpec::CertManager {
                    issuer: Some(issuer),
                    usage_words: vec![
                        "signing".to_owned(),
                        "key encipherment".to_owned(),
                        "signing".to_owned(),
                    ],
                    annotations: BTreeMap::new(),
                },
                ..attributes()
            },
        };
        driver.watched(1).await;
        driver
    }

    /// Ends the process and starts another.
    async fn restart(&mut self) {
        let (removed, approved_unchecked) =
            (Arc::clone(&self.removed) as _, Arc::clone(&self.approved_unchecked));
        self.signer = signer(self.address, &self.clock, self.options(), removed, approved_unchecked);
        self.watched(2).await;
    }

    fn options(&self) -> CertManagerOptions {
        CertManagerOptions { following: self.following, ..CertManagerOptions::default() }
    }

    async fn watched(&self, times: usize) {
        if self.following == Following::Watch {
            self.server.watched(times).await;
        }
    }

    async fn sign(&self) -> Result<SignedChain, Failure> {
        self.sign_csr(b"csr").await
    }

    /// A call that is cancelled while its request waits.
    async fn sign_until_cancelled(&self) {
        let waiting = tokio::time::timeout(Duration::from_millis(300), self.sign()).await;
        assert!(waiting.is_err());
    }

    async fn sign_csr(&self, csr_der: &[u8]) -> Result<SignedChain, Failure> {
        let request = SigningRequest {
            id: &self.id,
            identity: &self.pod,
            tokens: &self.tokens,
            spec: &self.spec,
            csr_der,
            checkpoint: &self.checkpoint,
            needed_by: jiff::Timestamp::MAX,
            replaces_certificate: self.replaces_certificate,
            not_ready_count: 0,
        };
        let limit = Duration::from_secs(20);
        tokio::time::timeout(limit, self.signer.sign(&request)).await.expect("an answer within 20 s")
    }

    /// Signs, and meanwhile runs `act` on the only request.
    async fn sign_while(&self, act: impl AsyncFnOnce(&Server, String)) -> Result<SignedChain, Failure> {
        let acting = async { act(&self.server, self.server.only().await).await };
        tokio::join!(self.sign(), acting).0
    }

    async fn sign_and_issue(&self) {
        let signed = self.sign_while(async |server, name| server.issue(&name)).await.unwrap();
        assert_eq!((signed.chain.as_slice(), signed.ca.as_deref()), (&b"leaf"[..], Some(&b"root"[..])));
    }

    /// Signs without a checkpoint, with a new request.
    async fn sign_new_request(&self) {
        *self.checkpoint.0.lock() = None;
        let known = self.server.names();
        tokio::join!(self.sign(), self.issue_new(&known)).0.unwrap();
    }

    /// Signs again after the request `first` has ended, and returns the name of the new request.
    async fn sign_again_and_issue(&self, first: &str) -> String {
        let known = [first.to_owned()];
        let (signed, second) = tokio::join!(self.sign(), self.issue_new(&known));
        signed.unwrap();
        second
    }

    /// Issues the first request that is not one of the known ones.
    async fn issue_new(&self, known: &[String]) -> String {
        let name = self.server.new_besides(known).await;
        self.server.issue(&name);
        name
    }

    fn issued(&self) -> IssuedCertificate<'_> {
        let namespace = &self.pod.namespace;
        IssuedCertificate { id: &self.id, namespace, spec: &self.spec, serial: None, superseded: None }
    }
}

/// The ids that were removed.
#[derive(Default)]
struct Removed(Mutex<Vec<RequestId>>);

impl LiveRequests for Removed {
    fn liveness(&self, _signer: SignerKind, id: &RequestId, _namespace: &str) -> Liveness {
        if self.0.lock().contains(id) { Liveness::Removed } else { Liveness::Present }
    }
}

fn signer(
    address: SocketAddr,
    clock: &Arc<ManualClock>,
    options: CertManagerOptions,
    live: Arc<dyn LiveRequests>,
    approvals: Arc<AtomicUsize>,
) -> CertManager {
    let options = CertManagerOptions { node: "node-1".into(), ..options };
    let cluster = Cluster::at(address, Arc::new(Uncounted));
    let clock = Arc::clone(clock) as Arc<dyn Clock>;
    let observer = Arc::new(ApprovalObserver(approvals));
    let signer = CertManager::new(cluster, options, clock, observer, live, CancellationToken::new());
    signer.ensure_watching();
    signer
}

/// Counts what is approved unchecked.
struct ApprovalObserver(Arc<AtomicUsize>);

impl ApiObserver for ApprovalObserver {
    fn admit(&self) -> BoxFuture<'_, ()> {
        Uncounted.admit()
    }

    fn api_call(&self, _verb: &'static str, _code: u16) {}

    fn watch_restarted(&self) {}

    fn requests_tracked(&self, _tracked: usize, _ignored: u64) {}

    fn approved_unchecked(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn permanent(result: Result<SignedChain, Failure>) -> String {
    of_kind(FailureKind::Permanent, result)
}

fn transient(result: Result<SignedChain, Failure>) -> String {
    of_kind(FailureKind::Transient, result)
}

fn of_kind(kind: FailureKind, result: Result<SignedChain, Failure>) -> String {
    let failure = result.unwrap_err();
    assert_eq!(failure.kind, kind, "{failure}");
    failure.message
}
