//! Keeping within somebody's quotas: one lane per account, Region and kind of call.
//!
//! [`Bucket`] says when, [`Waiters`] says who; both are pure. A [`Lane`] is what callers wait at.

mod bucket;
mod waiters;

pub use bucket::Bucket;
pub(crate) use bucket::Pace;
pub use waiters::{Urgency, Waiters};

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Kinds of calls to AWS Private CA that have a quota of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CallKind {
    /// IssueCertificate
    Issue,
    /// GetCertificate
    Get,
    /// DescribeCertificateAuthority
    Describe,
    /// GetCertificateAuthorityCertificate
    AuthorityCertificate,
    /// RevokeCertificate
    Revoke,
}

impl CallKind {
    /// The quota that AWS publishes, in calls a second per account and Region.
    pub fn quota(self) -> f64 {
        match self {
            Self::Issue => 25.0,
            Self::Get => 75.0,
            Self::Describe | Self::AuthorityCertificate | Self::Revoke => 20.0,
        }
    }

    /// The API's name of the call.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Issue => "IssueCertificate",
            Self::Get => "GetCertificate",
            Self::Describe => "DescribeCertificateAuthority",
            Self::AuthorityCertificate => "GetCertificateAuthorityCertificate",
            Self::Revoke => "RevokeCertificate",
        }
    }
}

/// What the whole fleet may do, and how many share it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fleet {
    /// IssueCertificate calls a second of all nodes together; other kinds keep the proportion of their quotas.
    pub issue_rate: f64,
    /// How many nodes there are.
    pub nodes: u32,
}

impl Fleet {
    /// Four fifths of the published quota, and one node.
    pub const DEFAULT: Self = Self { issue_rate: 20.0, nodes: 1 };

    /// What this makes of a kind of call for one node.
    pub fn pace(self, kind: CallKind) -> Pace {
        /// Pods of one node that get their certificates without waiting for each other.
        const BURST: f64 = 5.0;
        let ceiling = self.issue_rate * kind.quota() / CallKind::Issue.quota();
        Pace { share: ceiling / f64::from(self.nodes.max(1)), ceiling, burst: BURST.min(ceiling.max(1.0)) }
    }
}

/// All lanes of this node.
#[derive(Debug)]
pub(crate) struct Limiter {
    fleet: Fleet,
    phase: f64,
    lanes: Mutex<HashMap<(String, String, CallKind), Arc<Lane>>>,
}

impl Limiter {
    /// A limiter for one node of a fleet. `phase` in [0, 1) should differ from node to node.
    pub(crate) fn new(fleet: Fleet, phase: f64) -> Self {
        Self { fleet, phase, lanes: Mutex::default() }
    }

    /// The lane for a kind of call in an account and Region.
    pub(crate) fn lane(&self, account: &str, region: &str, kind: CallKind) -> Arc<Lane> {
        let mut lanes = lock(&self.lanes);
        let lane = lanes.entry((account.to_owned(), region.to_owned(), kind));
        Arc::clone(lane.or_insert_with(|| Arc::new(Lane::new(self.fleet.pace(kind), self.phase))))
    }
}

/// Where callers wait for their turn and for the rate.
#[derive(Debug)]
pub(crate) struct Lane {
    started: Instant,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    bucket: Bucket,
    waiters: Waiters<Waiter>,
    last_id: u64,
}

#[derive(Clone, Debug)]
struct Waiter {
    id: u64,
    wake: Arc<Notify>,
}

impl Lane {
    fn new(pace: Pace, phase: f64) -> Self {
        let state = State { bucket: Bucket::new(pace, phase), waiters: Waiters::default(), last_id: 0 };
        Self { started: Instant::now(), state: Mutex::new(state) }
    }

    /// Waits for leave to make one call; gives the time waited. Dropping the future gives the place up.
    pub(crate) async fn pass(&self, urgency: Urgency) -> Duration {
        let arrived = Instant::now();
        let position = Position::take(self, urgency);
        loop {
            let wait = {
                let mut state = lock(&self.state);
                if state.waiters.head().is_some_and(|head| head.id == position.waiter.id) {
                    match state.bucket.take(self.started.elapsed()) {
                        Ok(()) => {
                            state.waiters.pop();
                            break;
                        }
                        Err(wait) => Some(wait),
                    }
                } else {
                    None
                }
            };
            match wait {
                // Woken early where a publish has come before this renewal.
                Some(wait) => {
                    let _either = tokio::time::timeout(wait, position.waiter.wake.notified()).await;
                }
                None => position.waiter.wake.notified().await,
            }
        }
        drop(position);
        arrived.elapsed()
    }

    /// A call went through.
    pub(crate) fn succeeded(&self) {
        let mut state = lock(&self.state);
        let demand = !state.waiters.is_empty();
        state.bucket.succeeded(demand, self.started.elapsed());
    }

    /// A call was throttled.
    pub(crate) fn throttled(&self) {
        lock(&self.state).bucket.throttled(self.started.elapsed());
    }
}

/// A place in the queue, given up when dropped.
struct Position<'a> {
    lane: &'a Lane,
    waiter: Waiter,
}

impl<'a> Position<'a> {
    fn take(lane: &'a Lane, urgency: Urgency) -> Self {
        let mut state = lock(&lane.state);
        state.last_id += 1;
        let waiter = Waiter { id: state.last_id, wake: Arc::default() };
        let before = state.waiters.head().cloned();
        state.waiters.push(urgency, waiter.clone());
        // Who was first may not be so any more, and then has to stop counting on the next token.
        if let Some(before) = before {
            before.wake.notify_one();
        }
        Self { lane, waiter }
    }
}

impl Drop for Position<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.lane.state);
        let id = self.waiter.id;
        state.waiters.retain(|waiter| waiter.id != id);
        if let Some(head) = state.waiters.head() {
            head.wake.notify_one();
        }
    }
}

/// Nothing behind these locks is left half changed by a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slow_lane() -> Arc<Lane> {
        Limiter::new(Fleet { issue_rate: 10.0, nodes: 10 }, 0.0).lane("1", "eu-central-1", CallKind::Issue)
    }

    #[tokio::test(start_paused = true)]
    async fn callers_get_through_at_the_rate_and_publishes_first() {
        let lane = slow_lane();
        lane.pass(Urgency::Publish).await;
        let order = Arc::new(Mutex::new(Vec::new()));
        let enter = |urgency, name: &'static str| {
            let (lane, order) = (Arc::clone(&lane), Arc::clone(&order));
            tokio::spawn(async move {
                let waited = lane.pass(urgency).await;
                lock(&order).push((name, waited.as_secs()));
            })
        };
        let renewal = enter(Urgency::Renewal, "renewal");
        tokio::task::yield_now().await;
        let publish = enter(Urgency::Publish, "publish");
        renewal.await.unwrap();
        publish.await.unwrap();
        assert_eq!(*lock(&order), [("publish", 1), ("renewal", 2)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_gives_up_gives_its_slot_up() {
        let lane = slow_lane();
        lane.pass(Urgency::Publish).await;
        let gone = tokio::time::timeout(Duration::from_millis(10), lane.pass(Urgency::Publish)).await;
        assert!(gone.is_err());
        assert!(lane.pass(Urgency::Publish).await <= Duration::from_millis(1100));
        assert!(lock(&lane.state).waiters.is_empty());
    }

    #[test]
    fn a_fleet_shares_what_is_below_the_quotas() {
        let fleet = Fleet { issue_rate: 20.0, nodes: 100 };
        assert!((fleet.pace(CallKind::Issue).share - 0.2).abs() < 1e-9);
        assert!((fleet.pace(CallKind::Get).ceiling - 60.0).abs() < 1e-9);
        assert!((fleet.pace(CallKind::Describe).ceiling - 16.0).abs() < 1e-9);
    }
}
