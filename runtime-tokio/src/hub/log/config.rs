//! The bounds of a log, and what is refused at them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The bounds of a log. Each has a default, and what happens at it is said at the field. An event is charged its body
/// and what is kept around it ([`Event::cost`](super::Event::cost)), in each of the three places where it is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Events in the tail, which live readers are served from. Default 16,384. The oldest leaves; a reader that is
    /// further behind reads from the history.
    pub tail_events: usize,
    /// Bytes of the tail's events. Default 16 MiB. As above. Encoded forms may take as much again.
    pub tail_bytes: usize,
    /// How long an event stays in the tail. Default one hour. As above; the newest event stays whatever its age.
    pub tail_age: Duration,
    /// Events in the history of one topic. Default 1,000. The topic's oldest leaves; who resumes from before it is
    /// told a gap.
    pub history_events: usize,
    /// Bytes of the history of all topics. Default 64 MiB. The topic that is published to loses its own past, unless
    /// it has less than its share: then the topic with the most loses.
    pub history_bytes: usize,
    /// How long an event stays in the history. Default one hour. The latest event of a topic and key stays.
    pub history_age: Duration,
    /// Topics. Default 10,000. One more is dealt with as [`topics_full`](Self::topics_full) says.
    pub max_topics: usize,
    /// Latest events: topics and keys together. Default 100,000. As above.
    pub max_keys: usize,
    /// Bytes of the latest events. Default 64 MiB. As above.
    pub latest_bytes: usize,
    /// How long the latest event of a topic and key stays. Default a week. Then it is no part of the state any more,
    /// and a topic of which nothing else is held is forgotten, which makes room for another.
    pub latest_age: Duration,
    /// What happens to a publication that needs a further topic or latest event when there is no room. Default: it is
    /// refused.
    pub topics_full: TopicsFull,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            tail_events: 16_384,
            tail_bytes: 16 << 20,
            tail_age: Duration::from_secs(3600),
            history_events: 1_000,
            history_bytes: 64 << 20,
            history_age: Duration::from_secs(3600),
            max_topics: 10_000,
            max_keys: 100_000,
            latest_bytes: 64 << 20,
            latest_age: Duration::from_secs(7 * 24 * 3600),
            topics_full: TopicsFull::Refuse,
        }
    }
}

impl LogConfig {
    /// Bytes that the events of a log may take at most: those of its tail and of their encoded forms, of its histories,
    /// and of the latest events. One that is in several of these is held once and counts in each. The tables of topics
    /// and keys come on top, which are bounded in number.
    pub fn max_bytes(&self) -> usize {
        let forms = self.tail_bytes;
        [self.tail_bytes, forms, self.history_bytes, self.latest_bytes]
            .into_iter()
            .fold(0, usize::saturating_add)
    }
}

/// What gives way when the tables of topics and of latest events are full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TopicsFull {
    /// What is new: the publication is refused with `topics_full`. Nobody can push out what others published.
    #[default]
    Refuse,
    /// What is oldest: the topic that was not published to for longest is forgotten with all that is held of it, or the
    /// oldest of the latest events. Whoever resumes from before the end of a forgotten topic, with a pattern that may
    /// have matched it, is told a gap, also if it never matched: that is the price. Whoever may publish anywhere can
    /// push out everything.
    Forget,
}

impl TopicsFull {
    /// The word for it in options.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::Forget => "forget",
        }
    }
}

impl fmt::Display for TopicsFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for TopicsFull {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let all = [Self::Refuse, Self::Forget];
        all.into_iter().find(|word| word.as_str() == text).ok_or("one of refuse, forget")
    }
}

/// A publication that the log has no room for. Nothing was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendError {
    /// [`LogConfig::max_topics`] is reached.
    Topics,
    /// [`LogConfig::max_keys`] is reached.
    Keys,
    /// [`LogConfig::latest_bytes`] is reached.
    LatestBytes,
}

impl AppendError {
    /// Which bound it is.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Topics => "the table of topics is full (max_topic_table)",
            Self::Keys => "the table of keys is full (max_keys)",
            Self::LatestBytes => "the latest events take all their bytes (latest_bytes)",
        }
    }
}

impl fmt::Display for AppendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::error::Error for AppendError {}
