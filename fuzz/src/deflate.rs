//! Messages that permessage-deflate compresses (RFC 7692).

use crate::choices::Choices;
use crate::common::{AnyClient, End, Endpoint, Flush, Heard, Transcript, Wire, limits, transcript};
use crate::cuts::pieces;
use longwire_core::ws::deflate::{Agreed, Deflate as _, Window};
use longwire_core::ws::{
    CloseCause, Config, Delivery, Kind, MIN_RX, MIN_TX, ProtocolError, SendError, Server,
};

/// `kind | ...`. Kind 0 is a wire: `flags | receive buffer | send buffer | longest piece | seed | max_message / 64 | wire`, with the flags
/// of [`ws_connection`](crate::ws_connection) and 16 context takeover. Kind 1 is the same, with one compressed payload instead of a
/// wire, cut into frames as the last byte of it says. Kind 2 are messages as choices, which one end compresses and the other inflates.
///
/// # Panics
/// When an endpoint makes something else of the pieces than of the whole, or inflates more than its limit; when what
/// was compressed is not heard again.
pub fn deflate(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    if kind % 3 == 2 {
        return round_trips(&mut Choices::new(rest));
    }
    let Some((setup, wire)) = rest.split_first_chunk() else { return };
    match (setup[0] & 1, kind % 3) {
        (0, 0) => agrees::<Server>(setup, wire),
        (_, 0) => agrees::<AnyClient>(setup, wire),
        (0, _) => agrees::<Server>(setup, framed::<Server>(wire).bytes()),
        _ => agrees::<AnyClient>(setup, framed::<AnyClient>(wire).bytes()),
    }
}

const TAKEOVER: u8 = 16;

fn agreed(takeover: bool) -> Agreed {
    let window = Window { bits: 15, takeover };
    Agreed { server: window, client: window }
}

/// A compressed payload as one message, or as two of one payload, whole or in fragments.
fn framed<R: End>(payload: &[u8]) -> Wire {
    let Some((how, payload)) = payload.split_last() else { return Wire::to::<R>() };
    let opcode = 1 + (how & 1);
    let mut wire = Wire::to::<R>();
    for _ in 0..=(how >> 1 & 1) {
        let size = usize::from(how >> 2);
        if size == 0 {
            wire = wire.frame(0xc0 | opcode, payload);
            continue;
        }
        for (n, piece) in payload.chunks(size).enumerate() {
            wire = wire.frame(if n == 0 { 0x40 | opcode } else { 0 }, piece);
        }
        wire = wire.frame(if payload.is_empty() { 0xc0 | opcode } else { 0x80 }, b"");
    }
    wire
}

fn agrees<R: End>(&[flags, rx, tx, longest, seed, limit]: &[u8; 6], wire: &[u8]) {
    let base = limits(64 * u64::from(limit), 20);
    let agreed = agreed(flags & TAKEOVER != 0);
    let uncut = |delivery| {
        let config = Config { delivery, ..base.clone() };
        let endpoint = Endpoint::<R>::with(config, wire.len() + MIN_RX, 2 * wire.len() + MIN_TX);
        heard(endpoint.deflate(agreed), &[wire])
    };
    let delivery = if flags & 2 == 0 { Delivery::Whole } else { Delivery::Chunks };
    let least = if delivery == Delivery::Whole { 0 } else { MIN_RX };
    let config = Config { delivery, ..base.clone() };
    let endpoint = Endpoint::<R>::with(config, least + usize::from(rx), MIN_TX + usize::from(tx));
    let mut endpoint = endpoint.deflate(agreed);
    endpoint.flush = if flags & 4 == 0 { Flush::Always } else { Flush::WhenAsked };
    let (whole, chunks) = (uncut(Delivery::Whole), uncut(Delivery::Chunks));
    let cut = heard(endpoint, &pieces(wire, longest, seed));
    assert_eq!(&cut, if delivery == Delivery::Whole { &whole } else { &chunks });

    // In pieces, what is wrong with a payload is found before all of it is there. Until then both hear the same.
    match chunks.heard.split_last() {
        Some((Heard::Failed(_), before)) => assert!(whole.heard.starts_with(before), "{whole:?}\n{chunks:?}"),
        _ => assert_eq!(whole, chunks),
    }
}

/// What an endpoint makes of a wire, once it is known that it kept to its limit.
fn heard<R: End>(mut endpoint: Endpoint<R>, wire: &[&[u8]]) -> Transcript {
    for piece in wire {
        endpoint.receive(piece);
    }
    let limit = endpoint.connection.config().max_message;
    let lengths = endpoint.heard.iter().map(|heard| match heard {
        Heard::Text(text) => text.len() as u64,
        Heard::Binary(data) => data.len() as u64,
        _ => 0,
    });
    assert!(lengths.clone().all(|len| len <= limit));
    let inflated = endpoint.codec.total.written as u64;
    assert!(inflated <= lengths.sum::<u64>() + limit + 1, "{inflated} bytes, and the limit is {limit}");

    let mut transcript = transcript(endpoint, &[]);
    // Which fault of a payload is found first depends on how much is inflated at once.
    if let Some(Heard::Failed(error)) = transcript.heard.last_mut()
        && let ProtocolError::NotUtf8 | ProtocolError::MessageTooBig = error
        && inflated > 0
    {
        *error = ProtocolError::Corrupt;
        let failed = ProtocolError::Corrupt.code();
        transcript.closed = CloseCause::Failed(failed);
        transcript.sent.last_mut().unwrap().payload = failed.get().to_be_bytes().into();
    }
    transcript
}

/// One end sends what the choices say, the other hears it.
fn round_trips(choices: &mut Choices<'_>) {
    if choices.flag() {
        round_trip::<Server, AnyClient>(choices);
    } else {
        round_trip::<AnyClient, Server>(choices);
    }
}

fn round_trip<A: End, B: End>(choices: &mut Choices<'_>) {
    let agreed = agreed(choices.flag());
    let delivery = if choices.flag() { Delivery::Chunks } else { Delivery::Whole };
    let config = Config { delivery, ..Config::new() };
    let mut from = Endpoint::<A>::with(Config::new(), 0, MIN_TX + 20 + choices.upto(1500)).deflate(agreed);
    let mut to = Endpoint::<B>::with(config, MIN_RX + choices.upto(600), MIN_TX).deflate(agreed);
    let mut said = Vec::new();
    let (longest, seed) = (choices.byte(), choices.byte());
    while !choices.is_empty() {
        from.flush = if choices.flag() { Flush::Always } else { Flush::ByHand };
        let text = choices.text(200).repeat(1 + choices.upto(40));
        if send(&mut from, choices.upto(3), &text) {
            said.push(Heard::Text(text));
        }
        if from.flush == Flush::Always {
            from.write(usize::MAX);
        }
    }
    from.write(usize::MAX);
    for piece in pieces(&from.sent, longest, seed) {
        to.receive(piece);
    }
    assert_eq!(to.heard, said);
    assert_eq!(to.closed, None);
}

/// Sends a text in one of three ways. False: it does not fit into the send buffer.
fn send<R: End>(end: &mut Endpoint<R>, how: usize, text: &str) -> bool {
    let bytes = text.as_bytes();
    let full = |sent: Result<(), SendError>| match sent {
        Ok(()) => true,
        Err(error) => {
            assert_eq!(error, SendError::Full);
            false
        }
    };
    match how {
        0 => return full(end.lend(|connection, io| connection.send_text(&mut io.tx, text))),
        1 => return full(end.send_deflated(Kind::Text, bytes)),
        _ => {}
    }
    // In pieces, compressed as a whole before, if it gets shorter by that.
    let window = end.connection.send_window().unwrap();
    let mut space = vec![0; bytes.len()];
    let mut rest = match end.codec.deflate_message(window, bytes, &mut space) {
        Some(len) => {
            end.connection.start_deflated(Kind::Text).unwrap();
            &space[..len]
        }
        None => {
            end.connection.start(Kind::Text).unwrap();
            bytes
        }
    };
    while !rest.is_empty() {
        let n = end.lend(|connection, io| connection.write(&mut io.tx, rest)).unwrap();
        rest = &rest[n..];
        end.write(if rest.is_empty() { 0 } else { usize::MAX });
    }
    while !full(end.lend(|connection, io| connection.finish(&mut io.tx))) {
        end.write(usize::MAX);
    }
    true
}
