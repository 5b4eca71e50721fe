//! Where things stand in a log, what they are called, and how fast they may come: cursors, topics, patterns, keys, the
//! names of logs, rates.
//!
//! Everything here is a checked view of text that somebody else stores. A [`Topic`] or a [`Pattern`] that exists
//! is valid, so nothing behind it has to check again.
//!
//! ```
//! use longwire_core::log::{Cursor, Pattern, Since, Topic};
//!
//! let pattern = Pattern::parse("fleet/*/cpu")?;
//! assert!(pattern.matches(Topic::parse("fleet/7/cpu")?));
//! assert!(Pattern::parse("fleet/**")?.covers(pattern)); // a grant for `fleet/**` allows this subscription
//!
//! let cursor = Cursor::parse("9f86d081884c7d65-1042")?;
//! assert_eq!(cursor.position_in(0x9f86_d081_884c_7d65), Some(1042));
//! assert_eq!(Since::parse("latest")?, Since::Latest);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod cursor;
mod lag;
mod name;
mod owned;
mod policy;
mod rate;
mod topic;

pub use cursor::{Cursor, CursorError, CursorText, MAX_CURSOR, Since};
pub use lag::{Bounds, Distance, Lag, Next, Pressure, Skip, Skipped};
pub use name::{LogName, MAX_LOG_NAME};
pub use owned::{PatternName, TopicName};
pub use policy::{Policy, UnknownPolicy};
pub use rate::{Bound, Bucket, OverQuota, Quota, QuotaConfig, Rate};
pub use topic::{Key, Level, MAX_DEPTH, MAX_KEY, MAX_TOPIC, NameError, Pattern, Topic};
