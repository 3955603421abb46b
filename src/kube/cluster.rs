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
/// A connection on which nothing has come for so long since the last thing was sent is dead: a machine that is lost says
/// nothing any more, and without this a list, or the start of a watch, would wait for it for ever. It is longer than
/// every silence of a server that lives: on a watch bookmarks come each minute, and the server ends it after 120 s; a
/// list is answered or given up by the server within a minute; single calls have 15 s of their own. It is also longer
/// than the 90 s for which hyper hands an unused connection out again, so what it closes there nobody would have used.
const READ_TIMEOUT: Duration = Duration::from_secs(150);

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
        config.read_timeout = Some(READ_TIMEOUT);
        // Else the time for which a connection was unused would count against the next answer on it.
        config.reset_reader_on_write = true;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::testing::Uncounted;
    use tokio::time::{Instant, timeout};

    #[tokio::test(start_paused = true)]
    async fn a_list_that_is_never_answered_ends() {
        // The system takes connections for it; nobody reads what comes.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let cluster = Cluster::at(listener.local_addr().unwrap(), Arc::new(Uncounted));
        let list = http::Request::get("/version").body(Vec::new()).unwrap();
        let begun = Instant::now();
        let answer = timeout(2 * READ_TIMEOUT, cluster.client().request_text(list)).await;
        assert!(matches!(answer, Ok(Err(_))), "{answer:?}");
        assert!(begun.elapsed() >= READ_TIMEOUT, "{:?}", begun.elapsed());
    }
}
