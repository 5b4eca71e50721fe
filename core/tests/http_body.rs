//! Bodies: where they end, what is refused, and that neither depends on how the bytes were cut.

#![expect(clippy::panic, clippy::indexing_slicing, reason = "a test may panic, also in its helpers")]

use longwire_core::buf::{RxBuf, RxCursor, TxBuf, TxCursor};
use longwire_core::http::body::{
    BodyError, BodyReader, BodyStep, Framing, MAX_CHUNK_EXTENSION, MAX_TRAILERS,
};
use longwire_core::http::head::{HeadReader, Limits, Step};
use longwire_core::http::write;
use proptest::prelude::*;

/// What a reader says about a wire in pieces: the body so far, how it ended, and what is left unread.
#[derive(Debug, PartialEq)]
struct Read {
    body: Vec<u8>,
    end: Result<BodyStep, BodyError>,
    unread: Vec<u8>,
}

fn read<'w>(framing: Framing, max: u64, pieces: impl IntoIterator<Item = &'w [u8]>, capacity: usize) -> Read {
    let (mut bytes, mut cursor) = (vec![0; capacity], RxCursor::default());
    let mut rx = RxBuf::new(&mut bytes, &mut cursor);
    let mut read = Read { body: Vec::new(), end: Ok(BodyStep::NeedInput), unread: Vec::new() };
    let mut reader = match BodyReader::new(framing, max) {
        Ok(reader) => reader,
        Err(error) => return Read { end: Err(error), ..read },
    };
    let mut pieces = pieces.into_iter();
    let mut piece: &[u8] = &[];
    loop {
        read.end = reader.poll(&mut rx);
        match read.end {
            Ok(BodyStep::Data) => {
                let found = reader.piece(rx.reborrow());
                assert!(!found.is_empty());
                read.body.extend_from_slice(found);
            }
            Ok(BodyStep::NeedInput) => {
                if piece.is_empty() {
                    let Some(next) = pieces.next() else { break };
                    piece = next;
                }
                piece = &piece[rx.fill(piece)..];
            }
            Ok(BodyStep::NeedSpace) => panic!("nothing is kept"),
            Ok(BodyStep::End) => break,
            Err(error) => {
                assert_eq!(reader.poll(&mut rx), Err(error), "the error stays");
                break;
            }
        }
    }
    if read.end == Ok(BodyStep::End) {
        assert_eq!(reader.handle_eof(), Ok(()));
        read.unread = [rx.unread(), piece].concat();
        pieces.for_each(|piece| read.unread.extend_from_slice(piece));
    } else if let (Ok(_), Err(error)) = (read.end, reader.handle_eof()) {
        read.end = Err(error);
    } else if read.end.is_ok() {
        read.end = reader.poll(&mut rx);
    }
    read
}

fn every_split(framing: Framing, max: u64, wire: &[u8]) -> Read {
    let whole = read(framing, max, [wire], 8192);
    for capacity in [1, 2, 3, 7, 64, 8192] {
        for at in 0..=wire.len() {
            let (a, b) = wire.split_at(at);
            assert_eq!(
                read(framing, max, [a, b], capacity),
                whole,
                "cut at {at}, {capacity} bytes of buffer"
            );
        }
        assert_eq!(read(framing, max, wire.chunks(1), capacity), whole, "{capacity} bytes of buffer");
    }
    whole
}

fn ended(body: &[u8], unread: &[u8]) -> Read {
    Read { body: body.to_vec(), end: Ok(BodyStep::End), unread: unread.to_vec() }
}

#[test]
fn a_body_by_length_ends_there() {
    assert_eq!(every_split(Framing::Length(5), 5, b"helloGET /"), ended(b"hello", b"GET /"));
    assert_eq!(every_split(Framing::Length(0), 0, b"GET /"), ended(b"", b"GET /"));
    assert_eq!(every_split(Framing::None, 0, b"GET /"), ended(b"", b"GET /"));
    assert_eq!(every_split(Framing::Length(5), 9, b"hell").end, Err(BodyError::Truncated));
}

#[test]
fn the_announced_length_is_compared_before_anything_is_read() {
    for length in [6, 1 << 31, 1 << 32, (1 << 32) + 5, (1 << 63) - 1, 1 << 63, u64::MAX] {
        assert_eq!(BodyReader::new(Framing::Length(length), 5).err(), Some(BodyError::TooLong));
        // With a limit that allows it, nothing is reserved either.
        assert_eq!(read(Framing::Length(length), u64::MAX, [&b"hi"[..]], 4).body, b"hi");
    }
    assert_eq!(BodyError::TooLong.status(), 413);
}

#[test]
fn a_body_until_close_ends_with_the_connection() {
    assert_eq!(every_split(Framing::UntilClose, 5, b"hello"), ended(b"hello", b""));
    assert_eq!(every_split(Framing::UntilClose, 0, b""), ended(b"", b""));
    let above = every_split(Framing::UntilClose, 5, b"hello!");
    assert_eq!((&above.body[..], above.end), (&b"hello"[..], Err(BodyError::TooLong)));
}

#[test]
fn chunked_rfc_9112_section_7_1() {
    for (wire, body) in [
        ("0\r\n\r\n", ""),
        ("5\r\nhello\r\n0\r\n\r\n", "hello"),
        ("1\r\nh\r\n4\r\nello\r\n000\r\n\r\n", "hello"),
        ("A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", "01234567890123456789"),
        ("0000000000000005\r\n\r\n\r\n0\r\n0\r\n\r\n", "\r\n\r\n0"),
        ("5;a\r\nhello\r\n0;b=\"c;d\"\r\n\r\n", "hello"),
        ("5 \t;a=b\r\nhello\r\n0\r\n\r\n", "hello"),
        ("5;\r\nhello\r\n0\r\n\r\n", "hello"),
        ("5\r\nhello\r\n0\r\nA: b\r\nC-D:\r\n\r\n", "hello"),
    ] {
        let wire = [wire.as_bytes(), b"next"].concat();
        assert_eq!(every_split(Framing::Chunked, 20, &wire), ended(body.as_bytes(), b"next"));
        // Cut anywhere before its end it is not whole.
        for at in 0..wire.len() - b"next".len() {
            assert_eq!(read(Framing::Chunked, 20, [&wire[..at]], 64).end, Err(BodyError::Truncated));
        }
    }
}

#[test]
fn chunks_that_smuggle_are_refused() {
    use BodyError as E;
    for (wire, error) in [
        ("\r\n", E::ChunkSize),
        (";a\r\n", E::ChunkSize),
        (" 5\r\n", E::ChunkSize),
        ("+5\r\n", E::ChunkSize),
        ("-5\r\n", E::ChunkSize),
        ("0x5\r\n", E::ChunkSize),
        ("5h\r\n", E::ChunkSize),
        ("5\nhello", E::ChunkSize),
        ("5,5\r\n", E::ChunkSize),
        ("00000000000000005\r\n", E::ChunkSize),
        ("5 \r\n", E::ChunkExtension),
        ("5 5\r\n", E::ChunkExtension),
        ("5;a\nhello", E::ChunkExtension),
        ("5;a\0\r\n", E::ChunkExtension),
        // A quoted string does not hide the end of the line.
        ("5;\"a\r\nb\"\r\nxx", E::ChunkEnd),
        ("5;a\rb\r\n", E::ChunkEnd),
        ("5\r\r\nhello", E::ChunkEnd),
        ("5\rhello", E::ChunkEnd),
        ("5\r\nhello\n", E::ChunkEnd),
        ("5\r\nhello0\r\n", E::ChunkEnd),
        ("5\r\nhello\r0", E::ChunkEnd),
        ("5\r\nhello!\r\n", E::ChunkEnd),
        ("5\r\nhello\r\n\r\n", E::ChunkSize),
        ("0\r\n\n", E::Trailers),
        ("0\r\n\r0", E::ChunkEnd),
        ("0\r\nA\r\n\r\n", E::Trailers),
        ("0\r\n: b\r\n\r\n", E::Trailers),
        ("0\r\nA : b\r\n\r\n", E::Trailers),
        ("0\r\n A: b\r\n\r\n", E::Trailers),
        ("0\r\nA: b\n\r\n", E::Trailers),
        ("0\r\nA: b\rc\r\n\r\n", E::Trailers),
        ("0\r\nA: b\0\r\n\r\n", E::Trailers),
        ("0\r\nA: b\r\n c\r\n\r\n", E::Trailers),
    ] {
        assert_eq!(every_split(Framing::Chunked, 1000, wire.as_bytes()).end, Err(error), "{wire:?}");
    }
}

#[test]
fn chunk_sizes_are_64_bits_and_compared_with_what_is_left() {
    for (max, size, taken) in [
        (5, "5", true),
        (5, "6", false),
        (5, "100000005", false),
        (5, "ffffffffffffffff", false),
        (u64::MAX, "7fffffff", true),
        (u64::MAX, "80000000", true),
        (u64::MAX, "100000005", true),
        (u64::MAX, "7fffffffffffffff", true),
        (u64::MAX, "8000000000000000", true),
        (u64::MAX, "ffffffffffffffff", true),
    ] {
        let end = read(Framing::Chunked, max, [format!("{size}\r\n").as_bytes()], 64).end;
        assert_eq!(
            end,
            Err(if taken { BodyError::Truncated } else { BodyError::TooLong }),
            "{size} of {max}"
        );
    }
    // The sum counts: at the limit, one above it, and where it would leave 64 bits.
    let at = every_split(Framing::Chunked, 5, b"2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n");
    assert_eq!(at, ended(b"abcde", b""));
    let above = every_split(Framing::Chunked, 5, b"2\r\nab\r\n4\r\ncdef\r\n0\r\n\r\n");
    assert_eq!((&above.body[..], above.end), (&b"ab"[..], Err(BodyError::TooLong)));
    let wrap = every_split(Framing::Chunked, u64::MAX, b"1\r\na\r\nffffffffffffffff\r\n");
    assert_eq!(wrap.end, Err(BodyError::TooLong));
}

#[test]
fn extensions_and_trailers_at_the_limit_and_one_above() {
    let limit = usize::from(MAX_CHUNK_EXTENSION);
    for prefix in [";", " ;", "\t \t;"] {
        let extended = |len: usize| format!("1{prefix}{}\r\nx\r\n", "e".repeat(len - prefix.len()));
        // Each chunk has its own: a stream that is signed chunk by chunk may go on for ever.
        let wire = format!("{}{}0\r\n\r\n", extended(limit), extended(limit));
        assert_eq!(read(Framing::Chunked, 9, [wire.as_bytes()], 4096), ended(b"xx", b""));
        assert_eq!(
            read(Framing::Chunked, 9, [extended(limit + 1).as_bytes()], 4096).end,
            Err(BodyError::ExtensionTooLong)
        );
    }
    let spaces = format!("1{};", " ".repeat(limit));
    assert_eq!(read(Framing::Chunked, 9, [spaces.as_bytes()], 4096).end, Err(BodyError::ExtensionTooLong));
    let limit = usize::from(MAX_TRAILERS);
    let trailers = |len: usize| format!("0\r\nA: b\r\nC: {}\r\n\r\n", "d".repeat(len - 11));
    assert_eq!(read(Framing::Chunked, 9, [trailers(limit).as_bytes()], 64), ended(b"", b""));
    assert_eq!(
        read(Framing::Chunked, 9, [trailers(limit + 1).as_bytes()], 64).end,
        Err(BodyError::TrailersTooLong)
    );
    let many = format!("0\r\n{}\r\n", "A:\r\n".repeat(limit));
    assert_eq!(read(Framing::Chunked, 9, [many.as_bytes()], 64).end, Err(BodyError::TrailersTooLong));
}

#[test]
fn what_is_kept_comes_together_behind_the_head() {
    let wire = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x\r\nde\r\n0\r\n\r\nnext";
    let (mut bytes, mut cursor) = ([0; 128], RxCursor::default());
    let mut rx = RxBuf::new(&mut bytes, &mut cursor);
    rx.fill(wire);
    let Ok(Step::Head(head)) = HeadReader::default().poll_request(&mut rx, &Limits::DEFAULT) else {
        panic!()
    };
    let framing = Framing::of_request(&head.view(rx.reborrow()));
    let mut body = BodyReader::new(framing, 100).unwrap();
    while body.poll(&mut rx) == Ok(BodyStep::Data) {
        body.keep(&mut rx);
    }
    assert_eq!(head.view(rx.reborrow()).method(), "POST");
    assert_eq!((&rx.kept()[head.len()..], rx.unread()), (&b"abcde"[..], &b"next"[..]));
    // When what is kept fills the buffer, more input would find no room.
    let (mut bytes, mut cursor) = ([0; 4], RxCursor::default());
    let mut rx = RxBuf::new(&mut bytes, &mut cursor);
    rx.fill(b"abcd");
    let mut body = BodyReader::new(Framing::Length(5), 5).unwrap();
    assert_eq!(body.poll(&mut rx), Ok(BodyStep::Data));
    body.keep(&mut rx);
    assert_eq!(body.poll(&mut rx), Ok(BodyStep::NeedSpace));
}

#[test]
fn where_a_message_ends_rfc_9112_section_6_3() {
    let response = |wire: &str, method: &str| {
        let (mut bytes, mut cursor) = ([0; 256], RxCursor::default());
        let mut rx = RxBuf::new(&mut bytes, &mut cursor);
        rx.fill(wire.as_bytes());
        let Ok(Step::Head(head)) = HeadReader::default().poll_response(&mut rx, &Limits::DEFAULT) else {
            panic!()
        };
        Framing::of_response(&head.view(rx), method)
    };
    let (length, chunked) = ("Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n");
    for (status, fields, method, framing) in [
        (200, length, "GET", Framing::Length(5)),
        (200, chunked, "GET", Framing::Chunked),
        (200, "", "GET", Framing::UntilClose),
        (404, "", "GET", Framing::UntilClose),
        (200, length, "HEAD", Framing::None),
        (200, chunked, "HEAD", Framing::None),
        (204, length, "GET", Framing::None),
        (304, length, "GET", Framing::None),
        (101, length, "GET", Framing::None),
        (200, length, "CONNECT", Framing::None),
        (407, length, "CONNECT", Framing::Length(5)),
    ] {
        let wire = format!("HTTP/1.1 {status} \r\n{fields}\r\n");
        assert_eq!(response(&wire, method), framing, "{method} {status} {fields}");
    }
    let request = |fields: &str| {
        let (mut bytes, mut cursor) = ([0; 256], RxCursor::default());
        let mut rx = RxBuf::new(&mut bytes, &mut cursor);
        rx.fill(format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n").as_bytes());
        let Ok(Step::Head(head)) = HeadReader::default().poll_request(&mut rx, &Limits::DEFAULT) else {
            panic!()
        };
        Framing::of_request(&head.view(rx))
    };
    assert_eq!(
        [request(""), request(length), request(chunked)],
        [Framing::None, Framing::Length(5), Framing::Chunked]
    );
}

proptest! {
    #[test]
    fn what_is_written_in_chunks_is_read(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..12),
        cut in 1usize..30,
        capacity in 1usize..60,
    ) {
        let (mut bytes, mut cursor) = ([0; 1024], TxCursor::default());
        let mut tx = TxBuf::new(&mut bytes, &mut cursor);
        for piece in &pieces {
            write::chunk(&mut tx, &[piece]).unwrap();
        }
        assert!(tx.put(&[write::LAST_CHUNK, b"next"]));
        let body = pieces.concat();
        let found = read(Framing::Chunked, body.len() as u64, tx.pending().chunks(cut), capacity);
        prop_assert_eq!(found, ended(&body, b"next"));
    }

    #[test]
    fn any_bytes_are_read_the_same_however_they_are_cut(
        wire in prop::collection::vec(
            prop_oneof![
                Just(b"\r\n".to_vec()), Just(b"3\r\nabc\r\n".to_vec()), Just(b"0\r\n".to_vec()), Just(b"A: b\r\n".to_vec()),
                Just(b"1;a\r\n".to_vec()), prop::collection::vec(any::<u8>(), 0..3),
            ],
            0..10,
        ).prop_map(|parts| parts.concat()),
        cut in 1usize..10,
        capacity in 1usize..30,
        max in 0u64..12,
    ) {
        for framing in [Framing::Chunked, Framing::UntilClose, Framing::Length(9)] {
            prop_assert_eq!(read(framing, max, wire.chunks(cut), capacity), read(framing, max, [&wire[..]], 1024));
        }
    }
}
