//! A semaphore that is fair by namespace: its permits go to the namespaces that wait, one after the other. So a namespace with
//! many waiters delays another one by no more than one permit.

use super::Tally;
use super::fair_queue::FairQueue;
use jiff::Timestamp;
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::oneshot;

/// A number of permits. Within a namespace, the waiter with the earliest `needed_by` gets one first; among equals, the one that
/// came first.
#[derive(Debug)]
pub(crate) struct FairSemaphore {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    free: usize,
    by_namespace: Option<ByNamespace>,
    last_number: u64,
    waiting: FairQueue<Key, oneshot::Sender<FairPermit>>,
}

/// How many permits one namespace may hold, and how many each of them holds.
#[derive(Debug)]
struct ByNamespace {
    limit: usize,
    held: Tally<Arc<str>>,
}

/// The number makes it unique, and keeps equals in the order of their arrival.
type Key = (Timestamp, u64);

/// A permit, given back when dropped.
#[derive(Debug)]
pub(crate) struct FairPermit {
    semaphore: Arc<FairSemaphore>,
    /// Who holds it; none where the number for one namespace has no limit.
    namespace: Option<Arc<str>>,
}

/// Removes a waiter that gives up.
struct Waiter<'a> {
    semaphore: &'a FairSemaphore,
    namespace: &'a str,
    key: Key,
}

impl FairSemaphore {
    /// So many permits.
    pub(crate) fn new(permits: usize) -> Arc<Self> {
        Self::with(permits, None)
    }

    /// So many permits, of which one namespace holds at most `limit`. The others are free for the rest, though what holds them
    /// may never end.
    pub(crate) fn with_limit_per_namespace(permits: usize, limit: usize) -> Arc<Self> {
        Self::with(permits, Some(ByNamespace { limit, held: Tally::default() }))
    }

    fn with(permits: usize, by_namespace: Option<ByNamespace>) -> Arc<Self> {
        let state = State { free: permits, by_namespace, last_number: 0, waiting: FairQueue::default() };
        Arc::new(Self { state: Mutex::new(state) })
    }

    /// Waits for a permit. Cancel-safe.
    pub(crate) async fn acquire(self: &Arc<Self>, namespace: &str, needed_by: Timestamp) -> FairPermit {
        loop {
            let (receiver, key) = {
                let mut state = self.state.lock();
                if let Some(permit) = self.take_free(&mut state, namespace) {
                    return permit;
                }
                let (sender, receiver) = oneshot::channel();
                state.last_number += 1;
                let key = (needed_by, state.last_number);
                state.waiting.insert(namespace, key, sender);
                (receiver, key)
            };
            let _waiter = Waiter { semaphore: self, namespace, key };
            // The sender is kept until it has sent.
            if let Ok(permit) = receiver.await {
                return permit;
            }
        }
    }

    /// A permit, if the namespace may have one now.
    pub(crate) fn try_acquire(self: &Arc<Self>, namespace: &str) -> Option<FairPermit> {
        self.take_free(&mut self.state.lock(), namespace)
    }

    /// A permit is free only while nobody waits who may have it.
    fn take_free(self: &Arc<Self>, state: &mut State, namespace: &str) -> Option<FairPermit> {
        if state.free == 0 || !state.may_have_one(namespace) {
            return None;
        }
        state.free -= 1;
        let namespace = state.by_namespace.as_mut().map(|held| held.count(namespace.into()));
        Some(FairPermit { semaphore: Arc::clone(self), namespace })
    }

    /// Gives a permit that was held to the next waiter, or keeps it.
    fn release(self: &Arc<Self>, namespace: Option<&Arc<str>>) {
        let next = {
            let mut state = self.state.lock();
            if let (Some(ByNamespace { held, .. }), Some(namespace)) = (&mut state.by_namespace, namespace) {
                held.remove(namespace);
            }
            let next = state.next_waiter();
            if next.is_none() {
                state.free += 1;
            }
            next
        };
        // Outside of the lock: a waiter that has just given up drops the permit, which comes back here.
        if let Some((namespace, next)) = next {
            drop(next.send(FairPermit { semaphore: Arc::clone(self), namespace }));
        }
    }

    /// How many callers of the namespace wait.
    pub(crate) fn waiting(&self, namespace: &str) -> usize {
        self.state.lock().waiting.len_of(namespace)
    }

    /// How many permits are free.
    #[cfg(test)]
    pub(crate) fn free(&self) -> usize {
        self.state.lock().free
    }
}

impl State {
    fn may_have_one(&self, namespace: &str) -> bool {
        self.by_namespace.as_ref().is_none_or(|held| held.may_have_one(namespace))
    }

    fn next_waiter(&mut self) -> Option<(Option<Arc<str>>, oneshot::Sender<FairPermit>)> {
        let Some(held) = &mut self.by_namespace else {
            return self.waiting.pop_first().map(|(_, sender)| (None, sender));
        };
        let next = self.waiting.pop_first_of(|namespace| held.may_have_one(namespace));
        let (namespace, _, sender) = next?;
        Some((Some(held.count(namespace)), sender))
    }
}

impl ByNamespace {
    fn may_have_one(&self, namespace: &str) -> bool {
        self.held.of(namespace) < self.limit
    }

    /// Counts a permit of this namespace.
    fn count(&mut self, namespace: Arc<str>) -> Arc<str> {
        self.held.add(Arc::clone(&namespace));
        namespace
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.semaphore.state.lock().waiting.remove(self.namespace, &self.key);
    }
}

impl Drop for FairPermit {
    fn drop(&mut self) {
        self.semaphore.release(self.namespace.as_ref());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use std::time::Duration;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    async fn served(permits: usize, waiters: &[(&'static str, i64)]) -> Vec<(&'static str, i64)> {
        let semaphore = FairSemaphore::new(permits);
        let held: Vec<_> =
            (0..permits).map(|_| semaphore.acquire("first", at(0)).now_or_never().unwrap()).collect();
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for (namespace, needed_by) in waiters.iter().copied() {
            let (semaphore, order) = (Arc::clone(&semaphore), Arc::clone(&order));
            tasks.push(tokio::spawn(async move {
                let _permit = semaphore.acquire(namespace, at(needed_by)).await;
                order.lock().push((namespace, needed_by));
                tokio::time::sleep(Duration::from_secs(1)).await;
            }));
            tokio::task::yield_now().await;
        }
        drop(held);
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!((semaphore.free(), semaphore.state.lock().waiting.is_empty()), (permits, true));
        Arc::into_inner(order).unwrap().into_inner()
    }

    #[tokio::test(start_paused = true)]
    async fn a_namespace_with_many_waiters_delays_another_by_one_permit() {
        let mut waiters = vec![("hostile", 5); 400];
        waiters.extend([("innocent", 9), ("shop", 9)]);
        let order = served(1, &waiters).await;
        assert_eq!(order.iter().position(|(namespace, _)| *namespace == "innocent"), Some(1));
        assert_eq!(order.iter().position(|(namespace, _)| *namespace == "shop"), Some(2));
        assert_eq!(order.len(), 402);
    }

    #[tokio::test(start_paused = true)]
    async fn a_namespace_never_holds_more_than_its_limit_and_the_rest_is_free_for_others() {
        let semaphore = FairSemaphore::with_limit_per_namespace(4, 3);
        let acquire = |namespace| Box::pin(semaphore.acquire(namespace, at(0)));
        let mut held: Vec<_> = (0..3).map(|_| acquire("hostile").now_or_never().unwrap()).collect();
        let mut fourth = acquire("hostile");
        assert!((&mut fourth).now_or_never().is_none());
        let innocent = acquire("innocent").now_or_never().unwrap();
        let mut next = acquire("innocent");
        assert!((&mut next).now_or_never().is_none());
        drop(innocent);
        let next = next.now_or_never().expect("the limit of the other namespace stands");
        assert!((&mut fourth).now_or_never().is_none());
        held.pop();
        let fourth = fourth.now_or_never().unwrap();
        drop((held, next, fourth));
        let state = semaphore.state.lock();
        assert_eq!(state.free, 4);
        assert!(state.waiting.is_empty() && state.by_namespace.as_ref().unwrap().held.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn within_a_namespace_the_earliest_need_comes_first_and_then_the_earliest_arrival() {
        let order = served(1, &[("a", 3), ("a", 1), ("b", 7), ("a", 2), ("b", 0)]).await;
        assert_eq!(order, [("a", 1), ("b", 0), ("a", 2), ("b", 7), ("a", 3)]);
    }

    #[tokio::test]
    async fn a_waiter_that_gives_up_costs_the_others_nothing() {
        let semaphore = FairSemaphore::new(1);
        let held = semaphore.acquire("a", at(0)).await;
        let mut given_up = Box::pin(semaphore.acquire("a", at(0)));
        assert!(given_up.as_mut().now_or_never().is_none());
        let mut late = Box::pin(semaphore.acquire("b", at(0)));
        assert!(late.as_mut().now_or_never().is_none());
        // One gives up while it waits, one after it was sent a permit.
        drop(given_up);
        drop(held);
        drop(late);
        let _permit = semaphore.acquire("c", at(0)).now_or_never().unwrap();
        assert!(semaphore.state.lock().waiting.is_empty());
    }
}
