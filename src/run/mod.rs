//! `certlet node`, put together: store, signers, volumes, CSI server, registration, admin server. `sidecar` and `approver` do the same
//! for `certlet sidecar` and `certlet approver`.

mod admin;
#[cfg(feature = "kubernetes")]
mod approver;
mod classes;
#[cfg(feature = "kubernetes")]
mod cluster;
mod config;
mod health;
mod notices;
#[cfg(feature = "kubernetes")]
mod observer;
#[cfg(feature = "aws")]
mod pca;
mod sidecar;
mod watched_file;

#[cfg(feature = "kubernetes")]
pub use approver::{ApproverConfig, ApproverError, run_approver};
pub use classes::{ClassConfig, ClassesError};
#[cfg(feature = "kubernetes")]
pub use cluster::ClusterConfig;
pub use config::{Config, LocalSigner};
#[cfg(feature = "kubernetes")]
pub use observer::RateLimit;
#[cfg(feature = "aws")]
pub use pca::{PcaConfig, PcaError};
#[cfg(feature = "kubernetes")]
pub use sidecar::SidecarClusterConfig;
pub use sidecar::{SidecarConfig, SidecarEnd, SidecarError, run_sidecar};

use crate::attributes::OperatorDefaults;
use crate::control;
use crate::csi::{CsiServer, Registration, RegistrationState};
#[cfg(feature = "kubernetes")]
use crate::kube::KubeError;
use crate::model::{Failure, SignerKind};
use crate::platform::{self, Clock, SocketError, SystemClock};
pub use crate::sidecar::{PodError, PodNames};
use crate::signer::{ConfiguredSigner, CountedSigner, LocalCa, LocalCaError};
use crate::store::StoreError;
use crate::telemetry::{Metrics, serve_admin};
use crate::trust::{CrlMetrics, Crls, PinError, Pins, TrustMetrics, TrustSources};
use crate::volume::{MountError, Parts, Recovered, Registry, VolumeFiles, VolumeService};
use admin::AdminPages;
use classes::LiveClasses;
use health::Health;
use notices::Notices;
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
    Store(#[from] MountError),
    /// The local signer's CA.
    #[error(transparent)]
    LocalCa(#[from] LocalCaError),
    /// The file of classes.
    #[error(transparent)]
    Classes(#[from] ClassesError),
    /// A file of pinned anchors.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// The cluster.
    #[cfg(feature = "kubernetes")]
    #[error(transparent)]
    Kube(#[from] KubeError),
    /// AWS Private CA.
    #[cfg(feature = "aws")]
    #[error(transparent)]
    Pca(#[from] PcaError),
    /// The CSI socket, or the control socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// Recovery.
    #[error("the volumes of the last run could not be read: {0}")]
    Recovery(Failure),
    /// The admin server.
    #[error("--metrics-bind-address {address}: {source}")]
    Admin {
        /// The address.
        address: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
    /// The CSI server.
    #[error("the CSI server failed: {0}")]
    Serve(#[from] tonic::transport::Error),
}

/// Runs the driver until `shutdown`, on the machine's clock.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), NodeError> {
    Node::start(config, Arc::new(SystemClock), Vec::new(), shutdown).await?.serve().await
}

/// A driver whose volumes are recovered and which does not serve yet.
pub struct Node {
    config: Config,
    defaults: Arc<OperatorDefaults>,
    /// The volumes of this node.
    pub volumes: VolumeService,
    metrics: Arc<Metrics>,
    /// The state of the registration.
    registration: watch::Sender<RegistrationState>,
    /// Ends the signers when dropped.
    signing: DropGuard,
    notices: Arc<Notices>,
    shutdown: CancellationToken,
}

impl Node {
    /// Opens the store and recovers its volumes. `signers` are used in addition to those of the configuration.
    pub async fn start(
        config: Config,
        clock: Arc<dyn Clock>,
        mut signers: Vec<ConfiguredSigner>,
        shutdown: CancellationToken,
    ) -> Result<Self, NodeError> {
        let metrics = Arc::new(Metrics::default());
        let files = open_store(&config, &shutdown).await?;
        let registration = watch::Sender::new(RegistrationState::Waiting);
        // Signers run until everything that is in flight at the shutdown has ended. They also end if this function fails.
        let signers_end = CancellationToken::new();
        let signing = signers_end.clone().drop_guard();
        signers.extend(local_signer(config.local_signer.as_ref(), &clock)?);
        #[cfg(feature = "aws")]
        if let Some(pca) = &config.pca {
            let name = &config.driver.node_id;
            signers.push(pca::signer(pca, name, &clock, &metrics, &files.store, &signers_end)?);
        }
        let mut defaults = config.defaults.clone();
        let classes = config.classes.as_ref();
        let classes = classes.map(|config| LiveClasses::open(config, &mut defaults, &metrics)).transpose()?;
        let defaults = Arc::new(defaults);
        let trust_metrics = TrustMetrics::default();
        metrics.extend(|registry| trust_metrics.register(registry));
        let crl_metrics = CrlMetrics::default();
        metrics.extend(|registry| crl_metrics.register(registry));
        let store = Arc::clone(&files.store);
        let crls = Crls::new(config.crls.clone(), Arc::clone(&clock), store, crl_metrics);
        let mut parts = Parts {
            files,
            crls,
            registry: Arc::new(Registry::default()),
            signers,
            trust: TrustSources::new(Arc::clone(&clock), trust_metrics),
            clock,
            metrics: Arc::clone(&metrics),
            events: None,
            addresses: None,
            limits: config.limits,
            pins: Pins::new(config.pins.clone())?,
            defaults: Arc::clone(&defaults),
            continue_on_not_ready: false,
        };
        let notices = Arc::<Notices>::default();
        #[cfg(feature = "kubernetes")]
        cluster::join(&config, &mut parts, &notices, registration.subscribe(), &signers_end).await?;
        let kinds: Vec<SignerKind> = parts.signers.iter().map(|signer| signer.signer.kind()).collect();
        for configured in &mut parts.signers {
            configured.signer = CountedSigner::wrap(Arc::clone(&configured.signer), Arc::clone(&metrics));
        }
        let volumes = VolumeService::new(parts);
        metrics.watch_volumes(volumes.sampler(), config.metrics_per_volume);
        let Recovered { adopted, waiting, removed, unreadable } =
            volumes.recover().await.map_err(NodeError::Recovery)?;
        if let Some(classes) = classes {
            tokio::spawn(classes.follow(volumes.clone(), Arc::clone(&notices), shutdown.clone()));
        }
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"), driver = config.driver.name, node = config.driver.node_id,
            signers = ?kinds, adopted, waiting, removed, unreadable, "certlet starts"
        );
        Ok(Self { config, defaults, volumes, metrics, registration, signing, notices, shutdown })
    }

    /// Serves until shutdown, then until the calls and renewals in flight have ended.
    pub async fn serve(self) -> Result<(), NodeError> {
        let Self { config, defaults, volumes, metrics, registration, signing, notices, shutdown } = self;
        let listener = platform::listen(&config.endpoint)?;
        let health = Arc::new(Health {
            endpoint: config.endpoint.clone(),
            volumes: volumes.clone(),
            registered: config.registration_dir.as_ref().map(|_| registration.subscribe()),
            notices,
        });
        let control_socket = control::socket_in(&config.store.root);
        let (checked, control) = (Arc::clone(&health), platform::listen(&control_socket)?);
        let handle = move |request| {
            let health = Arc::clone(&checked);
            async move { health.answer(request).await }
        };
        tokio::spawn(control::serve(control, handle, shutdown.clone()));
        if let Some(address) = config.metrics_bind_address {
            let admin = bind(address).await.map_err(|source| NodeError::Admin { address, source })?;
            let pages = AdminPages { metrics: Arc::clone(&metrics), health };
            tokio::spawn(serve_admin(admin, pages.router(), shutdown.clone()));
        }
        let registering = config.registration_dir.as_ref().map(|directory| {
            let registration = Registration {
                socket: directory.join(format!("{}-reg.sock", config.driver.name)),
                driver_name: config.driver.name.clone(),
                endpoint: config.kubelet_endpoint.clone(),
                metrics: Arc::clone(&metrics),
                state: registration,
            };
            tokio::spawn(registration.run(shutdown.clone()))
        });
        let running = volumes.clone();
        let mut working = tokio::spawn(async move { running.run().await });
        let server = CsiServer { driver: config.driver, defaults, volumes: volumes.clone(), metrics };
        let mut serving = tokio::spawn(server.serve(listener, shutdown.clone()));
        tokio::select! {
            // Shutdown ends the server too, and comes first then.
            biased;
            () = shutdown.cancelled() => {}
            ended = &mut serving => return ended.unwrap_or(Ok(())).map_err(NodeError::from),
        }
        tracing::info!(
            grace_seconds = config.shutdown_grace.as_secs_f64(),
            "shutting down; mounts stay as they are"
        );
        volumes.shut_down(config.shutdown_grace).await;
        // Now no work waits for a signer.
        drop(signing);
        if let Some(registering) = registering {
            let _ended = registering.await;
        }
        // Everything in flight has been answered, so a client that keeps its connection open does not delay the exit. The
        // streams of the volumes' sockets end with a status.
        let ended = async { tokio::join!(&mut serving, &mut working) };
        if tokio::time::timeout(Duration::from_millis(500), ended).await.is_err() {
            serving.abort();
            working.abort();
        }
        for socket in [&config.endpoint, &control_socket] {
            let _gone = std::fs::remove_file(socket);
        }
        tracing::info!("certlet ends");
        Ok(())
    }
}

/// Opens the store. It waits until an earlier driver process, which may still finish its calls, has released it.
async fn open_store(config: &Config, shutdown: &CancellationToken) -> Result<VolumeFiles, MountError> {
    const PAUSE: Duration = Duration::from_millis(100);
    let mut left = config.shutdown_grace + Duration::from_secs(5);
    let (files, opened) = loop {
        match VolumeFiles::open(&config.store) {
            Err(MountError::Store(StoreError::InUse { .. }))
                if !left.is_zero() && !shutdown.is_cancelled() =>
            {
                tokio::time::sleep(PAUSE).await;
                left = left.saturating_sub(PAUSE);
            }
            opened => break opened?,
        }
    };
    for warning in &opened.warnings {
        tracing::warn!(path = %config.store.root.display(), "{warning}");
    }
    Ok(files)
}

fn local_signer(
    configured: Option<&LocalSigner>,
    clock: &Arc<dyn Clock>,
) -> Result<Option<ConfiguredSigner>, LocalCaError> {
    let clock = Arc::clone(clock);
    let ca = match configured {
        None => return Ok(None),
        Some(LocalSigner::Ephemeral) => LocalCa::ephemeral(clock)?,
        Some(LocalSigner::Files { certificate, key }) => LocalCa::from_files(certificate, key, clock)?,
    };
    Ok(Some(ConfiguredSigner::new(Arc::new(ca))))
}

/// Listens on an address. "Every address" also works on a node without IPv6.
async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(error) if address.ip() == Ipv6Addr::UNSPECIFIED && error.kind() != io::ErrorKind::AddrInUse => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        listener => listener,
    }
}
