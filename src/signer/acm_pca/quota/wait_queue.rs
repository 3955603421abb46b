//! The order of waiting calls: publishes before renewals, each in the order of arrival.

use crate::signer::Purpose;
use std::collections::VecDeque;

/// One of so many calls in a row is a renewal, if one waits, so that publishes do not block renewals.
const RENEWAL_EVERY: u32 = 8;

/// Waiting calls.
#[derive(Debug, Default)]
pub struct WaitQueue<T> {
    publishes: VecDeque<T>,
    renewals: VecDeque<T>,
    /// Publishes since the last renewal.
    since_renewal: u32,
}

impl<T> WaitQueue<T> {
    /// Adds a waiting call.
    pub fn push(&mut self, purpose: Purpose, waiter: T) {
        match purpose {
            Purpose::Publish => self.publishes.push_back(waiter),
            Purpose::Renewal => self.renewals.push_back(waiter),
        }
    }

    /// The next call.
    pub fn head(&self) -> Option<&T> {
        if self.is_renewal_next() { self.renewals.front() } else { self.publishes.front() }
    }

    /// Removes the next call.
    pub fn pop(&mut self) -> Option<T> {
        if self.is_renewal_next() {
            self.since_renewal = 0;
            return self.renewals.pop_front();
        }
        self.since_renewal = self.since_renewal.saturating_add(1);
        self.publishes.pop_front()
    }

    /// Removes the calls that `keep` does not select.
    pub fn retain(&mut self, keep: impl Fn(&T) -> bool) {
        self.publishes.retain(&keep);
        self.renewals.retain(&keep);
    }

    /// Whether no call waits.
    pub fn is_empty(&self) -> bool {
        self.head().is_none()
    }

    fn is_renewal_next(&self) -> bool {
        let is_due = self.since_renewal + 1 >= RENEWAL_EVERY && !self.renewals.is_empty();
        self.publishes.is_empty() || is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publishes_come_before_earlier_renewals() {
        let mut queue = WaitQueue::default();
        queue.push(Purpose::Renewal, "renewal");
        queue.push(Purpose::Publish, "first");
        queue.push(Purpose::Publish, "second");
        assert_eq!(queue.head(), Some(&"first"));
        assert_eq!(
            [queue.pop(), queue.pop(), queue.pop(), queue.pop()],
            [Some("first"), Some("second"), Some("renewal"), None]
        );
    }

    #[test]
    fn many_publishes_do_not_block_a_renewal() {
        let mut queue = WaitQueue::default();
        queue.push(Purpose::Renewal, 999);
        for number in 0..20 {
            queue.push(Purpose::Publish, number);
        }
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(order.iter().position(|waiter| *waiter == 999), Some(7));
        assert_eq!(order.len(), 21);
    }
}
