//! What errors say: to peers, in the body of a refusal, and to people, in logs.

use std::collections::BTreeSet;
use std::fmt::Display;

use longwire_core::buf::{TxBuf, TxCursor};
use longwire_core::http::body::BodyError;
use longwire_core::http::extension::Malformed as MalformedExtensions;
use longwire_core::http::head::{HeadError, Limits};
use longwire_core::http::query::DecodeError as QueryError;
use longwire_core::http::upgrade::{HandshakeError, ResponseError};
use longwire_core::http::view::Repeated;
use longwire_core::http::write::{self, WriteError};
use longwire_core::log::{CursorError, NameError};
use longwire_core::session::{Code, Field, Full, Malformed, Reason, UnknownCode, WriteError as SessionError};

const HEAD: [HeadError; 25] = {
    use HeadError as E;
    [
        E::TooLong,
        E::TooManyHeaders,
        E::NameTooLong,
        E::ValueTooLong,
        E::TargetTooLong,
        E::TooManyInterim,
        E::BareLf,
        E::BareCr,
        E::ControlByte,
        E::RequestLine,
        E::StatusLine,
        E::Target,
        E::Version,
        E::ObsFold,
        E::SpaceBeforeColon,
        E::Name,
        E::HostMissing,
        E::HostRepeated,
        E::Host,
        E::ContentLength,
        E::ContentLengthRepeated,
        E::TransferEncoding,
        E::TransferEncodingRepeated,
        E::TransferEncodingInHttp10,
        E::TransferEncodingWithLength,
    ]
};

const BODY: [BodyError; 8] = {
    use BodyError as E;
    [
        E::TooLong,
        E::Truncated,
        E::ChunkSize,
        E::ChunkExtension,
        E::ExtensionTooLong,
        E::ChunkEnd,
        E::Trailers,
        E::TrailersTooLong,
    ]
};

const HANDSHAKE: [HandshakeError; 11] = {
    use HandshakeError as E;
    [
        E::Method,
        E::HttpVersion,
        E::Body,
        E::Upgrade,
        E::Connection,
        E::VersionCount,
        E::Version,
        E::KeyCount,
        E::Key,
        E::Subprotocols,
        E::Extensions,
    ]
};

const RESPONSE: [ResponseError; 7] = {
    use ResponseError as E;
    [E::Status(503), E::HttpVersion, E::Upgrade, E::Connection, E::Accept, E::Subprotocol, E::Extensions]
};

const WRITE: [WriteError; 9] = {
    use WriteError as E;
    [E::Full, E::Method, E::Target, E::Status, E::Name, E::Value, E::Reserved, E::Subprotocol, E::Extension]
};

const NAME: [NameError; 10] = {
    use NameError as E;
    [
        E::Empty,
        E::TooLong,
        E::TooDeep,
        E::EmptyLevel,
        E::Dots,
        E::ControlCharacter,
        E::Wildcard,
        E::PartialWildcard,
        E::RestNotLast,
        E::KeyTooLong,
    ]
};

/// Of reasons without a field.
const SESSION: [Reason; 16] = {
    use Reason as E;
    [
        E::Truncated,
        E::Trailing,
        E::Grammar,
        E::Utf8,
        E::ControlCharacter,
        E::Escape,
        E::Number,
        E::TooDeep,
        E::Head,
        E::Break,
        E::Chunk,
        E::MapKey,
        E::OtherForm,
        E::NotAMap,
        E::TypeFirst,
        E::UnknownType,
    ]
};

/// Each error of one kind has words of its own, which fit into one line of a log, a JSON string and a refusal.
fn tell_apart(errors: impl IntoIterator<Item = impl Display>) {
    let mut said = BTreeSet::new();
    for error in errors {
        let words = error.to_string();
        assert!(!words.is_empty() && words.len() < 100, "{words:?}");
        assert!(
            words.chars().all(|c| c == ' ' || (c.is_ascii_graphic() && c != '"' && c != '\\')),
            "{words:?}"
        );
        assert!(said.insert(words.clone()), "two errors say {words:?}");
    }
}

#[test]
fn errors_of_one_kind_can_be_told_apart() {
    tell_apart(HEAD);
    tell_apart(BODY);
    tell_apart(HANDSHAKE);
    tell_apart(RESPONSE);
    tell_apart(WRITE);
    tell_apart([QueryError::Escape, QueryError::Utf8, QueryError::TooLong]);
    tell_apart(NAME);
    tell_apart([CursorError::Epoch, CursorError::Hyphen, CursorError::Seq]);
    tell_apart([&Repeated as &dyn Display, &MalformedExtensions, &UnknownCode, &Full]);
    let of_fields = [Reason::Missing, Reason::Invalid, Reason::Twice, Reason::Cursor, Reason::Exclusive];
    let of_fields = of_fields.into_iter().flat_map(|reason| (0..).map_while(Field::from_number).map(reason));
    tell_apart(SESSION.into_iter().chain(of_fields));
}

#[test]
fn what_is_wrong_with_a_field_is_said_with_its_name() {
    let mut fields = 0;
    for field in (0..).map_while(Field::from_number) {
        for reason in [Reason::Missing, Reason::Invalid, Reason::Twice, Reason::Cursor, Reason::Exclusive] {
            let words = reason(field).as_str();
            assert!(words.contains(&format!("`{}`", field.name())), "{words}");
        }
        fields += 1;
    }
    assert!(Field::from_number(fields).is_none() && fields >= 27);
}

#[test]
fn a_limit_that_was_exceeded_is_named() {
    // As `Limits` calls it, which is what somebody has to change who wants more.
    let Limits { max_head: _, max_headers: _, max_name: _, max_value: _, max_target: _ } = Limits::DEFAULT;
    for (error, limit) in [
        (HeadError::TooLong, "max_head"),
        (HeadError::TooManyHeaders, "max_headers"),
        (HeadError::NameTooLong, "max_name"),
        (HeadError::ValueTooLong, "max_value"),
        (HeadError::TargetTooLong, "max_target"),
    ] {
        assert!(error.as_str().split(' ').any(|word| word == limit), "{error}");
    }
    assert_eq!(BodyError::TooLong.as_str(), "body longer than max_body");
}

#[test]
fn what_ends_a_body_has_the_status_of_its_kind() {
    for error in BODY {
        let status = match error {
            BodyError::TooLong => 413,
            BodyError::TrailersTooLong => 431,
            _ => 400,
        };
        assert_eq!(error.status(), status, "{error}");
    }
}

#[test]
fn a_refusal_says_in_its_body_which_rule_was_broken() {
    let refusals = (HEAD.iter().map(|error| (error.status(), error.as_str())))
        .chain(BODY.iter().map(|error| (error.status(), error.as_str())));
    for (status, words) in refusals {
        let (mut bytes, mut cursor) = ([0; 512], TxCursor::default());
        let mut tx = TxBuf::new(&mut bytes, &mut cursor);
        assert_eq!(write::refusal(&mut tx.reborrow(), status, &[], words), Ok(()));
        let refusal = str::from_utf8(tx.pending()).unwrap();
        let reason = write::reason(status);
        assert!(
            !reason.is_empty() && refusal.starts_with(&format!("HTTP/1.1 {status} {reason}\r\n")),
            "{refusal}"
        );
        assert!(refusal.ends_with(&format!("\r\n\r\n{words}")), "{refusal}");
    }
}

#[test]
fn a_refused_handshake_is_told_with_its_status() {
    assert_eq!(
        ResponseError::Status(503).to_string(),
        "server refused the WebSocket handshake with status 503"
    );
}

#[test]
fn rfc_9110_section_15_reason_phrases() {
    // Sections 15.2 to 15.6; RFC 6585 for 429 and 431, RFC 4918 for 507.
    let table = "100 Continue, 101 Switching Protocols, 200 OK, 201 Created, 202 Accepted, 204 No Content, \
        301 Moved Permanently, 302 Found, 304 Not Modified, 307 Temporary Redirect, 308 Permanent Redirect, \
        400 Bad Request, 401 Unauthorized, 403 Forbidden, 404 Not Found, 405 Method Not Allowed, \
        406 Not Acceptable, 408 Request Timeout, 409 Conflict, 410 Gone, 411 Length Required, \
        413 Content Too Large, 414 URI Too Long, 415 Unsupported Media Type, 426 Upgrade Required, \
        429 Too Many Requests, 431 Request Header Fields Too Large, 500 Internal Server Error, \
        501 Not Implemented, 502 Bad Gateway, 503 Service Unavailable, 504 Gateway Timeout, \
        505 HTTP Version Not Supported, 507 Insufficient Storage";
    let mut phrases = table.split(", ").map(|line| line.split_once(' ').unwrap()).peekable();
    for status in 0..1000 {
        let expected =
            phrases.next_if(|(number, _)| *number == status.to_string()).map_or("", |(_, phrase)| phrase);
        assert_eq!(write::reason(status), expected, "{status}");
    }
}

#[test]
fn refusals_of_names_and_cursors_have_the_code_of_the_protocol() {
    // PROTOCOL.md section 9.
    assert!(NAME.iter().all(|error| Code::from(*error) == Code::BadTopic));
    for error in [CursorError::Epoch, CursorError::Hyphen, CursorError::Seq] {
        assert_eq!(Code::from(error), Code::BadCursor);
    }
}

#[test]
fn what_a_writer_says_is_what_is_wrong() {
    assert_eq!(SessionError::from(Full).to_string(), Full.to_string());
    let malformed = longwire_core::session::json::validate(b"[1,]").unwrap_err();
    assert_eq!(SessionError::from(malformed).to_string(), malformed.to_string());
    let Malformed { reason, at, .. } = malformed;
    assert_eq!(malformed.to_string(), format!("{reason} (at byte {at})"));
}
