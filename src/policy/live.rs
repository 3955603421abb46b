//! The policy in force: read at the start, and again whenever the file changes.

use super::decide::{Decision, Question};
use super::file::{Policy, PolicyError};
use parking_lot::{Mutex, RwLock};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The policy in force.
#[derive(Debug)]
pub struct LivePolicy {
    path: PathBuf,
    rules: RwLock<Arc<Policy>>,
    /// Why the file as it is now was refused.
    refused: Mutex<Option<String>>,
    loads: Loads,
}

/// How often the file was taken up, and how often it was refused.
#[derive(Debug, Default)]
pub struct Loads {
    /// Taken up.
    pub accepted: Counter,
    /// Refused: the older rules stay in force.
    pub refused: Counter,
}

impl Loads {
    /// Has them shown.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("pca_policy_loads", "Versions of the policy file taken up", self.accepted.clone());
        registry.register(
            "pca_policy_refusals",
            "Versions of the policy file refused: the older rules stay in force",
            self.refused.clone(),
        );
    }
}

impl LivePolicy {
    /// Reads the file; one that is not valid now is an error.
    pub fn open(path: &Path) -> Result<Self, PolicyError> {
        let policy = Policy::read(path)?;
        let loads = Loads::default();
        loads.accepted.inc();
        Ok(Self {
            path: path.to_owned(),
            rules: RwLock::new(Arc::new(policy)),
            refused: Mutex::default(),
            loads,
        })
    }

    /// The rules in force.
    pub fn rules(&self) -> Arc<Policy> {
        Arc::clone(&self.rules.read())
    }

    /// Decides by the rules in force.
    pub fn decide(&self, question: &Question<'_>) -> Decision {
        self.rules().decide(question)
    }

    /// How often the file was taken up or refused.
    pub fn loads(&self) -> &Loads {
        &self.loads
    }

    /// Reads the file again. One that is not valid leaves the old rules in force.
    pub fn reload(&self) {
        match Policy::read(&self.path) {
            Ok(policy) if *self.rules() == policy => *self.refused.lock() = None,
            Ok(policy) => {
                tracing::info!(path = %self.path.display(), rules = policy.rules(), "the policy has changed");
                *self.rules.write() = Arc::new(policy);
                self.loads.accepted.inc();
                *self.refused.lock() = None;
            }
            // One change of the directory comes as several notices: the same refusal counts once.
            Err(error) if self.refused.lock().replace(error.to_string()) == Some(error.to_string()) => {}
            Err(error) => {
                tracing::error!(%error, "the new policy is not valid; THE OLD RULES STAY IN FORCE");
                self.loads.refused.inc();
            }
        }
    }
}
