//! The connection to the API server.

use super::observed::{ApiObserver, observed};
use kube::client::ClientBuilder;
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use std::env;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;

/// Why there is no connection to a cluster.
#[derive(Debug, Error)]
pub enum KubeError {
    /// The kubeconfig cannot be used.
    #[error("--kubeconfig {}: {source}", .path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: Box<KubeconfigError>,
    },
    /// The pod's own service account cannot be used.
    #[error("the pod's service account cannot be used: {0}")]
    InCluster(#[source] kube::config::InClusterError),
    /// The configuration makes no client.
    #[error("no client for the Kubernetes API: {0}")]
    Client(#[source] Box<kube::Error>),
}

/// The clients of one cluster. Cheap to clone.
#[derive(Clone)]
pub struct Cluster {
    /// The client with the driver's own identity.
    pub(crate) own: Client,
    /// Without credentials: each call adds a pod's token. All tokens share its connections.
    pub(super) bare: Client,
    /// How often objects are read that are followed; none: they are watched.
    pub(super) poll_interval: Option<Duration>,
}

/// Time limit for a TCP and TLS handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection counts as dead if no byte has arrived for this long since the last write. Without this limit, a list or the
/// start of a watch would wait forever for a machine that is lost.
///
/// It is longer than every silence of a healthy server: a watch gets bookmarks each minute and ends after 120 s, a list is
/// answered within a minute, and single calls have their own limit. It is also longer than the 90 s for which hyper reuses
/// an idle connection, so it closes only connections that hyper would not reuse.
const READ_TIMEOUT: Duration = Duration::from_secs(150);

impl Cluster {
    /// Prepares the clients with a kubeconfig file, else with the pod's own service account; nothing is sent yet.
    /// Returns `None` if there is no kubeconfig and this process is not in a cluster.
    pub(crate) async fn connect(
        kubeconfig: Option<&Path>,
        observer: Arc<dyn ApiObserver>,
    ) -> Result<Option<Self>, KubeError> {
        let config = match kubeconfig {
            Some(path) => from_file(path.to_owned()).await?,
            None if env::var_os("KUBERNETES_SERVICE_HOST").is_some() => {
                Config::incluster().map_err(KubeError::InCluster)?
            }
            None => return Ok(None),
        };
        Self::from_config(config, observer).map(Some)
    }

    fn from_config(mut config: Config, observer: Arc<dyn ApiObserver>) -> Result<Self, KubeError> {
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        config.read_timeout = Some(READ_TIMEOUT);
        // Otherwise the idle time of a connection would count towards the timeout of its next answer.
        config.reset_reader_on_write = true;
        // The callers decide what is retried, and when.
        config.default_retry = false;
        let layer = observed(observer);
        let build = |config: Config| {
            let builder =
                ClientBuilder::try_from(config).map_err(|error| KubeError::Client(Box::new(error)))?;
            Ok(builder.with_layer(&layer).build())
        };
        let mut bare = config.clone();
        bare.auth_info = AuthInfo::default();
        Ok(Self { own: build(config)?, bare: build(bare)?, poll_interval: None })
    }

    /// Objects that are followed are read every so often, give or take a tenth, and not watched.
    pub(crate) fn polling(self, interval: Duration) -> Self {
        Self { poll_interval: Some(interval), ..self }
    }
}

async fn from_file(path: PathBuf) -> Result<Config, KubeError> {
    let failed = |source| KubeError::Kubeconfig { path: path.clone(), source: Box::new(source) };
    let kubeconfig = Kubeconfig::read_from(&path).map_err(failed)?;
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(failed)
}

#[cfg(test)]
impl Cluster {
    /// A cluster at an address, without encryption and credentials.
    pub(crate) fn at(address: std::net::SocketAddr, observer: Arc<dyn ApiObserver>) -> Self {
        let url = format!("http://{address}").parse().unwrap();
        Self::from_config(Config::new(url), observer).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::testing::Uncounted;
    use tokio::time::{Instant, timeout};

    #[tokio::test(start_paused = true)]
    async fn a_list_that_is_never_answered_ends() {
        // The kernel accepts the connection, and nothing ever answers.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let cluster = Cluster::at(listener.local_addr().unwrap(), Arc::new(Uncounted));
        let list = http::Request::get("/version").body(Vec::new()).unwrap();
        let begun = Instant::now();
        let answer = timeout(2 * READ_TIMEOUT, cluster.own.request_text(list)).await;
        assert!(matches!(answer, Ok(Err(_))), "{answer:?}");
        assert!(begun.elapsed() >= READ_TIMEOUT, "{:?}", begun.elapsed());
    }
}
