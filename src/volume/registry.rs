//! All that this process knows of the node's volumes, in one place: removing a volume is dropping one value.

use super::volume::Volume;
use crate::kube::EventHistory;
use crate::model::VolumeId;
use crate::signer::{LiveRequests, RequestId};
use crate::store::VolumeDir;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long a slot outlives its volume. A request that was on its way when its volume was removed can take so long to turn
/// up, and a publish that fails again and again tells its pod's author so only once in that time.
const KEPT_AFTER_REMOVAL: Duration = Duration::from_mins(15);

/// What is being done to a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    /// A publish.
    Publish,
    /// Work that fell due: a renewal, say.
    Renewal,
    /// An unpublish.
    Unpublish,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Publish => "a publish",
            Self::Renewal => "a renewal",
            Self::Unpublish => "an unpublish",
        })
    }
}

/// The volumes of the node. One operation at a time works on a volume.
#[derive(Default)]
pub(crate) struct Registry {
    slots: Mutex<HashMap<VolumeId, Slot>>,
    /// What an earlier process left with a record that cannot be used. It can be mounted, and is not renewed.
    unreadable: Mutex<HashSet<VolumeDir>>,
}

/// One volume, or what is remembered of one.
#[derive(Default)]
struct Slot {
    held: Option<Held>,
    volume: Option<Arc<Volume>>,
    told: Arc<EventHistory>,
    removed_at: Option<Instant>,
}

struct Held {
    operation: Operation,
    cancel: CancellationToken,
    released: CancellationToken,
}

impl Slot {
    /// Whether nothing of it is worth keeping.
    fn is_over(&self, now: Instant) -> bool {
        self.held.is_none()
            && self.volume.is_none()
            && self.removed_at.is_none_or(|at| now.duration_since(at) >= KEPT_AFTER_REMOVAL)
    }
}

/// The lock on one volume, given back when dropped.
pub(super) struct Guard {
    registry: Arc<Registry>,
    volume: VolumeId,
    cancel: CancellationToken,
}

impl Guard {
    /// Cancelled when an unpublish wants the volume, or the call behind the operation has gone away.
    pub(super) fn cancel(&self) -> &CancellationToken {
        &self.cancel
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let held = self.registry.slots.lock().get_mut(&self.volume).and_then(|slot| slot.held.take());
        if let Some(held) = held {
            held.released.cancel();
        }
    }
}

impl Registry {
    /// Locks a volume for an operation, or says which operation has it.
    pub(super) fn try_acquire(
        self: &Arc<Self>,
        volume: &VolumeId,
        operation: Operation,
    ) -> Result<Guard, Operation> {
        let mut slots = self.slots.lock();
        let slot = slots.entry(volume.clone()).or_default();
        if let Some(held) = &slot.held {
            return Err(held.operation);
        }
        let cancel = CancellationToken::new();
        slot.held = Some(Held { operation, cancel: cancel.clone(), released: CancellationToken::new() });
        Ok(Guard { registry: Arc::clone(self), volume: volume.clone(), cancel })
    }

    /// Locks a volume for an unpublish: cancels any other operation and waits for its end.
    pub(super) async fn acquire_for_unpublish(
        self: &Arc<Self>,
        volume: &VolumeId,
    ) -> Result<Guard, Operation> {
        loop {
            match self.try_acquire(volume, Operation::Unpublish) {
                Err(Operation::Unpublish) => return Err(Operation::Unpublish),
                Err(_) => {}
                Ok(guard) => return Ok(guard),
            }
            let released = self.slots.lock().get(volume).and_then(|slot| slot.held.as_ref()).map(|held| {
                held.cancel.cancel();
                held.released.clone()
            });
            if let Some(released) = released {
                released.cancelled().await;
            }
        }
    }

    /// Cancels every operation, for the end of the process.
    pub(super) fn cancel_all(&self) {
        for held in self.slots.lock().values().filter_map(|slot| slot.held.as_ref()) {
            held.cancel.cancel();
        }
    }

    /// How many volumes are being worked on.
    pub(super) fn in_flight(&self) -> usize {
        self.slots.lock().values().filter(|slot| slot.held.is_some()).count()
    }

    /// The volume of that id.
    pub(super) fn get(&self, id: &VolumeId) -> Option<Arc<Volume>> {
        self.slots.lock().get(id)?.volume.clone()
    }

    /// Keeps a volume.
    pub(super) fn insert(&self, volume: Arc<Volume>) {
        self.forget_unreadable(&volume.id);
        let mut slots = self.slots.lock();
        let slot = slots.entry(volume.id.clone()).or_default();
        slot.removed_at = None;
        slot.volume = Some(volume);
    }

    /// Removes a volume, and returns what was known of it. What its pod was told is kept for a while.
    pub(super) fn remove(&self, id: &VolumeId) -> Option<Arc<Volume>> {
        self.forget_unreadable(id);
        let now = Instant::now();
        let mut slots = self.slots.lock();
        slots.retain(|other, slot| other == id || !slot.is_over(now));
        let slot = slots.entry(id.clone()).or_default();
        slot.removed_at = Some(now);
        slot.volume.take()
    }

    /// What the volume's pod was told.
    pub(super) fn told(&self, id: &VolumeId) -> Arc<EventHistory> {
        Arc::clone(&self.slots.lock().entry(id.clone()).or_default().told)
    }

    /// Forgets what the volume's pod was told: the pod is gone.
    pub(super) fn forget_told(&self, id: &VolumeId) {
        if let Some(slot) = self.slots.lock().get_mut(id) {
            slot.told = Arc::default();
        }
    }

    /// Every volume, in no order.
    pub(super) fn all(&self) -> Vec<Arc<Volume>> {
        self.slots.lock().values().filter_map(|slot| slot.volume.clone()).collect()
    }

    /// Counts a volume of an earlier process whose record cannot be used.
    pub(super) fn count_unreadable(&self, dir: VolumeDir) {
        self.unreadable.lock().insert(dir);
    }

    /// How many of them have neither been published anew nor removed.
    pub(super) fn unreadable(&self) -> usize {
        self.unreadable.lock().len()
    }

    fn forget_unreadable(&self, id: &VolumeId) {
        let mut unreadable = self.unreadable.lock();
        if !unreadable.is_empty() {
            unreadable.remove(&VolumeDir::of(id));
        }
    }
}

impl LiveRequests for Registry {
    fn was_removed(&self, id: &RequestId) -> bool {
        let slots = self.slots.lock();
        let slot = slots.get(&VolumeId::new(id.as_str()));
        slot.is_some_and(|slot| {
            let recently = slot.removed_at.is_some_and(|at| at.elapsed() < KEPT_AFTER_REMOVAL);
            recently && slot.volume.is_none() && slot.held.is_none()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(id: &str) -> VolumeId {
        VolumeId::new(id)
    }

    #[test]
    fn a_second_operation_is_told_which_one_has_the_volume() {
        let registry = Arc::new(Registry::default());
        let guard = registry.try_acquire(&id("a"), Operation::Publish).unwrap();
        assert_eq!(registry.try_acquire(&id("a"), Operation::Renewal).err(), Some(Operation::Publish));
        assert!(registry.try_acquire(&id("b"), Operation::Renewal).is_ok());
        drop(guard);
        assert!(registry.try_acquire(&id("a"), Operation::Renewal).is_ok());
    }

    #[tokio::test]
    async fn an_unpublish_cancels_what_is_in_flight_and_waits_for_it() {
        let registry = Arc::new(Registry::default());
        let publish = registry.try_acquire(&id("a"), Operation::Publish).unwrap();
        let worker = tokio::spawn(async move {
            publish.cancel().cancelled().await;
            drop(publish);
        });
        let guard = registry.acquire_for_unpublish(&id("a")).await.unwrap();
        worker.await.unwrap();
        assert_eq!(registry.acquire_for_unpublish(&id("a")).await.err(), Some(Operation::Unpublish));
        drop(guard);
        assert_eq!(registry.in_flight(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_removed_volume_is_remembered_for_a_while_and_not_while_it_is_published_again() {
        let registry = Arc::new(Registry::default());
        let request = RequestId::new("a");
        assert!(!registry.was_removed(&request), "an id of another driver is not ours");
        registry.remove(&id("a"));
        assert!(registry.was_removed(&request));
        let publish = registry.try_acquire(&id("a"), Operation::Publish).unwrap();
        assert!(!registry.was_removed(&request));
        drop(publish);
        assert!(registry.was_removed(&request));
        tokio::time::advance(KEPT_AFTER_REMOVAL).await;
        assert!(!registry.was_removed(&request));
        registry.remove(&id("b"));
        assert_eq!(registry.slots.lock().len(), 1, "the slot of `a` is over");
    }
}
