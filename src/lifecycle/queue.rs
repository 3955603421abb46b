//! The one time-ordered queue of everything that has to happen later, for all volumes of the node.

use crate::attributes::VolumeId;
use jiff::Timestamp;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// What is due when: at most one point in time per volume.
#[derive(Default)]
pub(super) struct Queue {
    due: Mutex<Due>,
    earlier: Notify,
}

#[derive(Default)]
struct Due {
    by_time: BTreeSet<(Timestamp, VolumeId)>,
    by_volume: HashMap<VolumeId, Timestamp>,
}

impl Queue {
    /// Sets the one point at which `volume` is due; an earlier setting is forgotten.
    pub(super) fn put(&self, volume: &VolumeId, at: Timestamp) {
        let mut due = self.lock();
        due.forget(volume);
        let is_first = due.by_time.first().is_none_or(|(first, _)| at < *first);
        due.by_time.insert((at, volume.clone()));
        due.by_volume.insert(volume.clone(), at);
        drop(due);
        // A later entry wakes nobody: the waiter's own deadline still comes first.
        if is_first {
            self.earlier.notify_one();
        }
    }

    /// Forgets a volume.
    pub(super) fn remove(&self, volume: &VolumeId) {
        self.lock().forget(volume);
    }

    /// Takes out the volume that has been due longest, if one is due at `now`.
    pub(super) fn take_due(&self, now: Timestamp) -> Option<VolumeId> {
        let mut due = self.lock();
        if due.by_time.first()?.0 > now {
            return None;
        }
        let (_, volume) = due.by_time.pop_first()?;
        due.by_volume.remove(&volume);
        Some(volume)
    }

    /// The next point at which something is due.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.lock().by_time.first().map(|(at, _)| *at)
    }

    /// When a volume is due.
    pub(super) fn due(&self, volume: &VolumeId) -> Option<Timestamp> {
        self.lock().by_volume.get(volume).copied()
    }

    /// Returns when something was put before everything else.
    pub(super) async fn earlier(&self) {
        self.earlier.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Due> {
        // Both maps are changed by infallible calls only: a panic elsewhere cannot leave them apart.
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Due {
    fn forget(&mut self, volume: &VolumeId) {
        if let Some((volume, at)) = self.by_volume.remove_entry(volume) {
            self.by_time.remove(&(at, volume));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn volumes_come_out_in_the_order_they_fall_due() {
        let queue = Queue::default();
        for (id, second) in [("b", 20), ("a", 10), ("c", 30)] {
            queue.put(&VolumeId::new(id), at(second));
        }
        assert_eq!(queue.next(), Some(at(10)));
        assert_eq!(queue.take_due(at(9)), None);
        assert_eq!(queue.take_due(at(25)), Some(VolumeId::new("a")));
        assert_eq!(queue.take_due(at(25)), Some(VolumeId::new("b")));
        assert_eq!(queue.take_due(at(25)), None);
    }

    #[test]
    fn a_volume_is_due_once_however_often_it_is_put() {
        let queue = Queue::default();
        let volume = VolumeId::new("a");
        queue.put(&volume, at(10));
        queue.put(&volume, at(5));
        queue.put(&volume, at(20));
        assert_eq!(queue.due(&volume), Some(at(20)));
        assert_eq!(queue.take_due(at(19)), None);
        assert_eq!(queue.take_due(at(20)), Some(volume.clone()));
        queue.put(&volume, at(1));
        queue.remove(&volume);
        assert_eq!(queue.next(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn only_an_entry_before_all_others_wakes_the_waiter() {
        let queue = Queue::default();
        queue.put(&VolumeId::new("a"), at(10));
        queue.earlier().await;
        queue.put(&VolumeId::new("b"), at(11));
        let woken = tokio::time::timeout(std::time::Duration::from_secs(1), queue.earlier()).await;
        assert!(woken.is_err(), "a later entry woke the waiter");
        queue.put(&VolumeId::new("c"), at(9));
        queue.earlier().await;
    }
}
