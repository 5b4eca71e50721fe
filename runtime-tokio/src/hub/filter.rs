//! What a reader wants.

use longwire_core::log::{Pattern, PatternName, Topic};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The topics that a reader wants: a set of patterns, bounded by whoever makes it. They are checked when they come in,
/// and not again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter(BTreeSet<PatternName<Arc<str>>>);

impl Filter {
    /// Nothing.
    pub const fn new() -> Self {
        Self(BTreeSet::new())
    }

    /// Adds a pattern; false when it is there already.
    pub fn insert(&mut self, pattern: Pattern<'_>) -> bool {
        self.0.insert(pattern.into())
    }

    /// Adds the patterns of another, which from now on takes no memory for their texts; `fresh` gets those that are
    /// new.
    pub(super) fn share(&mut self, other: Self, mut fresh: impl FnMut(Pattern<'_>)) -> Self {
        let shared = other.0.into_iter().map(|name| match self.0.get(&name) {
            Some(own) => own.clone(),
            None => {
                fresh(name.pattern());
                self.0.insert(name.clone());
                name
            }
        });
        Self(shared.collect())
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

    /// Whether one of them matches all that another pattern does.
    pub fn covers(&self, pattern: Pattern<'_>) -> bool {
        self.parsed().any(|own| own.covers(pattern))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shared_has_its_texts_once() {
        let filter =
            |texts: &[&str]| -> Filter { texts.iter().map(|t| Pattern::parse(t).unwrap()).collect() };
        let (mut own, mut fresh) = (filter(&["a", "b/**"]), Vec::new());
        let other = own.share(filter(&["b/**", "c"]), |pattern| fresh.push(pattern.as_str().to_owned()));
        assert_eq!((&own, &other), (&filter(&["a", "b/**", "c"]), &filter(&["b/**", "c"])));
        assert_eq!(fresh, ["c"]);
        for text in other.patterns() {
            assert!(own.patterns().any(|own| std::ptr::eq(own, text)), "{text} twice");
        }
    }
}
