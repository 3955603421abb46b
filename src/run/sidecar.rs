//! `certlet sidecar`, put together: store, signers, the one workload, its sinks, health.

use super::admin::{metrics_page, probe};
use super::config::LocalSigner;
use super::notices::Notices;
#[cfg(feature = "kubernetes")]
use super::observer::CallObserver;
use super::{bind, local_signer};
use crate::attributes::{AttributeError, AttributeErrors, OperatorDefaults};
use crate::control::{self, Answer, Check, Request};
#[cfg(feature = "kubernetes")]
use crate::kube::{Cluster, EventRecorder, KubeError};
use crate::model::Failure;
use crate::platform::{self, Clock, SocketError, SystemClock};
use crate::sidecar::{AttributeSources, PodError, PodNames, Sidecar, SidecarRequest};
use crate::sidecar::{OwnPod, directory_group, own_pod, token_file};
#[cfg(feature = "aws")]
use crate::signer::OwnCredentials;
#[cfg(feature = "kubernetes")]
use crate::signer::{CertManager, CertManagerOptions, Following};
use crate::signer::{ConfiguredSigner, CountedSigner, LocalCaError};
use crate::store::INSIDE;
#[cfg(feature = "aws")]
use crate::store::Store;
use crate::telemetry::{Metrics, serve_admin};
use crate::trust::{CrlMetrics, CrlOptions, Crls, Pin, PinError, Pins, TrustMetrics, TrustSources};
use crate::volume::{Limits, MountError, Parts, Registry, VolumeFiles, VolumeService};
use axum::Router;
use axum::routing::get;
use secrecy::SecretString;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio_util::sync::{CancellationToken, DropGuard};
use zeroize::Zeroizing;

/// The configuration of `certlet sidecar`.
#[derive(Clone, Debug)]
pub struct SidecarConfig {
    /// The directory that the pod's containers share.
    pub directory: PathBuf,
    /// What the flags say of the pod.
    pub pod: PodNames,
    /// Attributes of the flags: names, with or without prefix, and values.
    pub attributes: Vec<(String, String)>,
    /// A file of the downward API with the pod's annotations.
    pub attributes_file: Option<PathBuf>,
    /// A file with the password of the keystores.
    pub keystore_password_file: Option<PathBuf>,
    /// End with the first certificate, which has to come within this time; none: go on, and renew it.
    pub once: Option<Duration>,
    /// End with this exit code once a later generation is in place.
    pub exit_on_renewal: Option<u8>,
    /// The admin server's address; none: there is no admin server.
    pub metrics_bind_address: Option<SocketAddr>,
    /// The local signer; none if it is not allowed.
    pub local_signer: Option<LocalSigner>,
    /// AWS Private CA.
    #[cfg(feature = "aws")]
    pub pca: super::PcaConfig,
    /// What the flags give to the workload.
    pub defaults: OperatorDefaults,
    /// Trust anchors by issuer.
    pub pins: Vec<Pin>,
    /// CRLs.
    pub crls: CrlOptions,
    /// The shortest time from an issuance to its renewal.
    pub renewal_interval: Duration,
    /// Bytes of all files together.
    pub volume_bytes: u64,
    /// How long work in flight can continue after a SIGTERM.
    pub shutdown_grace: Duration,
    /// How it works with the cluster.
    #[cfg(feature = "kubernetes")]
    pub cluster: SidecarClusterConfig,
}

/// How a sidecar works with the cluster.
#[cfg(feature = "kubernetes")]
#[derive(Clone, Debug, Default)]
pub struct SidecarClusterConfig {
    /// A kubeconfig file; none: the pod's own service account.
    pub kubeconfig: Option<PathBuf>,
    /// Whether Events are recorded on the pod.
    pub events: bool,
    /// How often ConfigMaps and ClusterTrustBundles are read.
    pub trust_poll_interval: Duration,
    /// Number of CertificateRequests to keep.
    pub keep_requests: usize,
}

/// Why the sidecar could not run.
#[derive(Debug, Error)]
pub enum SidecarError {
    /// Which pod it is in is not known.
    #[error(transparent)]
    Pod(#[from] PodError),
    /// The attributes.
    #[error("{}", joined(.0))]
    AttributeSources(Vec<AttributeError>),
    /// What the attributes ask for.
    #[error(transparent)]
    Attributes(#[from] AttributeErrors),
    /// A single attribute that a sidecar cannot serve.
    #[error(transparent)]
    Attribute(#[from] AttributeError),
    /// The shared directory.
    #[error("--directory {}: {source}", .path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        source: MountError,
    },
    /// The file of the keystore's password.
    #[error("--keystore-password-file {}: {source}; accepted: a file with one line of text", .path.display())]
    KeystorePassword {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The local signer's CA.
    #[error(transparent)]
    LocalCa(#[from] LocalCaError),
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
    Pca(#[from] super::PcaError),
    /// The pod's AWS credentials.
    #[error("{0}")]
    Credentials(String),
    /// The control socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// What an earlier process left.
    #[error("what an earlier process left could not be read: {0}")]
    Recovery(Failure),
    /// The certificate did not come.
    #[error("no certificate: {0}")]
    NoCertificate(Failure),
    /// The certificate did not come in time.
    #[error("no certificate within {} s (--once-timeout): {reason}", .timeout.as_secs())]
    TimedOut {
        /// The time.
        timeout: Duration,
        /// The last failure.
        reason: String,
    },
    /// The admin server.
    #[error("--metrics-bind-address {address}: {source}")]
    Admin {
        /// The address.
        address: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
}

fn joined(faults: &[AttributeError]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl SidecarError {
    /// Whether only other flags, annotations or another pod can help.
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::Pod(_)
                | Self::Credentials(_)
                | Self::KeystorePassword { .. }
                | Self::AttributeSources(_)
                | Self::Attributes(_)
                | Self::Attribute(_)
                | Self::Directory { .. }
        )
    }
}

/// How the sidecar ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SidecarEnd {
    /// By a signal.
    Stopped,
    /// With the certificate, as `--once` says.
    Issued,
    /// After a renewal, with the exit code of `--on-renewal`.
    Renewed(u8),
}

/// Runs the sidecar until its end or `shutdown`, on the machine's clock.
pub async fn run_sidecar(
    config: SidecarConfig,
    shutdown: CancellationToken,
) -> Result<SidecarEnd, SidecarError> {
    Running::start(config, shutdown).await?.serve().await
}

/// A sidecar whose workload is recovered, if an earlier process has left it.
struct Running {
    config: SidecarConfig,
    clock: Arc<dyn Clock>,
    volumes: VolumeService,
    sidecar: Arc<Sidecar>,
    metrics: Arc<Metrics>,
    notices: Arc<Notices>,
    /// What is wrong with the directory.
    warnings: Vec<String>,
    /// Ends the signers when dropped.
    signing: DropGuard,
    shutdown: CancellationToken,
}

impl Running {
    async fn start(mut config: SidecarConfig, shutdown: CancellationToken) -> Result<Self, SidecarError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let (metrics, notices) = (Arc::new(Metrics::default()), Arc::<Notices>::default());
        let OwnPod { identity, node } = own_pod(&config.pod, &token_file())?;
        config.defaults.node_name = node;
        let request = request(&config, identity)?;
        let directory = &config.directory;
        let in_directory = |source| SidecarError::Directory { path: directory.clone(), source };
        let (files, warnings) = VolumeFiles::open_inside(directory).map_err(in_directory)?;
        for warning in &warnings {
            tracing::warn!(directory = %directory.display(), "{warning}");
        }
        forget_others(&files, &request).map_err(in_directory)?;
        let signers_end = CancellationToken::new();
        let signing = signers_end.clone().drop_guard();
        let local = local_signer(config.local_signer.as_ref(), &clock)?;
        #[cfg(feature = "aws")]
        let signers = local
            .into_iter()
            .chain(private_ca(&config, &request, &clock, &metrics, &files.store, &signers_end)?)
            .collect();
        #[cfg(not(feature = "aws"))]
        let signers = local.into_iter().collect();
        let mut parts = parts(&config, files, signers, &clock, &metrics)?;
        #[cfg(feature = "kubernetes")]
        join(&config, &request, &mut parts, &notices, &signers_end).await?;
        for configured in &mut parts.signers {
            configured.signer = CountedSigner::wrap(Arc::clone(&configured.signer), Arc::clone(&metrics));
        }
        let volumes = VolumeService::new(parts);
        metrics.watch_volumes(volumes.sampler(), false);
        let recovered = volumes.recover().await.map_err(SidecarError::Recovery)?;
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"), directory = %directory.display(), volume = %request.volume,
            signer = %request.spec().signer.kind(), adopted = recovered.adopted, "certlet starts as a sidecar"
        );
        let sidecar = Sidecar::new(volumes.clone(), request);
        Ok(Self { config, clock, volumes, sidecar, metrics, notices, warnings, signing, shutdown })
    }

    async fn serve(self) -> Result<SidecarEnd, SidecarError> {
        let control_socket = control::socket_in(&self.config.directory.join(INSIDE));
        let listener = platform::listen(&control_socket)?;
        let handle = self.handle();
        tokio::spawn(control::serve(listener, handle, self.shutdown.clone()));
        if let Some(address) = self.config.metrics_bind_address {
            let admin = bind(address).await.map_err(|source| SidecarError::Admin { address, source })?;
            tokio::spawn(serve_admin(admin, self.pages(), self.shutdown.clone()));
        }
        let running = self.volumes.clone();
        let mut working = tokio::spawn(async move { running.run().await });
        let ended = tokio::select! {
            biased;
            () = self.shutdown.cancelled() => Ok(SidecarEnd::Stopped),
            ended = self.work() => ended,
        };
        tracing::info!(
            grace_seconds = self.config.shutdown_grace.as_secs_f64(),
            "the sidecar ends; its files stay"
        );
        self.shutdown.cancel();
        self.volumes.shut_down(self.config.shutdown_grace).await;
        drop(self.signing);
        // The streams of the socket end with a status.
        if tokio::time::timeout(Duration::from_millis(500), &mut working).await.is_err() {
            working.abort();
        }
        let _gone = std::fs::remove_file(&control_socket);
        ended
    }

    /// Gets the certificate, and then waits for what ends the sidecar.
    async fn work(&self) -> Result<SidecarEnd, SidecarError> {
        if let Some(timeout) = self.config.once {
            let obtained = tokio::time::timeout(timeout, self.sidecar.obtain_once()).await;
            return match obtained {
                Ok(obtained) => obtained.map(|()| SidecarEnd::Issued).map_err(SidecarError::NoCertificate),
                Err(_late) => {
                    let reason = self.sidecar.ready(self.clock.now()).err().unwrap_or_default();
                    Err(SidecarError::TimedOut { timeout, reason })
                }
            };
        }
        self.sidecar.obtain_first(|_| false).await.map_err(SidecarError::NoCertificate)?;
        tracing::info!("the pod has its certificate");
        let Some(code) = self.config.exit_on_renewal else {
            return self.sidecar.keep_valid(&*self.clock).await;
        };
        tokio::select! {
            replaced = self.sidecar.replaced() => replaced.map_err(SidecarError::NoCertificate)?,
            never = self.sidecar.keep_valid(&*self.clock) => never,
        }
        tracing::info!(code, "renewed; the sidecar exits, for the pod's containers to be restarted");
        Ok(SidecarEnd::Renewed(code))
    }

    /// The answers on the control socket.
    fn handle(&self) -> impl Fn(Request) -> std::future::Ready<Answer> + Clone + Send + 'static {
        let (volumes, sidecar, clock) =
            (self.volumes.clone(), Arc::clone(&self.sidecar), Arc::clone(&self.clock));
        let (notices, warnings) = (Arc::clone(&self.notices), self.warnings.clone());
        move |request| {
            std::future::ready(match request {
                Request::Renew(target) => super::health::renew(&volumes, &target),
                Request::Check(Check::Liveness) => alive(&volumes).map(|()| None),
                Request::Check(Check::Readiness) => sidecar.ready(clock.now()).map(|()| None),
                Request::Check(Check::Notices) => {
                    let notices = notices.all().into_iter().chain(warnings.clone());
                    let notices = notices.chain(volumes.rejections()).chain(volumes.trust_faults());
                    let notices: Vec<String> = notices.collect();
                    if notices.is_empty() { Ok(None) } else { Err(notices.join("; ")) }
                }
            })
        }
    }

    /// The pages of the admin server.
    fn pages(&self) -> Router {
        let (volumes, metrics) = (self.volumes.clone(), Arc::clone(&self.metrics));
        let (sidecar, clock) = (Arc::clone(&self.sidecar), Arc::clone(&self.clock));
        Router::new()
            .route("/healthz", get(async move || probe(alive(&volumes))))
            .route("/readyz", get(async move || probe(sidecar.ready(clock.now()))))
            .route("/metrics", get(async move || metrics_page(metrics.encode())))
    }
}

fn alive(volumes: &VolumeService) -> Result<(), String> {
    if volumes.is_running() { Ok(()) } else { Err("the renewal loop does not run".to_owned()) }
}

/// What the flags and the pod ask for.
fn request(
    config: &SidecarConfig,
    pod: crate::model::WorkloadIdentity,
) -> Result<SidecarRequest, SidecarError> {
    let sources = AttributeSources { given: config.attributes.clone(), file: config.attributes_file.clone() };
    let raw = sources.read().map_err(SidecarError::AttributeSources)?;
    let password = config.keystore_password_file.as_deref().map(password).transpose()?;
    let directory = config.directory.clone();
    let group = directory_group(&directory).map_err(|source| SidecarError::Directory {
        path: directory.clone(),
        source: MountError::Option {
            flag: "--directory",
            value: directory.display().to_string(),
            problem: source.to_string(),
        },
    })?;
    let request = SidecarRequest::new(directory, pod, raw, password, group, &config.defaults)?;
    let socket = &request.spec().files.socket;
    if config.once.is_some() && socket.is_some() {
        let attribute = format!("{}/socket-file", request.spec().dialect.prefix());
        let problem = "cannot be served with --once, which ends with the certificate";
        return Err(AttributeError::new(attribute, problem, "files, or a sidecar without --once").into());
    }
    Ok(request)
}

/// Reads the password of the keystores.
fn password(path: &Path) -> Result<SecretString, SidecarError> {
    let read = std::fs::read_to_string(path).map(Zeroizing::new);
    let text = read.map_err(|source| SidecarError::KeystorePassword { path: path.to_owned(), source })?;
    Ok(SecretString::from(text.trim_end_matches('\n').to_owned()))
}

/// Removes the record of a workload with other attributes or another address, which an earlier process has left. Its files stay until those of the new
/// certificate replace them.
fn forget_others(files: &VolumeFiles, request: &SidecarRequest) -> Result<(), MountError> {
    for stored in files.store.list()? {
        let Ok(record) = stored.record else { continue };
        let names = record.issued.as_ref().map(|issued| &issued.facts.sans);
        let mut addresses = request.spec().sans.ip_addresses.iter().map(|address| format!("IP:{address}"));
        // The kubelet makes the pod's sandbox anew, with another address, while the shared directory stays.
        let lacks_address = names.is_some_and(|names| addresses.any(|address| !names.contains(&address)));
        if record.volume_id != request.volume || record.attributes != *request.attributes() || lacks_address {
            tracing::info!(volume = %record.volume_id, "other attributes, or another address of the pod; a new certificate is requested");
            files.store.remove_dir(&stored.dir)?;
        }
    }
    Ok(())
}

fn parts(
    config: &SidecarConfig,
    files: VolumeFiles,
    signers: Vec<ConfiguredSigner>,
    clock: &Arc<dyn Clock>,
    metrics: &Arc<Metrics>,
) -> Result<Parts, SidecarError> {
    let trust_metrics = TrustMetrics::default();
    metrics.extend(|registry| trust_metrics.register(registry));
    let crl_metrics = CrlMetrics::default();
    metrics.extend(|registry| crl_metrics.register(registry));
    let crls = Crls::new(config.crls.clone(), Arc::clone(clock), Arc::clone(&files.store), crl_metrics);
    Ok(Parts {
        files,
        crls,
        registry: Arc::new(Registry::default()),
        signers,
        trust: TrustSources::new(Arc::clone(clock), trust_metrics),
        clock: Arc::clone(clock),
        metrics: Arc::clone(metrics),
        events: None,
        addresses: None,
        limits: Limits {
            publishes: 1,
            renewals: 1,
            renewal_interval: config.renewal_interval,
            volume_bytes: config.volume_bytes,
            namespace_store_percent: 100,
            volumes_per_pod: 0,
            volumes_per_namespace: 0,
        },
        pins: Pins::new(config.pins.clone())?,
        defaults: Arc::new(config.defaults.clone()),
        continue_on_not_ready: false,
    })
}

/// AWS Private CA, if that is the signer. It is called with the pod's own AWS credentials.
#[cfg(feature = "aws")]
fn private_ca(
    config: &SidecarConfig,
    request: &SidecarRequest,
    clock: &Arc<dyn Clock>,
    metrics: &Metrics,
    store: &Store,
    end: &CancellationToken,
) -> Result<Option<ConfiguredSigner>, SidecarError> {
    let Some(asked) = request.spec().signer.acm_pca() else { return Ok(None) };
    let own = OwnCredentials::find(|name| std::env::var(name).ok());
    own.check(&asked.caller).map_err(SidecarError::Credentials)?;
    Ok(Some(super::pca::signer(&config.pca, request.volume.as_str(), clock, metrics, store, end)?))
}

/// If there is a cluster, adds the cert-manager signer, which works until `end`, and Events.
#[cfg(feature = "kubernetes")]
async fn join(
    config: &SidecarConfig,
    request: &SidecarRequest,
    parts: &mut Parts,
    notices: &Arc<Notices>,
    end: &CancellationToken,
) -> Result<(), SidecarError> {
    let options = &config.cluster;
    let observer = Arc::new(CallObserver::new(Arc::clone(&parts.metrics), None, Arc::clone(notices)));
    let connected = Cluster::connect(options.kubeconfig.as_deref(), Arc::clone(&observer) as _).await?;
    let Some(cluster) = connected.map(|cluster| cluster.polling(options.trust_poll_interval)) else {
        return Ok(());
    };
    parts.trust.connect(cluster.clone());
    parts.crls.connect(cluster.clone());
    let cert_manager = CertManagerOptions {
        following: Following::Poll,
        journal: Some(parts.files.store.journal("requests")),
        keep_requests: options.keep_requests,
        ..CertManagerOptions::default()
    };
    parts.signers.push(ConfiguredSigner::new(Arc::new(CertManager::new(
        cluster.clone(),
        cert_manager,
        Arc::clone(&parts.clock),
        observer,
        Arc::clone(&parts.registry) as _,
        end.clone(),
    ))));
    if options.events {
        parts.events = Some(Box::new(EventRecorder::start(&cluster, "certlet", request.pod_name())));
    }
    Ok(())
}
