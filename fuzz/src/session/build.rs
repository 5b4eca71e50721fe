//! Messages made of choices.

use super::{Client, Form, Server, keeps, written};
use crate::choices::Choices;
use longwire_core::log::{Cursor, Policy, Since};
use longwire_core::session::{
    ClientMessage, Code, Data, Event, Gap, GapReason, Level, Limits, Position, Pressure, Refusal,
    ServerMessage, Text, Topics, cbor, json,
};
use std::time::Duration;

/// Longest text.
const MOST: usize = 80;

/// A message of either side, whatever may stand in its fields.
pub(super) fn message(form: Form, mut choices: Choices<'_>) {
    let kind = choices.upto(14);
    let topics: Vec<&str> = (0..=choices.upto(5)).map(|_| choices.text(MOST)).collect();
    // A value of this form that may be published, if the choices make one.
    let value = choices.bytes(200);
    let value = match form {
        Form::Json => written(|sink| json::compact(value, sink)).unwrap_or_else(|_| b"null".to_vec()),
        Form::Cbor => cbor::validate(value).map_or(vec![0xf6], |()| value.to_vec()),
    };
    let mut c = choices;
    match kind {
        0..4 => keeps::<Client>(form, &client(form, kind, &topics, &value, &mut c)),
        _ => keeps::<Server>(form, &server(form, kind, &value, &mut c)),
    }
}

fn client<'b>(
    form: Form,
    kind: usize,
    topics: &'b [&'b str],
    value: &'b [u8],
    c: &mut Choices<'b>,
) -> ClientMessage<'b> {
    let topics = Topics::from(topics);
    match kind {
        0 => ClientMessage::Sub { id: id(c), since: c.option(since), policy: c.option(policy), topics },
        1 => ClientMessage::Unsub { id: id(c), topics },
        2 => ClientMessage::Auth { token: text(c) },
        _ => ClientMessage::Pub {
            n: c.option(Choices::number),
            topic: text(c),
            key: c.option(text),
            data: data(form, value, c),
        },
    }
}

fn server<'b>(form: Form, kind: usize, value: &'b [u8], c: &mut Choices<'b>) -> ServerMessage<'b> {
    match kind {
        4 => ServerMessage::Hello {
            session: text(c),
            heartbeat: millis(c),
            lease: c.option(millis),
            limits: Limits { max_message: c.number(), max_topics: c.number(), max_inflight: c.number() },
            publisher_n: c.option(Choices::number),
            window: c.option(millis),
        },
        5 => ServerMessage::CaughtUp { at: cursor(c), id: id(c) },
        6 => ServerMessage::Ack {
            n: c.number(),
            level: if c.flag() { Level::Ring } else { Level::Unknown },
            pressure: c.option(millis),
        },
        7 => ServerMessage::Nack { n: c.option(Choices::number), refusal: refusal(c) },
        8 => {
            let reasons = [GapReason::Evicted, GapReason::Slow, GapReason::Reset, GapReason::Unknown];
            ServerMessage::Gap(Gap {
                from: cursor(c),
                to: cursor(c),
                reason: reasons[c.upto(3)],
                skipped: c.option(Choices::number),
            })
        }
        9 => ServerMessage::Tick { at: cursor(c) },
        10 => ServerMessage::Renew { within: millis(c) },
        11 => ServerMessage::Bye { refusal: refusal(c), window: c.option(millis) },
        12 => ServerMessage::Error { refusal: Refusal { retry_after: None, ..refusal(c) }, id: id(c) },
        13 => ServerMessage::Pressure(Pressure { lag: c.number(), limit: c.number(), skipped: c.number() }),
        _ => ServerMessage::Event(Event {
            topic: text(c),
            position: if c.flag() { Position::At(cursor(c)) } else { Position::Past(cursor(c)) },
            key: c.option(text),
            data: data(form, value, c),
        }),
    }
}

fn text<'b>(c: &mut Choices<'b>) -> Text<'b> {
    c.text(MOST).into()
}

fn id(c: &mut Choices<'_>) -> Option<u32> {
    c.option(|c| u32::from_be_bytes([c.byte(), c.byte(), c.byte(), c.byte()]))
}

fn millis(c: &mut Choices<'_>) -> Duration {
    Duration::from_millis(c.number())
}

fn cursor(c: &mut Choices<'_>) -> Cursor {
    Cursor { epoch: c.number(), seq: c.number() }
}

fn since(c: &mut Choices<'_>) -> Since {
    match c.upto(2) {
        0 => Since::Now,
        1 => Since::Latest,
        _ => Since::Cursor(cursor(c)),
    }
}

fn policy(c: &mut Choices<'_>) -> Policy {
    [Policy::DropOldest, Policy::Conflate, Policy::Disconnect, Policy::DropNewest][c.upto(3)]
}

fn refusal<'b>(c: &mut Choices<'b>) -> Refusal<'b> {
    let code = match c.upto(Code::ALL.len()) {
        n if n < Code::ALL.len() => Code::ALL[n].into(),
        _ => text(c),
    };
    Refusal { code, permanent: c.flag(), message: text(c), retry_after: c.option(millis) }
}

fn data<'b>(form: Form, value: &'b [u8], c: &mut Choices<'b>) -> Data<'b> {
    match (c.flag(), form) {
        (true, _) => Data::Bytes { content_type: c.option(text), bytes: c.bytes(MOST).into() },
        (false, Form::Json) => Data::Json(value),
        (false, Form::Cbor) => Data::Cbor(value),
    }
}
