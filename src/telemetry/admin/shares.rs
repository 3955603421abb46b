//! The open connections of the admin server, shared by source address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::task::{AbortHandle, JoinSet};

/// Limit on open connections.
pub(super) const MAX_CONNECTIONS: usize = 64;

/// Limit on open connections from one address. Prometheus opens one at a time.
pub(super) const MAX_PER_ADDRESS: usize = 8;

/// Whether a connection may still be closed for another one. Only one of both sides can claim it.
#[derive(Clone, Debug, Default)]
pub(super) struct Claim(Arc<AtomicBool>);

impl Claim {
    /// Claims it for an answer, or for its end. False: it was claimed before.
    pub(super) fn take(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }

    fn is_taken(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

struct Connection {
    address: IpAddr,
    claim: Claim,
    task: AbortHandle,
}

/// The open connections: at most [`MAX_CONNECTIONS`], of them at most [`MAX_PER_ADDRESS`] from one address.
#[derive(Default)]
pub(super) struct Connections {
    pub(super) tasks: JoinSet<()>,
    /// All connections whose task has not ended.
    oldest_first: Vec<Connection>,
}

impl Connections {
    /// Makes space for a connection from `address` by closing one that has sent no whole request. Those are the oldest of the
    /// same address if it is at its limit; otherwise the oldest of the address that has most. A request that is being answered
    /// goes on. False: there is no space, because all are being answered, or because the others' addresses have fewer.
    pub(super) async fn make_space(&mut self, address: IpAddr) -> bool {
        while self.tasks.try_join_next().is_some() {}
        self.oldest_first.retain(|connection| !connection.task.is_finished());
        let mut open: HashMap<IpAddr, usize> = HashMap::new();
        for connection in &self.oldest_first {
            *open.entry(connection.address).or_default() += 1;
        }
        let own = open.get(&address).copied().unwrap_or_default();
        let is_at_own_limit = own >= MAX_PER_ADDRESS;
        if !is_at_own_limit && self.oldest_first.len() < MAX_CONNECTIONS {
            return true;
        }
        let share = |connection: &Connection| open.get(&connection.address).copied().unwrap_or_default();
        loop {
            let waiting = self.oldest_first.iter().enumerate().filter(|(_, connection)| {
                let is_candidate =
                    if is_at_own_limit { connection.address == address } else { share(connection) >= own };
                is_candidate && !connection.claim.is_taken()
            });
            // The first of several with the same share, which is the oldest.
            let victim = waiting.rev().max_by_key(|(_, connection)| share(connection));
            let Some((index, victim)) = victim else { return false };
            // Otherwise its request has just come.
            if victim.claim.take() {
                victim.task.abort();
                self.oldest_first.remove(index);
                self.tasks.join_next().await;
                return true;
            }
        }
    }

    /// Adds a connection for which there is space. `claim` is taken when its answer begins.
    pub(super) fn add(
        &mut self,
        address: IpAddr,
        claim: Claim,
        connection: impl Future<Output = ()> + Send + 'static,
    ) {
        let task = self.tasks.spawn(connection);
        self.oldest_first.push(Connection { address, claim, task });
    }
}
