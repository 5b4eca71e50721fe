//! Why something is refused (`PROTOCOL.md` section 9).

use super::Text;
use crate::log::{CursorError, NameError};
use core::{fmt, str::FromStr};

macro_rules! codes {
    ($($(#[$doc:meta])* $code:ident = $text:literal $http:tt $close:tt $permanent:ident;)*) => {
        /// A refusal, over any transport. What is added in later versions of the protocol arrives as text only:
        /// then [`Refusal::permanent`](super::Refusal::permanent) says what to do.
        ///
        /// ```
        /// use longwire_core::session::Code;
        ///
        /// let code: Code = "draining".parse().unwrap();
        /// assert_eq!((code.http_status(), code.close_code(), code.permanent()), (Some(503), Some(1001), false));
        /// ```
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[cfg_attr(feature = "defmt", derive(defmt::Format))]
        #[non_exhaustive]
        pub enum Code {
            $($(#[$doc])* $code,)*
        }

        impl Code {
            /// All codes, in the order of the specification's table.
            pub const ALL: &[Self] = &[$(Self::$code),*];

            /// The code as it is written in messages.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$code => $text,)*
                }
            }

            /// The status of an HTTP response; `None` for what only happens on an open WebSocket.
            pub const fn http_status(self) -> Option<u16> {
                match self {
                    $(Self::$code => codes!(@number $http),)*
                }
            }

            /// The WebSocket close code that follows this refusal; `None` when the connection goes on.
            pub const fn close_code(self) -> Option<u16> {
                match self {
                    $(Self::$code => codes!(@number $close),)*
                }
            }

            /// Whether the same again will fail again.
            pub const fn permanent(self) -> bool {
                match self {
                    $(Self::$code => codes!(@$permanent),)*
                }
            }
        }

        impl FromStr for Code {
            type Err = UnknownCode;

            fn from_str(text: &str) -> Result<Self, UnknownCode> {
                Self::ALL.iter().copied().find(|code| code.as_str() == text).ok_or(UnknownCode)
            }
        }
    };
    (@number -) => { None };
    (@number $number:literal) => { Some($number) };
    (@permanent) => { true };
    (@passing) => { false };
}

codes! {
    /// Malformed request, parameter, upgrade or subprotocol.
    BadRequest = "bad_request" 400 - permanent;
    /// Topic, pattern or key against section 3.
    BadTopic = "bad_topic" 400 - permanent;
    /// `since` is no cursor.
    BadCursor = "bad_cursor" 400 - permanent;
    /// `data` is not valid JSON or CBOR, or is nested too deeply.
    BadData = "bad_data" 400 - permanent;
    /// Not an envelope, or a required field is missing. The 17th on a connection closes it with 1008.
    BadMessage = "bad_message" - - permanent;
    /// A `type` that this version does not know; counts as [`BadMessage`](Self::BadMessage).
    UnknownType = "unknown_type" - - permanent;
    /// More patterns than `max_topics` on one connection.
    TooManyTopics = "too_many_topics" 400 - permanent;
    /// No credential, or a wrong or expired one.
    Unauthorized = "unauthorized" 401 3000 permanent;
    /// The grant or the origin does not cover it.
    Forbidden = "forbidden" 403 - permanent;
    /// The number of a publication lies before its publisher's window: whether it was taken is not known any more.
    OutOfWindow = "out_of_window" 409 - permanent;
    /// No such path.
    NotFound = "not_found" 404 - permanent;
    /// The path exists, but not with this method; the response has `Allow`.
    MethodNotAllowed = "method_not_allowed" 405 - permanent;
    /// The head, the body, or a message on a WebSocket did not come to its end in time.
    RequestTimeout = "request_timeout" 408 1013 passing;
    /// A body or message above `max_message`.
    MessageTooBig = "message_too_big" 413 1009 permanent;
    /// A state of more events than `limit`.
    StateTooLarge = "state_too_large" 413 - permanent;
    /// The request target is above its limit.
    UriTooLong = "uri_too_long" 414 - permanent;
    /// A WebSocket version other than 13.
    UpgradeRequired = "upgrade_required" 426 - permanent;
    /// The request head, or its number of headers, is above its limit.
    HeadTooLarge = "head_too_large" 431 - permanent;
    /// More publications or bytes than the quota of this connection or topic.
    OverQuota = "over_quota" 429 - passing;
    /// As many connections as the server allows; the response has `Retry-After`.
    TooManyConnections = "too_many_connections" 503 - passing;
    /// The gateway is about to stop.
    Draining = "draining" 503 1001 passing;
    /// Any other passing reason.
    Unavailable = "unavailable" 503 1013 passing;
    /// The reader was too far behind, and its policy is to be disconnected.
    TooSlow = "too_slow" - 1013 passing;
    /// The table of topics (or of keys) is full.
    TopicsFull = "topics_full" 507 - passing;
    /// A fault of the server.
    Internal = "internal" 500 1011 passing;
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl From<Code> for Text<'_> {
    fn from(code: Code) -> Self {
        code.as_str().into()
    }
}

impl From<NameError> for Code {
    fn from(_: NameError) -> Self {
        Self::BadTopic
    }
}

impl From<CursorError> for Code {
    fn from(_: CursorError) -> Self {
        Self::BadCursor
    }
}

/// The text is no [`Code`] that this version knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownCode;

impl fmt::Display for UnknownCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a code that this version does not know")
    }
}

impl core::error::Error for UnknownCode {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn section_9_is_this_table() {
        let page = include_str!("../../PROTOCOL.md");
        let section = page.split("## 9. Refusals").nth(1).unwrap().split("\n## ").next().unwrap();
        let mut seen = Vec::new();
        for row in section.lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<_> = row.split('|').map(str::trim).collect();
            let ["", code, http, websocket, permanent, _when, ""] = cells[..] else { panic!("{row}") };
            let code: Code = code.trim_matches('`').parse().expect(row);
            assert_eq!(code.to_string(), cells[1].trim_matches('`'));
            assert_eq!(code.http_status(), http.parse().ok(), "{row}");
            // "the 17th closes" is the seventeenth's doing, not the refusal's.
            let close = websocket.split("close ").nth(1).map(|code| code.parse().unwrap());
            assert_eq!(code.close_code(), close, "{row}");
            assert_eq!(code.permanent(), permanent == "yes", "{row}");
            assert!(matches!(permanent, "yes" | "no"), "{row}");
            seen.push(code);
        }
        assert_eq!(seen, Code::ALL);
        assert_eq!("ring".parse::<Code>(), Err(UnknownCode));
    }

    use std::string::ToString;
}
