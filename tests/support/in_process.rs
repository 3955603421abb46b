//! The driver in the process of the test, with a clock and a signer that the test controls.

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
    let clock = ManualClock::new();
    let signer = ScriptedSigner::new(&clock, slow);
    let (driver, kubelet) = InProcess::start(&mut node, &clock, &signer).await;
    (node, driver, kubelet)
}

/// The driver in this process, on a node's directories.
pub struct InProcess {
    pub clock: Arc<ManualClock>,
    pub signer: Arc<ScriptedSigner>,
    pub volumes: VolumeService,
    shutdown: CancellationToken,
    running: JoinHandle<Result<(), NodeError>>,
}

impl InProcess {
    /// Starts the driver, and registers it as the kubelet would.
    pub async fn start(
        node: &mut Node,
        clock: &Arc<ManualClock>,
        signer: &Arc<ScriptedSigner>,
    ) -> (Self, Kubelet) {
        Self::start_with(node, clock, signer, |_| {}).await
    }

    /// As [`Self::start`], with another configuration.
    pub async fn start_with(
        node: &mut Node,
        clock: &Arc<ManualClock>,
        signer: &Arc<ScriptedSigner>,
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
            classes: None,
            pins: Vec::new(),
            crls: certlet::trust::CrlOptions::default(),
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
            defaults: certlet::attributes::OperatorDefaults::default(),
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

    /// Stops the driver, and starts a new one with the same clock and signer.
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
pub struct ManualClock {
    now: watch::Sender<Timestamp>,
    /// The number of calls of `wait_until`.
    pub waits: AtomicUsize,
}

impl ManualClock {
    pub fn new() -> Arc<Self> {
        // It starts at the real time, so that certificates are valid for openssl, which uses the machine's clock.
        Arc::new(Self { now: watch::Sender::new(Timestamp::now()), waits: AtomicUsize::new(0) })
    }

    /// Sets the clock forward, or back.
    pub fn advance(&self, by: SignedDuration) {
        self.now.send_modify(|now| *now += by);
    }
}

impl Clock for ManualClock {
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
            // Every change ends the wait, as with a timerfd.
            let _ended = now.changed().await;
        })
    }
}

/// How the signer answers.
#[derive(Clone)]
pub enum Behaviour {
    Signs,
    Fails(Failure),
    Waits,
    /// Waits with the requests of this namespace only.
    WaitsFor(&'static str),
    AnswersGarbage,
}

/// A local CA whose behaviour a test can change. If `slow`, its requests are resumable, as with a remote signer.
pub struct ScriptedSigner {
    ca: LocalCa,
    behaviour: Mutex<Behaviour>,
    slow: bool,
    /// Whether it signs only with a token of the pod.
    pub wants_token: AtomicBool,
    calls: AtomicUsize,
    /// The request of each call.
    pub requests: Mutex<Vec<Vec<u8>>>,
    /// The checkpoint that each call found.
    pub checkpoints: Mutex<Vec<Option<String>>>,
    /// A namespace, and the CA certificates that its answers have besides the CA's own.
    pub more_anchors: Mutex<Option<(String, Vec<u8>)>>,
    /// The number of `removed` notifications.
    pub removed: AtomicUsize,
    behaviour_changed: Notify,
    /// Volumes whose requests it reports as completed.
    completed: Mutex<Vec<VolumeId>>,
    announced: Notify,
}

impl ScriptedSigner {
    pub fn new(clock: &Arc<ManualClock>, slow: bool) -> Arc<Self> {
        Arc::new(Self {
            ca: LocalCa::ephemeral(Arc::clone(clock) as Arc<dyn Clock>).unwrap(),
            behaviour: Mutex::new(Behaviour::Signs),
            slow,
            wants_token: AtomicBool::new(false),
            calls: AtomicUsize::new(0),
            requests: Mutex::default(),
            checkpoints: Mutex::default(),
            more_anchors: Mutex::default(),
            removed: AtomicUsize::new(0),
            behaviour_changed: Notify::new(),
            completed: Mutex::default(),
            announced: Notify::new(),
        })
    }

    pub fn set(&self, behaviour: Behaviour) {
        *self.behaviour.lock().unwrap() = behaviour;
        self.behaviour_changed.notify_waiters();
    }

    /// Reports a request as completed, like a signer whose watch shows a certificate that no call waits for.
    pub fn complete(&self, volume: VolumeId) {
        self.completed.lock().unwrap().push(volume);
        self.announced.notify_one();
    }

    /// The number of reports that the driver has not taken yet.
    pub fn unreported(&self) -> usize {
        self.completed.lock().unwrap().len()
    }

    /// The number of `sign` calls.
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }
}

impl Signer for ScriptedSigner {
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
                let changed = self.behaviour_changed.notified();
                let behaviour = self.behaviour.lock().unwrap().clone();
                match behaviour {
                    Behaviour::WaitsFor(namespace) if request.identity.namespace == namespace => {
                        changed.await;
                    }
                    Behaviour::Signs | Behaviour::WaitsFor(_) => {
                        let mut signed = self.ca.sign(request).await?;
                        if let Some((namespace, anchors)) = &*self.more_anchors.lock().unwrap()
                            && *namespace == request.identity.namespace
                        {
                            signed.ca.get_or_insert_default().extend_from_slice(anchors);
                        }
                        return Ok(signed);
                    }
                    Behaviour::Fails(error) => return Err(error),
                    Behaviour::AnswersGarbage => {
                        let chain = b"<html>busy</html>".to_vec();
                        return Ok(SignedChain { chain, ca: None, warning: None, template_usages: &[] });
                    }
                    Behaviour::Waits => changed.await,
                }
            }
        })
    }
}

impl SignerNotification for ScriptedSigner {
    fn next_completed(&self) -> BoxFuture<'_, RequestId> {
        Box::pin(async {
            loop {
                if let Some(volume) = self.completed.lock().unwrap().pop() {
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
