//! A volume's life: publish, renew, unpublish, recover.
//!
//! One lock per volume (`locks`), one queue for everything that happens later (`queue`), one task that turns it
//! (`renew`). Every operation runs in a task of its own: a caller that goes away cancels the wait for the signer and
//! nothing else, so that files and mounts are never left half done.

mod errand;
mod error;
mod events;
mod issuance;
mod locks;
mod look;
mod news;
mod publish;
mod queue;
mod recover;
mod renew;
mod schedule;
mod state;
mod unpublish;
mod volume;

pub use error::LifecycleError;
pub use events::{NoEvents, PodEvent, PodEvents};
pub use locks::Operation;
pub use publish::PublishRequest;
pub use recover::Recovered;
pub use schedule::{Lifetime, renew_at};
pub use state::{Condition, Sampler, VolumeStats};

use crate::attributes::VolumeId;
use crate::clock::Clock;
use crate::issue::Issuer;
use crate::store::Store;
use crate::telemetry::Metrics;
use errand::Arrivals;
use jiff::Timestamp;
use locks::Locks;
use look::LastLook;
use queue::Queue;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use volume::Volumes;

/// How much may go on at once.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Publishes that are issuing or writing; `--max-volumes-in-flight`.
    pub publishes: usize,
    /// Renewals, but for those that have waited a while for their signer; `--max-renewals-in-flight`.
    pub renewals: usize,
    /// How long a certificate is used at least; `--min-renewal-interval`.
    pub renewal_interval: Duration,
}

/// Everything a [`Lifecycle`] is made of.
pub struct Parts {
    /// Where volumes live.
    pub store: Arc<Store>,
    /// Who issues.
    pub issuer: Issuer,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Who tells the pods' authors.
    pub events: Arc<dyn PodEvents>,
    /// How much may go on at once.
    pub limits: Limits,
    /// Whether a volume is mounted empty while its pod is not ready to have a certificate asked for.
    pub continue_on_not_ready: bool,
}

/// The lives of all volumes on this node. Cheap to clone: every clone is the same node.
#[derive(Clone)]
pub struct Lifecycle(Arc<Shared>);

struct Shared {
    store: Arc<Store>,
    issuer: Issuer,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    events: Arc<dyn PodEvents>,
    limits: Limits,
    continue_on_not_ready: bool,
    publishing: Semaphore,
    renewing: Arc<Semaphore>,
    /// For renewals whose signer takes its time. Not without end: they ask the API server and AWS beside everybody else.
    aside: Arc<Semaphore>,
    locks: Locks,
    queue: Queue,
    volumes: Volumes,
    turning: AtomicBool,
    last_look: LastLook,
    arrivals: Arrivals,
    /// By the monotonic clock.
    started: Instant,
    shutdown: CancellationToken,
}

impl Lifecycle {
    /// Puts the parts together. Nothing happens before [`Lifecycle::recover`] and [`Lifecycle::turn`].
    pub fn new(parts: Parts) -> Self {
        let Parts { store, issuer, clock, metrics, events, limits, continue_on_not_ready } = parts;
        let last_look = LastLook::new(clock.now());
        Self(Arc::new(Shared {
            store,
            issuer,
            clock,
            metrics,
            events,
            limits,
            continue_on_not_ready,
            publishing: Semaphore::new(limits.publishes),
            renewing: Arc::new(Semaphore::new(limits.renewals)),
            aside: Arc::new(Semaphore::new(4 * limits.renewals)),
            locks: Locks::default(),
            queue: Queue::default(),
            volumes: Volumes::default(),
            turning: AtomicBool::new(false),
            last_look,
            arrivals: Arrivals::default(),
            started: Instant::now(),
            shutdown: CancellationToken::new(),
        }))
    }

    /// Whether the renewal queue turns: its task runs, and takes up what is due. One that is behind because all places are
    /// taken by renewals that wait for their signer turns, as long as one of them is free now and then.
    pub fn is_turning(&self) -> bool {
        /// A queue this far behind that has not moved for as long is stuck, not busy.
        const STUCK: Duration = Duration::from_mins(5);
        let shared = &self.0;
        let behind =
            shared.queue.next().map_or(Duration::ZERO, |due| crate::clock::until(due, shared.clock.now()));
        shared.turning.load(Ordering::Relaxed) && (behind < STUCK || shared.last_look.age() < STUCK)
    }

    /// Stops taking up new work. What is in flight gets `grace` to end by itself, then is cancelled and waited for.
    /// Mounts stay as they are.
    pub async fn shut_down(&self, grace: Duration) {
        let shared = &self.0;
        shared.shutdown.cancel();
        if tokio::time::timeout(grace, shared.idle()).await.is_err() {
            tracing::warn!(
                in_flight = shared.locks.in_flight(),
                "the grace period is over; cancelling what is in flight"
            );
            shared.locks.cancel_all();
            // Cancelled work ends at once; a stuck disk must not keep the process for ever.
            let _ended = tokio::time::timeout(Duration::from_secs(2), shared.idle()).await;
        }
    }

    /// When a volume is due to be renewed, or looked at again after a failure.
    pub fn due(&self, volume: &VolumeId) -> Option<Timestamp> {
        self.0.queue.due(volume)
    }
}

impl Shared {
    /// Returns when no volume is being worked on.
    async fn idle(&self) {
        // Only while the process ends: the one place where looking again beats being told.
        while self.locks.in_flight() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Runs file system work off the async threads.
    async fn blocking<T, F>(self: &Arc<Self>, volume: &VolumeId, work: F) -> Result<T, LifecycleError>
    where
        T: Send + 'static,
        F: FnOnce(&Shared) -> Result<T, LifecycleError> + Send + 'static,
    {
        let shared = Arc::clone(self);
        tokio::task::spawn_blocking(move || work(&shared))
            .await
            .map_err(|error| ended_early(volume, &error))?
    }
}

fn ended_early(volume: &VolumeId, error: &tokio::task::JoinError) -> LifecycleError {
    LifecycleError::Internal { volume: volume.clone(), reason: error.to_string() }
}
