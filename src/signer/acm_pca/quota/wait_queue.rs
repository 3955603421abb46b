//! The order of waiting calls: publishes before renewals. Of both, the namespaces that wait are served one after the other.

use crate::platform::FairQueue;
use crate::signer::{Purpose, SigningRequest};
use jiff::Timestamp;
use std::sync::Arc;

/// One of so many calls in a row is a renewal, if one waits, so that publishes do not block renewals.
const RENEWAL_EVERY: u32 = 8;

/// What decides when a call may start.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Why it is made.
    pub purpose: Purpose,
    /// The pod's namespace; empty for calls of the driver itself.
    pub namespace: Arc<str>,
    /// Within a namespace, the call that is needed by the earliest time comes first.
    pub needed_by: Timestamp,
}

impl From<&SigningRequest<'_>> for Caller {
    fn from(request: &SigningRequest<'_>) -> Self {
        let SigningRequest { purpose, needed_by, identity, .. } = *request;
        Self { purpose, namespace: identity.namespace.as_str().into(), needed_by }
    }
}

/// Waiting calls.
#[derive(Debug, Default)]
pub struct WaitQueue<T> {
    publishes: FairQueue<Key, T>,
    renewals: FairQueue<Key, T>,
    /// Publishes since the last renewal.
    since_renewal: u32,
    last_number: u64,
}

/// The number makes it unique, and keeps equals in the order of their arrival.
type Key = (Timestamp, u64);

impl<T> WaitQueue<T> {
    /// Adds a waiting call. Returns its number, for [`Self::remove`].
    pub fn push(&mut self, caller: &Caller, waiter: T) -> u64 {
        self.last_number += 1;
        let number = self.last_number;
        self.calls(caller.purpose).insert(&caller.namespace, (caller.needed_by, number), waiter);
        number
    }

    /// The next call.
    pub fn head(&self) -> Option<&T> {
        let calls = if self.is_renewal_next() { &self.renewals } else { &self.publishes };
        calls.first().map(|(_, waiter)| waiter)
    }

    /// Removes the next call.
    pub fn pop(&mut self) -> Option<T> {
        let next = if self.is_renewal_next() {
            self.since_renewal = 0;
            self.renewals.pop_first()
        } else {
            self.since_renewal = self.since_renewal.saturating_add(1);
            self.publishes.pop_first()
        };
        next.map(|(_, waiter)| waiter)
    }

    /// Removes a call, if it still waits.
    pub fn remove(&mut self, caller: &Caller, number: u64) {
        self.calls(caller.purpose).remove(&caller.namespace, &(caller.needed_by, number));
    }

    /// Whether no call waits.
    pub fn is_empty(&self) -> bool {
        self.head().is_none()
    }

    fn calls(&mut self, purpose: Purpose) -> &mut FairQueue<Key, T> {
        match purpose {
            Purpose::Publish => &mut self.publishes,
            Purpose::Renewal => &mut self.renewals,
        }
    }

    fn is_renewal_next(&self) -> bool {
        let is_due = self.since_renewal + 1 >= RENEWAL_EVERY && !self.renewals.is_empty();
        self.publishes.is_empty() || is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(purpose: Purpose, namespace: &str, second: i64) -> Caller {
        Caller { purpose, namespace: namespace.into(), needed_by: Timestamp::from_second(second).unwrap() }
    }

    fn drained<T>(queue: &mut WaitQueue<T>) -> Vec<T> {
        let order = std::iter::from_fn(|| queue.pop()).collect();
        assert!(queue.is_empty());
        order
    }

    #[test]
    fn publishes_come_before_earlier_renewals() {
        let mut queue = WaitQueue::default();
        queue.push(&caller(Purpose::Renewal, "shop", 0), "renewal");
        queue.push(&caller(Purpose::Publish, "shop", 0), "first");
        queue.push(&caller(Purpose::Publish, "shop", 0), "second");
        assert_eq!(queue.head(), Some(&"first"));
        assert_eq!(drained(&mut queue), ["first", "second", "renewal"]);
    }

    #[test]
    fn many_publishes_do_not_block_a_renewal() {
        let mut queue = WaitQueue::default();
        queue.push(&caller(Purpose::Renewal, "shop", 0), 999);
        for number in 0..20 {
            queue.push(&caller(Purpose::Publish, "shop", 0), number);
        }
        let order = drained(&mut queue);
        assert_eq!(order.iter().position(|waiter| *waiter == 999), Some(7));
        assert_eq!(order.len(), 21);
    }

    #[test]
    fn many_calls_of_one_namespace_delay_another_namespace_by_one_call() {
        for purpose in [Purpose::Publish, Purpose::Renewal] {
            let mut queue = WaitQueue::default();
            for _ in 0..400 {
                queue.push(&caller(purpose, "hostile", 0), "hostile");
            }
            queue.push(&caller(purpose, "innocent", 100), "innocent");
            assert_eq!(drained(&mut queue).iter().position(|waiter| *waiter == "innocent"), Some(1));
        }
    }

    #[test]
    fn of_one_namespace_the_certificate_that_ends_first_is_renewed_first() {
        let mut queue = WaitQueue::default();
        for (namespace, end) in [("shop", 300), ("shop", 100), ("other", 900), ("shop", 200)] {
            queue.push(&caller(Purpose::Renewal, namespace, end), end);
        }
        assert_eq!(drained(&mut queue), [100, 900, 200, 300]);
    }

    #[test]
    fn a_removed_call_costs_the_others_nothing() {
        let mut queue = WaitQueue::default();
        let gone = caller(Purpose::Publish, "shop", 0);
        let number = queue.push(&gone, "gone");
        queue.push(&caller(Purpose::Publish, "shop", 0), "stays");
        queue.remove(&gone, number);
        queue.remove(&gone, number);
        assert_eq!(drained(&mut queue), ["stays"]);
    }
}
