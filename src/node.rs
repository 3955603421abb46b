//! `certlet node`, put together: store, signers, lifecycle, CSI server, registration, admin server.

mod cluster;
mod config;
mod health;

pub use cluster::ClusterConfig;
pub use config::{Config, LocalSigner, PcaConfig};

use crate::attributes::SignerKind;
use crate::clock::{Clock, SystemClock};
use crate::csi::{CsiServer, Registration, RegistrationState, SocketError};
use crate::issue::Issuer;
use crate::kube::KubeError;
use crate::lifecycle::{Lifecycle, LifecycleError, Parts, Recovered};
use crate::policy::{LivePolicy, PolicyError};
use crate::signer::{AcmPca, AcmPcaParts, Ledger, LocalCa, LocalCaError, PcaMetrics, Signer};
use crate::store::{Store, StoreError};
use crate::telemetry::{Admin, CountedSigner, Metrics};
use cluster::Around;
use health::NodeHealth;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Why the driver could not run.
#[derive(Debug, Error)]
pub enum NodeError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The local signer's CA.
    #[error(transparent)]
    LocalCa(#[from] LocalCaError),
    /// The cluster.
    #[error(transparent)]
    Kube(#[from] KubeError),
    /// The policy for AWS Private CA.
    #[error("--pca-policy: {0}")]
    Policy(#[from] PolicyError),
    /// The CSI socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// Recovery.
    #[error("the volumes of the last run could not be read: {0}")]
    Recovery(LifecycleError),
    /// The admin server.
    #[error("--metrics-bind-address {address}: {source}")]
    Admin {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The CSI server.
    #[error("the CSI server failed: {0}")]
    Serve(#[from] tonic::transport::Error),
}

/// Runs the driver until `shutdown`, on the machine's clock.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), NodeError> {
    run_with(config, Arc::new(SystemClock), Vec::new(), shutdown).await
}

/// Runs the driver with another clock, and with signers beside those of the configuration.
pub async fn run_with(
    config: Config,
    clock: Arc<dyn Clock>,
    mut signers: Vec<Arc<dyn Signer>>,
    shutdown: CancellationToken,
) -> Result<(), NodeError> {
    let metrics = Arc::new(Metrics::default());
    let store = Arc::new(open_store(&config, &shutdown).await?);
    let around = Around::find(&config.cluster, &config.driver, &metrics).await?;
    // The signers work on while what is in flight at the shutdown waits for their answers. They end after it, and also
    // where this function ends early.
    let signers_end = CancellationToken::new();
    let signing = signers_end.clone().drop_guard();
    signers.extend(local_signer(&config, &clock)?);
    signers.extend(around.signer(&config.cluster, &clock, &signers_end));
    signers.extend(pca_signer(&config, &clock, &metrics, &store, &signers_end)?);
    let kinds: Vec<SignerKind> = signers.iter().map(|signer| signer.kind()).collect();
    let signers =
        signers.into_iter().map(|signer| CountedSigner::around(signer, Arc::clone(&metrics))).collect();
    let lifecycle = Lifecycle::new(Parts {
        store,
        issuer: Issuer::new(signers, Arc::clone(&clock)),
        clock,
        metrics: Arc::clone(&metrics),
        events: around.events(),
        limits: config.limits,
        continue_on_not_ready: config.cluster.continue_on_not_ready,
    });
    metrics.watch_volumes(Box::new(lifecycle.sampler()), config.metrics_per_volume);
    let Recovered { adopted, waiting, removed, unreadable } =
        lifecycle.recover().await.map_err(NodeError::Recovery)?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"), driver = config.driver.name, node = config.driver.node_id, signers = ?kinds,
        adopted, waiting, removed, unreadable, "certlet starts"
    );
    serve(config, lifecycle, metrics, &around, signing, shutdown).await
}

/// Opens the store, as soon as the process before this one has let go of it: a node's driver is replaced while the old
/// one still finishes what is in flight.
async fn open_store(config: &Config, shutdown: &CancellationToken) -> Result<Store, StoreError> {
    const PAUSE: Duration = Duration::from_millis(100);
    let mut patience = config.shutdown_grace + Duration::from_secs(5);
    let (store, opened) = loop {
        match Store::open(&config.store) {
            Err(StoreError::InUse { .. }) if !patience.is_zero() && !shutdown.is_cancelled() => {
                tokio::time::sleep(PAUSE).await;
                patience = patience.saturating_sub(PAUSE);
            }
            opened => break opened?,
        }
    };
    if !opened.noswap {
        tracing::warn!(
            path = %config.store.root.display(),
            "the store's tmpfs may be swapped out: this kernel or user namespace does not take noswap; switch swap off on this node"
        );
    }
    for warning in &opened.warnings {
        tracing::warn!(path = %config.store.root.display(), "{warning}");
    }
    Ok(store)
}

fn local_signer(config: &Config, clock: &Arc<dyn Clock>) -> Result<Option<Arc<dyn Signer>>, LocalCaError> {
    Ok(match &config.local_signer {
        None => None,
        Some(LocalSigner::Ephemeral) => Some(Arc::new(LocalCa::ephemeral(Arc::clone(clock))?)),
        Some(LocalSigner::Files { certificate, key }) => {
            Some(Arc::new(LocalCa::from_files(certificate, key, Arc::clone(clock))?))
        }
    })
}

fn pca_signer(
    config: &Config,
    clock: &Arc<dyn Clock>,
    metrics: &Metrics,
    store: &Store,
    end: &CancellationToken,
) -> Result<Option<Arc<dyn Signer>>, PolicyError> {
    let Some(PcaConfig { policy, fleet, revoke, pod_identity }) = &config.pca else { return Ok(None) };
    let policy = Arc::new(LivePolicy::open(policy)?);
    let counted = PcaMetrics::default();
    metrics.extend(|registry| {
        counted.register(registry);
        policy.loads().register(registry);
    });
    let (followed, until) = (Arc::clone(&policy), end.clone());
    tokio::spawn(async move { followed.follow(until).await });
    let signer = Arc::new(AcmPca::new(AcmPcaParts {
        policy,
        fleet: *fleet,
        node: config.driver.node_id.clone(),
        clock: Arc::clone(clock),
        metrics: counted,
        revocations: revoke.then(|| Arc::new(store.ledger("revocations")) as Arc<dyn Ledger>),
        pod_identity: pod_identity.clone(),
    }));
    let (turned, until) = (Arc::clone(&signer), end.clone());
    tokio::spawn(async move { turned.turn(until).await });
    Ok(Some(signer))
}

async fn serve(
    config: Config,
    lifecycle: Lifecycle,
    metrics: Arc<Metrics>,
    around: &Around,
    signing: DropGuard,
    shutdown: CancellationToken,
) -> Result<(), NodeError> {
    let listener = CsiServer::listen(&config.endpoint)?;
    let (state, registered) = watch::channel(RegistrationState::Waiting);
    around.untaint_when_ready(config.cluster.startup_taint.as_deref(), registered.clone());
    if let Some(address) = config.metrics_bind_address {
        let admin = bind(address).await.map_err(|source| NodeError::Admin { address, source })?;
        let health = NodeHealth {
            endpoint: config.endpoint.clone(),
            lifecycle: lifecycle.clone(),
            registered: config.registration_dir.is_some().then_some(registered),
        };
        let admin_server = Admin { metrics: Arc::clone(&metrics), health: Arc::new(health) };
        tokio::spawn(admin_server.serve(admin, shutdown.clone()));
    }
    let registering = config.registration_dir.as_ref().map(|directory| {
        let registration = Registration {
            socket: directory.join(format!("{}-reg.sock", config.driver.name)),
            driver_name: config.driver.name.clone(),
            endpoint: config.kubelet_endpoint.clone(),
            metrics: Arc::clone(&metrics),
            state,
        };
        tokio::spawn(registration.keep(shutdown.clone()))
    });
    let turning = lifecycle.clone();
    tokio::spawn(async move { turning.turn().await });
    let server = CsiServer { driver: config.driver, lifecycle: lifecycle.clone(), metrics };
    let mut serving = tokio::spawn(server.serve(listener, shutdown.clone()));
    tokio::select! {
        // Shutdown ends the server too, and is what comes first then.
        biased;
        () = shutdown.cancelled() => {}
        ended = &mut serving => return ended.unwrap_or(Ok(())).map_err(NodeError::from),
    }
    tracing::info!(
        grace_seconds = config.shutdown_grace.as_secs_f64(),
        "shutting down; mounts stay as they are"
    );
    lifecycle.shut_down(config.shutdown_grace).await;
    // Nobody waits for a signer any more.
    drop(signing);
    if let Some(registering) = registering {
        let _ended = registering.await;
    }
    // A client that keeps its connection open does not keep the process: everything in flight has been answered.
    if tokio::time::timeout(Duration::from_millis(500), &mut serving).await.is_err() {
        serving.abort();
    }
    let _gone = std::fs::remove_file(&config.endpoint);
    tracing::info!("certlet ends");
    Ok(())
}

/// Listens; "every address" is that also on a node without IPv6.
async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(error) if address.ip() == Ipv6Addr::UNSPECIFIED && error.kind() != io::ErrorKind::AddrInUse => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        listener => listener,
    }
}
