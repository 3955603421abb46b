//! The shares of the namespaces in the store: who may write how much, and what is reserved for whom.
//!
//! | write | what the store must have left afterwards |
//! |---|---|
//! | the first files of a volume, or files that make a volume larger | the reserve, a tenth of the store |
//! | a renewal that makes its volume no larger | half of the reserve |
//! | any renewal of a namespace within its equal share | the space for records |
//! | a record | nothing |
//!
//! The equal share is the store divided by the number of namespaces that have volumes on the node. Beside that, no namespace
//! grows beyond a fixed part of the store.
//!
//! An old generation that a pod keeps open takes space until the pod closes it. Where more of the store is in use than the
//! volumes account for, each removal of a generation is examined, and what it does not free counts for its namespace.

use super::NewFile;
use super::error::StoreError;
use super::size::{Capacity, Size};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

/// What the store reserves at least, whatever its size: during a renewal a volume has two generations.
const MIN_RESERVE: Size = Size { bytes: 64 << 10, inodes: 24 };
/// Removals are examined if more than so many percent of the store are in use that no volume accounts for.
const UNACCOUNTED_PERCENT: u64 = 2;
/// What is reserved at least for the records of failed renewals, besides a page for each volume and a copy of the largest one.
const MIN_FOR_RECORDS: Size = Size { bytes: 16 << 10, inodes: 4 };

/// What an operator limits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ShareLimits {
    /// Bytes of the files of one volume (`--max-volume-size`).
    pub(crate) volume_bytes: u64,
    /// Percent of the store that one namespace may use (`--max-store-share-per-namespace`).
    pub(crate) namespace_percent: u8,
}

/// What all volumes use, by namespace.
#[derive(Debug)]
pub(crate) struct Shares {
    limits: ShareLimits,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    namespaces: HashMap<Arc<str>, Use>,
    volumes: u64,
    /// Promised to writes that are under way.
    promised: Size,
    /// Bytes of the largest record so far. A record is replaced by a copy, which needs as much again for a moment.
    largest_record: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Use {
    volumes: u64,
    size: Size,
    /// What its pods keep open of old generations.
    retained: Size,
}

/// A write that asks for space.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Want {
    /// Whether the volume has a certificate already.
    pub(crate) is_renewal: bool,
    /// What the volume will use when the write is done.
    pub(crate) after: Size,
    /// What the write takes at most besides what the volume uses now.
    pub(crate) extra: Size,
    /// Bytes of the volume's record.
    pub(crate) record: u64,
}

/// What one volume uses. It gives everything back when dropped.
#[derive(Debug)]
pub(crate) struct Account {
    shares: Arc<Shares>,
    namespace: Arc<str>,
    entry: Mutex<Entry>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    /// Used now.
    held: Size,
    /// Counted for the namespace: what is used now or, if that is more, what the write under way will leave.
    counted: Size,
    /// Promised to the write under way.
    promised: Size,
}

/// Space for one write. It is given back when dropped; what was written is counted by [`Account::settle`].
#[derive(Debug)]
pub(crate) struct Promise<'a> {
    account: &'a Account,
    /// Whether the removal of the old generation must be examined.
    pub(crate) examine: bool,
}

impl Shares {
    /// No volumes yet.
    pub(crate) fn new(limits: ShareLimits) -> Arc<Self> {
        Arc::new(Self { limits, state: Mutex::default() })
    }

    /// The account of a volume of this namespace, with nothing in it.
    pub(crate) fn open(self: &Arc<Self>, namespace: &str) -> Account {
        let mut state = self.state.lock();
        state.volumes += 1;
        let known = state.namespaces.get_key_value(namespace).map(|(known, _)| Arc::clone(known));
        let namespace = known.unwrap_or_else(|| namespace.into());
        state.namespaces.entry(Arc::clone(&namespace)).or_default().volumes += 1;
        Account { shares: Arc::clone(self), namespace, entry: Mutex::default() }
    }
}

impl State {
    /// What is in use that no volume accounts for. What the namespaces are known to retain is no more than this: the rest was
    /// closed meanwhile.
    fn unaccounted(&mut self, store: &Capacity) -> Size {
        let sum = |of: fn(&Use) -> Size| self.namespaces.values().map(of).fold(Size::default(), Size::plus);
        let (accounted, retained) = (sum(|used| used.size), sum(|used| used.retained));
        let unaccounted = store.total.minus(store.free).minus(store.crls).minus(accounted);
        if retained.exceeds(unaccounted).is_some() {
            for used in self.namespaces.values_mut() {
                used.retained = used.retained.in_proportion(unaccounted, retained);
            }
        }
        unaccounted
    }
}

impl Account {
    /// An error if the files of one generation are larger than a volume may be.
    pub(crate) fn check_size(&self, files: &[NewFile]) -> Result<(), StoreError> {
        let (bytes, limit) =
            (files.iter().map(|file| file.contents.len() as u64).sum(), self.shares.limits.volume_bytes);
        if bytes > limit { Err(StoreError::VolumeTooLarge { bytes, limit }) } else { Ok(()) }
    }

    /// Promises space for a write, or says what is in the way. It takes the place of an earlier promise to the same volume.
    pub(crate) fn promise(&self, store: &Capacity, want: &Want) -> Result<Promise<'_>, StoreError> {
        self.release();
        let mut entry = self.entry.lock();
        let mut state = self.shares.state.lock();
        let unaccounted = state.unaccounted(store);
        let counted = entry.held.max(want.after);
        let Use { size, retained, .. } = state.namespaces.get(&self.namespace).copied().unwrap_or_default();
        let size = size.minus(entry.counted).plus(counted);
        let used = size.plus(retained);
        let grows = !want.is_renewal || counted != entry.held || retained != Size::default();
        let limit = store.total.percent(self.shares.limits.namespace_percent.into());
        if grows && let Some(resource) = used.exceeds(limit) {
            let (used, limit) = (used.of(resource), limit.of(resource));
            let percent = self.shares.limits.namespace_percent;
            let namespace = self.namespace.to_string();
            return Err(StoreError::NamespaceShare { namespace, resource, used, limit, percent });
        }
        let reserve = store.total.percent(10).max(MIN_RESERVE);
        let equal_share = store.total.divided_by(state.namespaces.len() as u64);
        let left = if want.is_renewal && used.exceeds(equal_share).is_none() {
            store.total.percent(1).max(MIN_FOR_RECORDS)
        } else if grows {
            reserve
        } else {
            reserve.divided_by(2)
        };
        state.largest_record = state.largest_record.max(want.record);
        let record_growth = state.volumes.saturating_mul(store.page);
        let for_records = Size { bytes: record_growth.saturating_add(state.largest_record), inodes: 0 };
        let needed = left.plus(for_records).plus(state.promised).plus(want.extra);
        if let Some(resource) = needed.exceeds(store.free) {
            return Err(if want.is_renewal {
                StoreError::Crowded { namespace: self.namespace.to_string(), resource }
            } else {
                StoreError::Reserved { resource }
            });
        }
        state.promised = state.promised.plus(want.extra);
        if let Some(of_namespace) = state.namespaces.get_mut(&self.namespace) {
            of_namespace.size = size;
        }
        (entry.counted, entry.promised) = (counted, want.extra);
        let examine = unaccounted.exceeds(store.total.percent(UNACCOUNTED_PERCENT)).is_some();
        Ok(Promise { account: self, examine })
    }

    /// What the volume uses now.
    pub(crate) fn held(&self) -> Size {
        self.entry.lock().held
    }

    /// Counts what the volume uses from now on.
    pub(crate) fn settle(&self, held: Size) {
        self.entry.lock().held = held;
        self.release();
    }

    /// Counts what a pod keeps open of an old generation. See [`State::unaccounted`] for its end.
    pub(crate) fn retain(&self, size: Size) {
        let mut state = self.shares.state.lock();
        if let Some(of_namespace) = state.namespaces.get_mut(&self.namespace) {
            of_namespace.retained = of_namespace.retained.plus(size);
        }
    }

    /// Gives back what was promised, and counts what the volume uses.
    fn release(&self) {
        let mut entry = self.entry.lock();
        let mut state = self.shares.state.lock();
        state.promised = state.promised.minus(entry.promised);
        if let Some(of_namespace) = state.namespaces.get_mut(&self.namespace) {
            of_namespace.size = of_namespace.size.minus(entry.counted).plus(entry.held);
        }
        *entry = Entry { counted: entry.held, promised: Size::default(), ..*entry };
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.settle(Size::default());
        let mut state = self.shares.state.lock();
        state.volumes = state.volumes.saturating_sub(1);
        if let Some(of_namespace) = state.namespaces.get_mut(&self.namespace) {
            of_namespace.volumes = of_namespace.volumes.saturating_sub(1);
            if of_namespace.volumes == 0 {
                state.namespaces.remove(&self.namespace);
            }
        }
    }
}

impl Drop for Promise<'_> {
    fn drop(&mut self) {
        self.account.release();
    }
}

#[cfg(test)]
mod tests;
