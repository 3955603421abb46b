//! A sidecar's front door: what its flags, its pod and its annotations ask for becomes a publish, as a kubelet's call does on a node.
//!
//! [`pod`] says which pod it is, [`annotations`] reads the downward API's file, and [`request`] makes the request. [`Sidecar`] publishes
//! the one workload, and says whether it has its certificate.

mod annotations;
mod pod;
mod request;

pub(crate) use annotations::AttributeSources;
pub(crate) use pod::{OwnPod, own_pod, token_file};
pub use pod::{PodError, PodNames};
pub(crate) use request::{SidecarRequest, directory_group};

use crate::model::{Failure, FailureKind};
use crate::platform::{Backoff, Clock};
use crate::volume::VolumeService;
use jiff::Timestamp;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// Time limit of one attempt. A signer that needs longer is asked for the same request again.
const ATTEMPT_TIMEOUT: Duration = Duration::from_mins(1);
/// The pauses between attempts to get the first certificate.
const RETRIES: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_mins(1));

/// Whether the certificate has expired is checked when it should be replaced, but not more often, nor less often, than this.
const MIN_CHECK_INTERVAL: Duration = Duration::from_mins(1);
const MAX_CHECK_INTERVAL: Duration = Duration::from_hours(1);

/// The one workload of a sidecar.
pub(crate) struct Sidecar {
    volumes: VolumeService,
    request: SidecarRequest,
    progress: Mutex<Progress>,
}

/// Whether the first certificate is there.
enum Progress {
    /// The first attempt has not ended.
    Pending,
    /// The last attempt has failed, and this is why.
    Failed(String),
    Obtained,
}

impl Sidecar {
    /// Nothing is requested yet.
    pub(crate) fn new(volumes: VolumeService, request: SidecarRequest) -> Arc<Self> {
        Arc::new(Self { volumes, request, progress: Mutex::new(Progress::Pending) })
    }

    /// Gets the first certificate, or takes over that of an earlier process, however many attempts that needs. A failure that
    /// `ends` says is one to end with is returned.
    pub(crate) async fn obtain_first(&self, ends: impl Fn(&Failure) -> bool) -> Result<(), Failure> {
        for failures in 0.. {
            let request = self.request.publish(Some(ATTEMPT_TIMEOUT));
            let Err(failure) = self.volumes.publish(request).await else {
                *self.progress.lock() = Progress::Obtained;
                return Ok(());
            };
            *self.progress.lock() = Progress::Failed(failure.to_string());
            if failure.kind == FailureKind::ShuttingDown || ends(&failure) {
                return Err(failure);
            }
            let pause =
                failure.retry_after.unwrap_or_else(|| RETRIES.pause(failures, self.request.jitter(failures)));
            tracing::warn!(
                error = %failure, kind = %failure.kind, retry_in_seconds = pause.as_secs_f64(), "no certificate yet"
            );
            tokio::time::sleep(pause).await;
        }
        Ok(())
    }

    /// Gets a certificate that is not due for renewal, for a process that ends with it.
    pub(crate) async fn obtain_once(&self) -> Result<(), Failure> {
        self.obtain_first(|failure| failure.kind.retry_kind() == FailureKind::Permanent).await?;
        let id = &self.request.volume;
        let mut follower = self.volumes.follow(id).await?;
        self.volumes.renew_if_due(id)?;
        while !self.volumes.is_fresh(id)? {
            if !follower.changed().await {
                return Err(Failure::transient("the workload is gone"));
            }
        }
        Ok(())
    }

    /// Resolves when a later generation has replaced the one in use: with a new certificate, or with other trust anchors.
    pub(crate) async fn replaced(&self) -> Result<(), Failure> {
        let mut follower = self.volumes.follow(&self.request.volume).await?;
        let _current = follower.published();
        if follower.changed().await { Ok(()) } else { Err(Failure::transient("the workload is gone")) }
    }

    /// Once the certificate has expired, asks for its renewal each minute, as the kubelet's calls do on a node. Never returns.
    pub(crate) async fn keep_valid<T>(&self, clock: &dyn Clock) -> T {
        loop {
            let left = self.volumes.time_left(&self.request.volume);
            tokio::time::sleep(left.clamp(MIN_CHECK_INTERVAL, MAX_CHECK_INTERVAL)).await;
            if self.volumes.is_valid(&self.request.volume, clock.now()).is_err()
                && let Err(error) = self.volumes.publish(self.request.publish(Some(ATTEMPT_TIMEOUT))).await
            {
                tracing::debug!(%error, "the renewal could not be asked for");
            }
        }
    }

    /// Whether the pod has a certificate that is valid. The error says why not.
    pub(crate) fn ready(&self, now: Timestamp) -> Result<(), String> {
        let volume = &self.request.volume;
        match &*self.progress.lock() {
            Progress::Failed(failure) => Err(failure.clone()),
            Progress::Obtained => self.volumes.is_valid(volume, now),
            Progress::Pending => {
                let pending = self.volumes.pending(volume, self.request.spec().signer.kind());
                Err(pending.unwrap_or_else(|| "the first certificate has not been requested yet".to_owned()))
            }
        }
    }
}
