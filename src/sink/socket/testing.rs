//! Support for tests: a caller without a volume.

use super::{Caller, SocketOwner, Workload};
use crate::credential::Follower;
use crate::model::{Failure, VolumeId};
use crate::telemetry::Metrics;
use futures_util::future::BoxFuture;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

struct NoWorkload;

impl Workload for NoWorkload {
    fn follow(&self) -> BoxFuture<'_, Result<Follower, Failure>> {
        Box::pin(std::future::pending())
    }

    fn secret_rejected(&self, _message: &str) {}
}

/// A caller, and what ends its socket.
pub(super) fn caller() -> (Caller, CancellationToken) {
    let owner =
        SocketOwner { volume: VolumeId::new("v"), namespace: "shop".into(), workload: Arc::new(NoWorkload) };
    let ended = CancellationToken::new();
    let caller = Caller::new(owner, Arc::new(Metrics::default()), ended.clone(), CancellationToken::new());
    (caller, ended)
}
