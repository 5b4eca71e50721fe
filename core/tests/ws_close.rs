//! The closing handshake: RFC 6455 sections 5.5.1, 7.1 and 7.4.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test that is wrong has to stop"
)]

mod common;

use common::{AnyClient, End, Endpoint, Heard, Wire, limits, millis};
use longwire_core::ws::{CloseCause, CloseCode, Config, Heartbeat, ProtocolError, SendError, Server, Step};
use std::time::Duration;

const TIMEOUT: u64 = 5000;

/// Close after 5 s, no heartbeat; the clock of an endpoint starts at 1 s.
fn config() -> Config {
    Config { heartbeat: None, close_timeout: Duration::from_millis(TIMEOUT), ..Config::new() }
}

fn close<R: End>(endpoint: &mut Endpoint<R>, code: CloseCode, reason: &str) -> Result<(), SendError> {
    let now = endpoint.now;
    let closed = endpoint.lend(|connection, io| connection.close(now, &mut io.tx, code, reason));
    endpoint.turn();
    closed
}

/// Payloads of the Close frames that were sent.
fn closes<R: End>(endpoint: &mut Endpoint<R>) -> Vec<Vec<u8>> {
    endpoint.frames().into_iter().filter(|frame| frame.b0 == 0x88).map(|frame| frame.payload).collect()
}

fn every_code<R: End>() {
    for code in 0..=u16::MAX {
        let mut endpoint = Endpoint::<R>::new(config());
        endpoint.receive(Wire::to::<R>().close(code, b"why").bytes());
        let may = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
        let (heard, answer) = if may {
            (Heard::Close(CloseCode::new(code), "why".into()), code)
        } else {
            (Heard::Failed(ProtocolError::BadCloseCode), 1002)
        };
        assert_eq!(endpoint.heard, [heard]);
        assert_eq!(closes(&mut endpoint)[0][..2], answer.to_be_bytes(), "{code}");
    }
}

#[test]
fn rfc6455_7_4_every_code_is_echoed_or_refused() {
    every_code::<Server>();
    every_code::<AnyClient>();
}

fn payloads<R: End>() {
    use ProtocolError as E;
    let long = [b"\x03\xe8".as_slice(), &[b'a'; 123]].concat();
    let ok = |code, reason: &str| Heard::Close(code, reason.into());
    let table: [(&[u8], Heard, &[u8]); 7] = [
        (b"", ok(None, ""), b""),
        (b"\x03", Heard::Failed(E::CloseTooShort), b"\x03\xea"),
        (b"\x03\xe8", ok(Some(CloseCode::NORMAL), ""), b"\x03\xe8"),
        (b"\x03\xe9\xce\xba", ok(Some(CloseCode::GOING_AWAY), "κ"), b"\x03\xe9"),
        (b"\x03\xe8\xce", Heard::Failed(E::NotUtf8), b"\x03\xef"),
        (b"\x03\xe8a\xed\xa0\x80", Heard::Failed(E::NotUtf8), b"\x03\xef"),
        (&long, ok(Some(CloseCode::NORMAL), &"a".repeat(123)), b"\x03\xe8"),
    ];
    for (payload, heard, answer) in table {
        let mut endpoint = Endpoint::<R>::new(config());
        endpoint.receive(Wire::to::<R>().frame(0x88, payload).bytes());
        assert_eq!(endpoint.heard, std::slice::from_ref(&heard));
        let answers = closes(&mut endpoint);
        assert_eq!(answers.len(), 1);
        assert!(answers[0].starts_with(answer) && answer.is_empty() == answers[0].is_empty(), "{heard:?}");
    }
}

#[test]
fn rfc6455_5_5_1_payload_of_a_close() {
    payloads::<Server>();
    payloads::<AnyClient>();
}

#[test]
fn our_reason_is_cut_between_characters_and_left_out_without_room() {
    for (reason, want) in
        [("é".repeat(70), 122), ("a".repeat(123), 123), ("a".repeat(124), 123), (String::new(), 0)]
    {
        let mut server = Endpoint::<Server>::new(config());
        assert_eq!(close(&mut server, CloseCode::NORMAL, &reason), Ok(()));
        let sent = closes(&mut server);
        assert_eq!(sent[0][2..], reason.as_bytes()[..want]);
    }
    // The reserve has room for a Pong and a Close with its code: the Close goes out in any case.
    let mut client = Endpoint::<AnyClient>::with(config(), 512, longwire_core::ws::MIN_TX);
    client.append(Wire::to::<AnyClient>().ping(&[1; 125]).bytes());
    assert!(matches!(client.poll(), Ok(Step::Event(_))));
    client.lend(|connection, io| {
        assert_eq!(connection.close(millis(0), &mut io.tx, CloseCode::TRY_AGAIN, "later"), Ok(()));
        assert_eq!(io.tx.room(), 0);
    });
    assert_eq!(closes(&mut client), [1013u16.to_be_bytes()]);
}

#[test]
fn rfc6455_7_1_1_a_server_is_over_at_once_and_a_client_waits_for_the_end() {
    let mut server = Endpoint::<Server>::new(config());
    server.receive(Wire::to::<Server>().close(1000, b"").bytes());
    assert_eq!(server.closed, Some(CloseCause::Clean));

    let mut client = Endpoint::<AnyClient>::new(config());
    client.receive(Wire::to::<AnyClient>().close(1000, b"").bytes());
    assert_eq!((client.closed, client.connection.is_open()), (None, false));
    assert_eq!(client.connection.poll_timeout(), Some(millis(1000 + TIMEOUT)));
    assert_eq!(client.eof(), CloseCause::Clean);

    // A server that never ends the stream is left alone after a while; both Close frames were there.
    let mut client = Endpoint::<AnyClient>::new(config());
    client.receive(Wire::to::<AnyClient>().close(1000, b"").bytes());
    assert_eq!(client.at(999 + TIMEOUT).closed, None);
    assert_eq!(client.at(1000 + TIMEOUT).closed, Some(CloseCause::Clean));
    assert_eq!(closes(&mut client).len(), 1);
}

fn we_begin<R: End>() {
    let mut endpoint = Endpoint::<R>::new(config());
    assert_eq!(close(&mut endpoint, CloseCode::NORMAL, "done"), Ok(()));
    assert_eq!(close(&mut endpoint, CloseCode::NORMAL, "twice"), Err(SendError::Closing));
    endpoint.lend(|connection, io| {
        assert!(!connection.is_open());
        assert_eq!(connection.send_text(&mut io.tx, ""), Err(SendError::Closing));
        assert_eq!(connection.send_ping(&mut io.tx, b""), Err(SendError::Closing));
        assert_eq!(connection.start(longwire_core::ws::Kind::Text), Err(SendError::Closing));
    });
    // What was under way still arrives, and a Ping is still answered (section 5.5.2).
    endpoint.receive(Wire::to::<R>().text("still").frame(0x02, b"h").ping(b"?").frame(0x80, b"ere").bytes());
    endpoint.receive(Wire::to::<R>().close(1000, b"done").text("late").ping(b"late").bytes());
    let want = [
        Heard::Text("still".into()),
        Heard::Ping(b"?".into()),
        Heard::Binary(b"here".into()),
        Heard::Close(Some(CloseCode::NORMAL), "done".into()),
    ];
    assert_eq!(endpoint.heard, want);
    let sent = endpoint.frames().iter().map(|frame| frame.b0).collect::<Vec<_>>();
    assert_eq!(sent, [0x88, 0x8a], "one Close, and no answer to the Ping behind the peer's");
    assert_eq!(endpoint.closed.unwrap_or_else(|| endpoint.eof()), CloseCause::Clean);
}

#[test]
fn data_after_our_close_is_heard_and_data_after_the_peers_is_not() {
    we_begin::<Server>();
    we_begin::<AnyClient>();
}

fn nobody_answers<R: End>() {
    let mut endpoint = Endpoint::<R>::new(config());
    assert_eq!(close(&mut endpoint, CloseCode::NORMAL, ""), Ok(()));
    assert_eq!(endpoint.connection.poll_timeout(), Some(millis(1000 + TIMEOUT)));
    // Data does not put it off.
    endpoint.now = millis(4000);
    endpoint.receive(Wire::to::<R>().text("more").bytes());
    assert_eq!(endpoint.at(999 + TIMEOUT).closed, None);
    assert_eq!(endpoint.at(1000 + TIMEOUT).closed, Some(CloseCause::Timeout));
    assert_eq!(closes(&mut endpoint).len(), 1);
}

#[test]
fn a_close_that_nobody_answers_ends_by_its_deadline() {
    nobody_answers::<Server>();
    nobody_answers::<AnyClient>();
}

#[test]
fn an_error_after_our_close_writes_no_second_one() {
    let mut server = Endpoint::<Server>::new(config());
    assert_eq!(close(&mut server, CloseCode::NORMAL, ""), Ok(()));
    server.receive(b"\xf1\x80");
    assert_eq!(server.heard, [Heard::Failed(ProtocolError::ReservedBits)]);
    assert_eq!(closes(&mut server), [1000u16.to_be_bytes()]);
}

#[test]
fn the_end_of_the_stream_has_a_cause() {
    // Without a Close, before, inside and after a message (section 7.1.5: 1006).
    for wire in [&b""[..], b"\x81", b"\x81\x85\x37\xfa\x21\x3d\x7f", b"\x81\x80\0\0\0\0"] {
        let mut server = Endpoint::<Server>::new(config());
        server.receive(wire);
        assert_eq!(server.eof(), CloseCause::EndOfStream);
    }
    let mut server = Endpoint::<Server>::new(config());
    close(&mut server, CloseCode::NORMAL, "").unwrap();
    assert_eq!(server.eof(), CloseCause::EndOfStream);
    // Asked again it says the same, and nothing else moves it.
    assert_eq!(server.eof(), CloseCause::EndOfStream);
    assert!(matches!(server.poll(), Ok(Step::Closed(CloseCause::EndOfStream))));

    let mut failed = Endpoint::<Server>::new(config());
    failed.receive(b"\xf1\x80");
    assert_eq!(failed.eof(), CloseCause::Failed(CloseCode::PROTOCOL));
}

#[test]
fn a_timeout_after_the_end_says_how_it_ended() {
    let closed = |server: &mut Endpoint<Server>| {
        let now = server.now;
        server.lend(|connection, io| connection.handle_timeout(now, io))
    };
    let mut server = Endpoint::<Server>::new(config());
    assert_eq!(closed(&mut server), Step::NeedInput);
    server.receive(b"\xf1\x80");
    assert_eq!(closed(&mut server), Step::Closed(CloseCause::Failed(CloseCode::PROTOCOL)));
    let mut server = Endpoint::<Server>::new(config());
    server.eof();
    assert_eq!(closed(&mut server), Step::Closed(CloseCause::EndOfStream));
}

/// What lies between a Close that was found and the next poll: an application looks at the event, and the
/// runtime may read or be late meanwhile.
fn between_the_close_and_the_next_poll<R: End>(meanwhile: impl Fn(&mut Endpoint<R>)) -> Endpoint<R> {
    let heartbeat = Some(Heartbeat { interval: Duration::from_secs(1), timeout: Duration::from_secs(1) });
    let mut endpoint = Endpoint::<R>::new(Config { heartbeat, ..config() });
    endpoint.append(Wire::to::<R>().close(1000, b"").bytes());
    assert!(matches!(endpoint.poll(), Ok(Step::Event(_))));
    assert!(!endpoint.connection.is_open());
    meanwhile(&mut endpoint);
    endpoint.turn();
    assert_eq!(closes(&mut endpoint), [1000u16.to_be_bytes()], "one Close is sent");
    endpoint
}

#[test]
fn a_late_runtime_makes_no_clean_close_a_timeout() {
    let late = between_the_close_and_the_next_poll::<Server>(|server| {
        server.at(100_000);
    });
    assert_eq!(late.closed, Some(CloseCause::Clean));
    let late = between_the_close_and_the_next_poll::<AnyClient>(|client| {
        client.at(100_000);
    });
    assert_eq!(late.closed, Some(CloseCause::Clean));
    let mut ended = between_the_close_and_the_next_poll::<AnyClient>(|client| {
        assert_eq!(client.eof(), CloseCause::Clean)
    });
    assert_eq!(ended.eof(), CloseCause::Clean);
}

#[test]
fn bytes_behind_a_close_leave_its_deadline_alone() {
    let client = between_the_close_and_the_next_poll::<AnyClient>(|client| {
        client.append(b"\x81\x04late");
    });
    assert_eq!(client.connection.poll_timeout(), Some(millis(1000 + TIMEOUT)));
}

fn holds_nothing<R: End>(wire: Wire) {
    let mut endpoint = Endpoint::<R>::new(limits(100, 100));
    endpoint.receive(wire.bytes());
    assert_eq!(endpoint.lend(|_, io| io.rx.held()), 0);
}

#[test]
fn a_connection_that_is_over_holds_no_bytes() {
    let wire = Wire::to::<Server>;
    holds_nothing::<Server>(wire().frame(0x01, b"part").close(1000, b"").text("late"));
    holds_nothing::<Server>(wire().frame(0x01, b"part").raw(b"\xff\xff").text("late"));
    holds_nothing::<AnyClient>(Wire::to::<AnyClient>().frame(0x01, b"part").close(1000, b"").text("late"));
}
