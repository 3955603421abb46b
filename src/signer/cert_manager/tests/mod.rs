//! Against an API server whose answers are scripted.

mod decided;
mod interrupted;
mod preconditions;
mod server;

use super::*;
use crate::attributes::{Attributes, IssuerRef, PodIdentity, PodTokens, VolumeId};
use crate::kube::testing::Uncounted;
use crate::signer::Progress;
use crate::x509::testing::attributes;
use jiff::Timestamp;
use server::Server;
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

    /// A call that is cut off while its request waits.
    async fn sign_in_vain(&self) {
        let waiting = tokio::time::timeout(Duration::from_millis(300), self.sign()).await;
        assert!(waiting.is_err());
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

    /// Signs once more, with one more request.
    async fn sign_anew(&self) {
        *self.notes.0.lock().unwrap() = None;
        let known = self.server.names();
        let issuing = async {
            loop {
                tokio::time::sleep(Duration::from_millis(10)).await;
                if let Some(name) = self.server.names().into_iter().find(|name| !known.contains(name)) {
                    break self.server.issue(&name);
                }
            }
        };
        tokio::join!(self.sign(), issuing).0.unwrap();
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
