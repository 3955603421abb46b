//! The one owner of what this process knows of the node's volumes. Removing a volume is dropping one value.

use super::event_history::EventHistory;
use super::volume::Volume;
use crate::model::{SignerKind, VolumeId};
use crate::signer::{LiveRequests, Liveness, RequestId};
use crate::store::VolumeDir;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long a slot outlives its volume. A request that was in flight when its volume was removed can appear this late, and a
/// publish that fails repeatedly has its Event recorded only once in this time.
const KEPT_AFTER_REMOVAL: Duration = Duration::from_mins(15);

/// An operation on a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    /// A publish.
    Publish,
    /// Work that fell due, such as a renewal.
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
    /// Volumes of an earlier process whose records cannot be used. They may be mounted, and are not renewed.
    unreadable: Mutex<HashSet<VolumeDir>>,
}

/// The state of one volume id. It outlives its volume for a while.
#[derive(Default)]
struct Slot {
    held: Option<Held>,
    volume: Option<Arc<Volume>>,
    was_removed: bool,
    events: Arc<EventHistory>,
    /// When the last operation ended.
    idle_since: Option<Instant>,
}

/// The operation that holds the lock on a volume.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) operation: Operation,
    /// Cancels the operation.
    cancel: CancellationToken,
    /// Cancelled when the operation has ended.
    released: CancellationToken,
}

impl Held {
    /// Returns when the operation has ended.
    pub(super) async fn released(&self) {
        self.released.cancelled().await;
    }
}

impl Slot {
    /// Whether the slot can be dropped.
    fn is_over(&self, now: Instant) -> bool {
        let is_recent = self.idle_since.is_some_and(|at| now.duration_since(at) < KEPT_AFTER_REMOVAL);
        self.held.is_none() && self.volume.is_none() && !is_recent
    }
}

/// The lock on one volume, released when dropped.
pub(super) struct Guard {
    registry: Arc<Registry>,
    volume: VolumeId,
    held: Held,
}

impl Guard {
    /// Cancelled when an unpublish wants the volume, or when the caller of the operation has gone away.
    pub(super) fn cancel(&self) -> &CancellationToken {
        &self.held.cancel
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(slot) = self.registry.slots.lock().get_mut(&self.volume) {
            slot.held = None;
            slot.idle_since = Some(Instant::now());
        }
        self.held.released.cancel();
    }
}

impl Registry {
    /// Locks a volume for an operation, or returns the operation that holds it.
    pub(super) fn try_acquire(
        self: &Arc<Self>,
        volume: &VolumeId,
        operation: Operation,
    ) -> Result<Guard, Held> {
        let mut slots = self.slots.lock();
        if !slots.contains_key(volume) {
            // Done for each new volume, so that slots do not accumulate.
            let now = Instant::now();
            slots.retain(|_, slot| !slot.is_over(now));
        }
        let slot = slots.entry(volume.clone()).or_default();
        if let Some(held) = &slot.held {
            return Err(held.clone());
        }
        let held = Held { operation, cancel: CancellationToken::new(), released: CancellationToken::new() };
        slot.held = Some(held.clone());
        Ok(Guard { registry: Arc::clone(self), volume: volume.clone(), held })
    }

    /// Locks a volume for an unpublish: cancels any other operation and waits for its end.
    pub(super) async fn acquire_for_unpublish(self: &Arc<Self>, volume: &VolumeId) -> Result<Guard, Held> {
        loop {
            match self.try_acquire(volume, Operation::Unpublish) {
                Err(held) if held.operation != Operation::Unpublish => {
                    held.cancel.cancel();
                    held.released().await;
                }
                acquired => return acquired,
            }
        }
    }

    /// Cancels every operation, for the end of the process.
    pub(super) fn cancel_all(&self) {
        for held in self.slots.lock().values().filter_map(|slot| slot.held.as_ref()) {
            held.cancel.cancel();
        }
    }

    /// The number of operations in flight.
    pub(super) fn in_flight(&self) -> usize {
        self.slots.lock().values().filter(|slot| slot.held.is_some()).count()
    }

    /// The volume of that id.
    pub(super) fn get(&self, id: &VolumeId) -> Option<Arc<Volume>> {
        self.slots.lock().get(id)?.volume.clone()
    }

    /// Adds a volume.
    pub(super) fn insert(&self, volume: Arc<Volume>) {
        self.forget_unreadable(&volume.id);
        let mut slots = self.slots.lock();
        let slot = slots.entry(volume.id.clone()).or_default();
        slot.was_removed = false;
        slot.volume = Some(volume);
    }

    /// Removes a volume, and returns it. Its Event history is kept for a while.
    pub(super) fn remove(&self, id: &VolumeId) -> Option<Arc<Volume>> {
        self.forget_unreadable(id);
        let mut slots = self.slots.lock();
        let slot = slots.get_mut(id)?;
        let volume = slot.volume.take()?;
        slot.was_removed = true;
        slot.idle_since = Some(Instant::now());
        Some(volume)
    }

    /// The Event history of the volume.
    pub(super) fn events(&self, id: &VolumeId) -> Arc<EventHistory> {
        Arc::clone(&self.slots.lock().entry(id.clone()).or_default().events)
    }

    /// Clears the Event history of the volume, because its pod is gone.
    pub(super) fn forget_events(&self, id: &VolumeId) {
        if let Some(slot) = self.slots.lock().get_mut(id) {
            slot.events = Arc::default();
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

    /// How many such volumes have neither been published again nor removed.
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
    fn liveness(&self, signer: SignerKind, id: &RequestId, namespace: &str) -> Liveness {
        let slots = self.slots.lock();
        let Some(slot) = slots.get(&VolumeId::new(id.as_str())) else { return Liveness::Unknown };
        if slot.is_over(Instant::now()) {
            return Liveness::Unknown;
        }
        if let Some(volume) = slot.volume.clone() {
            drop(slots);
            let is_its = volume.with_record(|record| record.pod.namespace == namespace);
            return match (is_its, volume.uses(signer)) {
                (false, _) => Liveness::Unknown,
                (true, true) => Liveness::Present,
                (true, false) => Liveness::Removed,
            };
        }
        // The unpublish that removes the volume can still hold the lock. A publish brings the volume back.
        let is_published = slot.held.as_ref().is_some_and(|held| held.operation == Operation::Publish);
        if slot.was_removed && !is_published { Liveness::Removed } else { Liveness::Present }
    }
}

#[cfg(test)]
mod tests;
