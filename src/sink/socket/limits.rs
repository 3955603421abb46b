//! How many connections there may be: for a volume, for a namespace, and for the node.

use super::caller::Caller;
use crate::platform::Tally;
use crate::telemetry::Metrics;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Connections of one volume's socket.
pub(super) const MAX_CONNECTIONS: usize = 16;
/// So many connections of each volume are accepted however many others there are. Volumes have a limit of their own.
const ALWAYS: usize = 2;
/// Connections of all sockets beyond those. One namespace may have three quarters.
const SHARED: usize = 256;

/// The connections of all sockets.
pub(super) struct ConnectionLimits {
    shared: Mutex<Shared>,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Shared {
    total: usize,
    by_namespace: Tally<String>,
}

/// A connection that is counted until this is dropped.
pub(super) struct Admitted {
    caller: Caller,
    is_shared: bool,
    limits: Arc<ConnectionLimits>,
}

impl ConnectionLimits {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { shared: Mutex::default(), metrics }
    }

    /// Counts a connection, if there may be another one.
    pub(super) fn admit(self: &Arc<Self>, caller: &Caller) -> Option<Admitted> {
        // Only the socket's own task counts up, so the number does not grow in between.
        let connections = caller.connections().load(Ordering::Relaxed);
        let is_shared = connections >= ALWAYS;
        if connections >= MAX_CONNECTIONS || is_shared && !self.shared.lock().admit(caller.namespace()) {
            self.metrics.socket_refused("connections");
            return None;
        }
        caller.connections().fetch_add(1, Ordering::Relaxed);
        self.metrics.socket_connections(1);
        Some(Admitted { caller: caller.clone(), is_shared, limits: Arc::clone(self) })
    }
}

impl Shared {
    fn admit(&mut self, namespace: &str) -> bool {
        let is_free = self.total < SHARED && self.by_namespace.of(namespace) < SHARED / 4 * 3;
        if is_free {
            self.total += 1;
            self.by_namespace.add(namespace.to_owned());
        }
        is_free
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.caller.connections().fetch_sub(1, Ordering::Relaxed);
        self.limits.metrics.socket_connections(-1);
        if self.is_shared {
            let mut shared = self.limits.shared.lock();
            shared.total -= 1;
            shared.by_namespace.remove(self.caller.namespace());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_namespace_leaves_a_quarter_to_the_others() {
        let mut shared = Shared::default();
        let admitted = (0..SHARED).filter(|_| shared.admit("greedy")).count();
        assert_eq!(admitted, SHARED / 4 * 3);
        let others = (0..SHARED).filter(|_| shared.admit("other")).count();
        assert_eq!(others, SHARED / 4);
    }
}
