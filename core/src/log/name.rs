//! The names of logs, and the paths that stand for them.

use super::NameError;
use core::fmt;

/// Largest name of a log, in bytes.
pub const MAX_LOG_NAME: usize = 64;

/// The name of a log (`PROTOCOL.md` section 1): 1 to [`MAX_LOG_NAME`] of `a-z`, `0-9`, `.`, `_` and `-`, the first a
/// letter or a digit. A name is written in a path as it is: nothing of it is ever percent-encoded.
///
/// ```
/// use longwire_core::log::LogName;
///
/// assert!(LogName::parse("telemetry-2").is_ok());
/// assert!(LogName::parse("..").is_err() && LogName::parse("Telemetry").is_err());
/// assert_eq!(LogName::of_path("/v1/logs/telemetry/stream"), Some(("telemetry", "/stream")));
/// assert_eq!(LogName::of_path("/v1/stream"), Some(("default", "/stream")));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct LogName<'a>(&'a str);

impl LogName<'static> {
    /// The log of the paths that name none.
    pub const DEFAULT: Self = Self("default");
}

impl<'a> LogName<'a> {
    /// Checks a name.
    ///
    /// # Errors
    /// [`NameError::LogName`].
    pub fn parse(name: &'a str) -> Result<Self, NameError> {
        let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let all = |byte: u8| plain(&byte) || matches!(byte, b'.' | b'_' | b'-');
        let good =
            name.len() <= MAX_LOG_NAME && name.as_bytes().first().is_some_and(plain) && name.bytes().all(all);
        if good { Ok(Self(name)) } else { Err(NameError::LogName) }
    }

    /// The name, as it was checked.
    pub const fn as_str(self) -> &'a str {
        self.0
    }

    /// What a path says of a log: the name in it, which was not checked, and the rest from its slash on. `None` when
    /// it is no path of a log.
    pub fn of_path(path: &'a str) -> Option<(&'a str, &'a str)> {
        let rest = path.strip_prefix("/v1")?;
        let Some(named) = rest.strip_prefix("/logs/") else {
            return rest.starts_with('/').then_some((LogName::DEFAULT.0, rest));
        };
        // Not `split_at` with a number found elsewhere: that has a panic which no compiler proves away.
        let name = named.split(['/']).next()?;
        Some((name, named.strip_prefix(name)?)).filter(|(_, rest)| !rest.is_empty())
    }
}

impl fmt::Display for LogName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0)
    }
}

impl<'a> TryFrom<&'a str> for LogName<'a> {
    type Error = NameError;

    fn try_from(name: &'a str) -> Result<Self, NameError> {
        Self::parse(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn section_1_the_names_of_logs() {
        let longest = "x".repeat(MAX_LOG_NAME);
        for name in ["a", "0", "default", "a.b_c-d", "9-", "a..b", &longest] {
            assert_eq!(LogName::parse(name).map(LogName::as_str), Ok(name));
        }
        let longer = "x".repeat(MAX_LOG_NAME + 1);
        for name in ["", ".", "..", "-a", "_a", "A", "a b", "a/b", "a%62", "ä", "a\n", "a*", &longer] {
            assert_eq!(LogName::parse(name), Err(NameError::LogName), "{name:?}");
        }
        assert_eq!(LogName::parse(LogName::DEFAULT.as_str()), Ok(LogName::DEFAULT));
    }

    #[test]
    fn section_1_paths_name_a_log_or_mean_the_default() {
        for (path, want) in [
            ("/v1/stream", Some(("default", "/stream"))),
            ("/v1/topics/a/b", Some(("default", "/topics/a/b"))),
            ("/v1/", Some(("default", "/"))),
            ("/v1/logs", Some(("default", "/logs"))),
            ("/v1/logs/a/stream", Some(("a", "/stream"))),
            ("/v1/logs/default/stream", Some(("default", "/stream"))),
            ("/v1/logs/a/topics/b//c", Some(("a", "/topics/b//c"))),
            ("/v1/logs/a/logs/b/stream", Some(("a", "/logs/b/stream"))),
            ("/v1/logs/a/", Some(("a", "/"))),
            // Names are for whoever looks them up to judge.
            ("/v1/logs//stream", Some(("", "/stream"))),
            ("/v1/logs/%61/stream", Some(("%61", "/stream"))),
            ("/v1/logs/a", None),
            ("/v1/logs/", None),
            ("/v1", None),
            ("/v1stream", None),
            ("/v2/stream", None),
            ("/", None),
            ("", None),
        ] {
            assert_eq!(LogName::of_path(path), want, "{path}");
        }
    }
}
