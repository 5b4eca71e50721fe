//! Event streams, against eventsource-stream.

use super::{Known, words};
use eventsource_stream::{Event, EventStream};
use futures_core::Stream;
use longwire_core::buf::{RxBuf, RxCursor};
use longwire_core::sse::{Decoder, Step};
use std::cell::RefCell;
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

pub(super) const KNOWN: &[&Known] =
    &[&NOT_UTF8, &BYTE_ORDER_MARK, &CR_AT_THE_END, &RETRY_SIGN, &RETRY_WITHOUT_END];

const NOT_UTF8: Known = Known {
    input: "a stream that is not UTF-8",
    longwire: "hands out the bytes; replaced where they are shown as text",
    peer: "ends with an error; it is given the stream with U+FFFD in their place",
    standard: "WHATWG HTML 9.2.6: streams are decoded with UTF-8 decode, which replaces",
};

const BYTE_ORDER_MARK: Known = Known {
    input: "a byte order mark at the beginning",
    longwire: "ignores it",
    peer: "is not given it",
    standard: "WHATWG HTML 9.2.5, 9.2.6: one leading U+FEFF is ignored",
};

const CR_AT_THE_END: Known = Known {
    input: "a stream that ends in CR",
    longwire: "ends the line at once",
    peer: "waits for the byte behind it; it is given an LF",
    standard: "WHATWG HTML 9.2.5: CR alone is an end of line, and CRLF is one",
};

const RETRY_SIGN: Known = Known {
    input: "`retry: +1`",
    longwire: "ignores it",
    peer: "takes it for 1",
    standard: "WHATWG HTML 9.2.6: ASCII digits only",
};

const RETRY_WITHOUT_END: Known = Known {
    input: "a retry time of 2^32 ms and more",
    longwire: "2^32 - 1 ms (49 days)",
    peer: "takes what fits 64 bits, and ignores what does not",
    standard: "WHATWG HTML 9.2.6: any number of digits; 9.2.3 lets the user agent wait as it likes",
};

const MARK: &[u8] = b"\xef\xbb\xbf";

/// What a fuzzer should find soon.
const WORDS: &[&[u8]] = &[
    b"data",
    b"data:",
    b"data: ",
    b"event: ",
    b"id: ",
    b"retry: ",
    b"\r\n",
    b"\r",
    b"\n\n",
    b"\xef\xbb\xbf",
    b"\0",
    b"id\n",
    b": a comment\n",
    b"+",
    b"4294967295",
    b"4294967296",
    b"18446744073709551615",
    b"18446744073709551616",
    "\u{e9}".as_bytes(),
    "\u{1f44d}".as_bytes(),
    b"\xf0\x9f",
    b"data: a\n\n",
];

/// More is not looked at, so that no id is longer than the decoder keeps.
const LONGEST: usize = 2048;

/// Both read a stream block by block, that is: up to each empty line; and each block once more by itself, where causes
/// of differences are taken out of it, and where a retry time is its own.
pub(super) fn compare(data: &[u8]) -> Vec<&'static Known> {
    let wire = words(data, WORDS);
    let mut wire = &wire[..wire.len().min(LONGEST)];
    let mut met = Vec::new();
    let (mut ours, mut theirs) = (Longwire::default(), Peer::default());
    if str::from_utf8(wire).is_err() {
        met.push(&NOT_UTF8);
    }
    if let Some(rest) = wire.strip_prefix(MARK) {
        assert_eq!(ours.read(MARK), None);
        met.push(&BYTE_ORDER_MARK);
        wire = rest;
    }
    // A comment, so that nothing behind it is at the beginning.
    assert_eq!(ours.read(b":\n"), None);
    assert_eq!(theirs.read(b":\n"), None);
    for block in blocks(wire) {
        let given = compare_block(block, &mut met);
        let without_retry = |event| Event { retry: None, ..event };
        let (ours, theirs) = (ours.read(block).map(without_retry), theirs.read(&given).map(without_retry));
        assert_eq!(ours, theirs);
    }
    met
}

/// Compares what both make of a block by itself, and returns it without the causes of differences.
fn compare_block(block: &[u8], met: &mut Vec<&'static Known>) -> Vec<u8> {
    let alone = |mut reader: Box<dyn Reader>, block: &[u8]| {
        reader.read(b":\n");
        reader.read(block)
    };
    let ours = alone(Box::<Longwire>::default(), block);
    let mut given = String::from_utf8_lossy(block).into_owned().into_bytes();
    loop {
        let theirs = alone(Box::<Peer>::default(), &given);
        if theirs == ours {
            return given;
        }
        let known = match theirs {
            None if given.ends_with(b"\r") => {
                given.push(b'\n');
                &CR_AT_THE_END
            }
            Some(_) => match with_plain_retry(&given) {
                Some((plain, known)) => {
                    given = plain;
                    known
                }
                None => panic!("longwire {ours:?}, peer {theirs:?}"),
            },
            _ => panic!("longwire {ours:?}, peer {theirs:?}"),
        };
        met.push(known);
    }
}

/// The block with one retry time changed that the two read differently: one with a sign into one that is no number, one
/// that is large into the largest of longwire. `None` when there is none.
fn with_plain_retry(block: &[u8]) -> Option<(Vec<u8>, &'static Known)> {
    let lines = lines(block);
    for (at, line) in lines.iter().enumerate() {
        let Some(value) = line.strip_prefix(b"retry:") else { continue };
        let (value, end) = value.split_at(value.iter().position(|b| matches!(b, b'\r' | b'\n'))?);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        let (signed, digits) = value.strip_prefix(b"+").map_or((false, value), |digits| (true, digits));
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            continue;
        }
        let large = str::from_utf8(digits).is_ok_and(|digits| digits.parse::<u32>().is_err());
        let (value, known): (&[u8], _) = match (signed, large) {
            (true, _) => (b"no number", &RETRY_SIGN),
            (_, true) => (b"4294967295", &RETRY_WITHOUT_END),
            _ => continue,
        };
        let changed = [b"retry:", value, end].concat();
        let (before, after) = (lines[..at].concat(), lines[at + 1..].concat());
        return Some(([before, changed, after].concat(), known));
    }
    None
}

/// Lines with their ends; the last one may have none.
fn lines(wire: &[u8]) -> Vec<&[u8]> {
    let (mut lines, mut rest) = (Vec::new(), wire);
    while !rest.is_empty() {
        let end = match rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
            Some(at) if rest[at..].starts_with(b"\r\n") => at + 2,
            Some(at) => at + 1,
            None => rest.len(),
        };
        let (line, behind) = rest.split_at(end);
        lines.push(line);
        rest = behind;
    }
    lines
}

/// Lines up to an empty one, together.
fn blocks(wire: &[u8]) -> Vec<&[u8]> {
    let (mut blocks, mut rest, mut len) = (Vec::new(), wire, 0);
    for line in lines(wire) {
        len += line.len();
        if matches!(line, b"\r" | b"\n" | b"\r\n") {
            let (block, behind) = rest.split_at(len);
            blocks.push(block);
            (rest, len) = (behind, 0);
        }
    }
    blocks.push(rest);
    blocks
}

/// Reads a stream: the event of the next block, if it has one.
trait Reader {
    fn read(&mut self, bytes: &[u8]) -> Option<Event>;
}

#[derive(Default)]
struct Longwire {
    decoder: Decoder<LONGEST>,
}

impl Reader for Longwire {
    fn read(&mut self, bytes: &[u8]) -> Option<Event> {
        // Blocks are read in buffers of their own: nothing is held between them.
        let (mut buffer, mut cursor) = (vec![0; LONGEST + 7], RxCursor::default());
        let mut rx = RxBuf::new(&mut buffer, &mut cursor);
        assert_eq!(rx.fill(bytes), bytes.len());
        let mut found = None;
        while self.decoder.poll(&mut rx).unwrap() == Step::Event {
            let event = self.decoder.event(rx.reborrow());
            let [event, data, id] =
                [event.name, event.data, event.id].map(|text| String::from_utf8_lossy(text).into());
            let event = Event { event, data, id, retry: self.decoder.retry() };
            assert_eq!(found.replace(event), None, "one block, one event");
        }
        found
    }
}

struct Peer {
    stream: Pin<Box<EventStream<Bytes>>>,
    input: Rc<RefCell<Vec<Vec<u8>>>>,
}

/// Bytes that have come.
struct Bytes(Rc<RefCell<Vec<Vec<u8>>>>);

impl Default for Peer {
    fn default() -> Self {
        let input = Rc::<RefCell<Vec<Vec<u8>>>>::default();
        Self { stream: Box::pin(EventStream::new(Bytes(input.clone()))), input }
    }
}

impl Reader for Peer {
    fn read(&mut self, bytes: &[u8]) -> Option<Event> {
        self.input.borrow_mut().push(bytes.into());
        let mut found = None;
        let mut context = Context::from_waker(Waker::noop());
        while let Poll::Ready(event) = self.stream.as_mut().poll_next(&mut context) {
            assert_eq!(found.replace(event.unwrap().unwrap()), None, "one block, one event");
        }
        found
    }
}

impl Stream for Bytes {
    type Item = Result<Vec<u8>, Infallible>;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.borrow_mut().pop().map_or(Poll::Pending, |bytes| Poll::Ready(Some(Ok(bytes))))
    }
}
