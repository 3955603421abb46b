//! The open connections of a server, shared by source.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::task::{AbortHandle, JoinSet};

/// Whether a connection may still be closed for another one. Only one of both sides can claim it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Claim(Arc<AtomicBool>);

impl Claim {
    /// Claims it for an answer, or for its end. False: it was claimed before.
    pub(crate) fn take(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }

    fn is_taken(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

struct Connection<S> {
    source: S,
    claim: Claim,
    task: AbortHandle,
}

/// The open connections, of a limited number in all and from one source. A source is what the server tells clients apart by,
/// such as an address.
pub(crate) struct Connections<S> {
    pub(crate) tasks: JoinSet<()>,
    /// All connections whose task has not ended.
    oldest_first: Vec<Connection<S>>,
    max: usize,
    max_per_source: usize,
}

impl<S: Copy + Eq + Hash> Connections<S> {
    /// At most `max` connections, of them at most `max_per_source` from one source.
    pub(crate) fn new(max: usize, max_per_source: usize) -> Self {
        Self { tasks: JoinSet::new(), oldest_first: Vec::new(), max, max_per_source }
    }

    /// Makes space for a connection from `source` by closing one that has sent no whole request: the oldest one of the same
    /// source if that is at its limit, otherwise the oldest one of the source that has most. A request that is being answered
    /// goes on. False: there is no space, because all are being answered, or because the other sources have fewer.
    pub(crate) async fn make_space(&mut self, source: S) -> bool {
        while self.tasks.try_join_next().is_some() {}
        self.oldest_first.retain(|connection| !connection.task.is_finished());
        let mut open: HashMap<S, usize> = HashMap::new();
        for connection in &self.oldest_first {
            *open.entry(connection.source).or_default() += 1;
        }
        let own = open.get(&source).copied().unwrap_or_default();
        let is_at_own_limit = own >= self.max_per_source;
        if !is_at_own_limit && self.oldest_first.len() < self.max {
            return true;
        }
        let share = |connection: &Connection<S>| open.get(&connection.source).copied().unwrap_or_default();
        loop {
            let waiting = self.oldest_first.iter().enumerate().filter(|(_, connection)| {
                let is_candidate =
                    if is_at_own_limit { connection.source == source } else { share(connection) >= own };
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
    pub(crate) fn add(
        &mut self,
        source: S,
        claim: Claim,
        connection: impl Future<Output = ()> + Send + 'static,
    ) {
        let task = self.tasks.spawn(connection);
        self.oldest_first.push(Connection { source, claim, task });
    }
}
