//! The answers to the probes.

use crate::csi::RegistrationState;
use crate::proto::csi::ProbeRequest;
use crate::proto::csi::identity_client::IdentityClient;
use crate::telemetry::Health;
use crate::volume::VolumeService;
use futures_util::future::BoxFuture;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::watch;
use tonic::transport::Endpoint;

/// Answers the probes.
pub(super) struct NodeHealth {
    pub(super) endpoint: PathBuf,
    pub(super) volumes: VolumeService,
    /// None: the driver does not register itself.
    pub(super) registered: Option<watch::Receiver<RegistrationState>>,
}

/// A CSI socket that takes longer than this to answer Probe does not work.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

impl Health for NodeHealth {
    fn alive(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async {
            if !self.volumes.is_running() {
                return Err("the renewal loop does not run".to_owned());
            }
            let socket = format!("unix://{}", self.endpoint.display());
            let probe = async {
                let channel = Endpoint::from_shared(socket)?.connect().await?;
                Ok::<_, tonic::transport::Error>(IdentityClient::new(channel).probe(ProbeRequest {}).await)
            };
            match tokio::time::timeout(PROBE_TIMEOUT, probe).await {
                Err(_) => {
                    Err(format!("the CSI socket has not answered within {} s", PROBE_TIMEOUT.as_secs()))
                }
                Ok(Err(error)) => Err(format!("the CSI socket cannot be reached: {error}")),
                Ok(Ok(Err(status))) => Err(format!("the CSI socket answers {status}")),
                Ok(Ok(Ok(_))) => Ok(()),
            }
        })
    }

    fn ready(&self) -> Result<(), String> {
        let Some(registered) = &self.registered else { return Ok(()) };
        match &*registered.borrow() {
            RegistrationState::Accepted => Ok(()),
            RegistrationState::Waiting => Err("the kubelet has not asked for the driver yet".to_owned()),
            RegistrationState::Refused(reason) => Err(format!("the kubelet refused the driver: {reason}")),
            RegistrationState::Lost(reason) => {
                Err(format!("the registration with the kubelet was lost: {reason}"))
            }
        }
    }
}
