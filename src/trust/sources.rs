//! The trust sources that volumes of this node use, followed: one watch for each, none where no volume uses it.

use super::TrustBundle;
use super::file;
use super::metrics::TrustMetrics;
use super::reader::SourceReader;
use super::spiffe_bundle::anchors_of;
#[cfg(feature = "kubernetes")]
use super::{cluster_trust_bundle, config_map};
use crate::model::TrustSource;
use crate::platform::Clock;
use crate::x509::{Anchors, MAX_ANCHORS_BYTES};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

/// The shortest time between two readings of an object that its author can change at any rate.
#[cfg(feature = "kubernetes")]
pub(super) const MIN_INTERVAL: Duration = Duration::from_millis(500);

/// What a source holds, as far as is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SourceState {
    /// The last anchors that could be used.
    pub(crate) trust: Option<Arc<TrustBundle>>,
    /// Why the source cannot be used now; the last anchors stay.
    pub(crate) fault: Option<String>,
}

/// Follows sources for all volumes.
pub(crate) struct TrustSources(Arc<Inner>);

struct Inner {
    followed: Mutex<HashMap<TrustSource, Weak<FollowedSource>>>,
    changed: Notify,
    clock: Arc<dyn Clock>,
    metrics: TrustMetrics,
    #[cfg(feature = "kubernetes")]
    cluster: std::sync::OnceLock<crate::kube::Cluster>,
}

/// A source that is followed until the last volume that uses it is dropped.
pub(crate) struct FollowedSource {
    source: TrustSource,
    state: watch::Sender<SourceState>,
    sources: Weak<Inner>,
    task: Mutex<Option<AbortHandle>>,
}

impl TrustSources {
    /// Nothing is followed yet. Without a cluster, ConfigMaps cannot be read.
    pub(crate) fn new(clock: Arc<dyn Clock>, metrics: TrustMetrics) -> Self {
        Self(Arc::new(Inner {
            followed: Mutex::default(),
            changed: Notify::new(),
            clock,
            metrics,
            #[cfg(feature = "kubernetes")]
            cluster: std::sync::OnceLock::new(),
        }))
    }

    /// Reads ConfigMaps from this cluster.
    #[cfg(feature = "kubernetes")]
    pub(crate) fn connect(&self, cluster: crate::kube::Cluster) {
        let _first = self.0.cluster.set(cluster);
    }

    /// Follows these sources but the signer, each once for the whole node. Runs inside of a tokio runtime.
    pub(crate) fn follow(&self, sources: &[TrustSource]) -> Vec<Arc<FollowedSource>> {
        let followed = sources.iter().filter(|source| **source != TrustSource::Signer);
        followed.map(|source| self.follow_one(source)).collect()
    }

    fn follow_one(&self, source: &TrustSource) -> Arc<FollowedSource> {
        let mut followed = self.0.followed.lock();
        if let Some(known) = followed.get(source).and_then(Weak::upgrade) {
            return known;
        }
        let new = Arc::new(FollowedSource {
            source: source.clone(),
            state: watch::Sender::default(),
            sources: Arc::downgrade(&self.0),
            task: Mutex::default(),
        });
        let reader = SourceFollower { sources: Arc::downgrade(&self.0), source: Arc::downgrade(&new) };
        let task = tokio::spawn(self.read(source.clone(), reader));
        *new.task.lock() = Some(task.abort_handle());
        followed.insert(source.clone(), Arc::downgrade(&new));
        new
    }

    /// Reads a source, for ever if it can be read.
    #[cfg_attr(
        not(feature = "kubernetes"),
        expect(clippy::self_only_used_in_recursion, reason = "only clusters are read with it")
    )]
    fn read(&self, source: TrustSource, follower: SourceFollower) -> BoxFuture<'static, ()> {
        #[cfg(feature = "kubernetes")]
        let cluster = self.0.cluster.get().cloned();
        match source {
            TrustSource::File(path) => Box::pin(file::follow(path, follower)),
            TrustSource::SpiffeBundle(plain) => self.read(*plain, follower),
            #[cfg(feature = "kubernetes")]
            TrustSource::ConfigMap { namespace, name, key } => {
                Box::pin(config_map::follow(cluster, namespace, name, key, follower))
            }
            #[cfg(feature = "kubernetes")]
            source @ (TrustSource::ClusterTrustBundle { .. } | TrustSource::ClusterTrustBundles { .. }) => {
                Box::pin(cluster_trust_bundle::follow_source(cluster, source, follower))
            }
            #[cfg(not(feature = "kubernetes"))]
            TrustSource::ConfigMap { .. }
            | TrustSource::ClusterTrustBundle { .. }
            | TrustSource::ClusterTrustBundles { .. } => Box::pin(async move {
                follower.publish(Err("cannot be read: this build of certlet has no Kubernetes".to_owned()));
            }),
            TrustSource::NotListed(_) => Box::pin(async move {
                follower.publish(Err("is not among those that the operator lists any more".to_owned()));
            }),
            TrustSource::Signer => Box::pin(async {}),
        }
    }

    /// Resolves after a source has other anchors, has failed or works again; several changes can count as one. Cancel-safe.
    pub(crate) async fn changed(&self) {
        self.0.changed.notified().await;
    }

    /// What is wrong with the sources in use, for `certlet status`.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults: Vec<String> = self.0.in_use().iter().filter_map(|source| source.fault()).collect();
        faults.sort();
        faults
    }
}

impl Inner {
    /// The sources in use. Not under the lock, which the drop of a source takes.
    fn in_use(&self) -> Vec<Arc<FollowedSource>> {
        self.followed.lock().values().filter_map(Weak::upgrade).collect()
    }

    /// Counts the sources for the metrics.
    fn count(&self) {
        let followed = self.in_use();
        let failed = followed.iter().filter(|source| source.state.borrow().fault.is_some()).count();
        self.metrics.in_use(followed.len() - failed, failed);
    }
}

impl FollowedSource {
    /// What is wrong with it now.
    pub(crate) fn fault(&self) -> Option<String> {
        let state = self.state.borrow();
        state.fault.as_ref().map(|fault| self.describe(fault, state.trust.is_some()))
    }

    fn describe(&self, fault: &str, has_anchors: bool) -> String {
        let kept = if has_anchors { "; its last anchors stay in use" } else { "" };
        format!("the trust source {} {fault}{kept}", self.source)
    }
}

impl Drop for FollowedSource {
    fn drop(&mut self) {
        if let Some(task) = self.task.get_mut() {
            task.abort();
        }
        let Some(sources) = self.sources.upgrade() else { return };
        // Another volume can have begun to follow it again.
        sources.followed.lock().retain(|_, followed| followed.strong_count() > 0);
        sources.count();
    }
}

/// The trust bundle of several sources together. While one of them has never had anchors, the error says why.
pub(crate) fn joined(sources: &[Arc<FollowedSource>]) -> Result<Arc<TrustBundle>, String> {
    let mut trusted = Vec::with_capacity(sources.len());
    for source in sources {
        let state = source.state.borrow();
        match (&state.trust, &state.fault) {
            (Some(trust), _) => trusted.push(Arc::clone(trust)),
            (None, Some(fault)) => return Err(source.describe(fault, false)),
            (None, None) => return Err(source.describe("has not been read yet", false)),
        }
    }
    if let [only] = trusted.as_slice() {
        return Ok(Arc::clone(only));
    }
    let mut anchors: Vec<Vec<u8>> = Vec::new();
    for anchor in trusted.iter().flat_map(|trust| &trust.anchors) {
        if !anchors.contains(anchor) {
            anchors.push(anchor.clone());
        }
    }
    Ok(Arc::new(TrustBundle { anchors, ..TrustBundle::default() }))
}

/// As [`joined`], but waits for sources that have not been read yet.
pub(crate) async fn joined_within(
    sources: &[Arc<FollowedSource>],
    timeout: Duration,
) -> Result<Arc<TrustBundle>, String> {
    read_within(sources, timeout).await;
    joined(sources)
}

/// Waits until each source has been read or has failed, at most so long.
pub(crate) async fn read_within(sources: &[Arc<FollowedSource>], timeout: Duration) {
    let are_read = async {
        for source in sources {
            let mut state = source.state.subscribe();
            // The sender lives as long as the source.
            let _read = state.wait_for(|state| state.trust.is_some() || state.fault.is_some()).await;
        }
    };
    let _late = tokio::time::timeout(timeout, are_read).await;
}

/// What reads one source tells here what it has read.
pub(super) struct SourceFollower {
    sources: Weak<Inner>,
    source: Weak<FollowedSource>,
}

impl SourceFollower {
    /// The source's text as it is now, or why there is none. What cannot be used changes nothing, loudly.
    pub(super) fn publish(&self, text: Result<Vec<u8>, String>) {
        let Some((sources, source)) = self.sources.upgrade().zip(self.source.upgrade()) else { return };
        let read = text.and_then(|text| anchors_of(&source.source, &text, sources.clock.now()));
        let name = source.source.to_string();
        let mut has_other_anchors = false;
        let is_modified = source.state.send_if_modified(|state| {
            let before = state.clone();
            match read {
                Ok(Anchors { certificates: anchors, warning }) => {
                    if state.trust.as_ref().is_none_or(|trust| trust.anchors != anchors) {
                        has_other_anchors = true;
                        let warning = warning.as_deref();
                        tracing::info!(
                            source = name,
                            anchors = anchors.len(),
                            warning,
                            "the trust source has other anchors"
                        );
                        state.trust = Some(Arc::new(TrustBundle { anchors, ..TrustBundle::default() }));
                    }
                    if state.fault.take().is_some() && !has_other_anchors {
                        tracing::info!(source = name, "the trust source can be used again");
                    }
                }
                Err(fault) => {
                    if state.fault.as_ref() != Some(&fault) {
                        tracing::error!("{}", source.describe(&fault, state.trust.is_some()));
                    }
                    state.fault = Some(fault);
                }
            }
            *state != before
        });
        sources.count();
        if has_other_anchors {
            sources.metrics.changed();
        }
        if is_modified {
            sources.changed.notify_one();
        }
    }
}

impl SourceReader for SourceFollower {
    const DEFAULT_KEY: &'static str = "ca.crt";

    fn max_bytes(&self) -> usize {
        MAX_ANCHORS_BYTES
    }

    async fn read(&self, text: Result<Vec<u8>, String>) {
        self.publish(text);
    }

    fn was_usable(&self) -> bool {
        self.source.upgrade().is_some_and(|source| source.state.borrow().trust.is_some())
    }
}
