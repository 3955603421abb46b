//! The rate limiter for the quotas of AWS: one lane per account, Region and kind of call.
//!
//! [`Bucket`] decides when the next call may start, and [`WaitQueue`] decides which one it is.

mod bucket;
mod wait_queue;

pub use bucket::Bucket;
pub(crate) use bucket::Pace;
pub use wait_queue::{Caller, WaitQueue};

use super::MAX_CACHED;
use crate::model::named::named_enum;
use crate::platform::BoundedMap;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

named_enum! {
    /// The calls of AWS Private CA. Each has its own quota.
    pub enum CallKind {
        /// Issues a certificate.
        Issue = "IssueCertificate",
        /// Returns an issued certificate.
        Get = "GetCertificate",
        /// Describes a CA.
        Describe = "DescribeCertificateAuthority",
        /// Returns the certificate of a CA.
        AuthorityCertificate = "GetCertificateAuthorityCertificate",
        /// Revokes a certificate.
        Revoke = "RevokeCertificate",
    }
}

impl CallKind {
    /// The quota that AWS documents, in calls per second for an account and Region.
    pub fn quota(self) -> f64 {
        match self {
            Self::Issue => 25.0,
            Self::Get => 75.0,
            Self::Describe | Self::AuthorityCertificate | Self::Revoke => 20.0,
        }
    }
}

/// The rate that all nodes together may use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fleet {
    /// IssueCertificate calls per second of all nodes together. Other calls get a rate in proportion to their quotas.
    pub issue_rate: f64,
    /// The number of nodes.
    pub nodes: u32,
}

impl Fleet {
    /// Four fifths of the documented quota, and one node.
    pub const DEFAULT: Self = Self { issue_rate: 20.0, nodes: 1 };

    /// The rates of one node for a kind of call.
    pub fn pace(self, kind: CallKind) -> Pace {
        /// So many pods of one node get their certificates without waiting for each other.
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
    lanes: Mutex<BoundedMap<(String, String, CallKind), Arc<Lane>>>,
}

impl Limiter {
    /// A limiter for one node of a fleet. `phase` in [0, 1) should be different on each node.
    pub(crate) fn new(fleet: Fleet, phase: f64) -> Self {
        Self { fleet, phase, lanes: Mutex::new(BoundedMap::new(MAX_CACHED)) }
    }

    /// The lane for a kind of call in an account and Region.
    pub(crate) fn lane(&self, account: &str, region: &str, kind: CallKind) -> Arc<Lane> {
        let mut lanes = self.lanes.lock();
        let new = || Arc::new(Lane::new(self.fleet.pace(kind), self.phase));
        Arc::clone(lanes.get_or_insert_with((account.to_owned(), region.to_owned(), kind), new))
    }
}

/// Where calls of one kind wait until the rate permits them.
#[derive(Debug)]
pub(crate) struct Lane {
    started: Instant,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    bucket: Bucket,
    queue: WaitQueue<Arc<Notify>>,
}

impl Lane {
    fn new(pace: Pace, phase: f64) -> Self {
        let state = State { bucket: Bucket::new(pace, phase), queue: WaitQueue::default() };
        Self { started: Instant::now(), state: Mutex::new(state) }
    }

    /// Waits until one call may start. Returns the time waited. Dropping the future gives up the slot in the queue.
    pub(crate) async fn acquire(&self, caller: &Caller) -> Duration {
        let arrived = Instant::now();
        let slot = QueueSlot::new(self, caller);
        while let Err(wait) = slot.try_acquire() {
            // The slot is also woken when the head of the queue changes.
            let _either = timeout(wait, slot.wake.notified()).await;
        }
        arrived.elapsed()
    }

    /// A call was not throttled.
    pub(crate) fn succeeded(&self) {
        let mut state = self.state.lock();
        let demand = !state.queue.is_empty();
        state.bucket.succeeded(demand, self.started.elapsed());
    }

    /// A call was throttled.
    pub(crate) fn throttled(&self) {
        self.state.lock().bucket.throttled(self.started.elapsed());
    }
}

/// A slot in the queue of a lane. Dropping it gives it up.
struct QueueSlot<'a> {
    lane: &'a Lane,
    caller: &'a Caller,
    number: u64,
    wake: Arc<Notify>,
}

impl<'a> QueueSlot<'a> {
    fn new(lane: &'a Lane, caller: &'a Caller) -> Self {
        let wake = Arc::new(Notify::new());
        let mut state = lane.state.lock();
        let head = state.queue.head().cloned();
        let number = state.queue.push(caller, Arc::clone(&wake));
        // The earlier head may not be the head any more, and then must not take the next token.
        if let Some(head) = head {
            head.notify_one();
        }
        Self { lane, caller, number, wake }
    }

    /// Takes a token if this slot is the head of the queue and there is one. The error is the time until the next attempt.
    fn try_acquire(&self) -> Result<(), Duration> {
        let mut state = self.lane.state.lock();
        if !state.queue.head().is_some_and(|head| Arc::ptr_eq(head, &self.wake)) {
            return Err(Duration::MAX);
        }
        state.bucket.take(self.lane.started.elapsed())?;
        state.queue.pop();
        Ok(())
    }
}

impl Drop for QueueSlot<'_> {
    fn drop(&mut self) {
        let mut state = self.lane.state.lock();
        state.queue.remove(self.caller, self.number);
        if let Some(head) = state.queue.head() {
            head.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    fn slow_lane() -> Arc<Lane> {
        Limiter::new(Fleet { issue_rate: 10.0, nodes: 10 }, 0.0).lane("1", "eu-central-1", CallKind::Issue)
    }

    fn caller(namespace: &str, needed_by: Timestamp) -> Caller {
        Caller { namespace: namespace.into(), needed_by }
    }

    #[tokio::test(start_paused = true)]
    async fn calls_pass_at_the_rate_and_the_earliest_need_first() {
        let lane = slow_lane();
        lane.acquire(&caller("shop", Timestamp::MAX)).await;
        let order = Arc::new(Mutex::new(Vec::new()));
        let call = |needed_by, name: &'static str| {
            let (lane, order) = (Arc::clone(&lane), Arc::clone(&order));
            tokio::spawn(async move {
                let waited = lane.acquire(&caller("shop", needed_by)).await;
                order.lock().push((name, waited.as_secs()));
            })
        };
        let renewal = call(Timestamp::MAX, "renewal");
        tokio::task::yield_now().await;
        let publish = call(Timestamp::UNIX_EPOCH, "publish");
        renewal.await.unwrap();
        publish.await.unwrap();
        assert_eq!(*order.lock(), [("publish", 1), ("renewal", 2)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_namespace_with_many_calls_delays_another_by_one_call() {
        let lane = slow_lane();
        lane.acquire(&caller("hostile", Timestamp::MIN)).await;
        let burst: Vec<_> = (0..100)
            .map(|_| {
                let lane = Arc::clone(&lane);
                tokio::spawn(async move { lane.acquire(&caller("hostile", Timestamp::MIN)).await })
            })
            .collect();
        tokio::task::yield_now().await;
        let waited = lane.acquire(&caller("innocent", Timestamp::MAX)).await;
        assert!(waited <= Duration::from_millis(2100), "{waited:?}");
        burst.iter().for_each(tokio::task::JoinHandle::abort);
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_call_gives_up_its_slot() {
        let lane = slow_lane();
        lane.acquire(&caller("shop", Timestamp::MAX)).await;
        let gone =
            tokio::time::timeout(Duration::from_millis(10), lane.acquire(&caller("shop", Timestamp::MAX)))
                .await;
        assert!(gone.is_err());
        assert!(lane.acquire(&caller("shop", Timestamp::MAX)).await <= Duration::from_millis(1100));
        assert!(lane.state.lock().queue.is_empty());
    }

    #[test]
    fn invented_accounts_and_regions_cost_no_memory_without_end() {
        let limiter = Limiter::new(Fleet::DEFAULT, 0.0);
        let lane = |region: &str| limiter.lane("1", region, CallKind::Issue);
        let used = lane("eu-central-1");
        for number in 0..1000 {
            lane(&format!("invented-{number}"));
            assert!(Arc::ptr_eq(&used, &lane("eu-central-1")), "one that is in use stays");
        }
        assert_eq!(limiter.lanes.lock().keys().len(), MAX_CACHED);
    }

    #[test]
    fn a_fleet_shares_its_rate_in_proportion_to_the_quotas() {
        let fleet = Fleet { issue_rate: 20.0, nodes: 100 };
        assert!((fleet.pace(CallKind::Issue).share - 0.2).abs() < 1e-9);
        assert!((fleet.pace(CallKind::Get).ceiling - 60.0).abs() < 1e-9);
        assert!((fleet.pace(CallKind::Describe).ceiling - 16.0).abs() < 1e-9);
    }
}
