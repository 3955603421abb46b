//! A map with a limit on its entries, for caches whose keys come from pods.

use std::collections::HashMap;
use std::hash::Hash;

/// At most so many entries. One more removes the one that was used least recently.
#[derive(Debug)]
pub(crate) struct BoundedMap<K, V> {
    max_entries: usize,
    entries: HashMap<K, Entry<V>>,
    /// The number of uses so far.
    uses: u64,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    /// The number of the last use.
    last_use: u64,
}

impl<K: Eq + Hash + Clone, V> BoundedMap<K, V> {
    /// An empty map.
    pub(crate) fn new(max_entries: usize) -> Self {
        Self { max_entries, entries: HashMap::new(), uses: 0 }
    }

    /// The value of a key. Counts as a use.
    pub(crate) fn get(&mut self, key: &K) -> Option<&mut V> {
        self.uses += 1;
        let entry = self.entries.get_mut(key)?;
        entry.last_use = self.uses;
        Some(&mut entry.value)
    }

    /// The value of a key, which is added if it is missing. Counts as a use.
    pub(crate) fn get_or_insert_with(&mut self, key: K, new: impl FnOnce() -> V) -> &mut V {
        if !self.entries.contains_key(&key) {
            self.make_space();
        }
        self.uses += 1;
        let last_use = self.uses;
        let entry = self.entries.entry(key).or_insert_with(|| Entry { value: new(), last_use });
        entry.last_use = last_use;
        &mut entry.value
    }

    /// Sets the value of a key. Counts as a use.
    pub(crate) fn insert(&mut self, key: K, value: V) {
        self.entries.remove(&key);
        self.get_or_insert_with(key, || value);
    }

    /// Removes an entry.
    pub(crate) fn remove(&mut self, key: &K) {
        self.entries.remove(key);
    }

    /// Keeps the entries that fulfil a condition.
    pub(crate) fn retain(&mut self, mut is_kept: impl FnMut(&K, &mut V) -> bool) {
        self.entries.retain(|key, entry| is_kept(key, &mut entry.value));
    }

    /// The keys, in no order.
    #[cfg(test)]
    pub(crate) fn keys(&self) -> impl ExactSizeIterator<Item = &K> {
        self.entries.keys()
    }

    /// Removes the entries that were used least recently, until there is space for one more. The search takes time only in a map
    /// that is full.
    fn make_space(&mut self) {
        while self.entries.len() >= self.max_entries.max(1) {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.last_use);
            let Some(oldest) = oldest.map(|(key, _)| key.clone()) else { return };
            self.entries.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(map: &BoundedMap<u32, &'static str>) -> Vec<u32> {
        let mut keys: Vec<u32> = map.keys().copied().collect();
        keys.sort_unstable();
        keys
    }

    #[test]
    fn the_entry_that_was_used_least_recently_is_removed_for_a_new_one() {
        let mut map = BoundedMap::new(3);
        for key in [1, 2, 3] {
            map.insert(key, "old");
        }
        assert_eq!(map.get(&1).copied(), Some("old"));
        assert_eq!(*map.get_or_insert_with(2, || "new"), "old");
        assert_eq!(*map.get_or_insert_with(4, || "new"), "new");
        assert_eq!(sorted(&map), [1, 2, 4]);
        map.insert(1, "new");
        assert_eq!(sorted(&map), [1, 2, 4], "a known key needs no space");
        assert_eq!(map.get(&1).copied(), Some("new"));
        for key in 100..200 {
            map.insert(key, "new");
        }
        assert_eq!(sorted(&map), [197, 198, 199]);
    }

    #[test]
    fn entries_can_be_removed() {
        let mut map = BoundedMap::new(3);
        for key in [1, 2, 3] {
            map.insert(key, "old");
        }
        map.remove(&1);
        map.retain(|key, _| *key == 3);
        assert_eq!(sorted(&map), [3]);
    }
}
