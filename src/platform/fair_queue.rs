//! A queue that is fair by namespace: the namespaces that wait are served one after the other. So a namespace with many entries
//! delays those of another by no more than one entry of its own at a time.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

/// Entries by namespace. Within a namespace the lowest key comes first.
#[derive(Debug)]
pub(crate) struct FairQueue<K, V> {
    /// No namespace without entries.
    entries: HashMap<Arc<str>, BTreeMap<K, V>>,
    /// The namespaces that have entries. The first one is served next.
    rotation: VecDeque<Arc<str>>,
}

impl<K, V> Default for FairQueue<K, V> {
    fn default() -> Self {
        Self { entries: HashMap::new(), rotation: VecDeque::new() }
    }
}

impl<K: Ord, V> FairQueue<K, V> {
    /// Adds an entry. The caller makes keys unique within a namespace.
    pub(crate) fn insert(&mut self, namespace: &str, key: K, value: V) {
        if let Some(entries) = self.entries.get_mut(namespace) {
            entries.insert(key, value);
        } else {
            let namespace: Arc<str> = namespace.into();
            self.rotation.push_back(Arc::clone(&namespace));
            self.entries.insert(namespace, BTreeMap::from([(key, value)]));
        }
    }

    /// The next entry.
    pub(crate) fn first(&self) -> Option<(&K, &V)> {
        self.entries.get(self.rotation.front()?)?.first_key_value()
    }

    /// Removes the next entry. Its namespace is served again after all others that wait.
    pub(crate) fn pop_first(&mut self) -> Option<(K, V)> {
        self.pop_first_of(|_| true).map(|(_, key, value)| (key, value))
    }

    /// Removes the next entry of the namespaces that may be served now, and names its namespace.
    pub(crate) fn pop_first_of(
        &mut self,
        mut may_be_served: impl FnMut(&str) -> bool,
    ) -> Option<(Arc<str>, K, V)> {
        let position = self.rotation.iter().position(|namespace| may_be_served(namespace))?;
        let namespace = self.rotation.remove(position)?;
        let entries = self.entries.get_mut(&namespace)?;
        let first = entries.pop_first();
        if entries.is_empty() {
            self.entries.remove(&namespace);
        } else {
            self.rotation.push_back(Arc::clone(&namespace));
        }
        first.map(|(key, value)| (namespace, key, value))
    }

    /// Removes the first entry of the namespace that has most.
    pub(crate) fn pop_first_of_largest(&mut self) -> Option<(K, V)> {
        let largest = self.entries.iter().max_by_key(|(_, entries)| entries.len());
        let namespace = Arc::clone(largest?.0);
        let first = self.entries.get_mut(&namespace)?.pop_first();
        self.forget_if_empty(&namespace);
        first
    }

    /// Removes an entry, if it is still there.
    pub(crate) fn remove(&mut self, namespace: &str, key: &K) {
        let Some(entries) = self.entries.get_mut(namespace) else { return };
        entries.remove(key);
        self.forget_if_empty(namespace);
    }

    fn forget_if_empty(&mut self, namespace: &str) {
        if self.entries.get(namespace).is_some_and(BTreeMap::is_empty) {
            self.entries.remove(namespace);
            self.rotation.retain(|waiting| **waiting != *namespace);
        }
    }

    /// Whether it has this entry.
    pub(crate) fn contains(&self, namespace: &str, key: &K) -> bool {
        self.entries.get(namespace).is_some_and(|entries| entries.contains_key(key))
    }

    /// How many entries a namespace has.
    pub(crate) fn len_of(&self, namespace: &str) -> usize {
        self.entries.get(namespace).map_or(0, BTreeMap::len)
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.values().map(BTreeMap::len).sum()
    }

    /// The namespaces that have entries, with their numbers of entries, in no order.
    pub(crate) fn lengths(&self) -> impl Iterator<Item = (&Arc<str>, usize)> {
        self.entries.iter().map(|(namespace, entries)| (namespace, entries.len()))
    }

    /// All entries, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.values().flatten()
    }

    /// The keys of all entries, in no order.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &K> {
        self.entries.values().flat_map(BTreeMap::keys)
    }

    /// Whether it has no entries.
    pub(crate) fn is_empty(&self) -> bool {
        self.rotation.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drained(queue: &mut FairQueue<u32, &'static str>) -> Vec<&'static str> {
        let order = std::iter::from_fn(|| queue.pop_first()).map(|(_, value)| value).collect();
        assert!(queue.is_empty() && queue.entries.is_empty() && queue.first().is_none());
        order
    }

    #[test]
    fn namespaces_are_served_one_after_the_other_and_the_lowest_key_of_each_first() {
        let mut queue = FairQueue::default();
        for (namespace, key, value) in
            [("a", 3, "a3"), ("a", 1, "a1"), ("b", 7, "b7"), ("a", 2, "a2"), ("b", 0, "b0")]
        {
            queue.insert(namespace, key, value);
        }
        assert_eq!(queue.first(), Some((&1, &"a1")));
        assert_eq!(drained(&mut queue), ["a1", "b0", "a2", "b7", "a3"]);
    }

    #[test]
    fn a_namespace_that_comes_back_waits_for_all_others() {
        let mut queue = FairQueue::default();
        queue.insert("a", 0, "a0");
        queue.insert("b", 5, "b5");
        assert_eq!(queue.pop_first(), Some((0, "a0")));
        queue.insert("a", 0, "a0 again");
        assert_eq!(drained(&mut queue), ["b5", "a0 again"]);
    }

    #[test]
    fn the_namespace_that_has_most_gives_up_its_first_entry() {
        let mut queue = FairQueue::default();
        for (namespace, key, value) in [("a", 1, "a1"), ("b", 3, "b3"), ("b", 2, "b2"), ("c", 9, "c9")] {
            queue.insert(namespace, key, value);
        }
        assert_eq!(queue.pop_first_of_largest(), Some((2, "b2")));
        assert_eq!((0..3).filter_map(|_| queue.pop_first_of_largest()).count(), 3);
        assert_eq!(queue.pop_first_of_largest(), None);
        assert_eq!(drained(&mut queue), [""; 0]);
    }

    #[test]
    fn a_removed_entry_is_gone_and_so_is_a_namespace_without_entries() {
        let mut queue = FairQueue::default();
        for (namespace, key, value) in [("a", 1, "a1"), ("b", 2, "b2"), ("b", 3, "b3")] {
            queue.insert(namespace, key, value);
        }
        queue.remove("a", &1);
        queue.remove("b", &2);
        queue.remove("c", &1);
        assert!(queue.contains("b", &3) && !queue.contains("b", &2) && !queue.contains("a", &1));
        assert_eq!(queue.keys().collect::<Vec<_>>(), [&3]);
        assert_eq!(drained(&mut queue), ["b3"]);
    }
}
