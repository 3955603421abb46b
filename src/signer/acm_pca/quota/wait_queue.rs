//! The order of waiting calls: one namespace after the other, and of each the call that is needed first.

use crate::platform::FairQueue;
use crate::signer::SigningRequest;
use jiff::Timestamp;
use std::sync::Arc;

/// What decides when a call may start.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The pod's namespace; empty for calls of the driver itself.
    pub namespace: Arc<str>,
    /// Within a namespace, the call that is needed by the earliest time comes first. A pod that starts needs its certificate within
    /// the kubelet's timeout, and comes before renewals of certificates that end later.
    pub needed_by: Timestamp,
}

impl From<&SigningRequest<'_>> for Caller {
    fn from(request: &SigningRequest<'_>) -> Self {
        let SigningRequest { needed_by, identity, .. } = *request;
        Self { namespace: identity.namespace.as_str().into(), needed_by }
    }
}

/// Waiting calls.
#[derive(Debug)]
pub struct WaitQueue<T> {
    calls: FairQueue<Key, T>,
    last_number: u64,
}

/// The number makes it unique, and keeps equals in the order of their arrival.
type Key = (Timestamp, u64);

impl<T> Default for WaitQueue<T> {
    fn default() -> Self {
        Self { calls: FairQueue::default(), last_number: 0 }
    }
}

impl<T> WaitQueue<T> {
    /// Adds a waiting call. Returns its number, for [`Self::remove`].
    pub fn push(&mut self, caller: &Caller, waiter: T) -> u64 {
        self.last_number += 1;
        self.calls.insert(&caller.namespace, (caller.needed_by, self.last_number), waiter);
        self.last_number
    }

    /// The next call.
    pub fn head(&self) -> Option<&T> {
        self.calls.first().map(|(_, waiter)| waiter)
    }

    /// Removes the next call.
    pub fn pop(&mut self) -> Option<T> {
        self.calls.pop_first().map(|(_, waiter)| waiter)
    }

    /// Removes a call, if it still waits.
    pub fn remove(&mut self, caller: &Caller, number: u64) {
        self.calls.remove(&caller.namespace, &(caller.needed_by, number));
    }

    /// Whether no call waits.
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(namespace: &str, second: i64) -> Caller {
        Caller { namespace: namespace.into(), needed_by: Timestamp::from_second(second).unwrap() }
    }

    fn drained<T>(queue: &mut WaitQueue<T>) -> Vec<T> {
        let order = std::iter::from_fn(|| queue.pop()).collect();
        assert!(queue.is_empty());
        order
    }

    #[test]
    fn of_one_namespace_the_earliest_need_comes_first_and_then_the_earliest_arrival() {
        let mut queue = WaitQueue::default();
        for (namespace, second, call) in [
            ("shop", 3000, "renewal"),
            ("shop", 120, "publish"),
            ("shop", 121, "later publish"),
            ("shop", 60, "renewal near the end"),
            ("other", 900, "of another namespace"),
            ("shop", 120, "equal publish"),
        ] {
            queue.push(&caller(namespace, second), call);
        }
        assert_eq!(queue.head(), Some(&"renewal near the end"));
        let [first, other, rest @ ..] = &*drained(&mut queue) else { panic!("six calls") };
        assert_eq!([*first, *other], ["renewal near the end", "of another namespace"]);
        assert_eq!(rest, ["publish", "equal publish", "later publish", "renewal"]);
    }

    #[test]
    fn many_calls_of_one_namespace_delay_another_namespace_by_one_call() {
        let mut queue = WaitQueue::default();
        for _ in 0..400 {
            queue.push(&caller("hostile", 0), "hostile");
        }
        queue.push(&caller("innocent", 100), "innocent");
        assert_eq!(drained(&mut queue).iter().position(|waiter| *waiter == "innocent"), Some(1));
    }

    #[test]
    fn a_removed_call_costs_the_others_nothing() {
        let mut queue = WaitQueue::default();
        let gone = caller("shop", 0);
        let number = queue.push(&gone, "gone");
        queue.push(&caller("shop", 0), "stays");
        queue.remove(&gone, number);
        queue.remove(&gone, number);
        assert_eq!(drained(&mut queue), ["stays"]);
    }
}
