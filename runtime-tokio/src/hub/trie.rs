//! Who wants a topic: patterns in a tree of levels, so that an event costs by its matches and not by the readers.

use longwire_core::log::{Level, Pattern, Topic};
use std::collections::HashMap;
use std::hash::Hash;

/// A tree of patterns, each with the readers that subscribed to it. Its size is bounded by the subscriptions in it.
#[derive(Debug, Default)]
pub(super) struct Trie<R> {
    root: Node<R>,
}

#[derive(Debug)]
struct Node<R> {
    names: HashMap<Box<str>, Node<R>>,
    any: Option<Box<Node<R>>>,
    /// Readers whose pattern ends here.
    here: Readers<R>,
    /// Readers whose pattern goes on with `**`.
    rest: Readers<R>,
}

/// The readers of one pattern: side by side for whoever visits them, and found at once when one goes, so that ten
/// thousand that go together do not search ten thousand times.
#[derive(Debug)]
struct Readers<R> {
    list: Vec<R>,
    /// Where each is in the list; only while it is too long to search.
    places: HashMap<R, u32>,
}

/// Readers that are found by looking at them all.
const SHORT: usize = 16;

impl<R> Default for Readers<R> {
    fn default() -> Self {
        Self { list: Vec::new(), places: HashMap::new() }
    }
}

impl<R: Copy + Eq + Hash> Readers<R> {
    /// Adds a reader; false when it is there already.
    fn insert(&mut self, reader: R) -> bool {
        if self.place(reader).is_some() {
            return false;
        }
        self.list.push(reader);
        if !self.places.is_empty() {
            self.places.insert(reader, u32::try_from(self.list.len() - 1).unwrap_or(u32::MAX));
        } else if self.list.len() > SHORT {
            self.places = self.list.iter().copied().zip(0..).collect();
        }
        true
    }

    /// Takes a reader out; false when it is not there.
    fn remove(&mut self, reader: R) -> bool {
        let Some(place) = self.place(reader) else { return false };
        self.list.swap_remove(place as usize);
        self.places.remove(&reader);
        if let Some(moved) = self.list.get(place as usize).filter(|_| !self.places.is_empty()) {
            self.places.insert(*moved, place);
        }
        // Ten thousand that have gone leave no room for ten thousand behind.
        let few = self.list.len().max(SHORT);
        if self.list.capacity() > 4 * few {
            self.list.shrink_to(2 * few);
            self.places.shrink_to(2 * few);
        }
        true
    }

    fn place(&self, reader: R) -> Option<u32> {
        if self.places.is_empty() {
            (0..).zip(&self.list).find(|(_, own)| **own == reader).map(|(place, _)| place)
        } else {
            self.places.get(&reader).copied()
        }
    }
}

impl<R> Default for Node<R> {
    fn default() -> Self {
        Self { names: HashMap::new(), any: None, here: Readers::default(), rest: Readers::default() }
    }
}

impl<R> Node<R> {
    fn is_empty(&self) -> bool {
        self.names.is_empty() && self.any.is_none() && self.here.list.is_empty() && self.rest.list.is_empty()
    }
}

impl<R: Copy + Eq + Hash> Trie<R> {
    /// Adds a subscription; false when the reader has it already.
    pub(super) fn insert(&mut self, pattern: Pattern<'_>, reader: R) -> bool {
        let mut node = &mut self.root;
        for level in pattern.levels() {
            node = match level {
                Level::Name(name) => node.names.entry(name.into()).or_default(),
                Level::Any => node.any.get_or_insert_default(),
                Level::Rest => return node.rest.insert(reader),
            };
        }
        node.here.insert(reader)
    }

    /// Takes one subscription away, with the branches that only led to it; false when it is not there.
    pub(super) fn remove(&mut self, pattern: Pattern<'_>, reader: R) -> bool {
        remove(&mut self.root, &mut pattern.levels(), reader)
    }

    /// Calls `found` for each subscription that matches: more than once for a reader whose patterns overlap.
    pub(super) fn find(&self, topic: Topic<'_>, found: &mut impl FnMut(R)) {
        find(&self.root, topic.levels(), found);
    }
}

fn remove<'p, R: Copy + Eq + Hash>(
    node: &mut Node<R>,
    levels: &mut impl Iterator<Item = Level<'p>>,
    reader: R,
) -> bool {
    let readers = match levels.next() {
        None => &mut node.here,
        Some(Level::Rest) => &mut node.rest,
        Some(Level::Any) => {
            let Some(next) = &mut node.any else { return false };
            let removed = remove(next, levels, reader);
            node.any.take_if(|next| next.is_empty());
            return removed;
        }
        Some(Level::Name(name)) => {
            let Some(next) = node.names.get_mut(name) else { return false };
            let removed = remove(next, levels, reader);
            if next.is_empty() {
                node.names.remove(name);
            }
            return removed;
        }
    };
    readers.remove(reader)
}

/// At most two branches a level, and topics have at most 16: bounded by the patterns that can match at all.
fn find<'t, R: Copy>(
    node: &Node<R>,
    mut levels: impl Iterator<Item = &'t str> + Clone,
    found: &mut impl FnMut(R),
) {
    node.rest.list.iter().copied().for_each(&mut *found);
    let Some(level) = levels.next() else {
        return node.here.list.iter().copied().for_each(found);
    };
    if let Some(next) = node.names.get(level) {
        find(next, levels.clone(), found);
    }
    if let Some(next) = &node.any {
        find(next, levels, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern<'_> {
        Pattern::parse(text).unwrap()
    }

    #[test]
    fn finds_what_matches_and_forgets_what_is_removed() {
        let patterns = ["a", "a/*", "a/**", "*/b", "**", "a/b/c", "*/*/c", "a/b/**", "x/**", "a/*/*/d"];
        let topics = ["a", "b", "a/b", "a/b/c", "x", "x/y/z", "a/b/c/d", "q/b"];
        let mut trie = Trie::default();
        for (id, text) in patterns.iter().enumerate() {
            trie.insert(pattern(text), id);
        }
        for removed in 0..=patterns.len() {
            for topic in topics {
                let topic = Topic::parse(topic).unwrap();
                let mut found = Vec::new();
                trie.find(topic, &mut |id| found.push(id));
                found.sort_unstable();
                let want: Vec<usize> =
                    (removed..patterns.len()).filter(|id| pattern(patterns[*id]).matches(topic)).collect();
                assert_eq!(found, want, "{topic}");
            }
            if let Some(text) = patterns.get(removed) {
                assert!(trie.remove(pattern(text), removed));
                assert!(!trie.remove(pattern(text), removed));
            }
        }
        assert!(trie.root.is_empty(), "branches are left behind");
    }

    #[test]
    fn readers_come_and_go_in_any_order() {
        let (mut readers, mut model) = (Readers::default(), std::collections::BTreeSet::new());
        // Over the length at which places are kept and back, several times.
        let mut x = 1u32;
        for step in 0..4000u32 {
            x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let reader = (x >> 16) % 40;
            let coming = (step / 200) % 2 == x >> 31;
            let changed = if coming { readers.insert(reader) } else { readers.remove(reader) };
            assert_eq!(changed, if coming { model.insert(reader) } else { model.remove(&reader) });
            assert!(readers.places.is_empty() || readers.places.len() == readers.list.len());
            assert!((0..).zip(&readers.list).all(|(at, r)| readers.place(*r) == Some(at)));
            let mut list = readers.list.clone();
            list.sort_unstable();
            assert!(list.into_iter().eq(model.iter().copied()));
        }
    }

    #[test]
    fn who_goes_is_not_searched_for_among_many() {
        let mut trie = Trie::default();
        (0..=SHORT).for_each(|id| assert!(trie.insert(pattern("**"), id)));
        assert!(!trie.insert(pattern("**"), 3), "a reader has a pattern once");
        assert_eq!(trie.root.rest.places.len(), SHORT + 1);
        assert!((0..=SHORT).all(|id| trie.remove(pattern("**"), id)));
        assert!(trie.root.is_empty());
    }
}
