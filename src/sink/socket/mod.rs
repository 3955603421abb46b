//! A volume's socket: the SPIFFE Workload API and Envoy's SDS, for whoever mounts the volume.
//!
//! One gRPC server answers for all volumes of the node. Each socket belongs to one volume, and a connection carries the volume whose
//! socket it came in on ([`Caller`]). So identity follows from where a socket is mounted, and no process is attested.
//!
//! A connection costs memory, so connections, streams, messages and the pace of new calls are bounded for each volume. Connections
//! ([`limits`]) and the bytes of requests ([`received`]) are bounded also for each namespace and for the node.

mod caller;
mod connection;
mod limits;
mod received;
#[cfg(test)]
mod testing;
mod updates;

pub(in crate::sink) use caller::Caller;
pub(in crate::sink) use updates::{Outlet, updates};

use super::sds::Sds;
use super::workload_api::WorkloadApi;
use crate::credential::Follower;
use crate::model::{Failure, SecretNames, VolumeId};
use crate::proto::DESCRIPTORS;
use crate::proto::workload::spiffe_workload_api_server::SpiffeWorkloadApiServer;
use crate::proto::xds::envoy::service::secret::v3::secret_discovery_service_server::SecretDiscoveryServiceServer;
use crate::telemetry::Metrics;
use connection::Connection;
use futures_util::future::BoxFuture;
use limits::{ConnectionLimits, MAX_CONNECTIONS};
use parking_lot::Mutex;
use received::{BoundRequests, ReceivedBytes};
use std::io;
use std::os::unix::net::UnixListener as StdListener;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::Server;

/// A request of the Workload API is empty.
const MAX_WORKLOAD_REQUEST: usize = 4 * 1024;
/// An SDS request carries the names of the secrets, and in its `node` what describes an Envoy: a few KiB in Istio.
const MAX_SDS_REQUEST: usize = 64 * 1024;
/// Bytes of the headers of a request.
const MAX_HEADERS: u32 = 8 * 1024;
/// Streams of one connection at a time.
const MAX_STREAMS_OF_CONNECTION: u32 = 16;
/// Bytes that a peer may send before the server has read them, on all streams of a connection together.
const WINDOW: u32 = 64 * 1024;
/// The same for a stream: what a peer assumes until it has read the server's settings (RFC 9113 section 6.9.2). With less, h2 sends no
/// window update for what it has read before the peer acknowledges the settings, and the peer waits for one without end.
const STREAM_WINDOW: u32 = 65_535;
/// The pause after a connection that was refused, so that a pod which connects in a loop costs little.
const PAUSE_AFTER_REFUSAL: Duration = Duration::from_millis(100);
/// Accepted connections that the server has not taken yet.
const ACCEPTED: usize = 16;

/// The workload that a socket belongs to.
pub(crate) trait Workload: Send + Sync + 'static {
    /// Follows its credential.
    fn follow(&self) -> BoxFuture<'_, Result<Follower, Failure>>;

    /// Its Envoy does not accept a secret, and says why.
    fn secret_rejected(&self, message: &str);
}

/// Whose socket it is.
pub(crate) struct SocketOwner {
    /// The volume.
    pub(crate) volume: VolumeId,
    /// Its pod's namespace.
    pub(crate) namespace: String,
    /// Its credential.
    pub(crate) workload: Arc<dyn Workload>,
}

/// The sockets of all volumes of the node.
pub(crate) struct Sockets {
    accepted: mpsc::Sender<io::Result<Connection>>,
    /// Taken by [`Self::run`].
    incoming: Mutex<Option<mpsc::Receiver<io::Result<Connection>>>>,
    limits: Arc<ConnectionLimits>,
    names: SecretNames,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
}

/// A socket that is being served. When it is dropped, nothing listens on it any more, and its connections end.
#[derive(Debug)]
pub(crate) struct ServedSocket {
    _ended: DropGuard,
}

impl Sockets {
    /// No socket yet. Connections wait until [`Self::run`]. At `shutdown` all streams end, and nothing listens any more.
    pub(crate) fn new(names: SecretNames, metrics: Arc<Metrics>, shutdown: CancellationToken) -> Self {
        let (accepted, incoming) = mpsc::channel(ACCEPTED);
        let limits = Arc::new(ConnectionLimits::new(Arc::clone(&metrics)));
        Self { accepted, incoming: Mutex::new(Some(incoming)), limits, names, metrics, shutdown }
    }

    /// Answers on all sockets until shutdown.
    pub(crate) async fn run(&self) {
        let Some(incoming) = self.incoming.lock().take() else { return };
        let workload_api =
            SpiffeWorkloadApiServer::new(WorkloadApi).max_decoding_message_size(MAX_WORKLOAD_REQUEST);
        let sds = SecretDiscoveryServiceServer::new(Sds::new(self.names.clone(), Arc::clone(&self.metrics)))
            .max_decoding_message_size(MAX_SDS_REQUEST);
        let (_health, health_server) = tonic_health::server::health_reporter();
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()
            .map(|server| server.max_decoding_message_size(MAX_WORKLOAD_REQUEST));
        let served = Server::builder()
            .max_concurrent_streams(MAX_STREAMS_OF_CONNECTION)
            .http2_max_header_list_size(MAX_HEADERS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(WINDOW)
            .layer(BoundRequests(Arc::new(ReceivedBytes::new(Arc::clone(&self.metrics)))))
            .add_service(workload_api)
            .add_service(sds)
            .add_service(health_server.max_decoding_message_size(MAX_WORKLOAD_REQUEST))
            .add_optional_service(reflection.ok())
            .serve_with_incoming_shutdown(
                ReceiverStream::new(incoming),
                self.shutdown.clone().cancelled_owned(),
            )
            .await;
        if let Err(error) = served {
            tracing::error!(%error, "the server of the volumes' sockets ended");
        }
    }

    /// Serves a socket until the result is dropped. Runs inside of a tokio runtime.
    pub(crate) fn serve(&self, listener: StdListener, owner: SocketOwner) -> io::Result<ServedSocket> {
        let listener = UnixListener::from_std(listener)?;
        let ended = self.shutdown.child_token();
        let caller = Caller::new(owner, Arc::clone(&self.metrics), ended.clone(), self.shutdown.clone());
        tokio::spawn(accept(listener, caller, Arc::clone(&self.limits), self.accepted.clone()));
        Ok(ServedSocket { _ended: ended.drop_guard() })
    }
}

/// Accepts connections until the socket's end.
async fn accept(
    listener: UnixListener,
    caller: Caller,
    limits: Arc<ConnectionLimits>,
    accepted: mpsc::Sender<io::Result<Connection>>,
) {
    let accepting = async {
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // No file descriptor is left, for example.
                    tracing::warn!(volume = %caller.volume(), %error, "a connection could not be accepted");
                    tokio::time::sleep(PAUSE_AFTER_REFUSAL).await;
                    continue;
                }
            };
            caller.pace().await;
            let Some(admitted) = limits.admit(&caller) else {
                tracing::debug!(
                    volume = %caller.volume(), limit = MAX_CONNECTIONS, "a connection was refused: there are too many"
                );
                drop(stream);
                tokio::time::sleep(PAUSE_AFTER_REFUSAL).await;
                continue;
            };
            let connection = Connection::new(stream, caller.clone(), admitted);
            if accepted.send(Ok(connection)).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = caller.ended() => {}
        () = accepting => {}
    }
}
