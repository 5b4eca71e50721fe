//! Close codes (RFC 6455 section 7.4) and how connections end.

use super::{ProtocolError, Text, utf8};
use core::fmt;

/// A close code that may stand in a Close frame: 1000 to 1003, 1007 to 1014, and 3000 to 4999.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct CloseCode(u16);

impl CloseCode {
    /// 1000: the purpose is fulfilled.
    pub const NORMAL: Self = Self(1000);
    /// 1001: the endpoint goes away (a server stops, a page is left).
    pub const GOING_AWAY: Self = Self(1001);
    /// 1002: the peer broke the protocol.
    pub const PROTOCOL: Self = Self(1002);
    /// 1003: a kind of data that this endpoint does not take.
    pub const UNSUPPORTED: Self = Self(1003);
    /// 1007: data that contradicts its type, such as text that is not UTF-8.
    pub const INVALID_PAYLOAD: Self = Self(1007);
    /// 1008: a policy was violated.
    pub const POLICY: Self = Self(1008);
    /// 1009: a message was too big.
    pub const TOO_BIG: Self = Self(1009);
    /// 1011: the server met a condition that it did not expect.
    pub const INTERNAL: Self = Self(1011);
    /// 1012: the server restarts.
    pub const RESTART: Self = Self(1012);
    /// 1013: overloaded; try again later.
    pub const TRY_AGAIN: Self = Self(1013);
    /// 3000: not authorised (registered with IANA).
    pub const UNAUTHORIZED: Self = Self(3000);

    /// The code, if it may stand in a frame. 1004, 1005, 1006 and 1015 must not; 1016 to 2999 are reserved for
    /// the protocol, and nothing below 1000 or above 4999 is a code.
    ///
    /// ```
    /// use longwire_core::ws::CloseCode;
    /// assert_eq!(CloseCode::new(1000), Some(CloseCode::NORMAL));
    /// assert_eq!(CloseCode::new(1006), None);
    /// ```
    pub const fn new(code: u16) -> Option<Self> {
        match code {
            1000..=1003 | 1007..=1014 | 3000..=4999 => Some(Self(code)),
            _ => None,
        }
    }

    /// The number.
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Debug for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CloseCode({})", self.0)
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a peer's Close frame says (RFC 6455 section 5.5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseReason<'b> {
    /// `None` when the frame was empty (the code 1005 of APIs that have no `Option`).
    pub code: Option<CloseCode>,
    /// At most 123 bytes; empty when there was none.
    pub reason: Text<'b>,
}

impl<'b> CloseReason<'b> {
    /// Of an empty frame.
    pub(super) const NONE: Self = Self { code: None, reason: Text(&[]) };

    /// Reads the payload of a Close frame.
    pub(super) fn parse(payload: &'b [u8]) -> Result<Self, ProtocolError> {
        // RFC 6455 5.5.1: "If there is a body, the first two bytes of the body MUST be a 2-byte unsigned integer"
        let Some((code, reason)) = payload.split_first_chunk::<2>() else {
            return match payload {
                [] => Ok(Self::NONE),
                _ => Err(ProtocolError::CloseTooShort),
            };
        };
        let code = CloseCode::new(u16::from_be_bytes(*code)).ok_or(ProtocolError::BadCloseCode)?;
        match utf8::check(reason) {
            Ok(0) => Ok(Self { code: Some(code), reason: Text(reason) }),
            _ => Err(ProtocolError::NotUtf8),
        }
    }
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum CloseCause {
    /// Both ends have sent a Close.
    Clean,
    /// This end failed the connection (RFC 6455 section 7.1.7) with this code.
    Failed(CloseCode),
    /// The peer did not answer a Ping, or our Close, in time.
    Timeout,
    /// The stream ended without a Close (the code 1006 of APIs that have no enum).
    EndOfStream,
}

/// The longest reason that fits behind the code: a control frame has 125 bytes.
pub(super) const MAX_REASON: usize = 123;

/// As much of `reason` as fits into a Close frame, cut between characters.
pub(super) fn fit(reason: &str) -> &str {
    reason.get(..reason.floor_char_boundary(MAX_REASON)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::{String, ToString};

    #[test]
    fn rfc6455_7_4_which_codes_may_be_sent() {
        let valid = |c| CloseCode::new(c).is_some();
        for code in
            [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999]
        {
            assert!(valid(code), "{code}");
        }
        for code in [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
            assert!(!valid(code), "{code}");
        }
    }

    #[test]
    fn a_code_is_shown_as_its_number() {
        assert_eq!((CloseCode::NORMAL.get(), CloseCode::NORMAL.to_string()), (1000, "1000".into()));
        assert_eq!(std::format!("{:?}", CloseCode::TOO_BIG), "CloseCode(1009)");
    }

    #[test]
    fn rfc6455_5_5_1_payload_of_a_close() {
        let parse = CloseReason::parse;
        assert_eq!(parse(b""), Ok(CloseReason { code: None, reason: "".into() }));
        assert_eq!(parse(b"\x03"), Err(ProtocolError::CloseTooShort));
        assert_eq!(parse(b"\x03\xe8"), Ok(CloseReason { code: Some(CloseCode::NORMAL), reason: "".into() }));
        assert_eq!(
            parse(b"\x03\xe8bye"),
            Ok(CloseReason { code: Some(CloseCode::NORMAL), reason: "bye".into() })
        );
        assert_eq!(parse(b"\x03\xee"), Err(ProtocolError::BadCloseCode));
        assert_eq!(parse(b"\x03\xe8\xce"), Err(ProtocolError::NotUtf8));
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        assert_eq!(fit(&"a".repeat(124)).len(), 123);
        // 61 two-byte characters are 122 bytes; the 62nd would end at 124.
        assert_eq!(fit(&"é".repeat(70)), "é".repeat(61));
        let s: String = std::format!("a{}", "€".repeat(50));
        assert_eq!(fit(&s).len(), 121);
        assert_eq!(fit("short"), "short");
    }
}
