//! The connection to the API server.

use super::observed::{ApiObserver, ObservedLayer, RateLimit};
use kube::client::ClientBuilder;
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use std::env;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;

/// How to reach the API server.
#[derive(Clone, Debug, Default)]
pub struct KubeOptions {
    /// A kubeconfig file; none: the service account that Kubernetes gives a pod.
    pub kubeconfig: Option<PathBuf>,
    /// A client-side rate; none: only what the server asks for.
    pub rate_limit: Option<RateLimit>,
}

/// Why there is no connection to a cluster.
#[derive(Debug, Error)]
pub enum KubeError {
    /// The kubeconfig.
    #[error("--kubeconfig {}: {source}", .path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<KubeconfigError>,
    },
    /// The pod's own service account.
    #[error("the pod's service account cannot be used: {0}")]
    InCluster(#[source] kube::config::InClusterError),
    /// The configuration makes no client.
    #[error("no client for the Kubernetes API: {0}")]
    Client(#[source] Box<kube::Error>),
}

/// A cluster, as this driver sees it. Cheap to clone.
#[derive(Clone)]
pub struct Cluster(Arc<Clients>);

struct Clients {
    own: Client,
    /// Without any credentials: whoever calls through it brings a token. All tokens share its connections.
    bare: Client,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").finish_non_exhaustive()
    }
}

/// An API server that takes longer to take a connection is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

impl Cluster {
    /// Prepares the connection; nothing is sent. None: there is neither a kubeconfig nor a cluster around this process.
    pub async fn connect(
        options: &KubeOptions,
        observer: Arc<dyn ApiObserver>,
    ) -> Result<Option<Self>, KubeError> {
        let config = match &options.kubeconfig {
            Some(path) => from_file(path.clone()).await?,
            None if env::var_os("KUBERNETES_SERVICE_HOST").is_some() => {
                Config::incluster().map_err(KubeError::InCluster)?
            }
            None => return Ok(None),
        };
        Self::from_config(config, options, observer).map(Some)
    }

    fn from_config(
        mut config: Config,
        options: &KubeOptions,
        observer: Arc<dyn ApiObserver>,
    ) -> Result<Self, KubeError> {
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        // What is to be tried again, and when, is decided where the call is understood.
        config.default_retry = false;
        let layer = ObservedLayer::new(observer, options.rate_limit);
        let build = |config: Config| {
            let builder =
                ClientBuilder::try_from(config).map_err(|error| KubeError::Client(Box::new(error)))?;
            Ok(builder.with_layer(&layer).build())
        };
        let mut bare = config.clone();
        bare.auth_info = AuthInfo::default();
        Ok(Self(Arc::new(Clients { own: build(config)?, bare: build(bare)? })))
    }

    /// The client of the driver's own identity, for watching.
    pub fn client(&self) -> Client {
        self.0.own.clone()
    }

    pub(super) fn bare(&self) -> &Client {
        &self.0.bare
    }
}

async fn from_file(path: PathBuf) -> Result<Config, KubeError> {
    let failed = |source| KubeError::Kubeconfig { path: path.clone(), source: Box::new(source) };
    let kubeconfig = Kubeconfig::read_from(&path).map_err(failed)?;
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(failed)
}

/// Whether the driver's own credentials are at fault, and not the server.
pub(super) fn is_about_credentials(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Auth(_))
}

#[cfg(test)]
impl Cluster {
    /// A cluster at an address, without encryption and credentials.
    pub(crate) fn at(address: std::net::SocketAddr, observer: Arc<dyn ApiObserver>) -> Self {
        let url = format!("http://{address}").parse().unwrap();
        Self::from_config(Config::new(url), &KubeOptions::default(), observer).unwrap()
    }
}
