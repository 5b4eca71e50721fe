//! The topics of a log in a tree of levels: a pattern walks it, and costs by what it matches.
//!
//! Each node knows the newest position and the newest loss in all that is below it, so that a walk leaves out whole
//! branches in which nothing happened since.

use super::topics::Loss;
use longwire_core::log::{Level, Pattern, Topic};
use slab::Slab;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

/// Its size is bounded by the topics in it and their levels.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: Slab<Node>,
    root: usize,
}

#[derive(Debug, Default)]
pub(super) struct Node {
    level: Arc<str>,
    parent: Option<usize>,
    children: HashMap<Arc<str>, usize>,
    topic: Option<usize>,
    /// The last event of all topics at and below this node was not after this.
    pub(super) last: u64,
    /// The last position that a topic at or below this node lost, or was forgotten at, and the number of the newest
    /// such loss, which may be another.
    pub(super) lost: Loss,
    /// Topics at or below this node that have no node any more were forgotten up to here.
    forgotten: Loss,
}

/// Where a pattern leads.
pub(super) enum Found {
    /// To a topic, by its place.
    Topic(usize),
    /// To where topics were forgotten that it may have matched, up to this position.
    Forgotten(Loss),
}

/// Why a walk ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// There is nothing left to find out.
    Enough,
    /// It would be more than there may be.
    TooMuch,
}

/// What a walk is for.
pub(super) trait Visit {
    /// Whether to look into a node: `all` of its topics match, or some may.
    fn enter(&mut self, node: &Node, all: bool) -> ControlFlow<Stop, bool>;
    fn found(&mut self, found: Found);
}

impl Default for Tree {
    fn default() -> Self {
        let mut nodes = Slab::new();
        let root = nodes.insert(Node::default());
        Self { nodes, root }
    }
}

impl Tree {
    /// Adds a topic; the node that it has now, and the position up to which a topic of that name may have been
    /// forgotten.
    pub(super) fn insert(&mut self, name: Topic<'_>, topic: usize) -> (usize, Loss) {
        let mut at = self.root;
        for level in name.levels() {
            at = match self.nodes.get(at).and_then(|node| node.children.get(level)) {
                Some(child) => *child,
                None => self.add(at, level.into()),
            };
        }
        let Some(node) = self.nodes.get_mut(at) else { return (at, Loss::default()) };
        node.topic = Some(topic);
        (at, node.forgotten)
    }

    fn add(&mut self, parent: usize, level: Arc<str>) -> usize {
        // What was forgotten above may have been here.
        let forgotten = self.nodes.get(parent).map_or(Loss::default(), |node| node.forgotten);
        let node = Node {
            level: Arc::clone(&level),
            parent: Some(parent),
            lost: forgotten,
            forgotten,
            ..Node::default()
        };
        let child = self.nodes.insert(node);
        if let Some(parent) = self.nodes.get_mut(parent) {
            parent.children.insert(level, child);
        }
        child
    }

    /// Forgets a topic, up to its last event, with the branch that only led to it.
    pub(super) fn remove(&mut self, node: usize, last: Loss) {
        if let Some(node) = self.nodes.get_mut(node) {
            node.topic = None;
        }
        let (mut at, mut forgotten) = (node, last);
        while let Some(node) = self.nodes.get_mut(at) {
            node.forgotten = node.forgotten.max(forgotten);
            forgotten = node.forgotten;
            let Some(parent) = node.parent.filter(|_| node.topic.is_none() && node.children.is_empty())
            else {
                break;
            };
            let node = self.nodes.remove(at);
            if let Some(parent) = self.nodes.get_mut(parent) {
                parent.children.remove(&node.level);
            }
            at = parent;
        }
        self.lost(at, forgotten);
    }

    /// The topic of this node has an event at `seq`, after all others.
    pub(super) fn appended(&mut self, mut at: usize, seq: u64) {
        while let Some(node) = self.nodes.get_mut(at) {
            node.last = seq;
            let Some(parent) = node.parent else { return };
            at = parent;
        }
    }

    /// The last position that was lost anywhere, and the number of the newest loss.
    pub(super) fn newest_loss(&self) -> Loss {
        self.nodes.get(self.root).map_or(Loss::default(), |root| root.lost)
    }

    /// The topic of this node lost an event.
    pub(super) fn lost(&mut self, mut at: usize, loss: Loss) {
        while let Some(node) = self.nodes.get_mut(at).filter(|node| node.lost.max(loss) != node.lost) {
            node.lost = node.lost.max(loss);
            let Some(parent) = node.parent else { return };
            at = parent;
        }
    }

    /// Goes wherever a pattern leads; stops when the visit says so.
    pub(super) fn walk(&self, pattern: Pattern<'_>, visit: &mut impl Visit) -> ControlFlow<Stop> {
        self.some(self.root, pattern.levels(), visit)
    }

    fn some<'p>(
        &self,
        at: usize,
        mut levels: impl Iterator<Item = Level<'p>> + Clone,
        visit: &mut impl Visit,
    ) -> ControlFlow<Stop> {
        let Some(node) = self.nodes.get(at) else { return ControlFlow::Continue(()) };
        let level = levels.next();
        if level == Some(Level::Rest) {
            return self.all(at, visit);
        }
        if !visit.enter(node, false)? {
            return ControlFlow::Continue(());
        }
        match level {
            Some(Level::Name(name)) => match node.children.get(name) {
                Some(child) => self.some(*child, levels, visit)?,
                None => visit.found(Found::Forgotten(node.forgotten)),
            },
            Some(_) => {
                visit.found(Found::Forgotten(node.forgotten));
                for child in node.children.values() {
                    self.some(*child, levels.clone(), visit)?;
                }
            }
            None => visit.found(node.topic.map_or(Found::Forgotten(node.forgotten), Found::Topic)),
        }
        ControlFlow::Continue(())
    }

    /// Everything at and below a node.
    fn all(&self, at: usize, visit: &mut impl Visit) -> ControlFlow<Stop> {
        let Some(node) = self.nodes.get(at) else { return ControlFlow::Continue(()) };
        if !visit.enter(node, true)? {
            return ControlFlow::Continue(());
        }
        visit.found(Found::Forgotten(node.forgotten));
        if let Some(topic) = node.topic {
            visit.found(Found::Topic(topic));
        }
        node.children.values().try_for_each(|child| self.all(*child, visit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All places that a pattern leads to, and the last position at which one was forgotten.
    #[derive(Default)]
    struct All(Vec<usize>, u64);

    impl Visit for All {
        fn enter(&mut self, _: &Node, _: bool) -> ControlFlow<Stop, bool> {
            ControlFlow::Continue(true)
        }

        fn found(&mut self, found: Found) {
            match found {
                Found::Topic(topic) => self.0.push(topic),
                Found::Forgotten(loss) => self.1 = self.1.max(loss.seq),
            }
        }
    }

    fn at(seq: u64) -> Loss {
        Loss { seq, number: seq }
    }

    fn all(tree: &Tree, pattern: &str) -> (Vec<usize>, u64) {
        let mut visit = All::default();
        let _ = tree.walk(Pattern::parse(pattern).unwrap(), &mut visit);
        visit.0.sort_unstable();
        (visit.0, visit.1)
    }

    const TOPICS: [&str; 7] = ["a", "b", "a/b", "a/b/c", "x/y/z", "a/c", "x"];
    const PATTERNS: [&str; 11] =
        ["a", "a/*", "a/**", "*/b", "**", "a/b/c", "*/*/c", "a/b/**", "x/**", "a/*/*/d", "q"];

    #[test]
    fn a_pattern_leads_to_the_topics_that_it_matches() {
        let mut tree = Tree::default();
        for (id, topic) in TOPICS.iter().enumerate() {
            tree.insert(Topic::parse(topic).unwrap(), id);
        }
        for text in PATTERNS {
            let pattern = Pattern::parse(text).unwrap();
            let matching = |id: &usize| pattern.matches(Topic::parse(TOPICS[*id]).unwrap());
            let want: Vec<usize> = (0..TOPICS.len()).filter(matching).collect();
            assert_eq!(all(&tree, text), (want, 0), "{text}");
        }
    }

    #[test]
    fn what_was_forgotten_is_known_where_it_may_have_been_and_nowhere_else() {
        let mut tree = Tree::default();
        let mut nodes = Vec::new();
        for (id, topic) in TOPICS.iter().enumerate() {
            nodes.push(tree.insert(Topic::parse(topic).unwrap(), id).0);
        }
        tree.remove(nodes[3], at(7)); // a/b/c
        for (pattern, forgotten) in [
            ("a/b/c", 7),
            ("a/b/*", 7),
            ("a/**", 7),
            ("*/*/c", 7),
            ("a/b", 0),
            ("a", 0),
            ("x/**", 0),
            ("b", 0),
        ] {
            assert_eq!(all(&tree, pattern).1, forgotten, "{pattern}");
        }
        tree.remove(nodes[2], at(5)); // a/b, and its node goes
        assert_eq!(
            (all(&tree, "a/b").1, all(&tree, "a/q").1, all(&tree, "a/c").1, all(&tree, "a").1),
            (7, 7, 0, 0)
        );
        // Who comes anew may have been there before.
        assert_eq!(tree.insert(Topic::parse("a/b/d").unwrap(), 9).1, at(7));
        assert_eq!(tree.insert(Topic::parse("x/q").unwrap(), 10).1, at(0));
        assert_eq!(all(&tree, "a/b").1, 7);
    }

    #[test]
    fn branches_go_with_their_last_topic_and_know_what_is_newest_below_them() {
        let mut tree = Tree::default();
        let node = tree.insert(Topic::parse("a/b/c").unwrap(), 1).0;
        tree.appended(node, 5);
        tree.lost(node, at(3));
        assert!(tree.nodes.iter().all(|(_, node)| (node.last, node.lost) == (5, at(3))));
        // Positions are lost in any order, numbers are not.
        tree.lost(node, Loss { seq: 2, number: 4 });
        assert_eq!(tree.newest_loss(), Loss { seq: 3, number: 4 });
        tree.remove(node, at(5));
        assert_eq!(
            (tree.nodes.len(), tree.nodes[tree.root].lost, tree.nodes[tree.root].forgotten),
            (1, at(5), at(5))
        );
    }
}
