//! One client of a socket: a process of its own with one connection and one stream, as a pod has it.
//!
//! It writes a line to its output for each message. If the stream ends, it connects again.

use crate::Failure;
use certlet_kubelet::proto::workload::X509svidRequest;
use certlet_kubelet::proto::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use certlet_kubelet::proto::xds::envoy::service::discovery::v3::{DiscoveryRequest, Node};
use certlet_kubelet::proto::xds::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
use clap::ValueEnum;
use jiff::Timestamp;
use nix::sys::{prctl, signal::Signal};
use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};
use serde::Serialize;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

/// How often a client tries to connect while nobody listens.
pub(crate) const RETRY: Duration = Duration::from_millis(50);
/// How often it asks again after any other error.
const RETRY_AFTER_ERROR: Duration = Duration::from_millis(250);
/// A client without a message for so long ends with an error.
const TIMEOUT: Duration = Duration::from_mins(1);
/// The name of the workload's own certificate in SDS, for certlet and for SPIRE.
const SECRET: &str = "default";
const SECRET_TYPE: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

/// The API that a client uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
pub(crate) enum Api {
    /// `FetchX509SVID` of the SPIFFE Workload API.
    Workload,
    /// `StreamSecrets` of Envoy's Secret Discovery Service.
    Sds,
}

/// The arguments of a client.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ClientArgs {
    /// The API.
    #[arg(long)]
    pub(crate) api: Api,
    /// The server's socket.
    #[arg(long)]
    pub(crate) socket: PathBuf,
    /// The number that its lines begin with.
    #[arg(long)]
    pub(crate) number: usize,
    /// The user that it runs as.
    #[arg(long)]
    pub(crate) user: Option<u32>,
}

/// Follows the stream until the process is killed, or ends with its parent.
pub(crate) fn run(args: &ClientArgs) -> Result<(), Failure> {
    // Opened as root. The path in a pod is short; that of the kubelet is longer than an address may be.
    let parent = args.socket.parent().unwrap_or(&args.socket);
    let directory = File::open(parent).map_err(|error| format!("{}: {error}", parent.display()))?;
    let name = args.socket.file_name().unwrap_or_default();
    let socket = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name);
    if let Some(user) = args.user {
        setgroups(&[])?;
        setgid(Gid::from_raw(user))?;
        setuid(Uid::from_raw(user))?;
    }
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut client = Client { number: args.number, last_message: Instant::now() };
    let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()))?;
    runtime.block_on(async {
        loop {
            let pause = match endpoint.connect().await {
                Err(_) => RETRY,
                Ok(channel) => match client.follow(args.api, channel).await {
                    Err(status) if status.code() == Code::Unavailable => RETRY,
                    Err(status) if client.last_message.elapsed() > TIMEOUT => {
                        return Err(format!("client {}: {status}", args.number).into());
                    }
                    Ok(()) | Err(_) => RETRY_AFTER_ERROR,
                },
            };
            tokio::time::sleep(pause).await;
        }
    })
}

struct Client {
    number: usize,
    last_message: Instant,
}

impl Client {
    async fn follow(&mut self, api: Api, channel: Channel) -> Result<(), Status> {
        match api {
            Api::Workload => self.follow_workload_api(channel).await,
            Api::Sds => self.follow_sds(channel).await,
        }
    }

    async fn follow_workload_api(&mut self, channel: Channel) -> Result<(), Status> {
        let mut request = Request::new(X509svidRequest {});
        request.metadata_mut().insert("workload.spiffe.io", "true".parse().map_err(internal)?);
        let mut stream = SpiffeWorkloadApiClient::new(channel).fetch_x509svid(request).await?.into_inner();
        while let Some(message) = stream.message().await? {
            let received = Timestamp::now();
            let [svid] = message.svids.as_slice() else {
                return Err(internal(format!("{} identities; accepted: one", message.svids.len())));
            };
            self.record(received, &svid.x509_svid)?;
        }
        Ok(())
    }

    /// Acknowledges each answer, as Envoy does.
    async fn follow_sds(&mut self, channel: Channel) -> Result<(), Status> {
        let (requests, queue) = tokio::sync::mpsc::channel(1);
        let mut request = DiscoveryRequest {
            node: Some(Node { id: self.number.to_string() }),
            resource_names: vec![SECRET.to_owned()],
            type_url: SECRET_TYPE.to_owned(),
            ..DiscoveryRequest::default()
        };
        requests.send(request.clone()).await.map_err(internal)?;
        let queue = tokio_stream::wrappers::ReceiverStream::new(queue);
        let mut stream = SecretDiscoveryServiceClient::new(channel).stream_secrets(queue).await?.into_inner();
        while let Some(answer) = stream.message().await? {
            let received = Timestamp::now();
            let [secret] = answer.resources.as_slice() else {
                return Err(internal(format!("{} secrets; accepted: one", answer.resources.len())));
            };
            self.record(received, &secret.value)?;
            request.version_info = answer.version_info;
            request.response_nonce = answer.nonce;
            requests.send(request.clone()).await.map_err(internal)?;
        }
        Ok(())
    }

    /// Writes the line of a message, with one write(2): all clients append to one file.
    fn record(&mut self, received: Timestamp, certificate: &[u8]) -> Result<(), Status> {
        self.last_message = Instant::now();
        let mut hasher = DefaultHasher::new();
        certificate.hash(&mut hasher);
        let line = format!("{} {} {:x}\n", self.number, received.as_nanosecond(), hasher.finish());
        std::io::stdout().write_all(line.as_bytes()).map_err(internal)
    }
}

fn internal(error: impl std::fmt::Display) -> Status {
    Status::internal(error.to_string())
}
