//! The one time-ordered queue of everything that has to happen later, for all volumes of the node, with one timer.

use super::clock_jump::ClockJumpDetector;
use crate::model::VolumeId;
use crate::platform::{Clock, until};
use jiff::Timestamp;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// A kind of work that falls due. A volume has at most one point in time for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Work {
    /// Issue again.
    Renew,
    /// Hand over the current credential with a new trust bundle.
    RefreshTrust,
    /// See whether the pod of a volume that is not mounted is gone.
    Reap,
}

/// What is due when.
pub(crate) struct WorkQueue {
    clock: Arc<dyn Clock>,
    due: Arc<Mutex<Due>>,
    earlier: Notify,
    jumps: ClockJumpDetector,
}

/// What [`WorkQueue::next`] returns.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Work of a volume is due.
    Due(VolumeId, Work),
    /// The wall clock was set back: what is due by times that were noted before may be due by other times now.
    ClockSetBack,
}

type Entry = u64;

#[derive(Default)]
struct Due {
    by_time: BTreeSet<(Timestamp, Entry, Work)>,
    entries: BTreeMap<Entry, (VolumeId, BTreeMap<Work, Timestamp>)>,
    last_entry: Entry,
}

/// A volume's entry in the queue. Dropping it removes all work of that volume.
pub(crate) struct Schedule {
    due: Arc<Mutex<Due>>,
    entry: Entry,
}

impl WorkQueue {
    /// An empty queue by that clock.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        let jumps = ClockJumpDetector::new(clock.now());
        Self { clock, due: Arc::default(), earlier: Notify::new(), jumps }
    }

    /// Makes an entry for a volume, with nothing due.
    pub(crate) fn register(&self, volume: &VolumeId) -> Schedule {
        let mut due = self.due.lock();
        due.last_entry += 1;
        let entry = due.last_entry;
        due.entries.insert(entry, (volume.clone(), BTreeMap::new()));
        Schedule { due: Arc::clone(&self.due), entry }
    }

    /// Sets the one point at which work of that kind is due; an earlier setting is forgotten.
    pub(crate) fn put(&self, schedule: &Schedule, work: Work, at: Timestamp) {
        let mut due = self.due.lock();
        let entry = schedule.entry;
        due.clear(entry, work);
        let Some((_, works)) = due.entries.get_mut(&entry) else { return };
        works.insert(work, at);
        let is_first = due.by_time.first().is_none_or(|(first, ..)| at < *first);
        due.by_time.insert((at, entry, work));
        drop(due);
        // A later entry wakes nobody: the waiter's own deadline still comes first.
        if is_first {
            self.earlier.notify_one();
        }
    }

    /// As [`Self::put`], after a pause.
    pub(crate) fn put_in(&self, schedule: &Schedule, work: Work, pause: Duration) {
        let now = self.clock.now();
        self.put(schedule, work, now.saturating_add(pause).unwrap_or(now));
    }

    /// As [`Self::put`], now.
    pub(crate) fn put_now(&self, schedule: &Schedule, work: Work) {
        self.put(schedule, work, self.clock.now());
    }

    /// Waits for the next work that is due, and takes it out of the queue. One caller at a time.
    pub(crate) async fn next(&self) -> Next {
        loop {
            let now = self.clock.now();
            if self.jumps.poll(now) {
                return Next::ClockSetBack;
            }
            let (taken, next) = self.due.lock().take(now);
            if let Some((volume, work)) = taken {
                return Next::Due(volume, work);
            }
            tokio::select! {
                () = self.earlier.notified() => {}
                () = self.clock.wait_until(next) => {}
            }
        }
    }

    /// How late the most overdue work is.
    pub(crate) fn lateness(&self) -> Duration {
        let first = self.due.lock().by_time.first().map(|(at, ..)| *at);
        first.map_or(Duration::ZERO, |at| until(at, self.clock.now()))
    }

    /// How long ago a caller last asked for work.
    pub(crate) fn idle(&self) -> Duration {
        self.jumps.age()
    }
}

impl Schedule {
    /// When work of that kind is due.
    pub(crate) fn due(&self, work: Work) -> Option<Timestamp> {
        self.due.lock().entries.get(&self.entry)?.1.get(&work).copied()
    }

    /// Forgets work of that kind.
    pub(crate) fn clear(&self, work: Work) {
        self.due.lock().clear(self.entry, work);
    }
}

impl Drop for Schedule {
    fn drop(&mut self) {
        let mut due = self.due.lock();
        if let Some((_, works)) = due.entries.remove(&self.entry) {
            for (work, at) in works {
                due.by_time.remove(&(at, self.entry, work));
            }
        }
    }
}

impl Due {
    fn clear(&mut self, entry: Entry, work: Work) {
        let known = self.entries.get_mut(&entry).and_then(|(_, works)| works.remove(&work));
        if let Some(at) = known {
            self.by_time.remove(&(at, entry, work));
        }
    }

    /// Takes out what has been due longest, if something is due at `now`; else returns when the next work is.
    fn take(&mut self, now: Timestamp) -> (Option<(VolumeId, Work)>, Option<Timestamp>) {
        let Some((at, entry, work)) = self.by_time.first().copied() else { return (None, None) };
        if at > now {
            return (None, Some(at));
        }
        self.clear(entry, work);
        (self.entries.get(&entry).map(|(volume, _)| (volume.clone(), work)), Some(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::x509::testing::Stopped;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn queue(now: i64) -> WorkQueue {
        WorkQueue::new(Arc::new(Stopped(at(now))))
    }

    fn due(volume: &str, work: Work) -> Next {
        Next::Due(VolumeId::new(volume), work)
    }

    #[tokio::test]
    async fn work_comes_out_in_the_order_it_falls_due_and_each_kind_by_itself() {
        let queue = queue(25);
        let [a, b, c] = ["a", "b", "c"].map(|id| queue.register(&VolumeId::new(id)));
        queue.put(&b, Work::Renew, at(20));
        queue.put(&a, Work::Renew, at(30));
        queue.put(&a, Work::RefreshTrust, at(10));
        queue.put(&c, Work::Reap, at(15));
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
            queue.put(&a, Work::Renew, at(second));
        }
        assert_eq!(a.due(Work::Renew), Some(at(20)));
        assert_eq!(queue.next().await, due("a", Work::Renew));
        queue.put(&a, Work::Renew, at(1));
        a.clear(Work::Renew);
        assert_eq!(a.due(Work::Renew), None);
        assert!(queue.due.lock().by_time.is_empty());
    }

    #[tokio::test]
    async fn dropping_a_volumes_schedule_removes_its_work_and_no_other() {
        let queue = queue(20);
        let first = queue.register(&VolumeId::new("a"));
        queue.put(&first, Work::Renew, at(10));
        let second = queue.register(&VolumeId::new("a"));
        queue.put(&second, Work::Reap, at(12));
        drop(first);
        assert_eq!(queue.next().await, due("a", Work::Reap));
        assert!(queue.due.lock().by_time.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn only_work_before_all_other_wakes_the_waiter() {
        let queue = queue(0);
        let [a, b, c] = ["a", "b", "c"].map(|id| queue.register(&VolumeId::new(id)));
        queue.put(&a, Work::Renew, at(10));
        queue.earlier.notified().await;
        queue.put(&b, Work::Renew, at(11));
        let woken = tokio::time::timeout(Duration::from_secs(1), queue.earlier.notified()).await;
        assert!(woken.is_err(), "later work woke the waiter");
        queue.put(&c, Work::Renew, at(9));
        queue.earlier.notified().await;
    }
}
