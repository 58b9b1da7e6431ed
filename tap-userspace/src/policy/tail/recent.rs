//! The last so many of what was put in or asked for: the decision caches are such.
#![forbid(unsafe_code)]

use std::{collections::BTreeMap, hash::Hash};

use hashbrown::HashMap;

/// At most `size` keys; the one that was longest neither put in nor asked for goes first.
#[derive(Debug)]
pub(super) struct Recent<K> {
    size: usize,
    by_key: HashMap<K, u64>,
    by_use: BTreeMap<u64, K>,
    uses: u64,
}

impl<K: Copy + Eq + Hash> Recent<K> {
    /// Room for `size`.
    pub(super) fn new(size: usize) -> Self {
        Self { size, by_key: HashMap::new(), by_use: BTreeMap::new(), uses: 0 }
    }

    /// Puts a key in.
    pub(super) fn put(&mut self, key: K) {
        self.uses += 1;
        if let Some(before) = self.by_key.insert(key, self.uses) {
            self.by_use.remove(&before);
        }
        self.by_use.insert(self.uses, key);
        if self.by_key.len() > self.size
            && let Some((_, oldest)) = self.by_use.pop_first()
        {
            self.by_key.remove(&oldest);
        }
    }

    /// Whether a key is there; it is used then.
    pub(super) fn has(&mut self, key: &K) -> bool {
        let there = self.by_key.contains_key(key);
        if there {
            self.put(*key);
        }
        there
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_used_goes_first() {
        let mut recent = Recent::new(2);
        recent.put(1);
        recent.put(2);
        assert!(recent.has(&1));
        recent.put(3);
        assert_eq!([1, 2, 3].map(|key| recent.has(&key)), [true, false, true]);
        // Again and again takes no more room.
        for _ in 0..100 {
            recent.put(3);
            assert!(recent.has(&1));
        }
        assert_eq!((recent.by_key.len(), recent.by_use.len()), (2, 2));
        recent.put(4);
        assert_eq!([1, 3, 4].map(|key| recent.has(&key)), [true, false, true]);
    }
}
