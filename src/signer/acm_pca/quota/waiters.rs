//! Whose turn it is: publishes before renewals, each in the order they came. Pure.

use std::collections::VecDeque;

/// Of this many turns in a row, a renewal that waits gets one: publishes go first, but starve nobody.
const RENEWAL_EVERY: u32 = 8;

/// How pressing a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// A pod waits for it to start.
    Publish,
    /// A certificate that is still good is to be replaced.
    Renewal,
}

/// Two queues, one behind the other.
#[derive(Debug)]
pub struct Waiters<T> {
    publishes: VecDeque<T>,
    renewals: VecDeque<T>,
    since_renewal: u32,
}

impl<T> Default for Waiters<T> {
    fn default() -> Self {
        Self { publishes: VecDeque::new(), renewals: VecDeque::new(), since_renewal: 0 }
    }
}

impl<T> Waiters<T> {
    /// Queues up.
    pub fn push(&mut self, urgency: Urgency, waiter: T) {
        match urgency {
            Urgency::Publish => self.publishes.push_back(waiter),
            Urgency::Renewal => self.renewals.push_back(waiter),
        }
    }

    /// Who is next.
    pub fn head(&self) -> Option<&T> {
        self.queue(self.next()).front()
    }

    /// Takes who is next.
    pub fn pop(&mut self) -> Option<T> {
        let urgency = self.next();
        self.since_renewal = match urgency {
            Urgency::Publish => self.since_renewal.saturating_add(1),
            Urgency::Renewal => 0,
        };
        match urgency {
            Urgency::Publish => self.publishes.pop_front(),
            Urgency::Renewal => self.renewals.pop_front(),
        }
    }

    /// Forgets waiters that have given up.
    pub fn retain(&mut self, keep: impl Fn(&T) -> bool) {
        self.publishes.retain(&keep);
        self.renewals.retain(&keep);
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.publishes.len() + self.renewals.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn next(&self) -> Urgency {
        let renewal_is_due = self.since_renewal + 1 >= RENEWAL_EVERY && !self.renewals.is_empty();
        if self.publishes.is_empty() || renewal_is_due { Urgency::Renewal } else { Urgency::Publish }
    }

    fn queue(&self, urgency: Urgency) -> &VecDeque<T> {
        match urgency {
            Urgency::Publish => &self.publishes,
            Urgency::Renewal => &self.renewals,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publishes_go_before_renewals_that_came_earlier() {
        let mut waiters = Waiters::default();
        waiters.push(Urgency::Renewal, "renewal");
        waiters.push(Urgency::Publish, "first");
        waiters.push(Urgency::Publish, "second");
        assert_eq!(waiters.head(), Some(&"first"));
        assert_eq!(
            [waiters.pop(), waiters.pop(), waiters.pop(), waiters.pop()],
            [Some("first"), Some("second"), Some("renewal"), None]
        );
    }

    #[test]
    fn an_endless_stream_of_publishes_does_not_starve_a_renewal() {
        let mut waiters = Waiters::default();
        waiters.push(Urgency::Renewal, 999);
        for number in 0..20 {
            waiters.push(Urgency::Publish, number);
        }
        let order: Vec<_> = std::iter::from_fn(|| waiters.pop()).collect();
        assert_eq!(order.iter().position(|waiter| *waiter == 999), Some(7));
        assert_eq!(order.len(), 21);
    }
}
