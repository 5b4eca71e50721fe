//! Bodies of requests and responses.

use crate::choices::Choices;
use crate::cuts::{grow, pieces};
use longwire_core::buf::{RxBuf, RxCursor, TxBuf, TxCursor};
use longwire_core::http::body::{BodyError, BodyReader, BodyStep, Framing};
use longwire_core::http::write::{self, LAST_CHUNK};

/// `flags | receive buffer | longest piece | seed | max_body | wire`, a byte each before the wire. The flags: 1 and 2 the framing (of
/// that length, chunked, until the end; or chunks that are written), 4 what is read is kept, 8 no limit.
///
/// # Panics
/// When the body that is found in the pieces, or how it ends, differs from that of the whole; when it is longer than
/// `max_body`, or ends at another byte than RFC 9112 section 7.1 says; when chunks that were written are not that body.
pub fn http_body(data: &[u8]) {
    let Some((&[flags, rx, longest, seed, limit], wire)) = data.split_first_chunk() else { return };
    let framing = match flags & 3 {
        0 => Framing::Length(limit.into()),
        1 => Framing::Chunked,
        2 => Framing::UntilClose,
        _ => return round_trip(&mut Choices::new(wire), rx, longest, seed),
    };
    let max_body = if flags & 8 == 0 { u64::from(limit) } else { u64::MAX };
    let keep = flags & 4 != 0;
    let whole = read(framing, max_body, false, wire.len() + 1, &[wire]);
    assert_eq!(read(framing, max_body, keep, rx.into(), &pieces(wire, longest, seed)), whole);

    assert!(whole.body.len() as u64 <= max_body);
    if let (Framing::Chunked, Ok(end)) = (framing, whole.end) {
        assert_eq!(dechunked(wire), (whole.body, end), "RFC 9112 section 7.1.3");
    }
}

/// A body, and the byte behind its end.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    body: Vec<u8>,
    end: Result<usize, BodyError>,
}

fn read(framing: Framing, max_body: u64, keep: bool, rx: usize, wire: &[&[u8]]) -> Found {
    let (mut bytes, mut cursor) = (vec![0; rx], RxCursor::default());
    let (mut body, mut arrived) = (Vec::new(), 0);
    let mut reader = match BodyReader::new(framing, max_body) {
        Ok(reader) => reader,
        Err(error) => return Found { body, end: Err(error) },
    };
    let total: usize = wire.iter().map(|piece| piece.len()).sum();
    for piece in wire {
        let mut piece = *piece;
        loop {
            let mut rx = RxBuf::new(&mut bytes, &mut cursor);
            let n = rx.fill(piece);
            (piece, arrived) = (&piece[n..], arrived + n);
            match reader.poll(&mut rx) {
                Ok(BodyStep::Data) => {
                    let found = reader.piece(rx.reborrow());
                    assert!(!found.is_empty(), "a piece of nothing");
                    body.extend_from_slice(found);
                    if keep {
                        reader.keep(&mut rx);
                        assert_eq!(rx.kept(), body);
                    }
                }
                Ok(BodyStep::End) => return Found { body, end: Ok(arrived - rx.unread().len()) },
                Ok(BodyStep::NeedInput) if piece.is_empty() => break,
                Ok(BodyStep::NeedInput) => assert!(!rx.spare_mut().is_empty(), "a read of no bytes"),
                Ok(BodyStep::NeedSpace) => {
                    assert!(bytes.is_empty() || keep, "a body that is not kept needs no space");
                    let wanted = bytes.len() + 1;
                    grow(&mut bytes, &mut cursor, wanted);
                }
                Err(error) => {
                    assert_eq!(reader.poll(&mut rx), Err(error), "an error stays");
                    return Found { body, end: Err(error) };
                }
            }
        }
    }
    Found { body, end: reader.handle_eof().map(|()| total) }
}

/// A chunked body that is known to be whole, read as RFC 9112 section 7.1.3 does, and the byte behind its end.
fn dechunked(wire: &[u8]) -> (Vec<u8>, usize) {
    let (mut body, mut at) = (Vec::new(), 0);
    let line = |at: &mut usize| {
        let len = wire[*at..].windows(2).position(|end| end == b"\r\n").unwrap();
        let line = &wire[*at..][..len];
        *at += len + 2;
        line
    };
    loop {
        let size = line(&mut at).split(|b| matches!(b, b';' | b' ' | b'\t')).next().unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(size).unwrap(), 16).unwrap();
        if size == 0 {
            while !line(&mut at).is_empty() {}
            return (body, at);
        }
        body.extend_from_slice(&wire[at..][..size]);
        at += size;
        assert_eq!(line(&mut at), b"");
    }
}

/// Chunks that are written are the body that is read.
fn round_trip(choices: &mut Choices<'_>, rx: u8, longest: u8, seed: u8) {
    let (mut bytes, mut cursor) = (vec![0; 1 << 16], TxCursor::default());
    let mut tx = TxBuf::new(&mut bytes, &mut cursor);
    let mut body = Vec::new();
    while !choices.is_empty() && tx.room() > 1000 {
        let parts = [choices.bytes(200), choices.bytes(200)];
        write::chunk(&mut tx, &parts).unwrap();
        body.extend(parts.concat());
    }
    assert!(tx.put(&[LAST_CHUNK]));
    let wire = tx.pending();
    let found = read(Framing::Chunked, body.len() as u64, false, rx.into(), &pieces(wire, longest, seed));
    assert_eq!(found, Found { body, end: Ok(wire.len()) });
}
