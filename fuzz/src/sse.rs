//! Event streams.

use crate::choices::Choices;
use crate::cuts::{grow, pieces};
use longwire_core::buf::{RxBuf, RxCursor, TxBuf, TxCursor};
use longwire_core::sse::{Decoder, EncodeError, Fields, SseError, Step};
use std::time::Duration;

/// `max_event | receive buffer | longest piece | seed | wire`, a byte each before the wire. And all of it once more, as choices
/// for events that are encoded.
///
/// # Panics
/// When the events that are found in the pieces, or what is known behind them, differ from those of the whole, and those
/// from what the standard's own steps make of it; when an event is above its limit, or a buffer of the promised size
/// is not enough; when what was encoded is not decoded again.
pub fn sse(data: &[u8]) {
    let Some((&[max_event, rx, longest, seed], wire)) = data.split_first_chunk() else { return };
    let max_event = usize::from(max_event);
    let whole = read(max_event, wire.len() + 1, &[wire]);
    let cut = read(max_event, rx.into(), &pieces(wire, longest, seed));
    assert_eq!(cut, whole);

    let standard = interpret(wire);
    match whole.error {
        None => assert_eq!(whole, standard),
        Some(_) => assert!(standard.events.starts_with(&whole.events), "{whole:?}\n{standard:?}"),
    }
    round_trip(&mut Choices::new(data));
}

/// What a stream says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Heard {
    /// Name, data and id of each event.
    events: Vec<[Vec<u8>; 3]>,
    last_event_id: Vec<u8>,
    retry: Option<Duration>,
    error: Option<SseError>,
}

/// Longest id that is kept.
const ID: usize = 16;

fn read(max_event: usize, rx: usize, wire: &[&[u8]]) -> Heard {
    let (mut bytes, mut cursor) = (vec![0; rx], RxCursor::default());
    let (mut decoder, mut heard) = (Decoder::<ID>::new(max_event), Heard::default());
    for piece in wire {
        let mut piece = *piece;
        while heard.error.is_none() {
            let mut rx = RxBuf::new(&mut bytes, &mut cursor);
            piece = &piece[rx.fill(piece)..];
            match decoder.poll(&mut rx) {
                Ok(Step::Event) => {
                    let event = decoder.event(rx);
                    assert!(event.name.len() + event.data.len() <= max_event + b"message".len());
                    heard.events.push([event.name, event.data, event.id].map(Vec::from));
                }
                Ok(Step::NeedInput) if piece.is_empty() => break,
                Ok(Step::NeedInput) => assert!(!rx.spare_mut().is_empty(), "a read of no bytes"),
                Ok(Step::NeedSpace) => {
                    assert!(bytes.len() < max_event + 7, "{} are not enough", bytes.len());
                    let wanted = bytes.len() + 1;
                    grow(&mut bytes, &mut cursor, wanted);
                }
                Err(error) => {
                    assert_eq!(decoder.poll(&mut rx), Err(error), "an error stays");
                    heard.error = Some(error);
                }
            }
        }
    }
    heard.last_event_id = decoder.last_event_id().into();
    heard.retry = decoder.retry();
    heard
}

/// WHATWG HTML section 9.2.6, step by step, on a stream that is there as a whole and without limits.
fn interpret(wire: &[u8]) -> Heard {
    let mut rest = wire.strip_prefix(b"\xef\xbb\xbf").unwrap_or(wire);
    let (mut heard, mut name, mut data) = (Heard::default(), Vec::new(), Vec::new());
    let mut id = Vec::new();
    while let Some(end) = rest.iter().position(|b| matches!(b, b'\r' | b'\n')) {
        let (line, after) = rest.split_at(end);
        rest = after.strip_prefix(b"\r\n").unwrap_or(&after[1..]);
        if line.is_empty() {
            heard.last_event_id.clone_from(&id);
            // "If the data buffer is an empty string, set the data buffer and the event type buffer to the empty string".
            if data.pop().is_some() {
                let name = if name.is_empty() { b"message".to_vec() } else { name.clone() };
                heard.events.push([name, data.clone(), id.clone()]);
            }
            name.clear();
            data.clear();
            continue;
        }
        let colon = line.iter().position(|b| *b == b':');
        let (field, value) = line.split_at(colon.unwrap_or(line.len()));
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"event" => name = value.to_vec(),
            b"data" => data.extend(value.iter().chain(b"\n")),
            b"id" if !value.contains(&0) => id = value.to_vec(),
            b"retry" if !value.is_empty() && value.iter().all(u8::is_ascii_digit) => {
                // More than 49 days count as that.
                let millis = std::str::from_utf8(value).unwrap().parse().unwrap_or(u32::MAX);
                heard.retry = Some(Duration::from_millis(millis.into()));
            }
            _ => {}
        }
    }
    heard
}

/// Encodes events that the choices make up, and reads them again.
fn round_trip(choices: &mut Choices<'_>) {
    let (mut wire, mut expected) = (Vec::new(), Heard::default());
    while !choices.is_empty() {
        let fields = Fields {
            comment: choices.option(|choices| choices.text(20)),
            retry: choices.option(|choices| Duration::from_millis(choices.number())),
            id: choices.option(|choices| choices.text(ID)),
            name: choices.option(|choices| choices.text(20)),
            data: choices.option(|choices| choices.bytes(60)),
        };
        if !encode(&fields, &mut wire) {
            continue;
        }
        let most = Duration::from_millis(u32::MAX.into());
        let millis = |wait: Duration| wait.min(most);
        expected.retry = fields.retry.map(millis).or(expected.retry);
        if let Some(id) = fields.id {
            expected.last_event_id = id.into();
        }
        if let Some(data) = fields.data {
            let name = fields.name.filter(|name| !name.is_empty()).unwrap_or("message");
            let lines = String::from_utf8_lossy(data).replace("\r\n", "\n").replace('\r', "\n");
            expected.events.push([name.into(), lines.into_bytes(), expected.last_event_id.clone()]);
        }
    }
    let mut heard = read(1 << 20, wire.len() + 1, &[&wire]);
    for [_, data, _] in &mut heard.events {
        *data = String::from_utf8_lossy(data).into_owned().into_bytes();
    }
    assert_eq!(heard, expected);
}

/// All of it, or nothing in a buffer that is one byte too small. False: it would break out of its field.
fn encode(fields: &Fields<'_>, wire: &mut Vec<u8>) -> bool {
    let breaks_out = |text: Option<&str>| text.is_some_and(|text| text.contains(['\r', '\n', '\0']));
    let error = [
        (fields.comment, EncodeError::Comment),
        (fields.id, EncodeError::Id),
        (fields.name, EncodeError::Name),
    ];
    let error = error.into_iter().find(|(text, _)| breaks_out(*text)).map(|(_, error)| error);
    let attempt = |size: usize| {
        let (mut bytes, mut cursor) = (vec![0; size], TxCursor::default());
        let mut tx = TxBuf::new(&mut bytes, &mut cursor);
        fields.encode(&mut tx).map(|()| tx.pending().to_vec())
    };
    let encoded = match (attempt(1 << 12), error) {
        (Ok(encoded), None) => encoded,
        (found, error) => {
            assert_eq!(found.err(), error);
            return false;
        }
    };
    assert!(encoded.is_empty() || attempt(encoded.len() - 1) == Err(EncodeError::Full));
    wire.extend(encoded);
    true
}
