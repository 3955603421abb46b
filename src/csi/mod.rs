//! The front door: the CSI services on a Unix socket, and the driver's registration with the kubelet.

mod authority;
mod identity;
mod node;
mod registration;
mod request;
mod socket;
mod status;

pub use registration::{Registration, RegistrationState};
pub use socket::SocketError;

use crate::lifecycle::Lifecycle;
use crate::proto::csi::identity_server::IdentityServer;
use crate::proto::csi::node_server::NodeServer;
use crate::telemetry::Metrics;
use std::path::Path;
use std::sync::Arc;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

/// Who the driver is.
#[derive(Clone, Debug)]
pub struct Driver {
    /// `--driver-name`, the CSIDriver object's name.
    pub name: String,
    /// `--node-id`
    pub node_id: String,
}

/// The CSI server.
pub struct CsiServer {
    /// Who it says it is.
    pub driver: Driver,
    /// What it serves.
    pub lifecycle: Lifecycle,
    /// What it counts.
    pub metrics: Arc<Metrics>,
}

impl CsiServer {
    /// Listens on `path`: a stale socket is removed, the parent directory made, the mode 0600.
    pub fn listen(path: &Path) -> Result<UnixListener, SocketError> {
        socket::listen(path)
    }

    /// Serves until `shutdown`, then until every call in flight has been answered.
    pub async fn serve(
        self,
        listener: UnixListener,
        shutdown: CancellationToken,
    ) -> Result<(), tonic::transport::Error> {
        let identity = identity::Identity { driver: self.driver.clone() };
        let node = node::Node { driver: self.driver, lifecycle: self.lifecycle, metrics: self.metrics };
        Server::builder()
            .add_service(IdentityServer::new(identity))
            .add_service(NodeServer::new(node))
            .serve_with_incoming_shutdown(UnixListenerStream::new(listener), shutdown.cancelled_owned())
            .await
    }
}
