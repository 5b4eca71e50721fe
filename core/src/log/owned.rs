//! Topics and patterns that own their text, so that what is stored is checked once and not again at each look.

use super::{NameError, Pattern, Topic};
use core::{cmp::Ordering, fmt, hash, ops::Deref};

macro_rules! owned {
    ($(#[$doc:meta])* $name:ident of $borrowed:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub struct $name<T>(T);

        impl<T: AsRef<str>> $name<T> {
            /// Checks a text, and keeps it.
            ///
            /// # Errors
            /// The first rule that it breaks.
            pub fn parse(text: T) -> Result<Self, NameError> {
                $borrowed::parse(text.as_ref())?;
                Ok(Self(text))
            }

            /// What holds the text.
            pub const fn holder(&self) -> &T {
                &self.0
            }
        }

        impl<'a, T: AsRef<str> + From<&'a str>> From<$borrowed<'a>> for $name<T> {
            fn from(name: $borrowed<'a>) -> Self {
                Self(name.as_str().into())
            }
        }

        impl<T: AsRef<str>> Deref for $name<T> {
            type Target = str;

            fn deref(&self) -> &str {
                self.0.as_ref()
            }
        }

        // So that a set of them can be asked for a text.
        impl<T: AsRef<str>> core::borrow::Borrow<str> for $name<T> {
            fn borrow(&self) -> &str {
                self.0.as_ref()
            }
        }

        impl<T: AsRef<str>> PartialEq for $name<T> {
            fn eq(&self, other: &Self) -> bool {
                **self == **other
            }
        }

        impl<T: AsRef<str>> Eq for $name<T> {}

        impl<T: AsRef<str>> PartialOrd for $name<T> {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl<T: AsRef<str>> Ord for $name<T> {
            fn cmp(&self, other: &Self) -> Ordering {
                (**self).cmp(&**other)
            }
        }

        impl<T: AsRef<str>> hash::Hash for $name<T> {
            fn hash<H: hash::Hasher>(&self, state: &mut H) {
                (**self).hash(state);
            }
        }

        impl<T: AsRef<str>> fmt::Debug for $name<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&**self, f)
            }
        }

        impl<T: AsRef<str>> fmt::Display for $name<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self)
            }
        }
    };
}

owned! {
    /// A [`Topic`] with its text, held by a `T` that always shows the same: `&'static str`, a `heapless::String`, an
    /// `Arc<str>`. Compared, ordered and hashed as the text is.
    ///
    /// ```
    /// use longwire_core::log::TopicName;
    ///
    /// let name = TopicName::parse("fleet/7/cpu")?;
    /// assert_eq!(name.topic().levels().count(), 3);
    /// # Ok::<(), longwire_core::log::NameError>(())
    /// ```
    TopicName of Topic
}

owned! {
    /// A [`Pattern`] with its text, as [`TopicName`].
    ///
    /// ```
    /// use longwire_core::log::{PatternName, Topic};
    ///
    /// let name = PatternName::parse("fleet/*/cpu")?;
    /// assert!(name.pattern().matches(Topic::parse("fleet/7/cpu")?));
    /// # Ok::<(), longwire_core::log::NameError>(())
    /// ```
    PatternName of Pattern
}

impl<T: AsRef<str>> TopicName<T> {
    /// The same, borrowed, without a check.
    pub fn topic(&self) -> Topic<'_> {
        Topic::checked(self.0.as_ref())
    }
}

impl<T: AsRef<str>> PatternName<T> {
    /// The same, borrowed, without a check.
    pub fn pattern(&self) -> Pattern<'_> {
        Pattern::checked(self.0.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::BTreeSet, string::ToString};

    #[test]
    fn what_is_kept_was_checked_and_is_found_by_its_text() {
        assert_eq!(TopicName::parse("a/*"), Err(NameError::Wildcard));
        assert_eq!(PatternName::parse("a//b"), Err(NameError::EmptyLevel));
        let topic: TopicName<std::string::String> = Topic::parse("a/b").unwrap().into();
        assert_eq!((topic.topic(), &**topic.holder()), (Topic::parse("a/b").unwrap(), "a/b"));
        let set: BTreeSet<_> = ["b", "a/*"].map(|text| PatternName::parse(text).unwrap()).into();
        assert!(set.contains("a/*") && !set.contains("a"));
        assert!(set.iter().map(ToString::to_string).eq(["a/*", "b"]));
    }
}
