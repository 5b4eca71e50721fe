//! What happens to a reader or an outbox that is full.

use core::{fmt, str::FromStr};

/// What gives way when something that is bounded is full (`PROTOCOL.md` section 5.1).
///
/// ```
/// use longwire_core::log::Policy;
///
/// assert_eq!("conflate".parse(), Ok(Policy::Conflate));
/// assert_eq!(Policy::default(), Policy::DropOldest);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Policy {
    /// The oldest is given up. A reader jumps on, and is told the gap.
    #[default]
    DropOldest,
    /// Only the latest of each topic and key is kept. A reader is told the gap, and then gets those.
    Conflate,
    /// The reader is disconnected, and may resume later.
    Disconnect,
    /// What is new is refused. Only an outbox has it: a log does not wait for its readers.
    DropNewest,
}

impl Policy {
    /// Those that a reader of a log may choose from.
    pub const OF_READERS: [Self; 3] = [Self::DropOldest, Self::Conflate, Self::Disconnect];

    /// The policy as it is written in messages, URLs and options.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DropOldest => "drop_oldest",
            Self::Conflate => "conflate",
            Self::Disconnect => "disconnect",
            Self::DropNewest => "drop_newest",
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Policy {
    type Err = UnknownPolicy;

    fn from_str(text: &str) -> Result<Self, UnknownPolicy> {
        match text {
            "drop_oldest" => Ok(Self::DropOldest),
            "conflate" => Ok(Self::Conflate),
            "disconnect" => Ok(Self::Disconnect),
            "drop_newest" => Ok(Self::DropNewest),
            _ => Err(UnknownPolicy),
        }
    }
}

/// The text is no [`Policy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct UnknownPolicy;

impl UnknownPolicy {
    /// What is wrong, in words.
    pub const fn as_str(self) -> &'static str {
        "a policy is one of drop_oldest, conflate, disconnect (an outbox also has drop_newest)"
    }
}

impl fmt::Display for UnknownPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl core::error::Error for UnknownPolicy {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_read_as_it_is_written() {
        for policy in Policy::OF_READERS.into_iter().chain([Policy::DropNewest]) {
            assert_eq!(policy.as_str().parse(), Ok(policy));
        }
        for text in ["", "Conflate", "drop-oldest", "unknown"] {
            assert_eq!(text.parse::<Policy>(), Err(UnknownPolicy), "{text:?}");
        }
    }
}
