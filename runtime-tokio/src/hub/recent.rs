//! A table that forgets.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// A map with at most so many entries: beyond that the one that was not touched for longest is forgotten.
#[derive(Debug)]
pub(super) struct Recent<K, V> {
    most: usize,
    entries: HashMap<K, (u64, V)>,
    /// The same by when they were touched.
    order: BTreeMap<u64, K>,
    touched: u64,
}

impl<K: Clone + Eq + Hash, V> Recent<K, V> {
    /// An empty one. With no place at all it would remember nothing, so it has one.
    pub(super) fn new(most: usize) -> Self {
        Self { most: most.max(1), entries: HashMap::new(), order: BTreeMap::new(), touched: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The value of a key, which is not touched by that.
    pub(super) fn peek<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.entries.get(key).map(|(_, value)| value)
    }

    pub(super) fn peek_mut(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key).map(|(_, value)| value)
    }

    /// The value of a key, touched; made when there is none, in the place of another when the table is full. The second
    /// says whether another was forgotten.
    pub(super) fn touch(&mut self, key: &K, make: impl FnOnce() -> V) -> (&mut V, bool) {
        let newest = self.touched;
        let known = self.entries.get(key).map(|(touched, _)| *touched);
        if let Some(touched) = known.filter(|touched| *touched != newest) {
            self.order.remove(&touched);
        }
        let full = known.is_none() && self.entries.len() >= self.most;
        let forgotten = full && self.forget_oldest().is_some();
        if known != Some(newest) {
            self.touched += 1;
            self.order.insert(self.touched, key.clone());
        }
        let now = self.touched;
        let (touched, value) = self.entries.entry(key.clone()).or_insert_with(|| (now, make()));
        *touched = now;
        (value, forgotten)
    }

    /// The value that was not touched for longest.
    pub(super) fn oldest(&self) -> Option<&V> {
        self.order.first_key_value().and_then(|(_, key)| self.peek(key))
    }

    pub(super) fn forget_oldest(&mut self) -> Option<V> {
        let (_, key) = self.order.pop_first()?;
        self.entries.remove(&key).map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_forgets_what_was_not_touched_for_longest(
            most in 0..5usize,
            touches in prop::collection::vec((0..8u8, any::<bool>()), 0..100),
        ) {
            let mut recent = Recent::new(most);
            // The same, slowly: the last is the newest.
            let mut model: Vec<(u8, usize)> = Vec::new();
            for (at, (key, touch)) in touches.into_iter().enumerate() {
                let known = model.iter().position(|(own, _)| *own == key);
                prop_assert_eq!(recent.peek(&key).copied(), known.map(|at| model[at].1));
                if !touch {
                    continue;
                }
                let entry = known.map_or((key, at), |at| model.remove(at));
                let full = model.len() >= most.max(1);
                if full {
                    model.remove(0);
                }
                model.push(entry);
                let (value, forgotten) = recent.touch(&key, || at);
                prop_assert_eq!((*value, forgotten), (entry.1, full));
                prop_assert_eq!((recent.len(), recent.order.len()), (model.len(), model.len()));
                prop_assert_eq!(recent.oldest().copied(), model.first().map(|(_, value)| *value));
            }
        }
    }
}
