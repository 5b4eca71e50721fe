//! A table that forgets, in which nobody can take the room of others.

use super::recent::Recent;
use std::borrow::Borrow;
use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::Arc;

/// A map with at most so many entries, each of which belongs to a subject. Beyond that the subject that has most of
/// them loses the one that it did not touch for longest. So who makes up keys in a flood forgets its own.
#[derive(Debug)]
pub(super) struct Shares<K, V> {
    most: usize,
    len: usize,
    subjects: HashMap<Arc<str>, Recent<K, V>>,
    /// Subjects by how many entries they have: who has most is last.
    by_len: BTreeSet<(usize, Arc<str>)>,
}

impl<K: Clone + Eq + Hash, V> Shares<K, V> {
    /// An empty one. With no place at all it would remember nothing, so it has one.
    pub(super) fn new(most: usize) -> Self {
        Self { most: most.max(1), len: 0, subjects: HashMap::new(), by_len: BTreeSet::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The value of a key, which is not touched by that.
    pub(super) fn peek<Q: Eq + Hash + ?Sized>(&self, subject: &str, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.subjects.get(subject)?.peek(key)
    }

    /// The value of a key, touched; made when there is none, in the place of another when the table is full. The second
    /// says whether another was forgotten.
    pub(super) fn touch(
        &mut self,
        subject: &Arc<str>,
        key: &K,
        make: impl FnOnce() -> V,
    ) -> (Option<&mut V>, bool) {
        let full = self.peek(subject, key).is_none() && self.len >= self.most;
        if full && let Some((_, largest)) = self.by_len.last().cloned() {
            self.forget_oldest(&largest);
        }
        self.change(subject, |entries| {
            entries.touch(key, make);
        });
        let value = self.subjects.get_mut(subject).and_then(|entries| entries.peek_mut(key));
        (value, full)
    }

    /// Forgets the subject's oldest entries for as long as `is_over` says so of them.
    pub(super) fn forget_while(&mut self, subject: &Arc<str>, is_over: impl Fn(&V) -> bool) {
        while self.subjects.get(subject).and_then(Recent::oldest).is_some_and(&is_over) {
            self.forget_oldest(subject);
        }
    }

    fn forget_oldest(&mut self, subject: &Arc<str>) {
        self.change(subject, |entries| {
            entries.forget_oldest();
        });
    }

    /// Changes what a subject has, and keeps the account of it.
    fn change(&mut self, subject: &Arc<str>, change: impl FnOnce(&mut Recent<K, V>)) {
        let entries = self.subjects.entry(Arc::clone(subject)).or_insert_with(|| Recent::new(usize::MAX));
        let before = entries.len();
        change(entries);
        let after = entries.len();
        if after == 0 {
            self.subjects.remove(subject);
        }
        self.len = self.len + after - before;
        if before != after {
            self.by_len.remove(&(before, Arc::clone(subject)));
            if after > 0 {
                self.by_len.insert((after, Arc::clone(subject)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn who_has_most_forgets_and_others_keep_their_own(
            most in 1..6usize,
            touches in prop::collection::vec((0..4usize, 0..8u8), 0..200),
        ) {
            let subjects: Vec<Arc<str>> = (0..4).map(|n| Arc::from(format!("s{n}"))).collect();
            let mut shares = Shares::new(most);
            // The same, slowly: of each subject, the last is the newest.
            let mut model: Vec<Vec<u8>> = vec![Vec::new(); 4];
            for (who, key) in touches {
                let known = model[who].iter().position(|own| *own == key);
                let total: usize = model.iter().map(Vec::len).sum();
                if known.is_none() && total >= most {
                    let largest = (0..4).max_by_key(|who| (model[*who].len(), *who)).unwrap();
                    model[largest].remove(0);
                }
                known.inspect(|at| { model[who].remove(*at); });
                model[who].push(key);
                let (value, forgotten) = shares.touch(&subjects[who], &key, || key);
                prop_assert_eq!((value.copied(), forgotten), (Some(key), known.is_none() && total >= most));
                prop_assert_eq!(shares.len(), model.iter().map(Vec::len).sum::<usize>());
                prop_assert_eq!(shares.by_len.len(), shares.subjects.len());
                for (subject, own) in subjects.iter().zip(&model) {
                    for key in 0..8 {
                        prop_assert_eq!(shares.peek(subject, &key).is_some(), own.contains(&key));
                    }
                }
            }
            shares.forget_while(&subjects[0], |_| true);
            prop_assert!(!shares.subjects.contains_key(&subjects[0]));
            prop_assert_eq!(shares.len(), model[1..].iter().map(Vec::len).sum::<usize>());
        }
    }
}
