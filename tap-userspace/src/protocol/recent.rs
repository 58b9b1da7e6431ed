//! A map of bounded size that forgets what was used longest ago: prepared statements by name.
#![forbid(unsafe_code)]

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

/// At most `max` entries.
#[derive(Debug)]
pub struct Recent<K, V> {
    slots: HashMap<K, Slot<V>>,
    max: usize,
    clock: u64,
    heap: usize,
}

#[derive(Debug)]
struct Slot<V> {
    value: V,
    used: u64,
    heap: usize,
}

impl<K: Hash + Eq + Clone, V> Recent<K, V> {
    pub fn new(max: usize) -> Self {
        Self { slots: HashMap::new(), max, clock: 0, heap: 0 }
    }

    /// Remembers `value`, which holds `heap` bytes with its key.
    pub fn insert(&mut self, key: K, value: V, heap: usize) {
        if self.slots.len() >= self.max && !self.slots.contains_key(&key) {
            // One look at each: `max` is small, and prepared statements are made to be used often.
            let oldest = self.slots.iter().min_by_key(|(_, slot)| slot.used);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                self.remove(&oldest);
            }
        }
        self.clock += 1;
        self.heap += heap;
        if let Some(old) = self.slots.insert(key, Slot { value, used: self.clock, heap }) {
            self.heap -= old.heap;
        }
    }

    pub fn get<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.clock += 1;
        let slot = self.slots.get_mut(key)?;
        slot.used = self.clock;
        Some(&slot.value)
    }

    pub fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
    {
        if let Some(slot) = self.slots.remove(key) {
            self.heap -= slot.heap;
        }
    }

    /// Heap bytes held.
    pub fn memory(&self) -> usize {
        self.heap + self.slots.capacity() * (size_of::<K>() + size_of::<Slot<V>>() + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_longest_ago_is_forgotten() {
        let mut recent = Recent::new(2);
        recent.insert(1, 'a', 10);
        recent.insert(2, 'b', 10);
        assert_eq!(recent.get(&1), Some(&'a'));
        recent.insert(3, 'c', 10);
        assert_eq!(recent.get(&1), Some(&'a'));
        assert_eq!(recent.get(&2), None);
        recent.insert(3, 'd', 5);
        assert_eq!(recent.get(&3), Some(&'d'));
        assert_eq!(recent.heap, 15);
        recent.remove(&3);
        recent.remove(&3);
        assert_eq!(recent.heap, 10);
    }
}
