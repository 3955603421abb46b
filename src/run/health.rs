//! Whether the driver works, for the admin server and the control socket.

use super::notices::Notices;
use crate::control::{Answer, Check, Request};
use crate::csi::RegistrationState;
use crate::proto::csi::ProbeRequest;
use crate::proto::csi::identity_client::IdentityClient;
use crate::volume::{RenewTarget, VolumeService};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tonic::transport::Endpoint;

/// A CSI socket that takes longer than this to answer Probe does not work.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a readiness check waits for the registration. The kubelet registers a driver soon after it has started, and its
/// next probe would come half a minute later.
const REGISTRATION_TIMEOUT: Duration = Duration::from_secs(3);

/// What health depends on.
pub(super) struct Health {
    /// The CSI socket.
    pub(super) endpoint: PathBuf,
    pub(super) volumes: VolumeService,
    /// None: the driver does not register itself.
    pub(super) registered: Option<watch::Receiver<RegistrationState>>,
    pub(super) notices: Arc<Notices>,
}

impl Health {
    /// The answer on the control socket.
    pub(super) async fn answer(&self, request: Request) -> Answer {
        match request {
            Request::Check(check) => self.check(check).await.map(|()| None),
            Request::Renew(target) => renew(&self.volumes, &target),
        }
    }

    async fn check(&self, check: Check) -> Result<(), String> {
        match check {
            Check::Liveness => self.alive().await,
            Check::Readiness => {
                self.registration_decided().await;
                self.ready()
            }
            Check::Notices => {
                let notices = self.notices.all().into_iter().chain(self.volumes.rejections());
                let notices: Vec<String> = notices.chain(self.volumes.trust_faults()).collect();
                if notices.is_empty() { Ok(()) } else { Err(notices.join("; ")) }
            }
        }
    }

    /// Whether the process works: the CSI socket answers, and the renewal loop runs. The error says what does not work.
    pub(super) async fn alive(&self) -> Result<(), String> {
        if !self.volumes.is_running() {
            return Err("the renewal loop does not run".to_owned());
        }
        let socket = format!("unix://{}", self.endpoint.display());
        let probe = async {
            let channel = Endpoint::from_shared(socket)?.connect().await?;
            Ok::<_, tonic::transport::Error>(IdentityClient::new(channel).probe(ProbeRequest {}).await)
        };
        match tokio::time::timeout(PROBE_TIMEOUT, probe).await {
            Err(_) => Err(format!("the CSI socket has not answered within {} s", PROBE_TIMEOUT.as_secs())),
            Ok(Err(error)) => Err(format!("the CSI socket cannot be reached: {error}")),
            Ok(Ok(Err(status))) => Err(format!("the CSI socket answers {status}")),
            Ok(Ok(Ok(_))) => Ok(()),
        }
    }

    /// Whether the kubelet can use the driver. The error says what is missing.
    pub(super) fn ready(&self) -> Result<(), String> {
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

    /// Waits until the kubelet has accepted or refused the driver, for [`REGISTRATION_TIMEOUT`] at most.
    async fn registration_decided(&self) {
        let Some(mut registered) = self.registered.clone() else { return };
        let decided = registered.wait_for(|state| *state != RegistrationState::Waiting);
        let _late = tokio::time::timeout(REGISTRATION_TIMEOUT, decided).await;
    }
}

/// Starts renewals, for the control socket.
pub(super) fn renew(volumes: &VolumeService, target: &RenewTarget) -> Answer {
    volumes.renew_now(target).map(Some).map_err(|failure| failure.to_string())
}
