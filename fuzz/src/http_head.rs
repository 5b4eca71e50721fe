//! Heads of requests and responses.

use crate::cuts::{grow, pieces};
use longwire_core::buf::{RxBuf, RxCursor};
use longwire_core::http::head::{HeadError, HeadReader, Limits, Step};
use longwire_core::http::view::Headers;

/// `flags | receive buffer | longest piece | seed | wire`, a byte each before the wire. The flags: 1 responses, 2
/// small limits.
///
/// # Panics
/// When the heads that are found in the pieces, or the error behind them, differ from those of the whole.
pub fn http_head(data: &[u8]) {
    let Some((&[flags, rx, longest, seed], wire)) = data.split_first_chunk() else { return };
    let limits = match flags & 2 {
        0 => Limits::DEFAULT,
        _ => Limits { max_head: 200, max_headers: 4, max_name: 10, max_value: 30, max_target: 20 },
    };
    let responses = flags & 1 != 0;
    let whole = heads(responses, &limits, wire.len() + 1, &[wire]);
    let cut = heads(responses, &limits, rx.into(), &pieces(wire, longest, seed));
    assert_eq!(cut, whole);
}

/// The heads of a wire in words, and the error that ended it.
fn heads(responses: bool, limits: &Limits, rx: usize, wire: &[&[u8]]) -> (Vec<String>, Option<HeadError>) {
    let (mut bytes, mut cursor) = (vec![0; rx], RxCursor::default());
    let (mut reader, mut heads) = (HeadReader::default(), Vec::new());
    for piece in wire {
        let mut piece = *piece;
        loop {
            let mut rx = RxBuf::new(&mut bytes, &mut cursor);
            piece = &piece[rx.fill(piece)..];
            match poll(responses, &mut reader, &mut rx, limits) {
                Ok(Step::Head(head)) => heads.push(head),
                Ok(Step::NeedInput) if piece.is_empty() => break,
                Ok(Step::NeedInput) => assert!(!rx.spare_mut().is_empty(), "a read of no bytes"),
                Ok(Step::NeedSpace(wanted)) => {
                    assert!(wanted > bytes.len() && wanted <= limits.max_head, "asked for {wanted}");
                    grow(&mut bytes, &mut cursor, wanted);
                }
                Err(error) => {
                    assert_eq!(poll(responses, &mut reader, &mut rx, limits), Err(error), "an error stays");
                    return (heads, Some(error));
                }
            }
        }
    }
    (heads, None)
}

/// One poll, and all that a head says, in words.
fn poll(
    responses: bool,
    reader: &mut HeadReader,
    rx: &mut RxBuf<'_>,
    limits: &Limits,
) -> Result<Step<String>, HeadError> {
    if responses {
        let step = reader.poll_response(rx, limits)?;
        return Ok(map(step, |head| {
            let view = head.view(rx.reborrow());
            let words =
                (view.version(), view.status(), view.reason(), view.retry_after(), view.keeps_alive());
            format!("{words:?} {}", headers(view.headers()))
        }));
    }
    let step = reader.poll_request(rx, limits)?;
    Ok(map(step, |head| {
        let view = head.view(rx.reborrow());
        let target = (view.target(), view.path(), view.query(), view.authority());
        let words = (view.version(), view.method(), target, view.keeps_alive());
        format!("{words:?} {}", headers(view.headers()))
    }))
}

fn headers(headers: Headers<'_>) -> String {
    let upgrade = headers.has_token("connection", "upgrade");
    let body = (headers.content_length(), headers.is_chunked(), upgrade);
    format!("{body:?} {:?}", headers.iter().collect::<Vec<_>>())
}

fn map<H>(step: Step<H>, words: impl FnOnce(H) -> String) -> Step<String> {
    match step {
        Step::Head(head) => Step::Head(words(head)),
        Step::NeedInput => Step::NeedInput,
        Step::NeedSpace(wanted) => Step::NeedSpace(wanted),
    }
}
