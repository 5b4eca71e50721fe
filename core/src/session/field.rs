//! The names of fields and messages in both forms (`PROTOCOL.md` sections 4 and 5).

/// What is said about a field that is wrong, put together when the crate is built.
pub(super) struct Texts {
    pub(super) missing: &'static str,
    pub(super) invalid: &'static str,
    pub(super) twice: &'static str,
    pub(super) cursor: &'static str,
    pub(super) exclusive: &'static str,
    /// `,"name":`, as it stands in JSON.
    #[cfg_attr(not(feature = "json"), expect(dead_code, reason = "only JSON writes names"))]
    pub(super) json: &'static str,
}

macro_rules! fields {
    ($($field:ident = $number:literal $name:literal,)*) => {
        /// A field of an envelope (section 4).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[cfg_attr(feature = "defmt", derive(defmt::Format))]
        #[non_exhaustive]
        #[repr(u8)]
        pub enum Field {
            $(#[doc = concat!("`", $name, "`")] $field = $number,)*
        }

        impl Field {
            /// All fields, in the order of their numbers, from 0.
            pub const ALL: &[Self] = &[$(Self::$field),*];

            /// The name, as in JSON.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$field => $name,)*
                }
            }

            /// The number, as in CBOR.
            pub const fn number(self) -> u8 {
                self as u8
            }

            /// The field of that name.
            pub fn from_name(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$field),)*
                    _ => None,
                }
            }

            /// The field of that number.
            pub const fn from_number(number: u64) -> Option<Self> {
                match number {
                    $($number => Some(Self::$field),)*
                    _ => None,
                }
            }

            pub(super) const fn texts(self) -> Texts {
                match self {
                    $(Self::$field => Texts {
                        missing: concat!("the field `", $name, "` is missing"),
                        invalid: concat!("the field `", $name, "` has a wrong type or range"),
                        twice: concat!("the field `", $name, "` comes twice"),
                        cursor: concat!("the field `", $name, "` is no cursor"),
                        exclusive: concat!("the field `", $name, "` excludes one that came before"),
                        json: concat!(",\"", $name, "\":"),
                    },)*
                }
            }
        }
    };
}

fields! {
    Type = 0 "type",
    Topic = 1 "topic",
    At = 2 "at",
    Key = 3 "key",
    Data = 4 "data",
    Bytes = 5 "bytes",
    ContentType = 6 "content_type",
    N = 7 "n",
    Since = 8 "since",
    Topics = 9 "topics",
    Id = 10 "id",
    Past = 11 "past",
    From = 12 "from",
    To = 13 "to",
    Reason = 14 "reason",
    Code = 15 "code",
    Message = 16 "message",
    Permanent = 17 "permanent",
    RetryAfter = 18 "retry_after",
    Window = 19 "window",
    Session = 20 "session",
    Heartbeat = 21 "heartbeat",
    Lease = 22 "lease",
    Limits = 23 "limits",
    Level = 24 "level",
    Token = 25 "token",
    Within = 26 "within",
    PublisherN = 27 "publisher_n",
    Policy = 28 "policy",
    Skipped = 29 "skipped",
    Lag = 30 "lag",
    Limit = 31 "limit",
    Pressure = 32 "pressure",
}

macro_rules! kinds {
    ($($kind:ident = $number:literal $name:literal,)*) => {
        /// What a message is: its field `type` (section 5).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[cfg_attr(feature = "defmt", derive(defmt::Format))]
        #[non_exhaustive]
        #[repr(u8)]
        pub enum Kind {
            $(#[doc = concat!("`", $name, "`")] $kind = $number,)*
        }

        impl Kind {
            /// All kinds, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$kind),*];

            /// The text of `type` in JSON; also the name of the event on SSE.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                }
            }

            /// The code of `type` in CBOR.
            pub const fn number(self) -> u8 {
                self as u8
            }

            /// The kind of that name.
            pub fn from_name(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$kind),)*
                    _ => None,
                }
            }

            /// The kind of that code.
            pub const fn from_number(number: u64) -> Option<Self> {
                match number {
                    $($number => Some(Self::$kind),)*
                    _ => None,
                }
            }
        }
    };
}

kinds! {
    Sub = 1 "sub",
    Unsub = 2 "unsub",
    Pub = 3 "pub",
    Auth = 4 "auth",
    Hello = 16 "hello",
    Event = 17 "event",
    CaughtUp = 18 "caught_up",
    Ack = 19 "ack",
    Nack = 20 "nack",
    Gap = 21 "gap",
    Tick = 22 "tick",
    Renew = 23 "renew",
    Bye = 24 "bye",
    Error = 25 "error",
    Pressure = 26 "pressure",
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    /// The rows of the tables below a heading: number and name of each.
    fn rows(page: &str, heading: &str) -> Vec<(u8, std::string::String)> {
        let section = page.split(heading).nth(1).unwrap().split("\n## ").next().unwrap();
        section
            .lines()
            .filter_map(|line| {
                let mut cells = line.split('|').map(str::trim).skip(1);
                Some((cells.next()?.parse().ok()?, cells.next()?.trim_matches('`').into()))
            })
            .collect()
    }

    #[test]
    fn sections_4_and_5_are_these_tables() {
        let page = include_str!("../../PROTOCOL.md");
        let fields: Vec<_> = Field::ALL.iter().map(|field| (field.number(), field.name().into())).collect();
        assert_eq!(rows(page, "## 4. Envelopes"), fields);
        let kinds: Vec<_> = Kind::ALL.iter().map(|kind| (kind.number(), kind.name().into())).collect();
        assert_eq!(rows(page, "## 5. Messages"), kinds);
        for (at, field) in Field::ALL.iter().enumerate() {
            assert_eq!(usize::from(field.number()), at);
            assert_eq!(Field::from_name(field.name()), Some(*field));
            assert_eq!(Field::from_number(field.number().into()), Some(*field));
        }
        for kind in Kind::ALL {
            assert_eq!(Kind::from_name(kind.name()), Some(*kind));
            assert_eq!(Kind::from_number(kind.number().into()), Some(*kind));
        }
        assert_eq!((Field::from_number(33), Field::from_number(1 << 32)), (None, None));
        assert_eq!((Kind::from_number(0), Kind::from_name("subscribe")), (None, None));
    }
}
