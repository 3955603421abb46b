//! The queue of all work that falls due later, for all volumes of the node, with one timer.

use super::clock_jump::ClockJumpDetector;
use crate::model::VolumeId;
use crate::platform::{Clock, until};
use jiff::Timestamp;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// A kind of work that falls due. A volume has at most one point in time for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Work {
    /// Issue again.
    Renew,
    /// Hand over the current credential with a new trust bundle.
    RefreshTrust,
    /// Remove the volume if it is not mounted and its pod is gone.
    Reap,
}

impl Work {
    /// Every kind, in order.
    pub(crate) const ALL: [Self; 3] = [Self::Renew, Self::RefreshTrust, Self::Reap];
}

/// All due work, ordered by time.
pub(crate) struct WorkQueue {
    clock: Arc<dyn Clock>,
    due: Mutex<BTreeMap<Key, VolumeId>>,
    /// Notified when new work is due before all other work.
    earlier: Notify,
    jumps: ClockJumpDetector,
    last_entry: AtomicU64,
}

/// Ordered by time. The number identifies the [`Schedule`], because one volume can have two of them for a moment.
type Key = (Timestamp, u64, Work);

/// What [`WorkQueue::next`] returns.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Work of a volume is due.
    Due(VolumeId, Work),
    /// The wall clock was set back: the due times that were set before can be wrong now.
    ClockSetBack,
}

/// A volume's entry in the queue. Dropping it removes the work that was added with it.
pub(crate) struct Schedule {
    queue: Arc<WorkQueue>,
    volume: VolumeId,
    entry: u64,
    /// The last time that was set for each kind of work. The queue holds those that are not over.
    set: Mutex<[Option<Timestamp>; Work::ALL.len()]>,
}

impl WorkQueue {
    /// An empty queue that uses this clock.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        let jumps = ClockJumpDetector::new(clock.now());
        let (due, earlier, last_entry) = Default::default();
        Arc::new(Self { clock, due, earlier, jumps, last_entry })
    }

    /// Adds an entry for a volume, without work.
    pub(crate) fn register(self: &Arc<Self>, volume: &VolumeId) -> Schedule {
        let entry = self.last_entry.fetch_add(1, Ordering::Relaxed);
        Schedule { queue: Arc::clone(self), volume: volume.clone(), entry, set: Mutex::default() }
    }

    /// Waits for the next work that is due, and takes it out of the queue. One caller at a time.
    pub(crate) async fn next(&self) -> Next {
        loop {
            let now = self.clock.now();
            if self.jumps.poll(now) {
                return Next::ClockSetBack;
            }
            let next = {
                let mut due = self.due.lock();
                match due.first_entry() {
                    Some(first) if first.key().0 <= now => {
                        let ((_, _, work), volume) = first.remove_entry();
                        return Next::Due(volume, work);
                    }
                    first => first.map(|first| first.key().0),
                }
            };
            tokio::select! {
                () = self.earlier.notified() => {}
                () = self.clock.wait_until(next) => {}
            }
        }
    }

    /// How late the most overdue work is.
    pub(crate) fn lateness(&self) -> Duration {
        let first = self.due.lock().keys().next().map(|(at, ..)| *at);
        first.map_or(Duration::ZERO, |at| until(at, self.clock.now()))
    }

    /// How long ago [`Self::next`] was last polled.
    pub(crate) fn idle(&self) -> Duration {
        self.jumps.age()
    }
}

impl Schedule {
    /// Sets when work of this kind is due. It replaces an earlier setting.
    pub(crate) fn put(&self, work: Work, at: Timestamp) {
        let mut set = self.set.lock();
        let mut due = self.queue.due.lock();
        if let Some(before) = set[work as usize].replace(at) {
            due.remove(&(before, self.entry, work));
        }
        let is_first = due.keys().next().is_none_or(|(first, ..)| at < *first);
        due.insert((at, self.entry, work), self.volume.clone());
        drop(due);
        // A later entry does not wake the waiter, because its deadline still comes first.
        if is_first {
            self.queue.earlier.notify_one();
        }
    }

    /// As [`Self::put`], after a pause.
    pub(crate) fn put_in(&self, work: Work, pause: Duration) {
        let now = self.queue.clock.now();
        self.put(work, now.saturating_add(pause).unwrap_or(now));
    }

    /// As [`Self::put`], now.
    pub(crate) fn put_now(&self, work: Work) {
        self.put_in(work, Duration::ZERO);
    }

    /// When work of this kind is due; `None` if the queue has none.
    pub(crate) fn due(&self, work: Work) -> Option<Timestamp> {
        let at = self.set.lock()[work as usize]?;
        self.queue.due.lock().contains_key(&(at, self.entry, work)).then_some(at)
    }

    /// Removes work of this kind.
    pub(crate) fn clear(&self, work: Work) {
        if let Some(at) = self.set.lock()[work as usize].take() {
            self.queue.due.lock().remove(&(at, self.entry, work));
        }
    }
}

impl Drop for Schedule {
    fn drop(&mut self) {
        for work in Work::ALL {
            self.clear(work);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::x509::testing::StoppedClock;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn queue(now: i64) -> Arc<WorkQueue> {
        WorkQueue::new(Arc::new(StoppedClock(at(now))))
    }

    fn due(volume: &str, work: Work) -> Next {
        Next::Due(VolumeId::new(volume), work)
    }

    #[tokio::test]
    async fn work_comes_out_in_the_order_it_falls_due_and_each_kind_by_itself() {
        let queue = queue(25);
        let [a, b, c] = ["a", "b", "c"].map(|id| queue.register(&VolumeId::new(id)));
        b.put(Work::Renew, at(20));
        a.put(Work::Renew, at(30));
        a.put(Work::RefreshTrust, at(10));
        c.put(Work::Reap, at(15));
        for (volume, work) in [("a", Work::RefreshTrust), ("c", Work::Reap), ("b", Work::Renew)] {
            assert_eq!(queue.next().await, due(volume, work));
        }
        assert_eq!(a.due(Work::Renew), Some(at(30)));
        assert_eq!(a.due(Work::RefreshTrust), None);
        assert_eq!(queue.lateness(), Duration::ZERO);
    }

    #[tokio::test]
    async fn a_kind_of_work_is_due_once_however_often_it_is_put() {
        let queue = queue(20);
        let a = queue.register(&VolumeId::new("a"));
        for second in [10, 5, 20] {
            a.put(Work::Renew, at(second));
        }
        assert_eq!(a.due(Work::Renew), Some(at(20)));
        assert_eq!(queue.next().await, due("a", Work::Renew));
        a.put(Work::Renew, at(1));
        a.clear(Work::Renew);
        assert_eq!(a.due(Work::Renew), None);
        assert!(queue.due.lock().is_empty());
    }

    #[tokio::test]
    async fn dropping_a_volumes_schedule_removes_its_work_and_no_other() {
        let queue = queue(20);
        let first = queue.register(&VolumeId::new("a"));
        first.put(Work::Renew, at(10));
        let second = queue.register(&VolumeId::new("a"));
        second.put(Work::Reap, at(12));
        drop(first);
        assert_eq!(queue.next().await, due("a", Work::Reap));
        assert!(queue.due.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn only_work_before_all_other_wakes_the_waiter() {
        let queue = queue(0);
        let [a, b, c] = ["a", "b", "c"].map(|id| queue.register(&VolumeId::new(id)));
        a.put(Work::Renew, at(10));
        queue.earlier.notified().await;
        b.put(Work::Renew, at(11));
        let woken = tokio::time::timeout(Duration::from_secs(1), queue.earlier.notified()).await;
        assert!(woken.is_err(), "later work woke the waiter");
        c.put(Work::Renew, at(9));
        queue.earlier.notified().await;
    }
}
