//! The volumes this process knows, in memory.

use crate::attributes::{Attributes, PodTokens, VolumeId};
use crate::store::{Record, VolumeDir};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One volume as this process knows it. Changed by whoever holds the volume's lock; only the tokens change without.
pub(super) struct Volume {
    pub(super) attributes: Attributes,
    record: Mutex<Record>,
    tokens: Mutex<Arc<PodTokens>>,
}

impl Volume {
    pub(super) fn new(record: Record, attributes: Attributes, tokens: PodTokens) -> Arc<Self> {
        Arc::new(Self { attributes, record: Mutex::new(record), tokens: Mutex::new(Arc::new(tokens)) })
    }

    pub(super) fn record(&self) -> Record {
        lock(&self.record).clone()
    }

    /// Looks at the record without copying it.
    pub(super) fn look<T>(&self, look: impl FnOnce(&Record) -> T) -> T {
        look(&lock(&self.record))
    }

    pub(super) fn set_record(&self, record: Record) {
        *lock(&self.record) = record;
    }

    pub(super) fn tokens(&self) -> Arc<PodTokens> {
        lock(&self.tokens).clone()
    }

    /// A republish brings fresh tokens; one without any leaves the old ones. True: one of them lasts longer than before.
    pub(super) fn refresh_tokens(&self, tokens: PodTokens) -> bool {
        if tokens.is_empty() {
            return false;
        }
        let mut held = lock(&self.tokens);
        let lasts_longer = tokens.outlast(&held);
        *held = Arc::new(tokens);
        lasts_longer
    }
}

/// All volumes of the node.
#[derive(Default)]
pub(super) struct Volumes {
    known: Mutex<HashMap<VolumeId, Arc<Volume>>>,
    /// What the last process left with a record that cannot be used. It may be mounted, and is not renewed.
    unreadable: Mutex<HashSet<VolumeDir>>,
}

impl Volumes {
    pub(super) fn get(&self, id: &VolumeId) -> Option<Arc<Volume>> {
        lock(&self.known).get(id).cloned()
    }

    pub(super) fn insert(&self, id: VolumeId, volume: Arc<Volume>) {
        self.forget_unreadable(&id);
        lock(&self.known).insert(id, volume);
    }

    pub(super) fn remove(&self, id: &VolumeId) -> Option<Arc<Volume>> {
        self.forget_unreadable(id);
        lock(&self.known).remove(id)
    }

    /// Every volume, in no order.
    pub(super) fn all(&self) -> Vec<Arc<Volume>> {
        lock(&self.known).values().cloned().collect()
    }

    /// A volume of the last process cannot be taken up.
    pub(super) fn note_unreadable(&self, dir: VolumeDir) {
        lock(&self.unreadable).insert(dir);
    }

    /// How many of them have neither been published anew nor gone.
    pub(super) fn unreadable(&self) -> usize {
        lock(&self.unreadable).len()
    }

    fn forget_unreadable(&self, id: &VolumeId) {
        let mut unreadable = lock(&self.unreadable);
        if !unreadable.is_empty() {
            unreadable.remove(&VolumeDir::of(id));
        }
    }
}

/// Values behind these locks are replaced whole, so that one left by a panic is still whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
