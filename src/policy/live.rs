//! The policy in force. It follows changes of the file.

use super::file::{Policy, PolicyError};
use crate::model::sha256;
use parking_lot::{Mutex, RwLock};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The policy in force.
#[derive(Debug)]
pub struct LivePolicy {
    path: PathBuf,
    rules: RwLock<Arc<Policy>>,
    /// The digest of the last refused version of the file, or of the error if the file was not readable.
    refused: Mutex<Option<[u8; 32]>>,
    loads: Counter,
    pub(super) refusals: Counter,
    pub(super) is_invalid: Gauge,
}

impl LivePolicy {
    /// Reads the file. It must be valid.
    pub fn open(path: &Path) -> Result<Self, PolicyError> {
        let policy = Policy::read(path)?;
        warn(path, &policy);
        let rules = RwLock::new(Arc::new(policy));
        let loads = Counter::default();
        loads.inc();
        Ok(Self {
            path: path.to_owned(),
            rules,
            refused: Mutex::default(),
            loads,
            refusals: Counter::default(),
            is_invalid: Gauge::default(),
        })
    }

    /// Adds the metrics to a registry.
    pub fn register(&self, registry: &mut Registry) {
        let help = "Versions of the policy file that came into force";
        registry.register("pca_policy_loads", help, self.loads.clone());
        let help = "Versions of the policy file that were refused: the older rules stay in force";
        registry.register("pca_policy_refusals", help, self.refusals.clone());
        let help = "Whether the newest version of the policy file is refused: 1 or 0";
        registry.register("pca_policy_invalid", help, self.is_invalid.clone());
    }

    /// The rules in force.
    pub fn rules(&self) -> Arc<Policy> {
        Arc::clone(&self.rules.read())
    }

    /// Reads the file again. An invalid file leaves the old rules in force. One change of the file can cause several calls, so
    /// a version that is already known is ignored.
    pub fn reload(&self) {
        let text = std::fs::read_to_string(&self.path).map_err(|error| error.to_string());
        match text.as_deref().map_err(Clone::clone).and_then(Policy::parse) {
            Ok(policy) => {
                *self.refused.lock() = None;
                self.is_invalid.set(0);
                if *self.rules() != policy {
                    tracing::info!(path = %self.path.display(), rules = policy.rules(), "the policy has changed");
                    warn(&self.path, &policy);
                    *self.rules.write() = Arc::new(policy);
                    self.loads.inc();
                }
            }
            Err(error) => {
                let digest = sha256(&[text.as_deref().unwrap_or(&error).as_bytes()]);
                if self.refused.lock().replace(digest) != Some(digest) {
                    let path = self.path.display();
                    tracing::error!(%path, error, "the new policy is not valid; THE OLD RULES STAY IN FORCE");
                    self.refusals.inc();
                    self.is_invalid.set(1);
                }
            }
        }
    }
}

fn warn(path: &Path, policy: &Policy) {
    for warning in policy.warnings() {
        tracing::warn!(path = %path.display(), "the policy may allow more than is meant: {warning}");
    }
    for placeholder in policy.placeholders() {
        tracing::warn!(path = %path.display(), "the policy has a pattern that nothing fits: {placeholder}");
    }
}
