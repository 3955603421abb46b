//! Registration with the kubelet, inside the driver's process. The kubelet watches its `plugins_registry` directory, finds
//! the driver's socket, asks for the driver's name and CSI socket, and reports whether it accepted the driver.
//!
//! After a refusal, and when the socket was removed, the driver creates a new socket.

use crate::platform::{AnyAuthority, Backoff, DirectoryWatch, listen};
use crate::proto::registration::registration_server::{
    Registration as RegistrationService, RegistrationServer,
};
use crate::proto::registration::{InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse};
use crate::telemetry::Metrics;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status};

/// The `type` by which the kubelet knows CSI drivers.
const CSI_PLUGIN: &str = "CSIPlugin";
/// The CSI version for the kubelet, which compares the major number.
const CSI_VERSION: &str = "1.12.0";

/// A kubelet that watches the directory asks within seconds.
const WARN_IF_NOT_ASKED_AFTER: Duration = Duration::from_mins(1);
const RETRIES: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_mins(1));

/// The state of the registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RegistrationState {
    /// The kubelet has not asked yet.
    Waiting,
    /// The kubelet has accepted the driver.
    Accepted,
    /// The kubelet has refused the driver, for this reason.
    Refused(String),
    /// The socket was removed, or could not be created.
    Lost(String),
}

/// Keeps the driver registered.
#[derive(Clone)]
pub(crate) struct Registration {
    /// `<registration-dir>/<driver-name>-reg.sock`
    pub socket: PathBuf,
    /// The driver's name.
    pub driver_name: String,
    /// The CSI socket, as the kubelet sees it.
    pub endpoint: PathBuf,
    /// Counts results.
    pub metrics: Arc<Metrics>,
    /// Publishes the state.
    pub state: watch::Sender<RegistrationState>,
}

impl Registration {
    /// Offers the driver until `shutdown`, again after each failure. Then it removes the socket.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let mut failures = 0;
        while let Some(ended) = shutdown.run_until_cancelled(self.offer()).await {
            let (state, result) = match ended {
                Ok(reason) => (RegistrationState::Refused(reason), "refused"),
                Err(reason) => (RegistrationState::Lost(reason), "lost"),
            };
            let retry = RETRIES.full_pause(failures);
            tracing::error!(
                socket = %self.socket.display(), ?state, retry_in_seconds = retry.as_secs_f64(),
                "not registered with the kubelet; offering the driver again"
            );
            // The backoff starts again after a kubelet had accepted the driver.
            if self.state.send_replace(state) == RegistrationState::Accepted {
                failures = 0;
            }
            self.metrics.registration(result);
            if shutdown.run_until_cancelled(tokio::time::sleep(retry)).await.is_none() {
                break;
            }
            failures += 1;
        }
        // As long as the socket exists, the kubelet would call a driver that no longer runs.
        let _ = std::fs::remove_file(&self.socket);
    }

    /// Offers the driver on one socket. Returns `Ok` with the reason of a refusal, or `Err` if the socket was lost.
    async fn offer(&self) -> Result<String, String> {
        let listener = listen(&self.socket).map_err(|error| error.to_string())?;
        // Watched before the first check, so that no removal is missed.
        let directory = DirectoryWatch::new(self.socket.parent().unwrap_or(Path::new("/")))
            .map_err(|error| format!("the registration directory cannot be watched: {error}"))?;
        self.state.send_if_modified(|state| {
            let lost = matches!(state, RegistrationState::Lost(_));
            if lost {
                *state = RegistrationState::Waiting;
            }
            lost
        });
        let (refusal, mut refused) = watch::channel(None);
        let service = Service { registration: self.clone(), refusal };
        let connections = UnixListenerStream::new(listener).map(|stream| stream.map(AnyAuthority::new));
        let server =
            Server::builder().add_service(RegistrationServer::new(service)).serve_with_incoming(connections);
        tokio::select! {
            ended = server => Err(match ended {
                Ok(()) => "the registration server ended".to_owned(),
                Err(error) => format!("the registration server failed: {error}"),
            }),
            () = removed(&directory, &self.socket) => Err("the registration socket was removed".to_owned()),
            Ok(reason) = refused.wait_for(Option::is_some) => Ok(reason.clone().unwrap_or_default()),
            never = self.warn_if_not_asked() => match never {},
        }
    }

    /// Warns once and never returns. A kubelet that watches another directory sends no error, so only time shows it.
    async fn warn_if_not_asked(&self) -> Infallible {
        tokio::time::sleep(WARN_IF_NOT_ASKED_AFTER).await;
        if *self.state.borrow() == RegistrationState::Waiting {
            tracing::warn!(
                socket = %self.socket.display(),
                "the kubelet has not asked for the driver yet; does it watch this directory?"
            );
        }
        std::future::pending().await
    }
}

/// Waits until the socket, or its directory, is removed.
async fn removed(directory: &DirectoryWatch, socket: &Path) {
    while socket.exists() {
        directory.changed().await;
    }
}

/// The service needs to know nothing of the kubelet's connection.
impl Connected for AnyAuthority<UnixStream> {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

struct Service {
    registration: Registration,
    refusal: watch::Sender<Option<String>>,
}

#[tonic::async_trait]
impl RegistrationService for Service {
    async fn get_info(&self, _request: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(PluginInfo {
            r#type: CSI_PLUGIN.to_owned(),
            name: self.registration.driver_name.clone(),
            endpoint: self.registration.endpoint.display().to_string(),
            supported_versions: vec![CSI_VERSION.to_owned()],
        }))
    }

    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        let RegistrationStatus { plugin_registered, error } = request.into_inner();
        if plugin_registered {
            tracing::info!("registered with the kubelet");
            self.registration.metrics.registration("accepted");
            self.registration.state.send_replace(RegistrationState::Accepted);
        } else {
            self.refusal.send_replace(Some(error));
        }
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}
