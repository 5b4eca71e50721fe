//! Who wants a topic: patterns in a tree of levels, so that an event costs by its matches and not by the readers.

use longwire_core::log::{Level, Pattern, Topic};
use std::collections::HashMap;

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
    here: Vec<R>,
    /// Readers whose pattern goes on with `**`.
    rest: Vec<R>,
}

impl<R> Default for Node<R> {
    fn default() -> Self {
        Self { names: HashMap::new(), any: None, here: Vec::new(), rest: Vec::new() }
    }
}

impl<R> Node<R> {
    fn is_empty(&self) -> bool {
        self.names.is_empty() && self.any.is_none() && self.here.is_empty() && self.rest.is_empty()
    }
}

impl<R: Copy + PartialEq> Trie<R> {
    /// Adds a subscription.
    pub(super) fn insert(&mut self, pattern: Pattern<'_>, reader: R) {
        let mut node = &mut self.root;
        for level in pattern.levels() {
            node = match level {
                Level::Name(name) => node.names.entry(name.into()).or_default(),
                Level::Any => node.any.get_or_insert_default(),
                Level::Rest => return node.rest.push(reader),
            };
        }
        node.here.push(reader);
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

fn remove<'p, R: Copy + PartialEq>(
    node: &mut Node<R>,
    levels: &mut impl Iterator<Item = Level<'p>>,
    reader: R,
) -> bool {
    let list = match levels.next() {
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
    let place = list.iter().position(|r| *r == reader);
    place.is_some_and(|at| {
        list.swap_remove(at);
        true
    })
}

/// At most two branches a level, and topics have at most 16: bounded by the patterns that can match at all.
fn find<'t, R: Copy>(
    node: &Node<R>,
    mut levels: impl Iterator<Item = &'t str> + Clone,
    found: &mut impl FnMut(R),
) {
    node.rest.iter().copied().for_each(&mut *found);
    let Some(level) = levels.next() else {
        return node.here.iter().copied().for_each(found);
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
    fn a_reader_with_the_same_pattern_twice_is_removed_once_at_a_time() {
        let mut trie = Trie::default();
        trie.insert(pattern("a"), 1);
        trie.insert(pattern("a"), 1);
        assert!(trie.remove(pattern("a"), 1));
        let mut found = Vec::new();
        trie.find(Topic::parse("a").unwrap(), &mut |id| found.push(id));
        assert_eq!(found, [1]);
    }
}
