//! The driver in the process of the test, with a clock that is turned by hand and a signer that does as it is told.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "support for tests"
)]

use crate::support::{DRIVER, Node};
use certlet::csi::Driver;
use certlet::model::Failure;
use certlet::model::{CertificateSpec, SignerKind, VolumeId};
use certlet::platform::Clock;
use certlet::run::{self, Config, NodeError};
use certlet::signer::{
    ConfiguredSigner, IssuedCertificate, LocalCa, RequestId, SignedChain, Signer, SignerNotification,
    SigningRequest,
};
use certlet::volume::{Limits, StoreOptions, VolumeService};
use certlet_kubelet::Kubelet;
use futures_util::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A node, its driver with a signer that signs, and the kubelet.
pub async fn started(slow: bool) -> (Node, InProcess, Kubelet) {
    let mut node = Node::new();
    let clock = HandClock::new();
    let signer = MoodySigner::new(&clock, slow);
    let (driver, kubelet) = InProcess::start(&mut node, &clock, &signer).await;
    (node, driver, kubelet)
}

/// The driver in this process, on a node's directories.
pub struct InProcess {
    pub clock: Arc<HandClock>,
    pub signer: Arc<MoodySigner>,
    pub volumes: VolumeService,
    shutdown: CancellationToken,
    running: JoinHandle<Result<(), NodeError>>,
}

impl InProcess {
    /// Starts it, and registers it as the kubelet would.
    pub async fn start(
        node: &mut Node,
        clock: &Arc<HandClock>,
        signer: &Arc<MoodySigner>,
    ) -> (Self, Kubelet) {
        Self::start_with(node, clock, signer, |_| {}).await
    }

    /// As [`Self::start`], with another configuration.
    pub async fn start_with(
        node: &mut Node,
        clock: &Arc<HandClock>,
        signer: &Arc<MoodySigner>,
        configure: impl FnOnce(&mut Config),
    ) -> (Self, Kubelet) {
        let mut config = Config {
            driver: Driver { name: DRIVER.to_owned(), node_id: "node-1".to_owned() },
            endpoint: node.endpoint(),
            kubelet_endpoint: node.endpoint(),
            registration_dir: Some(node.root.join("plugins_registry")),
            store: StoreOptions {
                root: node.data_root(),
                size_bytes: 1 << 24,
                inodes: 4096,
                selinux_context: None,
            },
            metrics_bind_address: None,
            metrics_per_volume: false,
            local_signer: None,
            pca: None,
            limits: Limits {
                publishes: 64,
                renewals: 4,
                renewal_interval: Duration::ZERO,
                volume_bytes: 128 << 10,
                namespace_store_percent: 50,
                volumes_per_pod: 16,
                volumes_per_namespace: 0,
            },
            shutdown_grace: Duration::from_secs(1),
            cluster: certlet::run::ClusterConfig::default(),
        };
        configure(&mut config);
        let shutdown = CancellationToken::new();
        let started = run::Node::start(
            config,
            Arc::clone(clock) as Arc<dyn Clock>,
            vec![ConfiguredSigner::new(Arc::clone(signer))],
            shutdown.clone(),
        );
        let started = started.await.unwrap();
        let volumes = started.volumes.clone();
        let running = tokio::spawn(started.serve());
        let driver =
            Self { clock: Arc::clone(clock), signer: Arc::clone(signer), volumes, shutdown, running };
        (driver, node.kubelet().await)
    }

    /// Ends it, and starts another one in its place with the same clock and signer.
    pub async fn restarted(self, node: &mut Node) -> (Self, Kubelet) {
        let (clock, signer) = (Arc::clone(&self.clock), Arc::clone(&self.signer));
        self.stop().await;
        Self::start(node, &clock, &signer).await
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        self.running.await.unwrap().unwrap();
    }
}

/// A wall clock that stands still until it is set.
pub struct HandClock {
    now: watch::Sender<Timestamp>,
    /// How often anybody began to wait.
    pub waits: AtomicUsize,
}

impl HandClock {
    pub fn new() -> Arc<Self> {
        // Now, so that openssl, which has no other clock, finds certificates valid.
        Arc::new(Self { now: watch::Sender::new(Timestamp::now()), waits: AtomicUsize::new(0) })
    }

    /// Sets it forward, or back.
    pub fn advance(&self, by: SignedDuration) {
        self.now.send_modify(|now| *now += by);
    }
}

impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        *self.now.borrow()
    }

    fn wait_until(&self, deadline: Option<Timestamp>) -> BoxFuture<'_, ()> {
        let mut now = self.now.subscribe();
        Box::pin(async move {
            self.waits.fetch_add(1, Ordering::Relaxed);
            if deadline.is_some_and(|deadline| deadline <= *now.borrow_and_update()) {
                return;
            }
            // Every setting is a jump to the waiter, as it is for a timerfd.
            let _ended = now.changed().await;
        })
    }
}

/// What the signer does next.
#[derive(Clone)]
pub enum Mood {
    Signs,
    Fails(Failure),
    Waits,
    Babbles,
}

/// A local CA with moods, as slow as a remote signer where it is told to be.
pub struct MoodySigner {
    ca: LocalCa,
    mood: Mutex<Mood>,
    slow: bool,
    /// Whether it signs only with a token of the pod's.
    pub wants_token: AtomicBool,
    calls: AtomicUsize,
    /// The request of each call.
    pub requests: Mutex<Vec<Vec<u8>>>,
    /// What each call found noted of those before it.
    pub checkpoints: Mutex<Vec<Option<String>>>,
    /// A namespace, and what its answers have as CA certificates besides the CA's own.
    pub more_anchors: Mutex<Option<(String, Vec<u8>)>>,
    /// How many volumes it was told are gone.
    pub removed: AtomicUsize,
    cheer_up: Notify,
    /// Volumes whose answers it announces.
    answers: Mutex<Vec<VolumeId>>,
    announced: Notify,
}

impl MoodySigner {
    pub fn new(clock: &Arc<HandClock>, slow: bool) -> Arc<Self> {
        Arc::new(Self {
            ca: LocalCa::ephemeral(Arc::clone(clock) as Arc<dyn Clock>).unwrap(),
            mood: Mutex::new(Mood::Signs),
            slow,
            wants_token: AtomicBool::new(false),
            calls: AtomicUsize::new(0),
            requests: Mutex::default(),
            checkpoints: Mutex::default(),
            more_anchors: Mutex::default(),
            removed: AtomicUsize::new(0),
            cheer_up: Notify::new(),
            answers: Mutex::default(),
            announced: Notify::new(),
        })
    }

    pub fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
        self.cheer_up.notify_waiters();
    }

    /// Announces an answer, as a signer does whose watch shows one that nobody waits for.
    pub fn answer(&self, volume: VolumeId) {
        self.answers.lock().unwrap().push(volume);
        self.announced.notify_one();
    }

    /// How many answers the driver has not heard of yet.
    pub fn answers(&self) -> usize {
        self.answers.lock().unwrap().len()
    }

    /// How often it was asked.
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }
}

impl Signer for MoodySigner {
    fn kind(&self) -> SignerKind {
        SignerKind::Local
    }

    fn is_resumable(&self) -> bool {
        self.slow
    }

    fn needs_token(&self, _spec: &CertificateSpec) -> bool {
        self.wants_token.load(Ordering::Relaxed)
    }

    fn describe(&self, checkpoint: &str) -> String {
        checkpoint.to_owned()
    }

    fn sign<'a>(&'a self, request: &'a SigningRequest<'a>) -> BoxFuture<'a, Result<SignedChain, Failure>> {
        Box::pin(async move {
            self.calls.fetch_add(1, Ordering::Relaxed);
            self.requests.lock().unwrap().push(request.csr_der.to_vec());
            self.checkpoints.lock().unwrap().push(request.checkpoint.load());
            if self.slow {
                request.checkpoint.save("request-1")?;
            }
            loop {
                let cheered_up = self.cheer_up.notified();
                let mood = self.mood.lock().unwrap().clone();
                match mood {
                    Mood::Signs => {
                        let mut signed = self.ca.sign(request).await?;
                        if let Some((namespace, anchors)) = &*self.more_anchors.lock().unwrap()
                            && *namespace == request.identity.namespace
                        {
                            signed.ca.get_or_insert_default().extend_from_slice(anchors);
                        }
                        return Ok(signed);
                    }
                    Mood::Fails(error) => return Err(error),
                    Mood::Babbles => {
                        let chain = b"<html>busy</html>".to_vec();
                        return Ok(SignedChain { chain, ca: None, warning: None });
                    }
                    Mood::Waits => cheered_up.await,
                }
            }
        })
    }
}

impl SignerNotification for MoodySigner {
    fn next_completed(&self) -> BoxFuture<'_, RequestId> {
        Box::pin(async {
            loop {
                if let Some(volume) = self.answers.lock().unwrap().pop() {
                    return RequestId::new(volume);
                }
                self.announced.notified().await;
            }
        })
    }

    fn in_use(&self, _issued: &IssuedCertificate<'_>) {}

    fn removed(&self, _issued: &IssuedCertificate<'_>) {
        self.removed.fetch_add(1, Ordering::Relaxed);
    }
}
