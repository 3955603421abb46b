//! The CSI services on a Unix socket, and the driver's registration with the kubelet.

mod identity;
mod node;
mod registration;
mod request;
mod status;

pub(crate) use registration::{Registration, RegistrationState};

use crate::attributes::OperatorDefaults;
use crate::proto::csi::identity_server::IdentityServer;
use crate::proto::csi::node_server::NodeServer;
use crate::telemetry::Metrics;
use crate::volume::VolumeService;
use std::sync::Arc;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

/// Name and node of the driver.
#[derive(Clone, Debug)]
pub struct Driver {
    /// `--driver-name`, the CSIDriver object's name.
    pub name: String,
    /// `--node-id`
    pub node_id: String,
}

/// The CSI server: the Node service, and the Identity service of [`Driver`].
pub(crate) struct CsiServer {
    /// Name and node.
    pub driver: Driver,
    /// What the operator's flags give to volumes.
    pub defaults: Arc<OperatorDefaults>,
    /// The volumes.
    pub volumes: VolumeService,
    /// Counts calls.
    pub metrics: Arc<Metrics>,
}

impl CsiServer {
    /// Serves until `shutdown`, then until every call in flight has been answered.
    pub(crate) async fn serve(
        self,
        listener: UnixListener,
        shutdown: CancellationToken,
    ) -> Result<(), tonic::transport::Error> {
        Server::builder()
            .add_service(IdentityServer::new(self.driver.clone()))
            .add_service(NodeServer::new(self))
            .serve_with_incoming_shutdown(UnixListenerStream::new(listener), shutdown.cancelled_owned())
            .await
    }
}
