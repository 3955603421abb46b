//! One lock per volume: who works on it now, and how unpublish makes the others stop.

use crate::attributes::VolumeId;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::sync::CancellationToken;

/// What is being done to a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A publish.
    Publish,
    /// A renewal.
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

/// The locks of all volumes.
#[derive(Clone, Default)]
pub(super) struct Locks {
    held: Arc<Mutex<HashMap<VolumeId, Held>>>,
}

struct Held {
    operation: Operation,
    cancel: CancellationToken,
    released: CancellationToken,
}

/// The lock on one volume, given back when dropped.
pub(super) struct Guard {
    locks: Locks,
    volume: VolumeId,
    cancel: CancellationToken,
}

impl Guard {
    /// Cancelled when an unpublish wants the volume, or the call behind it has gone away.
    pub(super) fn cancel(&self) -> &CancellationToken {
        &self.cancel
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(held) = self.locks.lock().remove(&self.volume) {
            held.released.cancel();
        }
    }
}

impl Locks {
    /// Takes the lock, or says who has it.
    pub(super) fn try_acquire(&self, volume: &VolumeId, operation: Operation) -> Result<Guard, Operation> {
        match self.lock().entry(volume.clone()) {
            Entry::Occupied(held) => Err(held.get().operation),
            Entry::Vacant(free) => {
                let cancel = CancellationToken::new();
                free.insert(Held { operation, cancel: cancel.clone(), released: CancellationToken::new() });
                Ok(Guard { locks: self.clone(), volume: volume.clone(), cancel })
            }
        }
    }

    /// Takes the lock for an unpublish: whatever else holds it is told to stop and waited for.
    pub(super) async fn acquire_for_unpublish(&self, volume: &VolumeId) -> Result<Guard, Operation> {
        loop {
            let released = match self.try_acquire(volume, Operation::Unpublish) {
                Ok(guard) => return Ok(guard),
                Err(Operation::Unpublish) => return Err(Operation::Unpublish),
                Err(_) => match self.lock().get(volume) {
                    Some(held) => {
                        held.cancel.cancel();
                        held.released.clone()
                    }
                    None => continue,
                },
            };
            released.cancelled().await;
        }
    }

    /// Tells everything in flight to stop, for the end of the process.
    pub(super) fn cancel_all(&self) {
        for held in self.lock().values() {
            held.cancel.cancel();
        }
    }

    /// How many volumes are being worked on.
    pub(super) fn in_flight(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<VolumeId, Held>> {
        // Nothing panics while the map is locked, and a map of locks is whole after every single call anyway.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_operation_is_told_who_has_the_volume() {
        let locks = Locks::default();
        let volume = VolumeId::new("csi-1");
        let guard = locks.try_acquire(&volume, Operation::Publish).unwrap();
        assert_eq!(locks.try_acquire(&volume, Operation::Renewal).err(), Some(Operation::Publish));
        assert!(locks.try_acquire(&VolumeId::new("csi-2"), Operation::Renewal).is_ok());
        drop(guard);
        assert!(locks.try_acquire(&volume, Operation::Renewal).is_ok());
    }

    #[tokio::test]
    async fn an_unpublish_cancels_what_is_in_flight_and_waits_for_it() {
        let locks = Locks::default();
        let volume = VolumeId::new("csi-1");
        let publish = locks.try_acquire(&volume, Operation::Publish).unwrap();
        let worker = tokio::spawn(async move {
            publish.cancel().cancelled().await;
            drop(publish);
        });
        let guard = locks.acquire_for_unpublish(&volume).await.unwrap();
        worker.await.unwrap();
        assert_eq!(locks.acquire_for_unpublish(&volume).await.err(), Some(Operation::Unpublish));
        drop(guard);
        assert_eq!(locks.in_flight(), 0);
    }
}
