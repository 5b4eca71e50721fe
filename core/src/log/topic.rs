//! Topics, patterns and keys (`PROTOCOL.md` section 3).

use core::fmt;

/// Bytes of the longest topic or pattern.
pub const MAX_TOPIC: usize = 255;
/// Levels of the deepest topic or pattern, of which `**` counts as one.
pub const MAX_DEPTH: usize = 16;
/// Bytes of the longest key.
pub const MAX_KEY: usize = 128;

/// The name of what an event is about: `fleet/7/cpu`.
///
/// 1 to [`MAX_TOPIC`] bytes without control characters, in 1 to [`MAX_DEPTH`] levels separated by `/`. No level is
/// empty, `.` or `..`, so no slash begins or ends it, and none contains `*`. Topics are compared byte by byte.
///
/// ```
/// use longwire_core::log::{NameError, Topic};
///
/// assert_eq!(Topic::parse("fleet/7/cpu").unwrap().levels().count(), 3);
/// assert_eq!(Topic::parse("fleet/*/cpu"), Err(NameError::Wildcard));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Topic<'a>(&'a str);

impl<'a> Topic<'a> {
    /// Checks a name.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn parse(name: &'a str) -> Result<Self, NameError> {
        check(name)?;
        if has_star(name.as_bytes()) {
            return Err(NameError::Wildcard);
        }
        Ok(Self(name))
    }

    /// A text that was checked before it was stored: `owned` keeps such texts.
    pub(super) const fn checked(text: &'a str) -> Self {
        Self(text)
    }

    /// The name, as it was checked.
    pub const fn as_str(self) -> &'a str {
        self.0
    }

    /// The levels, from the first: 1 to [`MAX_DEPTH`].
    pub fn levels(self) -> impl DoubleEndedIterator<Item = &'a str> + Clone {
        split(self.0)
    }
}

/// A set of topics, written as a topic with wildcards: `fleet/*/cpu`, `fleet/**`.
///
/// A level may be `*`, which stands for any one level. The last level may be `**`, which stands for all levels that
/// remain, also none: `a/**` matches `a`, `a/b` and `a/b/c`, and `**` matches every topic. Otherwise the rules of
/// [`Topic`] hold, and every topic is the pattern of itself.
///
/// Matching costs one pass over the two texts; there is nothing in a pattern that could make it go back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Pattern<'a>(&'a str);

impl<'a> Pattern<'a> {
    /// Checks a pattern.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn parse(text: &'a str) -> Result<Self, NameError> {
        check(text)?;
        let mut rest = false;
        for level in split_bytes(text) {
            if rest {
                return Err(NameError::RestNotLast);
            }
            match level {
                b"**" => rest = true,
                b"*" => {}
                _ if has_star(level) => return Err(NameError::PartialWildcard),
                _ => {}
            }
        }
        Ok(Self(text))
    }

    /// A text that was checked before it was stored: `owned` keeps such texts.
    pub(super) const fn checked(text: &'a str) -> Self {
        Self(text)
    }

    /// The pattern, as it was checked.
    pub const fn as_str(self) -> &'a str {
        self.0
    }

    /// The levels, from the first: 1 to [`MAX_DEPTH`].
    pub fn levels(self) -> impl DoubleEndedIterator<Item = Level<'a>> + Clone {
        split(self.0).map(|level| match level {
            "*" => Level::Any,
            "**" => Level::Rest,
            name => Level::Name(name),
        })
    }

    /// Whether the topic is in this set.
    pub fn matches(self, topic: Topic<'_>) -> bool {
        self.covers(topic.into())
    }

    /// Whether every topic that `other` matches is matched by this pattern: a grant for this one allows a
    /// subscription to `other`.
    pub fn covers(self, other: Pattern<'_>) -> bool {
        if self.0 == "*/**" {
            return true; // as `**`: every topic has a first level
        }
        let (mut ours, mut theirs) = (split_bytes(self.0), split_bytes(other.0));
        loop {
            match (ours.next(), theirs.next()) {
                (Some(b"**"), _) | (None, None) => return true,
                // Their `**` stands for no level or for several, and only `**` of ours does, too.
                (_, Some(b"**")) | (None, _) | (_, None) => return false,
                (Some(b"*"), Some(_)) => {}
                (Some(ours), Some(theirs)) if ours == theirs => {}
                _ => return false,
            }
        }
    }
}

impl<'a> From<Topic<'a>> for Pattern<'a> {
    fn from(topic: Topic<'a>) -> Self {
        Self(topic.0)
    }
}

/// One level of a [`Pattern`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Level<'a> {
    /// Exactly this name.
    Name(&'a str),
    /// `*`: any one level.
    Any,
    /// `**`: all levels that remain, also none. Always the last.
    Rest,
}

/// What distinguishes several latest events within one topic: a device, a symbol.
///
/// At most [`MAX_KEY`] bytes without control characters; it may be empty, which is not the same as no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Key<'a>(&'a str);

impl<'a> Key<'a> {
    /// Checks a key.
    ///
    /// # Errors
    /// [`NameError::KeyTooLong`] or [`NameError::ControlCharacter`].
    pub fn parse(key: &'a str) -> Result<Self, NameError> {
        if key.len() > MAX_KEY {
            return Err(NameError::KeyTooLong);
        }
        if has_control(key.as_bytes()) {
            return Err(NameError::ControlCharacter);
        }
        Ok(Self(key))
    }

    /// The key, as it was checked.
    pub const fn as_str(self) -> &'a str {
        self.0
    }
}

fn split(name: &str) -> impl DoubleEndedIterator<Item = &str> + Clone {
    // By a list of one, and not by the character alone: that search has panics that no compiler proves away.
    name.split(['/'])
}

/// The rules that topics and patterns share. Length first: what is too long is not looked through.
fn check(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > MAX_TOPIC {
        return Err(NameError::TooLong);
    }
    let (mut depth, mut empty, mut dots) = (0, false, false);
    for level in split_bytes(name) {
        depth += 1;
        empty |= level.is_empty();
        dots |= matches!(level, b"." | b"..");
    }
    if depth > MAX_DEPTH {
        return Err(NameError::TooDeep);
    }
    if empty {
        return Err(NameError::EmptyLevel);
    }
    if dots {
        return Err(NameError::Dots);
    }
    if has_control(name.as_bytes()) {
        return Err(NameError::ControlCharacter);
    }
    Ok(())
}

/// As [`split`], for what only looks at the levels: a slash is a byte of its own in UTF-8, and so is a star. What walks over
/// characters takes a device half a kilobyte of code.
fn split_bytes(name: &str) -> impl Iterator<Item = &[u8]> {
    name.as_bytes().split(|byte| *byte == b'/')
}

#[expect(
    clippy::manual_contains,
    reason = "what is faster over long texts takes a device more code than all else here"
)]
fn has_star(text: &[u8]) -> bool {
    text.iter().any(|byte| *byte == b'*')
}

/// Unicode's category Cc: up to U+001F, and U+007F to U+009F, whose last 32 are a byte 0xc2 and one below 0xa0.
fn has_control(text: &[u8]) -> bool {
    let mut before = 0;
    text.iter().any(|byte| {
        let second_half = before == 0xc2 && *byte < 0xa0;
        before = *byte;
        *byte < 0x20 || *byte == 0x7f || second_half
    })
}

macro_rules! name {
    ($name:ident) => {
        impl fmt::Display for $name<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.0)
            }
        }

        impl<'a> TryFrom<&'a str> for $name<'a> {
            type Error = NameError;

            fn try_from(text: &'a str) -> Result<Self, NameError> {
                Self::parse(text)
            }
        }
    };
}

name!(Topic);
name!(Pattern);
name!(Key);

/// The rule that a topic, a pattern, a key or the name of a log breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum NameError {
    /// A topic or pattern has at least one byte.
    Empty,
    /// A topic or pattern has at most [`MAX_TOPIC`] bytes.
    TooLong,
    /// A topic or pattern has at most [`MAX_DEPTH`] levels.
    TooDeep,
    /// No level is empty: no slash at the beginning or end, no two together.
    EmptyLevel,
    /// No level is `.` or `..`: a URL's path cannot carry them (RFC 3986 section 5.2.4).
    Dots,
    /// No control characters (Unicode category Cc).
    ControlCharacter,
    /// A topic contains no `*`; a pattern does.
    Wildcard,
    /// `*` is a wildcard only as a whole level.
    PartialWildcard,
    /// `**` stands only as the last level.
    RestNotLast,
    /// A key has at most [`MAX_KEY`] bytes.
    KeyTooLong,
    /// The name of a log has 1 to [`MAX_LOG_NAME`](super::MAX_LOG_NAME) of the characters that it may have.
    LogName,
}

impl NameError {
    /// The rule, in words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "a topic must not be empty",
            Self::TooLong => "a topic has at most 255 bytes",
            Self::TooDeep => "a topic has at most 16 levels",
            Self::EmptyLevel => {
                "a topic has no empty level: no slash at its beginning or end, no two together"
            }
            Self::Dots => "a topic has no level `.` or `..`: URLs drop them",
            Self::ControlCharacter => "a topic or key has no control characters",
            Self::Wildcard => "a topic has no `*`: that is for patterns",
            Self::PartialWildcard => "`*` stands for a whole level only",
            Self::RestNotLast => "`**` stands only as the last level",
            Self::KeyTooLong => "a key has at most 128 bytes",
            Self::LogName => {
                "the name of a log is 1 to 64 of a-z, 0-9, `.`, `_` and `-`, the first a letter or digit"
            }
        }
    }
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl core::error::Error for NameError {}

#[cfg(test)]
mod tests {
    use super::*;
    use NameError::*;
    use std::format;
    use std::string::{String, ToString};

    #[test]
    fn section_3_rules_for_topics_and_patterns() {
        let deep = |levels: usize| std::vec!["a"; levels].join("/");
        for (text, topic, pattern) in [
            ("a", Ok(()), Ok(())),
            ("fleet/7/cpu", Ok(()), Ok(())),
            ("Zürich/Straße/🌡", Ok(()), Ok(())),
            (" / ", Ok(()), Ok(())),
            ("a?#%+$", Ok(()), Ok(())),
            ("", Err(Empty), Err(Empty)),
            ("/", Err(EmptyLevel), Err(EmptyLevel)),
            ("/a", Err(EmptyLevel), Err(EmptyLevel)),
            ("a/", Err(EmptyLevel), Err(EmptyLevel)),
            ("a//b", Err(EmptyLevel), Err(EmptyLevel)),
            (".", Err(Dots), Err(Dots)),
            ("a/../b", Err(Dots), Err(Dots)),
            ("..", Err(Dots), Err(Dots)),
            (".../a.b", Ok(()), Ok(())),
            ("a\0", Err(ControlCharacter), Err(ControlCharacter)),
            ("a\r\nb", Err(ControlCharacter), Err(ControlCharacter)),
            ("a\u{7f}", Err(ControlCharacter), Err(ControlCharacter)),
            ("a\u{85}", Err(ControlCharacter), Err(ControlCharacter)),
            ("*", Err(Wildcard), Ok(())),
            ("**", Err(Wildcard), Ok(())),
            ("a/*/b", Err(Wildcard), Ok(())),
            ("*/*/**", Err(Wildcard), Ok(())),
            ("a*", Err(Wildcard), Err(PartialWildcard)),
            ("*a/b", Err(Wildcard), Err(PartialWildcard)),
            ("***", Err(Wildcard), Err(PartialWildcard)),
            ("a/b**", Err(Wildcard), Err(PartialWildcard)),
            ("**/a", Err(Wildcard), Err(RestNotLast)),
            ("a/**/**", Err(Wildcard), Err(RestNotLast)),
            (&deep(MAX_DEPTH), Ok(()), Ok(())),
            (&deep(MAX_DEPTH + 1), Err(TooDeep), Err(TooDeep)),
            (&(deep(MAX_DEPTH - 1) + "/**"), Err(Wildcard), Ok(())),
            (&(deep(MAX_DEPTH) + "/**"), Err(TooDeep), Err(TooDeep)),
            (&"x".repeat(MAX_TOPIC), Ok(()), Ok(())),
            (&"x".repeat(MAX_TOPIC + 1), Err(TooLong), Err(TooLong)),
            (&("é".repeat(127) + "x"), Ok(()), Ok(())),
            (&"é".repeat(128), Err(TooLong), Err(TooLong)),
        ] {
            assert_eq!(Topic::parse(text).map(|_| ()), topic, "topic {text:?}");
            assert_eq!(Pattern::parse(text).map(|_| ()), pattern, "pattern {text:?}");
            // The same by the standard library's names, and what was checked is what is handed out.
            assert_eq!(Topic::try_from(text), Topic::parse(text));
            assert!(Topic::parse(text).is_ok_and(|name| name.as_str() == text) == topic.is_ok());
            assert!(Pattern::try_from(text).is_ok_and(|name| name.as_str() == text) == pattern.is_ok());
        }
    }

    #[test]
    fn levels_are_what_stands_between_the_slashes() {
        for (topic, levels) in [("a", &["a"][..]), ("fleet/7/cpu", &["fleet", "7", "cpu"])] {
            let found = Topic::parse(topic).unwrap().levels();
            assert!(found.clone().eq(levels.iter().copied()), "{topic}");
            assert!(found.rev().eq(levels.iter().rev().copied()), "{topic}");
        }
        assert_eq!(Topic::parse(&std::vec!["a"; MAX_DEPTH].join("/")).unwrap().levels().count(), MAX_DEPTH);
    }

    #[test]
    fn names_are_shown_as_they_are_and_padded_as_text() {
        let (topic, pattern, key) = (Topic::parse("a/b"), Pattern::parse("a/**"), Key::parse("k\""));
        assert_eq!(
            format!("{}|{:6}|{:>3}", topic.unwrap(), pattern.unwrap(), key.unwrap()),
            "a/b|a/**  | k\""
        );
    }

    #[test]
    fn section_3_rules_for_keys() {
        for (text, key) in [
            ("", Ok(())),
            ("a/b*", Ok(())),
            (&"k".repeat(MAX_KEY), Ok(())),
            (&"k".repeat(MAX_KEY + 1), Err(KeyTooLong)),
            ("a\nb", Err(ControlCharacter)),
        ] {
            assert_eq!(Key::parse(text).map(|_| ()), key, "{text:?}");
            assert!(Key::try_from(text).is_ok_and(|name| name.as_str() == text) == key.is_ok());
        }
    }

    #[test]
    fn messages_state_the_limits_that_hold() {
        for (error, limit) in [(TooLong, MAX_TOPIC), (TooDeep, MAX_DEPTH), (KeyTooLong, MAX_KEY)] {
            assert!(error.to_string().contains(&limit.to_string()), "{error}");
        }
    }

    #[test]
    fn section_3_examples_of_matching() {
        for (pattern, topic, matches) in [
            ("a/**", "a", true),
            ("a/**", "a/b", true),
            ("a/**", "a/b/c", true),
            ("a/**", "ab", false),
            ("a/**", "b/a", false),
            ("**", "a", true),
            ("**", "a/b/c", true),
            ("*", "a", true),
            ("*", "a/b", false),
            ("a/*", "a", false),
            ("a/*", "a/b", true),
            ("a/*", "a/b/c", false),
            ("a/*/**", "a", false),
            ("a/*/**", "a/b", true),
            ("*/b", "a/b", true),
            ("*/b", "a/c", false),
            ("a", "A", false),
            ("é", "e\u{301}", false),
        ] {
            let (pattern, topic) = (Pattern::parse(pattern).unwrap(), Topic::parse(topic).unwrap());
            assert_eq!(pattern.matches(topic), matches, "{pattern} {topic}");
        }
    }

    /// What `PROTOCOL.md` says, word by word, on lists of levels.
    fn model(pattern: &[&str], topic: &[&str]) -> bool {
        match (pattern, topic) {
            (["**"], _) => true,
            (["*", pattern @ ..], [_, topic @ ..]) => model(pattern, topic),
            ([name, pattern @ ..], [level, topic @ ..]) => name == level && model(pattern, topic),
            ([], []) => true,
            _ => false,
        }
    }

    fn list(text: &str) -> std::vec::Vec<&str> {
        text.split('/').collect()
    }

    /// Every text of 1 to `depth` of these levels.
    fn all(levels: &[&str], depth: usize) -> std::vec::Vec<String> {
        let mut found: std::vec::Vec<String> = levels.iter().map(ToString::to_string).collect();
        let mut last = found.clone();
        for _ in 1..depth {
            last =
                last.iter().flat_map(|head| levels.iter().map(move |l| std::format!("{head}/{l}"))).collect();
            found.extend_from_slice(&last);
        }
        found
    }

    #[test]
    fn covers_is_inclusion_of_sets() {
        // A third name stands for all that no pattern mentions, and a fourth level for all that are deeper.
        let topics = all(&["a", "b", "c"], 4);
        let patterns = all(&["a", "b", "*", "**"], 3);
        let patterns: std::vec::Vec<_> =
            patterns.iter().filter_map(|text| Pattern::parse(text).ok()).collect();
        assert_eq!((topics.len(), patterns.len()), (120, 52));
        let (mut yes, mut no) = (0, 0);
        for ours in &patterns {
            for theirs in &patterns {
                let included = topics.iter().map(|topic| Topic::parse(topic).unwrap());
                let included =
                    included.filter(|topic| theirs.matches(*topic)).all(|topic| ours.matches(topic));
                assert_eq!(ours.covers(*theirs), included, "{ours} covers {theirs}");
                *if included { &mut yes } else { &mut no } += 1;
            }
        }
        assert!(yes > 200 && no > 1000, "{yes} {no}");
    }

    proptest::proptest! {
        #[test]
        fn matching_agrees_with_the_model(
            pattern in "([ab*]|[*]{2}|ab)(/([ab*]|[*]{2}|ab)){0,4}",
            topic in "(a|b|ab)(/(a|b|ab)){0,5}",
        ) {
            if let Ok(checked) = Pattern::parse(&pattern) {
                let got = checked.matches(Topic::parse(&topic).unwrap());
                proptest::prop_assert_eq!(got, model(&list(&pattern), &list(&topic)));
            }
        }

        #[test]
        fn any_text_is_accepted_or_refused_without_panic(text: String) {
            let _ = (Topic::parse(&text), Key::parse(&text));
            if let Ok(pattern) = Pattern::parse(&text) {
                proptest::prop_assert!(pattern.covers(pattern));
                proptest::prop_assert!(pattern.levels().count() <= MAX_DEPTH);
            }
        }
    }
}
