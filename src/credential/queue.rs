//! The queue of all work that falls due later, for all volumes of the node, with one timer.
//!
//! Work that is due is taken out for one namespace after the other, so that a namespace with many renewals does not delay those
//! of another. Of one namespace, the work on the certificate that ends first comes first. Work for which its namespace has no slot
//! waits, and that of the others passes it.

use super::clock_jump::ClockJumpDetector;
use super::slots::{RenewalSlot, RenewalSlots};
use crate::model::VolumeId;
use crate::platform::{Clock, FairQueue, until};
use jiff::Timestamp;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
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

/// All work, that which is due and that which falls due later.
pub(crate) struct WorkQueue {
    clock: Arc<dyn Clock>,
    entries: Mutex<Entries>,
    /// Notified when new work is due before all other work.
    earlier: Notify,
    jumps: ClockJumpDetector,
    /// When work was last taken out, or none was due.
    kept_up: Mutex<Instant>,
    last_entry: AtomicU64,
}

#[derive(Default)]
struct Entries {
    /// Ordered by the time when they fall due.
    later: BTreeMap<Key, Owner>,
    /// Within a namespace, ordered by `needed_by`.
    due: FairQueue<(Timestamp, Key), VolumeId>,
}

/// Ordered by time. The entry identifies the [`Schedule`], because one volume can have two of them for a moment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    /// When the work falls due.
    at: Timestamp,
    entry: u64,
    work: Work,
    /// When the certificate in use ends.
    needed_by: Timestamp,
}

/// Whose work it is.
#[derive(Clone)]
struct Owner {
    volume: VolumeId,
    namespace: Arc<str>,
}

/// What [`WorkQueue::next`] returns.
#[derive(Debug)]
pub(crate) enum Next {
    /// Work of a volume is due, and has a slot.
    Due(VolumeId, Work, RenewalSlot),
    /// The wall clock was set back: the due times that were set before can be wrong now.
    ClockSetBack,
}

/// A volume's entry in the queue. Dropping it removes the work that was added with it.
pub(crate) struct Schedule {
    queue: Arc<WorkQueue>,
    owner: Owner,
    entry: u64,
    set: Mutex<Set>,
}

struct Set {
    /// When the certificate in use ends.
    needed_by: Timestamp,
    /// The last key that was set for each kind of work. The queue holds those that were not taken out.
    keys: [Option<Key>; Work::ALL.len()],
}

impl Entries {
    /// Moves the work that is due by now, and takes out the next of it for which there is a slot.
    fn take_due(&mut self, now: Timestamp, slots: &RenewalSlots) -> Option<(VolumeId, Work, RenewalSlot)> {
        while let Some(first) = self.later.first_entry().filter(|first| first.key().at <= now) {
            let (key, owner) = first.remove_entry();
            self.due.insert(&owner.namespace, (key.needed_by, key), owner.volume);
        }
        let mut slot = None;
        let next = self.due.pop_first_of(|namespace| {
            slot = slots.try_acquire(namespace);
            slot.is_some()
        });
        next.zip(slot).map(|((_, (_, key), volume), slot)| (volume, key.work, slot))
    }

    fn contains(&self, namespace: &str, key: &Key) -> bool {
        self.later.contains_key(key) || self.due.contains(namespace, &(key.needed_by, *key))
    }

    fn remove(&mut self, namespace: &str, key: &Key) {
        if self.later.remove(key).is_none() {
            self.due.remove(namespace, &(key.needed_by, *key));
        }
    }
}

impl WorkQueue {
    /// An empty queue that uses this clock.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        let jumps = ClockJumpDetector::new(clock.now());
        let kept_up = Mutex::new(Instant::now());
        let (entries, earlier, last_entry) = Default::default();
        Arc::new(Self { clock, entries, earlier, jumps, kept_up, last_entry })
    }

    /// Adds an entry for a volume of a namespace, without work.
    pub(crate) fn register(self: &Arc<Self>, volume: &VolumeId, namespace: &str) -> Schedule {
        let entry = self.last_entry.fetch_add(1, Ordering::Relaxed);
        let owner = Owner { volume: volume.clone(), namespace: namespace.into() };
        let set = Mutex::new(Set { needed_by: Timestamp::MIN, keys: Default::default() });
        Schedule { queue: Arc::clone(self), owner, entry, set }
    }

    /// Waits until work is due for which there is a slot, and takes it out of the queue. One caller at a time.
    pub(crate) async fn next(&self, slots: &RenewalSlots) -> Next {
        loop {
            let now = self.clock.now();
            if self.jumps.poll(now) {
                return Next::ClockSetBack;
            }
            let next = {
                let mut entries = self.entries.lock();
                let taken = entries.take_due(now, slots);
                if taken.is_some() || entries.due.is_empty() {
                    *self.kept_up.lock() = Instant::now();
                }
                if let Some((volume, work, slot)) = taken {
                    return Next::Due(volume, work, slot);
                }
                entries.later.keys().next().map(|first| first.at)
            };
            tokio::select! {
                () = self.earlier.notified() => {}
                () = slots.freed() => {}
                () = self.clock.wait_until(next) => {}
            }
        }
    }

    /// How late the most overdue work is.
    pub(crate) fn lateness(&self) -> Duration {
        let entries = self.entries.lock();
        let due = entries.due.keys().map(|(_, key)| key.at);
        let first = due.chain(entries.later.keys().next().map(|first| first.at)).min();
        drop(entries);
        first.map_or(Duration::ZERO, |at| until(at, self.clock.now()))
    }

    /// How long ago [`Self::next`] last took out work or found none that is due.
    pub(crate) fn idle(&self) -> Duration {
        self.kept_up.lock().elapsed()
    }
}

impl Schedule {
    /// Sets when the certificate in use ends, for work that is put later. Without one, the work is needed at once.
    pub(crate) fn set_end(&self, end: Option<Timestamp>) {
        self.set.lock().needed_by = end.unwrap_or(Timestamp::MIN);
    }

    /// Sets when work of this kind is due. It replaces an earlier setting.
    pub(crate) fn put(&self, work: Work, at: Timestamp) {
        let mut set = self.set.lock();
        let key = Key { at, entry: self.entry, work, needed_by: set.needed_by };
        let mut entries = self.queue.entries.lock();
        if let Some(before) = set.keys[work as usize].replace(key) {
            entries.remove(&self.owner.namespace, &before);
        }
        let is_first = entries.later.keys().next().is_none_or(|first| at < first.at);
        entries.later.insert(key, self.owner.clone());
        drop(entries);
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

    /// As [`Self::put_in`], unless the work is due earlier, or not at all.
    pub(crate) fn bring_forward(&self, work: Work, pause: Duration) {
        let now = self.queue.clock.now();
        let at = now.saturating_add(pause).unwrap_or(now);
        if self.due(work).is_some_and(|due| at < due) {
            self.put(work, at);
        }
    }

    /// When work of this kind is due; `None` if the queue has none.
    pub(crate) fn due(&self, work: Work) -> Option<Timestamp> {
        let key = self.set.lock().keys[work as usize]?;
        self.queue.entries.lock().contains(&self.owner.namespace, &key).then_some(key.at)
    }

    /// Removes work of this kind.
    pub(crate) fn clear(&self, work: Work) {
        if let Some(key) = self.set.lock().keys[work as usize].take() {
            self.queue.entries.lock().remove(&self.owner.namespace, &key);
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
    use futures_util::FutureExt;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn queue(now: i64) -> Arc<WorkQueue> {
        WorkQueue::new(Arc::new(StoppedClock(at(now))))
    }

    fn due(volume: &str, work: Work) -> (String, Work) {
        (volume.to_owned(), work)
    }

    async fn next(queue: &WorkQueue) -> (String, Work) {
        let slots = RenewalSlots::new(1);
        let Next::Due(volume, work, _slot) = queue.next(&slots).await else {
            panic!("the clock was not set back")
        };
        (volume.as_str().to_owned(), work)
    }

    fn is_empty(queue: &WorkQueue) -> bool {
        let entries = queue.entries.lock();
        entries.later.is_empty() && entries.due.is_empty()
    }

    async fn drained(queue: &WorkQueue) -> Vec<String> {
        let mut order = Vec::new();
        while !is_empty(queue) {
            order.push(next(queue).await.0);
        }
        order
    }

    #[tokio::test]
    async fn many_renewals_of_one_namespace_delay_another_namespace_by_one() {
        let queue = queue(100);
        let add = |volume: &str, namespace, due| {
            let schedule = queue.register(&VolumeId::new(volume), namespace);
            schedule.set_end(Some(at(1000)));
            schedule.put(Work::Renew, at(due));
            schedule
        };
        let _hostile: Vec<_> = (0..400).map(|_| add("hostile", "hostile", 10)).collect();
        let _innocent = [add("innocent", "innocent", 90), add("shop", "shop", 95)];
        let order = drained(&queue).await;
        assert_eq!(order[..4], ["hostile", "innocent", "shop", "hostile"]);
        assert_eq!(order.len(), 402);
    }

    #[tokio::test]
    async fn of_one_namespace_the_certificate_that_ends_first_comes_first_but_not_across_namespaces() {
        let queue = queue(100);
        let ends =
            [("a1", "a", 500), ("b1", "b", 9000), ("a2", "a", 200), ("a3", "a", 300), ("b2", "b", 8000)];
        let _schedules = ends.map(|(volume, namespace, end)| {
            let schedule = queue.register(&VolumeId::new(volume), namespace);
            schedule.set_end(Some(at(end)));
            schedule.put(Work::Renew, at(50));
            schedule
        });
        // A volume without a certificate needs one at once.
        let empty = queue.register(&VolumeId::new("a4"), "a");
        empty.put(Work::Renew, at(60));
        assert_eq!(drained(&queue).await, ["a4", "b2", "a2", "b1", "a3", "a1"]);
    }

    #[tokio::test]
    async fn work_without_a_slot_waits_for_one_and_that_of_other_namespaces_passes_it() {
        let queue = queue(100);
        let schedules: Vec<_> = [("h1", "hostile"), ("h2", "hostile"), ("h3", "hostile"), ("i1", "innocent")]
            .map(|(volume, namespace)| queue.register(&VolumeId::new(volume), namespace))
            .into();
        (1..).zip(&schedules).for_each(|(second, schedule)| schedule.put(Work::Renew, at(second)));
        // At most three of the four for one namespace.
        let slots = RenewalSlots::new(4);
        let _held = slots.try_acquire("hostile").unwrap();
        let mut running = Vec::new();
        for expected in ["h1", "i1", "h2"] {
            let Next::Due(volume, _, slot) = queue.next(&slots).await else { panic!("none is due") };
            assert_eq!(volume, VolumeId::new(expected));
            running.push(slot);
        }
        let mut waiting = Box::pin(queue.next(&slots));
        assert!((&mut waiting).now_or_never().is_none());
        // That of the other namespace is of no use.
        drop(running.remove(1));
        assert!((&mut waiting).now_or_never().is_none());
        drop(running.pop());
        assert!(matches!(waiting.await, Next::Due(volume, ..) if volume == VolumeId::new("h3")));
    }

    #[tokio::test]
    async fn work_that_is_due_and_waits_for_others_can_be_put_off_and_cleared() {
        let queue = queue(100);
        let [a, b, c] = ["a", "b", "c"].map(|id| queue.register(&VolumeId::new(id), "shop"));
        a.put(Work::Renew, at(10));
        b.put(Work::Renew, at(20));
        c.put(Work::Renew, at(30));
        assert_eq!(next(&queue).await, due("a", Work::Renew));
        assert_eq!((b.due(Work::Renew), c.due(Work::Renew)), (Some(at(20)), Some(at(30))));
        assert_eq!(queue.lateness(), Duration::from_secs(80));
        b.put(Work::Renew, at(500));
        assert_eq!((b.due(Work::Renew), queue.lateness()), (Some(at(500)), Duration::from_secs(70)));
        drop(c);
        assert_eq!(queue.lateness(), Duration::ZERO);
        b.clear(Work::Renew);
        assert!(is_empty(&queue));
    }

    #[tokio::test]
    async fn work_comes_out_in_the_order_it_falls_due_and_each_kind_by_itself() {
        let queue = queue(25);
        let [a, b, c] = ["a", "b", "c"].map(|id| queue.register(&VolumeId::new(id), "shop"));
        b.put(Work::Renew, at(20));
        a.put(Work::Renew, at(30));
        a.put(Work::RefreshTrust, at(10));
        c.put(Work::Reap, at(15));
        for (volume, work) in [("a", Work::RefreshTrust), ("c", Work::Reap), ("b", Work::Renew)] {
            assert_eq!(next(&queue).await, due(volume, work));
        }
        assert_eq!(a.due(Work::Renew), Some(at(30)));
        assert_eq!(a.due(Work::RefreshTrust), None);
        assert_eq!(queue.lateness(), Duration::ZERO);
    }

    #[tokio::test]
    async fn a_kind_of_work_is_due_once_however_often_it_is_put() {
        let queue = queue(20);
        let a = queue.register(&VolumeId::new("a"), "shop");
        for second in [10, 5, 20] {
            a.put(Work::Renew, at(second));
        }
        assert_eq!(a.due(Work::Renew), Some(at(20)));
        assert_eq!(next(&queue).await, due("a", Work::Renew));
        a.put(Work::Renew, at(1));
        a.clear(Work::Renew);
        assert_eq!(a.due(Work::Renew), None);
        assert!(is_empty(&queue));
    }

    #[test]
    fn work_is_brought_forward_only_if_it_is_due_later() {
        let a = queue(100).register(&VolumeId::new("a"), "shop");
        a.bring_forward(Work::Renew, Duration::from_secs(5));
        assert_eq!(a.due(Work::Renew), None);
        a.put(Work::Renew, at(500));
        a.bring_forward(Work::Renew, Duration::from_secs(5));
        assert_eq!(a.due(Work::Renew), Some(at(105)));
        a.bring_forward(Work::Renew, Duration::from_secs(50));
        assert_eq!(a.due(Work::Renew), Some(at(105)));
    }

    #[tokio::test]
    async fn dropping_a_volumes_schedule_removes_its_work_and_no_other() {
        let queue = queue(20);
        let first = queue.register(&VolumeId::new("a"), "shop");
        first.put(Work::Renew, at(10));
        let second = queue.register(&VolumeId::new("a"), "shop");
        second.put(Work::Reap, at(12));
        drop(first);
        assert_eq!(next(&queue).await, due("a", Work::Reap));
        assert!(is_empty(&queue));
    }

    #[tokio::test(start_paused = true)]
    async fn only_work_before_all_other_wakes_the_waiter() {
        let queue = queue(0);
        let [a, b, c] = ["a", "b", "c"].map(|id| queue.register(&VolumeId::new(id), "shop"));
        a.put(Work::Renew, at(10));
        queue.earlier.notified().await;
        b.put(Work::Renew, at(11));
        let woken = tokio::time::timeout(Duration::from_secs(1), queue.earlier.notified()).await;
        assert!(woken.is_err(), "later work woke the waiter");
        c.put(Work::Renew, at(9));
        queue.earlier.notified().await;
    }
}
