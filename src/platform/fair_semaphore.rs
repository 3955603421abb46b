//! A semaphore that is fair by namespace: its permits go round the namespaces that wait, so that a namespace with many waiters
//! delays another one by no more than one permit.

use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use tokio::sync::oneshot;

/// A number of permits. Within a namespace, whoever has the lowest rank gets one first; among equals, whoever came first.
#[derive(Debug)]
pub(crate) struct FairSemaphore<R: Ord + Copy> {
    state: Mutex<State<R>>,
}

#[derive(Debug)]
struct State<R: Ord + Copy> {
    free: usize,
    last_number: u64,
    waiting: HashMap<Arc<str>, Waiters<R>>,
    /// The namespaces that wait; the first one is served next.
    rotation: VecDeque<Arc<str>>,
}

type Waiters<R> = BTreeMap<(R, u64), oneshot::Sender<FairPermit<R>>>;

/// A permit, given back when dropped.
#[derive(Debug)]
pub(crate) struct FairPermit<R: Ord + Copy>(Arc<FairSemaphore<R>>);

/// Removes a waiter that gives up.
struct Waiter<'a, R: Ord + Copy> {
    semaphore: &'a FairSemaphore<R>,
    namespace: &'a str,
    key: (R, u64),
}

impl<R: Ord + Copy> FairSemaphore<R> {
    /// So many permits.
    pub(crate) fn new(permits: usize) -> Arc<Self> {
        let (waiting, rotation) = Default::default();
        Arc::new(Self { state: Mutex::new(State { free: permits, last_number: 0, waiting, rotation }) })
    }

    /// Waits for a permit. Cancel-safe.
    pub(crate) async fn acquire(self: &Arc<Self>, namespace: &str, rank: R) -> FairPermit<R> {
        loop {
            let (receiver, key) = {
                let mut state = self.state.lock();
                // A free permit is never kept while somebody waits.
                if state.free > 0 {
                    state.free -= 1;
                    return FairPermit(Arc::clone(self));
                }
                state.enqueue(namespace, rank)
            };
            let _waiter = Waiter { semaphore: self, namespace, key };
            // The sender is kept until it has sent.
            if let Ok(permit) = receiver.await {
                return permit;
            }
        }
    }

    /// Gives a free permit to the next waiter, or keeps it.
    fn release(self: &Arc<Self>) {
        let next = {
            let mut state = self.state.lock();
            let next = state.dequeue();
            if next.is_none() {
                state.free += 1;
            }
            next
        };
        // Outside of the lock: a waiter that has just given up drops the permit, which comes back here.
        if let Some(next) = next {
            drop(next.send(FairPermit(Arc::clone(self))));
        }
    }
}

impl<R: Ord + Copy> State<R> {
    fn enqueue(&mut self, namespace: &str, rank: R) -> (oneshot::Receiver<FairPermit<R>>, (R, u64)) {
        let (sender, receiver) = oneshot::channel();
        self.last_number += 1;
        let key = (rank, self.last_number);
        if let Some(waiters) = self.waiting.get_mut(namespace) {
            waiters.insert(key, sender);
        } else {
            let namespace: Arc<str> = namespace.into();
            self.rotation.push_back(Arc::clone(&namespace));
            self.waiting.insert(namespace, BTreeMap::from([(key, sender)]));
        }
        (receiver, key)
    }

    fn dequeue(&mut self) -> Option<oneshot::Sender<FairPermit<R>>> {
        let namespace = self.rotation.pop_front()?;
        let waiters = self.waiting.get_mut(&namespace)?;
        let first = waiters.pop_first().map(|(_, sender)| sender);
        if waiters.is_empty() {
            self.waiting.remove(&namespace);
        } else {
            self.rotation.push_back(namespace);
        }
        first
    }

    fn remove(&mut self, namespace: &str, key: &(R, u64)) {
        let Some(waiters) = self.waiting.get_mut(namespace) else { return };
        waiters.remove(key);
        if waiters.is_empty() {
            self.waiting.remove(namespace);
            self.rotation.retain(|waiting| **waiting != *namespace);
        }
    }
}

impl<R: Ord + Copy> Drop for Waiter<'_, R> {
    fn drop(&mut self) {
        self.semaphore.state.lock().remove(self.namespace, &self.key);
    }
}

impl<R: Ord + Copy> Drop for FairPermit<R> {
    fn drop(&mut self) {
        self.0.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use std::time::Duration;

    async fn served(permits: usize, waiters: &[(&'static str, u32)]) -> Vec<(&'static str, u32)> {
        let semaphore = FairSemaphore::new(permits);
        let held: Vec<_> =
            (0..permits).map(|_| semaphore.acquire("first", 0).now_or_never().unwrap()).collect();
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for (namespace, rank) in waiters.iter().copied() {
            let (semaphore, order) = (Arc::clone(&semaphore), Arc::clone(&order));
            tasks.push(tokio::spawn(async move {
                let _permit = semaphore.acquire(namespace, rank).await;
                order.lock().push((namespace, rank));
                tokio::time::sleep(Duration::from_secs(1)).await;
            }));
            tokio::task::yield_now().await;
        }
        drop(held);
        for task in tasks {
            task.await.unwrap();
        }
        let state = semaphore.state.lock();
        assert_eq!(state.free, permits);
        assert!(state.waiting.is_empty() && state.rotation.is_empty());
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
    async fn within_a_namespace_the_lowest_rank_comes_first_and_then_whoever_came_first() {
        let order = served(1, &[("a", 3), ("a", 1), ("b", 7), ("a", 2), ("b", 0)]).await;
        assert_eq!(order, [("a", 1), ("b", 0), ("a", 2), ("b", 7), ("a", 3)]);
    }

    #[tokio::test]
    async fn a_waiter_that_gives_up_costs_the_others_nothing() {
        let semaphore = FairSemaphore::new(1);
        let held = semaphore.acquire("a", 0).await;
        let mut given_up = Box::pin(semaphore.acquire("a", 0));
        assert!(given_up.as_mut().now_or_never().is_none());
        let mut late = Box::pin(semaphore.acquire("b", 0));
        assert!(late.as_mut().now_or_never().is_none());
        // One gives up while it waits, one after it was sent a permit.
        drop(given_up);
        drop(held);
        drop(late);
        let _permit = semaphore.acquire("c", 0).now_or_never().unwrap();
        assert!(semaphore.state.lock().waiting.is_empty());
    }
}
