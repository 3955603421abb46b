//! Who calls: the volume whose socket a connection came in on.

use super::SocketOwner;
use crate::credential::Follower;
use crate::model::VolumeId;
use crate::platform::TokenBucket;
use crate::telemetry::Metrics;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Instant;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};

/// Streams of a volume's socket at a time, on all of its connections together.
const MAX_STREAMS: usize = 64;
/// New connections and calls on a volume's socket: a burst, then so many a second. Others wait.
const CALL_BURST: f64 = 200.0;
const CALLS_PER_SECOND: f64 = 20.0;

/// The volume whose socket a connection came in on. Cheap to clone.
#[derive(Clone)]
pub(in crate::sink) struct Caller(Arc<Inner>);

struct Inner {
    owner: SocketOwner,
    metrics: Arc<Metrics>,
    /// The connections of this socket.
    connections: AtomicUsize,
    streams: Arc<Semaphore>,
    calls: Mutex<TokenBucket>,
    started: Instant,
    /// The socket is served no longer.
    ended: CancellationToken,
    /// The process ends.
    shutdown: CancellationToken,
}

impl Caller {
    pub(super) fn new(
        owner: SocketOwner,
        metrics: Arc<Metrics>,
        ended: CancellationToken,
        shutdown: CancellationToken,
    ) -> Self {
        Self(Arc::new(Inner {
            owner,
            metrics,
            connections: AtomicUsize::new(0),
            streams: Arc::new(Semaphore::new(MAX_STREAMS)),
            calls: Mutex::new(TokenBucket::new(CALLS_PER_SECOND, CALL_BURST)),
            started: Instant::now(),
            ended,
            shutdown,
        }))
    }

    /// Who makes this request. Waits if the volume makes too many.
    pub(in crate::sink) async fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        let caller = request.extensions().get::<Self>().cloned();
        let caller = caller.ok_or_else(|| Status::internal("the connection is of no volume"))?;
        caller.pace().await;
        Ok(caller)
    }

    /// Waits until the volume may make another call.
    pub(in crate::sink) async fn pace(&self) {
        let pause = self.0.calls.lock().reserve(self.0.started.elapsed());
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }

    /// Counts a stream until the result is dropped.
    pub(in crate::sink) fn stream(&self) -> Result<OwnedSemaphorePermit, Status> {
        Arc::clone(&self.0.streams).try_acquire_owned().map_err(|_| {
            self.0.metrics.socket_refused("streams");
            Status::resource_exhausted(format!(
                "this volume's socket has {MAX_STREAMS} streams already: close one first"
            ))
        })
    }

    /// Follows the volume's credential.
    pub(in crate::sink) async fn follow(&self) -> Result<Follower, Status> {
        let following = self.0.owner.workload.follow().await;
        following.map_err(|failure| Status::unavailable(failure.to_string()))
    }

    /// Its Envoy does not accept a secret.
    pub(in crate::sink) fn secret_rejected(&self, message: &str) {
        self.0.owner.workload.secret_rejected(message);
    }

    /// Resolves when the socket is served no longer.
    pub(in crate::sink) async fn ended(&self) {
        self.0.ended.cancelled().await;
    }

    /// The status of a stream whose socket is served no longer. Clients connect again.
    pub(in crate::sink) fn end_status(&self) -> Status {
        Status::unavailable(if self.0.shutdown.is_cancelled() {
            "certlet is restarting: connect again"
        } else {
            "the volume is unmounted"
        })
    }

    pub(super) fn volume(&self) -> &VolumeId {
        &self.0.owner.volume
    }

    pub(super) fn namespace(&self) -> &str {
        &self.0.owner.namespace
    }

    /// The number of its connections.
    pub(super) fn connections(&self) -> &AtomicUsize {
        &self.0.connections
    }
}
