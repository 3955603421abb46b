//! A client of a volume's socket.

use certlet_kubelet::proto::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use certlet_kubelet::proto::workload::{X509BundlesRequest, X509svidRequest, X509svidResponse};
use certlet_kubelet::proto::xds::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Status, Streaming};

/// The socket in a volume.
pub(crate) fn socket_in(volume: &Path) -> PathBuf {
    volume.join("spiffe.sock")
}

/// A connection to a socket. The path in a pod is short; that of the kubelet is longer than an address may be.
pub(crate) async fn connect(socket: &Path) -> Result<Channel, tonic::transport::Error> {
    let socket = socket.to_owned();
    let connector = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { short_connect(&socket).await.map(hyper_util::rt::TokioIo::new) }
    });
    Endpoint::from_static("http://localhost").connect_with_connector(connector).await
}

pub(crate) async fn short_connect(socket: &Path) -> std::io::Result<tokio::net::UnixStream> {
    let directory = std::fs::File::open(socket.parent().unwrap())?;
    let name = socket.file_name().unwrap().to_str().unwrap();
    let short = format!("/proc/self/fd/{}/{name}", directory.as_raw_fd());
    tokio::net::UnixStream::connect(short).await
}

/// A client of the Workload API.
pub(crate) async fn workload_api(volume: &Path) -> SpiffeWorkloadApiClient<Channel> {
    SpiffeWorkloadApiClient::new(connect(&socket_in(volume)).await.unwrap())
}

/// A client of SDS.
pub(crate) async fn sds(volume: &Path) -> SecretDiscoveryServiceClient<Channel> {
    SecretDiscoveryServiceClient::new(connect(&socket_in(volume)).await.unwrap())
}

/// A request with the security header.
pub(crate) fn secured<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("workload.spiffe.io", "true".parse().unwrap());
    request
}

/// The stream of X.509-SVIDs.
pub(crate) async fn svids(volume: &Path) -> Result<Streaming<X509svidResponse>, Status> {
    let mut client = workload_api(volume).await;
    client.fetch_x509svid(secured(X509svidRequest {})).await.map(tonic::Response::into_inner)
}

/// A request for the trust bundles.
pub(crate) fn bundles_request() -> Request<X509BundlesRequest> {
    secured(X509BundlesRequest {})
}

/// The next message of a stream.
pub(crate) async fn next<T>(stream: &mut Streaming<T>) -> Result<T, Status> {
    let message = tokio::time::timeout(Duration::from_mins(1), stream.message()).await;
    message.expect("no message")?.ok_or_else(|| Status::ok("the end"))
}
