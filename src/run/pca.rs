//! AWS Private CA: its signer, and the policy file that the signer follows.

use super::watched_file;
use crate::platform::Clock;
use crate::policy::{LivePolicy, PolicyError};
use crate::signer::{AcmPca, AcmPcaParts, ConfiguredSigner, Fleet, PcaMetrics};
use crate::store::Store;
use crate::telemetry::Metrics;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

/// Why AWS Private CA cannot be used.
#[derive(Debug, Error)]
pub enum PcaError {
    /// The policy.
    #[error("--pca-policy: {0}")]
    Policy(#[from] PolicyError),
    /// The policy's directory.
    #[error("--pca-policy {}: the directory cannot be watched for changes: {source}", .path.display())]
    PolicyWatch {
        /// The policy file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// How AWS Private CA is used.
#[derive(Clone, Debug)]
pub struct PcaConfig {
    /// The file with the rules for who gets which certificate; none: IAM alone decides.
    pub policy: Option<PathBuf>,
    /// How much of the account's quotas all nodes together can use.
    pub fleet: Fleet,
    /// Whether certificates that are no longer in use are revoked.
    pub revoke: bool,
    /// Whether metrics name CAs by their ARNs.
    pub metrics_arns: bool,
    /// Possible addresses of this node's EKS Pod Identity agent, tried in this order.
    pub pod_identity: Vec<http::Uri>,
    /// Whether the process runs in the pod, so that its own AWS credentials are those of the pod.
    pub is_in_pod: bool,
}

/// The signer; it follows its policy file, if it has one, until `end`. `name` is that of the node, or of the sidecar.
pub(super) fn signer(
    pca: &PcaConfig,
    name: &str,
    clock: &Arc<dyn Clock>,
    metrics: &Metrics,
    store: &Store,
    end: &CancellationToken,
) -> Result<ConfiguredSigner, PcaError> {
    let PcaConfig { policy, fleet, revoke, metrics_arns, pod_identity, is_in_pod } = pca;
    let policy = policy.as_deref().map(|path| live_policy(path, end)).transpose()?;
    let counted = PcaMetrics::new(*metrics_arns);
    metrics.extend(|registry| {
        counted.register(registry);
        if let Some(policy) = &policy {
            policy.register(registry);
        }
    });
    let signer = Arc::new(AcmPca::new(AcmPcaParts {
        policy,
        fleet: *fleet,
        name: name.to_owned(),
        clock: Arc::clone(clock),
        metrics: counted,
        revocations: revoke.then(|| store.journal("revocations")),
        pod_identity: pod_identity.clone(),
        is_in_pod: *is_in_pod,
    }));
    let (running, until) = (Arc::clone(&signer), end.clone());
    tokio::spawn(async move { running.run(until).await });
    Ok(ConfiguredSigner::new(signer))
}

/// Reads the policy and follows its file until `end`.
fn live_policy(path: &Path, end: &CancellationToken) -> Result<Arc<LivePolicy>, PcaError> {
    // The watch starts before the file is read, so that no change is missed.
    let watch = watched_file::watch(path)
        .map_err(|source| PcaError::PolicyWatch { path: path.to_owned(), source })?;
    let policy = Arc::new(LivePolicy::open(path)?);
    let followed = Arc::clone(&policy);
    tokio::spawn(watched_file::follow(watch, end.clone(), move || followed.reload()));
    Ok(policy)
}
