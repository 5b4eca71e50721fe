//! What goes out: RFC 6455 sections 5.3, 5.4 and 6.1, and the bounds of the send buffer.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test that is wrong has to stop"
)]

mod common;

use common::{AnyClient, Dice, End, Endpoint, Flush, Heard, Keys, Sent, Wire, frames, limits, transcript};
use longwire_core::ws::{CloseCode, Config, Kind, MIN_RX, MIN_TX, SendError, Server};

/// A server's frame.
fn plain(b0: u8, payload: &[u8]) -> Sent {
    Sent { b0, mask: None, payload: payload.into() }
}

#[test]
fn rfc6455_5_3_each_frame_has_its_own_mask_and_one_is_asked_for() {
    let mut client = Endpoint::<AnyClient>::with(Config::new(), 1024, MIN_TX + 80);
    let text = "t".repeat(40);
    client.lend(|connection, io| {
        connection.send_text(&mut io.tx, &text).unwrap();
        // What does not fit asks for none.
        assert_eq!(connection.send_text(&mut io.tx, &text), Err(SendError::Full));
        connection.send_ping(&mut io.tx, b"ping").unwrap();
        assert_eq!(connection.send_ping(&mut io.tx, &[0; 126]), Err(SendError::ControlTooLong));
        connection.start(Kind::Binary).unwrap();
        assert_eq!(connection.write(&mut io.tx, &[1; 5]), Ok(5));
        connection.finish(&mut io.tx).unwrap();
        // In the buffer it is masked, and not as it was.
        assert!(!io.tx.pending().windows(5).any(|w| w == b"ttttt" || w == [1; 5]));
    });
    client.receive(Wire::to::<AnyClient>().ping(b"theirs").bytes());
    client.lend(|connection, io| {
        connection.close(common::millis(0), &mut io.tx, CloseCode::NORMAL, &"r".repeat(123)).unwrap();
    });
    let frames = client.frames();
    let sent: Vec<_> = frames.iter().map(|frame| (frame.b0, &frame.payload[..])).collect();
    let close = [b"\x03\xe8".as_slice(), &[b'r'; 123]].concat();
    let want: [(u8, &[u8]); 6] = [
        (0x81, text.as_bytes()),
        (0x89, b"ping"),
        (0x02, &[1; 5]),
        (0x80, b""),
        (0x8a, b"theirs"),
        (0x88, &close),
    ];
    assert_eq!(sent, want);
    // Keys one to six, in order: none was drawn in vain, and none twice.
    let keys: Vec<_> = (1..=6).map(|n| Some(Keys::nth(n))).collect();
    assert_eq!(frames.iter().map(|frame| frame.mask).collect::<Vec<_>>(), keys);
}

#[test]
fn rfc6455_5_1_a_server_masks_nothing() {
    let mut server = Endpoint::<Server>::new(Config::new());
    server.receive(Wire::to::<Server>().ping(b"p").close(1000, b"").bytes());
    assert!(server.frames().iter().all(|frame| frame.mask.is_none()));
}

fn fits_to_the_byte<R: End>() {
    let mask = if R::IS_CLIENT { 4 } else { 0 };
    for (len, header) in [(0, 2), (1, 2), (125, 2), (126, 4), (65535, 4), (65536, 10)] {
        let data = vec![b'x'; len];
        let need = MIN_TX + header + mask + len;
        for (tx, want) in [(need, Ok(())), (need - 1, Err(SendError::Full))] {
            let mut endpoint = Endpoint::<R>::with(Config::new(), 64, tx);
            let got = endpoint.lend(|connection, io| connection.send_binary(&mut io.tx, &data));
            assert_eq!(got, want, "{len} bytes into {tx}");
            let frames = endpoint.frames();
            assert_eq!(frames.len(), usize::from(want.is_ok()), "all of it or nothing");
            assert!(frames.iter().all(|frame| frame.b0 == 0x82 && frame.payload == data));
        }
    }
}

#[test]
fn a_message_fits_to_the_byte_and_leaves_the_reserve() {
    fits_to_the_byte::<Server>();
    fits_to_the_byte::<AnyClient>();
}

#[test]
fn send_errors() {
    use SendError::{Closing, ControlTooLong, Full, InMessage, NoMessage};
    let mut server = Endpoint::<Server>::with(Config::new(), 512, MIN_TX + 20);
    server.lend(|connection, io| {
        let tx = &mut io.tx;
        assert_eq!(connection.write(tx, b"x"), Err(NoMessage));
        assert_eq!(connection.finish(tx), Err(NoMessage));
        assert_eq!(connection.send_ping(tx, &[0; 126]), Err(ControlTooLong));
        assert_eq!(connection.send_pong(tx, &[0; 126]), Err(ControlTooLong));
        assert_eq!(connection.send_ping(tx, &[0; 19]), Err(Full));
        assert_eq!(connection.send_text(tx, "longer than eighteen"), Err(Full));
        assert_eq!(tx.pending(), b"", "nothing of them is written");

        connection.start(Kind::Text).unwrap();
        assert_eq!(connection.start(Kind::Text), Err(InMessage));
        assert_eq!(connection.send_text(tx, ""), Err(InMessage));
        assert_eq!(connection.send_binary(tx, b""), Err(InMessage));
        assert!(matches!(connection.begin_shared(Kind::Text, 1), Err(InMessage)));
        assert_eq!(connection.write(tx, &[b'a'; 30]), Ok(18));
        assert_eq!(connection.write(tx, b"b"), Ok(0), "no room is no error");
        assert_eq!(connection.finish(tx), Err(Full));
        assert_eq!(connection.send_ping(tx, b""), Err(Full));
        tx.consume(usize::MAX);
        connection.finish(tx).unwrap();
        assert_eq!(connection.finish(tx), Err(NoMessage));

        connection.start(Kind::Text).unwrap();
        connection.close(common::millis(0), tx, CloseCode::NORMAL, "").unwrap();
        assert_eq!(connection.write(tx, b"x"), Err(Closing));
        assert_eq!(connection.finish(tx), Err(Closing));
        assert_eq!(connection.start(Kind::Text), Err(Closing));
        assert_eq!(connection.send_text(tx, ""), Err(Closing));
        assert_eq!(connection.send_ping(tx, b""), Err(Closing));
        assert!(matches!(connection.begin_shared(Kind::Text, 1), Err(Closing)));
    });
    // The same once the peer has closed, the stream has ended, or time has run out.
    let closed = |how: fn(&mut Endpoint<Server>)| {
        let mut server = Endpoint::<Server>::new(Config::new());
        how(&mut server);
        assert_eq!(server.lend(|connection, io| connection.send_text(&mut io.tx, "")), Err(Closing));
    };
    closed(|server| _ = server.receive(Wire::to::<Server>().close(1000, b"").bytes()));
    closed(|server| _ = server.receive(b"\xff\xff"));
    closed(|server| _ = server.eof());
    closed(|server| _ = server.at(31_000).at(50_000));
}

/// Sends `data` in pieces through a small buffer; control frames go out and come in between.
fn streamed<R: End, P: End>(tx: usize, data: &[u8], kind: Kind) {
    let mut endpoint = Endpoint::<R>::with(Config::new(), 512, tx);
    endpoint.flush = Flush::WhenAsked;
    endpoint.lend(|connection, _| connection.start(kind)).unwrap();
    let mut rest = data;
    let mut pings = 0;
    while !rest.is_empty() {
        let n = endpoint.lend(|connection, io| connection.write(&mut io.tx, rest)).unwrap();
        rest = &rest[n..];
        if n == 0 {
            assert!(endpoint.write(usize::MAX) > 0, "no room in an empty buffer");
        } else {
            endpoint.receive(Wire::to::<R>().ping(b"in between").bytes());
            pings += 1;
        }
    }
    endpoint.write(usize::MAX);
    endpoint.lend(|connection, io| connection.finish(&mut io.tx)).unwrap();
    endpoint.write(usize::MAX);
    // The next message may begin.
    endpoint.lend(|connection, io| connection.send_text(&mut io.tx, "")).unwrap();
    let sent = endpoint.frames();
    assert_eq!(sent.iter().filter(|frame| frame.b0 == 0x8a).count(), pings);
    // The peer hears one message, whatever the pieces.
    endpoint.write(usize::MAX);
    let peer = transcript(Endpoint::<P>::with(Config::new(), 4096, 4096), &[&endpoint.sent]);
    let whole = match kind {
        Kind::Text => Heard::Text(String::from_utf8(data.into()).unwrap()),
        Kind::Binary => Heard::Binary(data.into()),
    };
    let messages: Vec<_> = peer.heard.into_iter().filter(|heard| !matches!(heard, Heard::Pong(_))).collect();
    assert_eq!(messages, [whole, Heard::Text(String::new())]);
}

#[test]
fn a_streamed_message_goes_through_a_small_buffer_with_control_frames_in_between() {
    let text = "€uro ".repeat(400);
    // All sizes around which the header of a piece grows.
    for room in (3..30).chain(120..140) {
        streamed::<Server, AnyClient>(MIN_TX + room, text.as_bytes(), Kind::Text);
        streamed::<AnyClient, Server>(MIN_TX + 4 + room, text.as_bytes(), Kind::Binary);
    }
    streamed::<Server, AnyClient>(MIN_TX + 70_000, &[7; 200_000], Kind::Binary);
}

#[test]
fn a_streamed_message_without_a_piece_is_an_empty_one() {
    let mut server = Endpoint::<Server>::new(Config::new());
    server.lend(|connection, io| {
        connection.start(Kind::Text).unwrap();
        assert_eq!(connection.write(&mut io.tx, b""), Ok(0));
        connection.finish(&mut io.tx).unwrap();
    });
    assert_eq!(server.frames(), [plain(0x81, b"")]);
}

#[test]
fn rfc6455_5_5_a_control_frame_of_ours_has_up_to_125_bytes() {
    let mut server = Endpoint::<Server>::new(Config::new());
    server.lend(|connection, io| {
        assert_eq!(connection.send_ping(&mut io.tx, &[1; 125]), Ok(()));
        assert_eq!(connection.send_pong(&mut io.tx, &[2; 125]), Ok(()));
        assert_eq!(connection.send_ping(&mut io.tx, &[3; 126]), Err(SendError::ControlTooLong));
    });
    assert_eq!(server.frames(), [plain(0x89, &[1; 125]), plain(0x8a, &[2; 125])]);
}

fn filled_in_place<R: End>() {
    let mut endpoint = Endpoint::<R>::with(Config::new(), 64, MIN_TX + 20);
    endpoint.lend(|connection, io| {
        let tx = &mut io.tx;
        // Something lay there before.
        assert!(tx.put(&[&[0xff; 20]]));
        tx.consume(usize::MAX);
        let sent = connection.send_with(tx, Kind::Binary, 4, |space| {
            assert_eq!(space, [0; 4]);
            space[..3].copy_from_slice(b"abc");
        });
        assert_eq!(sent, Ok(()));
        let unasked = |_: &mut [u8]| panic!("nothing is to be filled in");
        assert_eq!(connection.send_with(tx, Kind::Binary, 99, unasked), Err(SendError::Full));
        connection.start(Kind::Text).unwrap();
        assert_eq!(connection.send_with(tx, Kind::Binary, 1, unasked), Err(SendError::InMessage));
        connection.close(common::millis(0), tx, CloseCode::NORMAL, "").unwrap();
        assert_eq!(connection.send_with(tx, Kind::Binary, 1, unasked), Err(SendError::Closing));
    });
    let mask = R::IS_CLIENT.then(|| Keys::nth(1));
    let frames = endpoint.frames();
    assert_eq!((frames.len(), &frames[0]), (2, &Sent { b0: 0x82, mask, payload: b"abc\0".into() }));
}

#[test]
fn a_message_is_filled_in_where_it_goes_out_from_or_not_at_all() {
    filled_in_place::<Server>();
    filled_in_place::<AnyClient>();
}

#[test]
fn a_shared_message_is_a_header_in_front_of_the_payload() {
    for len in [0usize, 125, 126, 65535, 65536] {
        let mut server = Endpoint::<Server>::new(Config::new());
        let header = server.lend(|connection, _| connection.begin_shared(Kind::Binary, len as u64)).unwrap();
        let wire = [header.as_ref(), &vec![3; len]].concat();
        assert_eq!(frames(&wire), (vec![plain(0x82, &vec![3; len])], &[][..]));
        assert_eq!(server.pending(), 0);
    }
}

/// Echoes messages of 100 bytes, flushing only when asked, and then a few bytes. Says whether a reply was refused.
fn an_echo_is_refused(reply_room: usize, seed: u64) -> bool {
    let config = Config { reply_room, ..Config::new() };
    let mut server = Endpoint::<Server>::with(config, 1024, MIN_TX + 102 + 150);
    server.flush = Flush::ByHand;
    let mut dice = Dice(seed);
    let wire = (0..300).fold(Wire::to::<Server>(), |wire, _| match dice.upto(2) {
        0 => wire.ping(&vec![1; dice.upto(125)]),
        _ => wire.binary(&[2; 100]),
    });
    let (mut rest, mut refused) = (wire.bytes(), false);
    while !rest.is_empty() || server.lend(|_, io| io.rx.held()) > 0 {
        let n = server.append(rest);
        rest = &rest[n..];
        let before = server.heard.len();
        let _ = server.poll();
        if matches!(server.heard.get(before), Some(Heard::Binary(_))) {
            refused |= server.lend(|connection, io| connection.send_binary(&mut io.tx, &[2; 100])).is_err();
        } else if server.heard.len() == before {
            server.write(1 + dice.upto(60));
        }
    }
    refused
}

#[test]
fn a_reply_within_reply_room_never_finds_the_buffer_full() {
    assert!((0..20).all(|seed| !an_echo_is_refused(102, seed)));
    // It is the room that does it: with less some reply is refused.
    assert!((0..20).any(|seed| an_echo_is_refused(90, seed)));
    // More than the buffer has counts as all of it, instead of waiting for ever.
    assert!(!an_echo_is_refused(100_000, 1));
}

#[test]
fn a_message_waits_for_the_reply_room_to_the_byte() {
    for (reply_room, pending, waits) in
        [(50, 10, false), (50, 11, true), (60, 0, false), (70, 0, false), (70, 2, true)]
    {
        let config = Config { reply_room, ..Config::new() };
        let mut server = Endpoint::<Server>::with(config, 1024, MIN_TX + 60);
        server.flush = Flush::ByHand;
        server.lend(|connection, io| match pending {
            0 => {}
            n => connection.send_binary(&mut io.tx, &vec![0; n - 2]).unwrap(),
        });
        server.receive(Wire::to::<Server>().text("hi").bytes());
        assert_eq!(
            (server.flushes, server.heard.len()),
            (usize::from(waits), usize::from(!waits)),
            "{pending}"
        );
    }
}

#[test]
fn a_piece_waits_for_the_reply_room_too() {
    let config = Config { reply_room: 50, delivery: longwire_core::ws::Delivery::Chunks, ..limits(1000, 9) };
    let mut server = Endpoint::<Server>::with(config, MIN_RX, MIN_TX + 50);
    server.flush = Flush::ByHand;
    server.lend(|connection, io| connection.send_text(&mut io.tx, "pending").unwrap());
    server.receive(&Wire::to::<Server>().binary(&[1; 100]).bytes()[..60]);
    assert_eq!(server.flushes, 1);
    server.write(usize::MAX);
    assert!(server.turn());
    assert_eq!(server.flushes, 1);
}

#[test]
fn the_room_of_a_control_frame_is_left_by_the_application_whatever_it_sends() {
    // Fill the buffer to the last byte that an application may have, then a Ping of each length is answered.
    for len in 0..=125u8 {
        let mut client = Endpoint::<AnyClient>::with(Config::new(), 512, 1000);
        client.flush = Flush::ByHand;
        client.lend(|connection, io| {
            while connection.send_text(&mut io.tx, "x").is_ok() {}
            while connection.send_text(&mut io.tx, "").is_ok() {}
        });
        client.receive(Wire::to::<AnyClient>().ping(&vec![len; usize::from(len)]).bytes());
        assert_eq!(client.heard.len(), 1);
        client
            .lend(|connection, io| connection.close(common::millis(0), &mut io.tx, CloseCode::NORMAL, ""))
            .unwrap();
        let sent = client.frames();
        assert_eq!((sent[sent.len() - 2].b0, sent[sent.len() - 1].b0), (0x8a, 0x88));
    }
}
