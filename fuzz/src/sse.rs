//! Event streams.

use crate::cuts::{grow, pieces};
use longwire_core::buf::{RxBuf, RxCursor};
use longwire_core::sse::{Decoder, SseError, Step};
use std::time::Duration;

/// `max_event | receive buffer | longest piece | seed | wire`, a byte each before the wire.
///
/// # Panics
/// When the events that are found in the pieces, or what is known behind them, differ from those of the whole; when
/// an event is above its limit, or a buffer of the promised size is not enough.
pub fn sse(data: &[u8]) {
    let Some((&[max_event, rx, longest, seed], wire)) = data.split_first_chunk() else { return };
    let max_event = usize::from(max_event);
    let whole = read(max_event, wire.len() + 1, &[wire]);
    let cut = read(max_event, rx.into(), &pieces(wire, longest, seed));
    assert_eq!(cut, whole);
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

fn read(max_event: usize, rx: usize, wire: &[&[u8]]) -> Heard {
    let (mut bytes, mut cursor) = (vec![0; rx], RxCursor::default());
    let (mut decoder, mut heard) = (Decoder::<16>::new(max_event), Heard::default());
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
