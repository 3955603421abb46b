//! Counts by key.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

/// How many of each key there are. A key of which there are none takes no memory.
#[derive(Debug)]
pub(crate) struct Tally<K>(HashMap<K, usize>);

impl<K> Default for Tally<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash> Tally<K> {
    /// Counts one more.
    pub(crate) fn add(&mut self, key: K) {
        self.add_many(key, 1);
    }

    /// Counts so many more.
    pub(crate) fn add_many(&mut self, key: K, count: usize) {
        if count > 0 {
            *self.0.entry(key).or_default() += count;
        }
    }

    /// Counts one less.
    pub(crate) fn remove<Q: Eq + Hash + ?Sized>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
    {
        self.remove_many(key, 1);
    }

    /// Counts so many less.
    pub(crate) fn remove_many<Q: Eq + Hash + ?Sized>(&mut self, key: &Q, fewer: usize)
    where
        K: Borrow<Q>,
    {
        if let Some(count) = self.0.get_mut(key) {
            *count -= fewer;
            if *count == 0 {
                self.0.remove(key);
            }
        }
    }

    /// How many there are.
    pub(crate) fn of<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> usize
    where
        K: Borrow<Q>,
    {
        self.0.get(key).copied().unwrap_or_default()
    }

    /// Whether there are none of any key.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
