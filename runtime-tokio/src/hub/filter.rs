//! What a reader wants.

use longwire_core::log::{Pattern, PatternName, Topic};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The topics that a reader wants: a set of patterns, bounded by whoever makes it. They are checked when they come in,
/// and not again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter(BTreeSet<PatternName<Arc<str>>>);

impl Filter {
    /// Adds a pattern; false when it is there already.
    pub fn insert(&mut self, pattern: Pattern<'_>) -> bool {
        self.0.insert(pattern.into())
    }

    /// Takes a pattern away, by its text; false when it is not there.
    pub fn remove(&mut self, pattern: Pattern<'_>) -> bool {
        self.0.remove(pattern.as_str())
    }

    /// Whether it has that pattern, by its text.
    pub fn contains(&self, pattern: Pattern<'_>) -> bool {
        self.0.contains(pattern.as_str())
    }

    /// How many patterns there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing matches.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a topic matches one of them. What is no topic matches none.
    pub fn matches(&self, topic: &str) -> bool {
        Topic::parse(topic).is_ok_and(|topic| self.matches_topic(topic))
    }

    /// As [`matches`](Self::matches), for what was checked already.
    pub fn matches_topic(&self, topic: Topic<'_>) -> bool {
        self.parsed().any(|pattern| pattern.matches(topic))
    }

    /// The patterns.
    pub fn parsed(&self) -> impl Iterator<Item = Pattern<'_>> {
        self.0.iter().map(PatternName::pattern)
    }

    /// The patterns' texts.
    pub fn patterns(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|text| &**text)
    }

    /// Whether every topic matches.
    pub(super) fn is_everything(&self) -> bool {
        self.0.contains("**")
    }
}

impl<'p> FromIterator<Pattern<'p>> for Filter {
    fn from_iter<I: IntoIterator<Item = Pattern<'p>>>(patterns: I) -> Self {
        Self(patterns.into_iter().map(Into::into).collect())
    }
}
