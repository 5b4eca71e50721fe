//! The messages of `longwire.v1`, in both forms, publishing once, backoff, the lease, and a reader that stays.

use core::hint::black_box;
use core::time::Duration;

use longwire_core::buf::{TxBuf, TxCursor};
use longwire_core::digits::{push_decimal, push_hex};
use longwire_core::log::{Cursor, MAX_TOPIC, Since};
use longwire_core::session::backoff::{Backoff, BackoffConfig, Failure, Verdict};
use longwire_core::session::connector::{self, Connector, ConnectorConfig};
use longwire_core::session::ladder::{Ending, LadderConfig, Memory, Rung, Rungs};
use longwire_core::session::lease::{Lease, LeaseStep};
use longwire_core::session::publisher::{InFlight, Incarnation, Number, PublicationId, Taken};
use longwire_core::session::subscriber::{Mark, Subscriber};
use longwire_core::session::{
    Bytes, ClientMessage, Code, Data, DecodeError, Event, Field, Full, Gap, GapReason, Kind, Length,
    Position, Refusal, ServerMessage, Sink, SliceSink, Text, Topics, WriteError, cbor, json, transcode,
};
use longwire_core::time::Instant;
use longwire_core::ws::CloseCode;

use crate::{Unknown, any, any_bytes, any_str, display, forget, show};

/// Calls everything in `session`.
pub fn all() {
    device();
    let mut bytes = [0; 512];
    let message = any_bytes(&mut bytes);
    client_message(json::decode_client(message));
    client_message(cbor::decode_client(message));
    server_message(json::decode_server(message));
    answer(message);
    transcode(message);
    digits();
    taken();
    codes();
}

/// What a device uses: its publications and their numbers, the server's answers, backoff, the lease.
pub fn device() {
    let mut bytes = [0; 512];
    server_message(cbor::decode_server(any_bytes(&mut bytes)));
    let (mut topic, mut data) = ([0; 64], [0; 64]);
    let topic = any_str(&mut topic);
    let data = Data::Cbor(any_bytes(&mut data));
    let message = ClientMessage::Pub { n: Some(any()), topic: topic.into(), key: None, data };
    let mut room = [0; 128];
    written(cbor::encode_client(&message, &mut SliceSink::new(any_bytes(&mut room))));
    in_flight();
    backoff();
    subscriber();
    lease();
}

/// The bodies of HTTP answers.
fn answer(body: &[u8]) {
    match json::decode_refusal(body) {
        Ok(refusal) => drop(black_box((refusal.code(), refusal.permanent, refusal.retry_after))),
        Err(error) => show(error),
    }
    match json::decode_poll(body) {
        Ok(answer) => {
            black_box((answer.next, answer.more, answer.gap, answer.pressure));
            answer.events().for_each(server_message);
        }
        Err(error) => show(error),
    }
    match json::decode_published(body) {
        Ok(published) => drop(black_box(published)),
        Err(error) => show(error),
    }
}

fn digits() {
    let mut text = heapless::String::<24>::new();
    push_hex(&mut text, any());
    push_decimal(&mut text, any());
    black_box(text.as_str());
}

fn written(result: Result<(), WriteError>) {
    if let Err(error) = result {
        show(error);
    }
}

fn client_message(decoded: Result<ClientMessage<'_>, DecodeError>) {
    match decoded {
        Ok(message) => {
            match message {
                ClientMessage::Pub { topic, key, data, .. } => {
                    text(topic);
                    key.into_iter().for_each(text);
                    value(data);
                }
                ClientMessage::Sub { topics, .. } | ClientMessage::Unsub { topics, .. } => walk(topics),
                ClientMessage::Auth { token } => text(token),
                _ => {}
            }
            into_all_sinks(|sink| json::encode_client(&message, sink));
            into_all_sinks(|sink| cbor::encode_client(&message, sink));
        }
        Err(error) => {
            show(error);
            server_message(Ok(error.answer()));
        }
    }
}

fn server_message(decoded: Result<ServerMessage<'_>, DecodeError>) {
    match decoded {
        Ok(message) => {
            match message {
                ServerMessage::Event(Event { topic, key, data, .. }) => {
                    text(topic);
                    key.into_iter().for_each(text);
                    value(data);
                }
                ServerMessage::Bye { refusal, .. } | ServerMessage::Nack { refusal, .. } => {
                    black_box(refusal.code());
                    let mut room = [0; 256];
                    black_box(
                        json::encode_refusal(&refusal, &mut SliceSink::new(any_bytes(&mut room))).is_ok(),
                    );
                    text(refusal.message);
                }
                message => _ = black_box(message),
            }
            into_all_sinks(|sink| json::encode_server(&message, sink));
            into_all_sinks(|sink| cbor::encode_server(&message, sink));
        }
        Err(error) => show(error),
    }
}

fn into_all_sinks(mut encode: impl FnMut(&mut dyn Sink) -> Result<(), WriteError>) {
    let mut room = [0; 256];
    let mut slice = SliceSink::new(any_bytes(&mut room));
    written(encode(&mut slice));
    black_box(slice.written());
    black_box(slice.into_written());
    let mut length = Length(any());
    written(encode(&mut length));
    black_box(length);
    let (mut bytes, mut at) = ([0; 256], TxCursor::default());
    written(encode(&mut TxBuf::new(any_bytes(&mut bytes), forget(&mut at))));
    written(encode(&mut heapless::Vec::<u8, 64>::new()));
    written(encode(&mut |piece: &[u8]| if black_box(piece).is_empty() { Err(Full) } else { Ok(()) }));
}

fn text(text: Text<'_>) {
    let mut other = [0; 32];
    black_box((text.as_plain(), text.len(), text.is_empty(), text == *any_str(&mut other)));
    let mut scratch = heapless::String::<MAX_TOPIC>::new();
    black_box(text.to_str(&mut scratch).is_ok());
    black_box((text.topic(&mut scratch).is_ok(), text.pattern(&mut scratch).is_ok()));
    black_box(text.key(&mut heapless::String::new()).is_ok());
    black_box(text.chars().count());
    display(text);
    let mut room = [0; 128];
    black_box(json::write_string(text, &mut SliceSink::new(any_bytes(&mut room))).is_ok());
}

fn value(data: Data<'_>) {
    match data {
        Data::Json(json) => {
            if let Err(error) = json::validate(json) {
                show(error);
            }
            let mut compact = [0; 128];
            written(json::compact(json, &mut SliceSink::new(&mut compact)));
        }
        Data::Cbor(cbor) => {
            if let Err(error) = cbor::validate(cbor) {
                show(error);
            }
        }
        Data::Bytes { content_type, bytes } => {
            content_type.into_iter().for_each(text);
            opaque(bytes);
        }
    }
}

fn opaque(bytes: Bytes<'_>) {
    let (mut room, mut other) = ([0; 128], [0; 32]);
    black_box((bytes.as_plain(), bytes.len(), bytes.is_empty(), bytes == *any_bytes(&mut other)));
    black_box(bytes.iter().count());
    black_box(bytes.decode_into(any_bytes(&mut room)).is_ok());
    black_box(bytes.write_to(&mut SliceSink::new(&mut room)).is_ok());
}

fn walk(topics: Topics<'_>) {
    topics.iter().for_each(text);
}

fn codes() {
    let mut text = [0; 32];
    let name = any_str(&mut text);
    black_box((
        Field::from_name(name),
        Field::from_number(any()),
        Kind::from_name(name),
        Kind::from_number(any()),
    ));
    if let Ok(code) = any_str(&mut text).parse::<Code>() {
        black_box((code.as_str(), code.http_status(), code.close_code(), code.permanent()));
        show(code);
        let refusal = Refusal::new(code, "words").retry_after(Duration::from_millis(any()));
        server_message(Ok(ServerMessage::Bye { refusal, window: Some(Duration::from_millis(any())) }));
        server_message(Ok(ServerMessage::Tick { at: Cursor { epoch: any(), seq: any() } }));
    }
}

fn in_flight() {
    let mut flight = if any() { InFlight::<1>::new() } else { InFlight::after(any()) };
    while any() {
        let flight = forget(&mut flight);
        if let Some(n) = flight.next(any(), any()) {
            flight.sent(n);
        }
        flight.acknowledge(any(), |n| drop(black_box(n)));
        black_box((flight.refuse(any(), any()), flight.give_up(any()), flight.settled()));
        black_box((flight.is_settled(any()), flight.len(), flight.is_empty(), flight.is_held()));
        if any() {
            flight.reconnected();
        }
    }
    let mut bytes = [0; 64];
    match any_str(&mut bytes).parse::<PublicationId>() {
        Ok(id) => display(id),
        Err(error) => show(error),
    }
    match any_str(&mut bytes).parse::<Incarnation>() {
        Ok(incarnation) => drop(black_box(incarnation.to_text())),
        Err(error) => show(error),
    }
}

fn taken() {
    let mut taken = Taken::new();
    while any() {
        let taken = forget(&mut taken);
        if taken.look(any()) == Number::New {
            taken.take(any());
        }
        black_box(taken.largest());
    }
}

/// A reader that stays, and the connector beneath it.
fn subscriber() {
    let time = || Duration::from_millis(any());
    let rungs = match any::<u8>() {
        0 => Rungs::PUBLISH,
        1 => Rungs::only(Rung::Sse),
        _ => Rungs::ALL,
    };
    let ladder = LadderConfig {
        rungs,
        first_word: time(),
        open: time(),
        strikes: any(),
        look_up: time(),
        look_up_cap: time(),
        wait: time(),
    };
    let config = ConnectorConfig { ladder, backoff: BackoffConfig::new(), renewable: any() };
    let memory = any::<bool>().then(|| Memory::from_bits(any()));
    let mut subscriber = Subscriber::new(config, Since::Latest, memory);
    black_box(subscriber.start(Instant::from_millis(any())));
    while any() {
        let subscriber = forget(&mut subscriber);
        let now = Instant::from_millis(any());
        let at = Cursor { epoch: any(), seq: any() };
        let mark = match any::<u8>() {
            0 => Mark::Event(Position::At(at)),
            1 => Mark::Event(Position::Past(at)),
            2 => Mark::At(at),
            _ => Mark::Gap(Gap { from: at, to: at, reason: GapReason::Reset, skipped: None }),
        };
        black_box(subscriber.is_new(mark));
        subscriber.passed(mark);
        if any() {
            subscriber.go_to(Since::Cursor(at));
        }
        let ending = match any::<u8>() {
            0 => Ending::Unreachable,
            1 => Ending::Cut,
            2 => Ending::Silent,
            3 => Ending::Garbled,
            4 => CloseCode::new(any()).map_or(Ending::Mangled, Ending::from_close),
            5 => Ending::from_refusal(&Refusal::new(Code::Draining, ""), any::<bool>().then(time)),
            _ => Ending::from_status(any(), any::<bool>().then(time)),
        };
        let event = match any::<u8>() {
            0 => connector::Event::Reached,
            1 => connector::Event::Heard,
            2 => connector::Event::Opened {
                heartbeat: any::<bool>().then(time),
                window: any::<bool>().then(time),
            },
            _ => connector::Event::Ended(ending),
        };
        black_box((ending.failure(), rungs.has(Rung::LongPoll)));
        black_box(subscriber.handle(event, now, &mut Unknown));
        black_box(subscriber.handle_timeout(now, &mut Unknown));
        black_box((subscriber.switch(ladder, now), subscriber.reopen(now)));
        let connector = subscriber.connector();
        black_box((subscriber.poll_timeout(), subscriber.since(), subscriber.cursor()));
        black_box((connector.rung(), connector.wait(), connector.silence(), connector.patience()));
        forget(&mut Connector::new(config, connector.memory())).allow_look_up(any());
        black_box((connector.wants_credential(), connector.memory().map(Memory::to_bits)));
    }
}

#[inline(never)]
fn lease() {
    let time = || Duration::from_millis(any());
    let now = || Instant::from_millis(any());
    let mut lease = Lease::until(now(), now(), time());
    while any() {
        let lease = forget(&mut lease);
        match lease.poll(now()) {
            LeaseStep::Renew { within } => lease.asked(now(), within),
            LeaseStep::Holds => {
                black_box(lease.renewed(now(), any::<bool>().then(now), time()));
            }
            LeaseStep::Expired => {
                black_box(lease.holds(now()));
            }
        }
        black_box((lease.poll_timeout(), lease.end()));
    }
    black_box(Lease::endless());
}

fn backoff() {
    let time = || Duration::from_millis(any());
    let config =
        BackoffConfig { base: time(), cap: time(), stable: time(), max_told: time(), spread: time() };
    let mut backoff = Backoff::new(config);
    while any() {
        let backoff = forget(&mut backoff);
        let now = Instant::from_millis(any());
        if any() {
            backoff.connected(now);
            backoff.spread(time());
        }
        let failure = match any::<u8>() {
            0 => Failure::Lost,
            1 => Failure::from_status(any(), any::<bool>().then(time)),
            2 => CloseCode::new(any()).map_or(Failure::Permanent, Failure::from_close),
            _ => Failure::Told { retry_after: time(), window: time() },
        };
        if let Verdict::Retry(wait) = backoff.failed(now, failure, &mut Unknown) {
            black_box((wait, backoff.attempt()));
        }
    }
}

/// A command in JSON, for a device.
fn transcode(json: &[u8]) {
    let mut room = [0; 128];
    written(transcode::json_to_cbor(json, &mut SliceSink::new(any_bytes(&mut room))));
    written(transcode::cbor_to_json(json, &mut SliceSink::new(any_bytes(&mut room))));
}
