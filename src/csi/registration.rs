//! Registration with the kubelet, in-process: the kubelet watches its `plugins_registry` directory, finds our socket,
//! asks who we are, and says whether it took us.
//!
//! A refusal is tried again by offering a new socket; so is a socket that somebody has removed.

use super::authority::AnyAuthority;
use super::socket::{self, SocketError};
use crate::proto::registration::registration_server::{
    Registration as RegistrationService, RegistrationServer,
};
use crate::proto::registration::{InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse};
use crate::telemetry::Metrics;
use crate::watch::DirectoryWatch;
use nix::sys::inotify::AddWatchFlags;
use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

/// The `type` by which the kubelet knows CSI drivers.
const CSI_PLUGIN: &str = "CSIPlugin";
/// The CSI version the kubelet is told; it compares the major number.
const CSI_VERSION: &str = "1.12.0";

/// A kubelet asks within seconds of a socket's appearance.
const SILENCE: Duration = Duration::from_mins(1);
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_mins(1);

/// How the driver stands with the kubelet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistrationState {
    /// Offered, and not asked for yet.
    Waiting,
    /// The kubelet has taken it.
    Accepted,
    /// The kubelet has refused it, and said why.
    Refused(String),
    /// The socket is gone, or could not be offered.
    Lost(String),
}

/// Keeps the driver registered.
pub struct Registration {
    /// `<registration-dir>/<driver-name>-reg.sock`
    pub socket: PathBuf,
    /// The driver's name.
    pub driver_name: String,
    /// The CSI socket, as the kubelet sees it.
    pub endpoint: PathBuf,
    /// Where refusals and losses are counted.
    pub metrics: Arc<Metrics>,
    /// Where the state is shown.
    pub state: watch::Sender<RegistrationState>,
}

impl Registration {
    /// Offers the driver, again and again where that is needed, until `shutdown`; then takes the socket away.
    pub async fn keep(self, shutdown: CancellationToken) {
        let mut retry = FIRST_RETRY;
        loop {
            let ended = tokio::select! {
                () = shutdown.cancelled() => break,
                ended = self.offer() => ended,
            };
            let (state, result) = match ended {
                Ok(Ended::Refused(reason)) => (RegistrationState::Refused(reason), "refused"),
                Ok(Ended::Vanished) => {
                    (RegistrationState::Lost("the registration socket was removed".to_owned()), "lost")
                }
                Err(error) => (RegistrationState::Lost(error.to_string()), "lost"),
            };
            tracing::error!(
                socket = %self.socket.display(), state = ?state, retry_in_seconds = retry.as_secs_f64(),
                "not registered with the kubelet; offering the driver again"
            );
            // A kubelet that had taken the driver starts the pauses over.
            if self.state.send_replace(state) == RegistrationState::Accepted {
                retry = FIRST_RETRY;
            }
            self.metrics.registration(result);
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = tokio::time::sleep(retry) => retry = (retry * 2).min(LONGEST_RETRY),
            }
        }
        // Leaving the socket would make the kubelet call a driver that is not there.
        let _gone = std::fs::remove_file(&self.socket);
    }

    /// Offers one socket until the kubelet refuses it or somebody removes it.
    async fn offer(&self) -> Result<Ended, OfferError> {
        let listener = socket::listen(&self.socket)?;
        // From here on the socket is watched: one that is removed before would be noticed by the first read.
        let watcher = Watcher::new(&self.socket)?;
        self.state.send_if_modified(|state| {
            let lost = matches!(state, RegistrationState::Lost(_));
            if lost {
                *state = RegistrationState::Waiting;
            }
            lost
        });
        let (refusal, mut refused) = watch::channel(None);
        let service = Service {
            info: PluginInfo {
                r#type: CSI_PLUGIN.to_owned(),
                name: self.driver_name.clone(),
                endpoint: self.endpoint.display().to_string(),
                supported_versions: vec![CSI_VERSION.to_owned()],
            },
            state: self.state.clone(),
            metrics: Arc::clone(&self.metrics),
            refusal,
        };
        let connections = UnixListenerStream::new(listener).map(|stream| stream.map(AnyAuthority::new));
        let server =
            Server::builder().add_service(RegistrationServer::new(service)).serve_with_incoming(connections);
        tokio::select! {
            result = server => Err(result.err().map_or(OfferError::Ended, OfferError::Serve)),
            removed = watcher.removed() => Ok(removed.map(|()| Ended::Vanished)?),
            never = self.remark_silence() => match never {},
            Ok(reason) = refused.wait_for(Option::is_some) => Ok(Ended::Refused(reason.clone().unwrap_or_default())),
        }
    }

    /// A kubelet that looks elsewhere never says so.
    async fn remark_silence(&self) -> Infallible {
        tokio::time::sleep(SILENCE).await;
        if *self.state.borrow() == RegistrationState::Waiting {
            tracing::warn!(
                socket = %self.socket.display(),
                "the kubelet has not asked for the driver yet; does it watch this directory?"
            );
        }
        std::future::pending().await
    }
}

/// Why an offer is over.
enum Ended {
    Refused(String),
    Vanished,
}

#[derive(Debug, thiserror::Error)]
enum OfferError {
    #[error(transparent)]
    Socket(#[from] SocketError),
    #[error("the registration directory cannot be watched: {0}")]
    Watch(#[from] io::Error),
    #[error("the registration server failed: {0}")]
    Serve(tonic::transport::Error),
    #[error("the registration server ended")]
    Ended,
}

struct Service {
    info: PluginInfo,
    state: watch::Sender<RegistrationState>,
    metrics: Arc<Metrics>,
    refusal: watch::Sender<Option<String>>,
}

#[tonic::async_trait]
impl RegistrationService for Service {
    async fn get_info(&self, _request: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(self.info.clone()))
    }

    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        let RegistrationStatus { plugin_registered, error } = request.into_inner();
        if plugin_registered {
            tracing::info!("registered with the kubelet");
            self.metrics.registration("accepted");
            self.state.send_replace(RegistrationState::Accepted);
        } else {
            self.refusal.send_replace(Some(error));
        }
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}

/// Tells when the socket's file, or its whole directory, is removed.
struct Watcher {
    directory: DirectoryWatch,
    socket: PathBuf,
}

impl Watcher {
    fn new(socket: &Path) -> io::Result<Self> {
        let gone = AddWatchFlags::IN_DELETE | AddWatchFlags::IN_MOVED_FROM | Self::DIRECTORY_GONE;
        let directory = DirectoryWatch::new(socket.parent().unwrap_or(Path::new("/")), gone)?;
        Ok(Self { directory, socket: socket.to_owned() })
    }

    const DIRECTORY_GONE: AddWatchFlags = AddWatchFlags::IN_DELETE_SELF.union(AddWatchFlags::IN_MOVE_SELF);

    async fn removed(&self) -> io::Result<()> {
        // Looked at after the watch was set: whatever happens from here on is an event.
        while self.socket.exists() {
            let events = self.directory.events().await?;
            if events.iter().any(|event| event.mask.intersects(Self::DIRECTORY_GONE)) {
                break;
            }
        }
        Ok(())
    }
}
