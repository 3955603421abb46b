//! The policy in force: read at the start, and again whenever the file changes.

use super::decide::{Decision, Question};
use super::file::{Policy, PolicyError};
use crate::watch::DirectoryWatch;
use nix::sys::inotify::AddWatchFlags;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use tokio_util::sync::CancellationToken;

/// The policy in force.
#[derive(Debug)]
pub struct LivePolicy {
    path: PathBuf,
    rules: RwLock<Arc<Policy>>,
    watch: DirectoryWatch,
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
    /// Reads the file; one that is not valid now is an error. Needs a runtime.
    pub fn open(path: &Path) -> Result<Self, PolicyError> {
        // A ConfigMap's volume swaps the symlink `..data` beside the file: the directory is what changes. Watched before
        // it is read, so that no change falls between the two.
        let directory =
            path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let events = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVED_TO;
        let watch = DirectoryWatch::new(directory, events)
            .map_err(|source| PolicyError::Unwatchable { path: path.to_owned(), source })?;
        let policy = Policy::read(path)?;
        let loads = Loads::default();
        loads.accepted.inc();
        Ok(Self { path: path.to_owned(), rules: RwLock::new(Arc::new(policy)), watch, loads })
    }

    /// The rules in force.
    pub fn rules(&self) -> Arc<Policy> {
        Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Decides by the rules in force.
    pub fn decide(&self, question: &Question<'_>) -> Decision {
        self.rules().decide(question)
    }

    /// How often the file was taken up or refused.
    pub fn loads(&self) -> &Loads {
        &self.loads
    }

    /// Takes changes of the file up until `shutdown`.
    pub async fn follow(&self, shutdown: CancellationToken) {
        loop {
            let events = tokio::select! {
                () = shutdown.cancelled() => return,
                events = self.watch.events() => events,
            };
            if let Err(error) = events {
                tracing::error!(
                    path = %self.path.display(), %error,
                    "the policy file is not watched any more; the rules stay as they are until a restart"
                );
                return;
            }
            self.reload();
        }
    }

    fn reload(&self) {
        match Policy::read(&self.path) {
            Ok(policy) if *self.rules() == policy => {}
            Ok(policy) => {
                tracing::info!(path = %self.path.display(), rules = policy.rules(), "the policy has changed");
                *self.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(policy);
                self.loads.accepted.inc();
            }
            Err(error) => {
                tracing::error!(%error, "the new policy is not valid; THE OLD RULES STAY IN FORCE");
                self.loads.refused.inc();
            }
        }
    }
}
