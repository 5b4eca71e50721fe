//! The event stream decoder against WHATWG HTML section 9.2, at every split and in buffers of every size.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that is wrong may stop")]

use longwire_core::buf::{RxBuf, RxCursor};
use longwire_core::sse::{Decoder, SseError, Step};
use proptest::prelude::*;

/// Name, data, id.
type Event = (Vec<u8>, Vec<u8>, Vec<u8>);

fn event(name: &str, data: &str, id: &str) -> Event {
    (name.into(), data.into(), id.into())
}

fn messages(data: &[&str]) -> Vec<Event> {
    data.iter().map(|data| event("message", data, "")).collect()
}

/// What came of a stream.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    events: Vec<Event>,
    end: Result<Step, SseError>,
    last_event_id: Vec<u8>,
    retry: Option<u128>,
}

const MAX_EVENT: usize = 256;
/// What the decoder promises to be enough.
const ENOUGH: usize = MAX_EVENT + 7;

/// Feeds these pieces, each in one read if it fits.
fn decode<'a>(capacity: usize, max_event: usize, pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let (mut bytes, mut cursor) = (vec![0; capacity], RxCursor::default());
    let (mut decoder, mut events) = (Decoder::<64>::new(max_event), Vec::new());
    let mut end = Ok(Step::NeedInput);
    for mut piece in pieces {
        while !piece.is_empty() && matches!(end, Ok(Step::NeedInput)) {
            piece = &piece[RxBuf::new(&mut bytes, &mut cursor).fill(piece)..];
            loop {
                let mut rx = RxBuf::new(&mut bytes, &mut cursor);
                end = decoder.poll(&mut rx);
                // Nothing that was looked at is looked at again, whatever the split: so the work is linear.
                assert!(end != Ok(Step::NeedInput) || rx.unread().len() < 7, "{:?} waits", rx.unread());
                if end != Ok(Step::Event) {
                    break;
                }
                let event = decoder.event(rx);
                assert_eq!(event.id, decoder.last_event_id());
                events.push((event.name.to_vec(), event.data.to_vec(), event.id.to_vec()));
            }
        }
    }
    let retry = decoder.retry().map(|wait| wait.as_millis());
    Outcome { events, end, last_event_id: decoder.last_event_id().to_vec(), retry }
}

fn whole(wire: &[u8]) -> Outcome {
    decode(wire.len().max(ENOUGH), MAX_EVENT, [wire])
}

/// Checks that the wire gives the same whole, cut at every byte, and byte by byte, in the smallest buffer that is
/// promised to be enough, in larger ones, and in every smaller one that happens to be enough.
fn every_split(wire: &[u8]) -> Outcome {
    let expected = whole(wire);
    for capacity in [ENOUGH, ENOUGH + 1, 1000] {
        for cut in 0..=wire.len() {
            let (head, tail) = wire.split_at(cut);
            assert_eq!(decode(capacity, MAX_EVENT, [head, tail]), expected, "cut at {cut}, {capacity} bytes");
        }
        assert_eq!(decode(capacity, MAX_EVENT, wire.chunks(1)), expected, "byte by byte, {capacity} bytes");
    }
    for capacity in 0..ENOUGH {
        let got = decode(capacity, MAX_EVENT, [wire]);
        if got.end == Ok(Step::NeedSpace) {
            assert!(expected.events.starts_with(&got.events));
        } else {
            assert_eq!(got, expected, "in {capacity} bytes");
        }
    }
    expected
}

/// The standard, taken literally, on a whole stream: "parse an event stream" and "interpret an event stream".
fn model(wire: &[u8]) -> Outcome {
    let wire = wire.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(wire);
    let (mut events, mut retry) = (Vec::new(), None);
    let (mut data, mut kind, mut id, mut last_event_id) = (vec![], vec![], vec![], vec![]);
    let mut rest = wire;
    while let Some(at) = rest.iter().position(|byte| b"\r\n".contains(byte)) {
        let line = &rest[..at];
        rest = &rest[at + if rest[at..].starts_with(b"\r\n") { 2 } else { 1 }..];
        if line.is_empty() {
            last_event_id.clone_from(&id);
            if !data.is_empty() {
                data.pop();
                let name = if kind.is_empty() { b"message".to_vec() } else { kind };
                events.push((name, data, id.clone()));
            }
            (data, kind) = (vec![], vec![]);
            continue;
        }
        let colon = line.iter().position(|byte| *byte == b':');
        let (field, value) = colon.map_or((line, &b""[..]), |at| (&line[..at], &line[at + 1..]));
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"event" => kind = value.to_vec(),
            b"data" => data.extend([value, b"\n"].concat()),
            b"id" if !value.contains(&0) => id = value.to_vec(),
            b"retry" if !value.is_empty() && value.iter().all(u8::is_ascii_digit) => {
                let digits = std::str::from_utf8(value).unwrap();
                retry = Some(digits.parse().unwrap_or(u32::MAX).into());
            }
            _ => {}
        }
    }
    Outcome { events, end: Ok(Step::NeedInput), last_event_id, retry }
}

#[test]
fn section_9_2_6_examples() {
    for (wire, events) in [
        ("data: YHOO\ndata: +2\ndata: 10\n\n", vec![event("message", "YHOO\n+2\n10", "")]),
        (
            ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
            vec![
                event("message", "first event", "1"),
                event("message", "second event", ""),
                event("message", " third event", ""),
            ],
        ),
        ("data\n\ndata\ndata\n\ndata:", messages(&["", "\n"])),
        ("data:test\n\ndata: test\n\n", messages(&["test", "test"])),
        (
            "event: add\ndata: 73857293\n\nevent: remove\ndata: 2153\n\nevent: add\ndata: 113411\n\n",
            vec![event("add", "73857293", ""), event("remove", "2153", ""), event("add", "113411", "")],
        ),
    ] {
        for line_end in ["\n", "\r", "\r\n"] {
            let got = every_split(wire.replace('\n', line_end).as_bytes());
            assert_eq!(got.events, events, "{wire:?} with {line_end:?}");
            assert_eq!(got.end, Ok(Step::NeedInput));
        }
    }
}

#[test]
fn fields_and_lines() {
    for (wire, events) in [
        // Line ends of all kinds, mixed: CRLF is one end, LFCR is two.
        ("data: a\r\rdata: b\n\ndata: c\r\n\r\n", &["a", "b", "c"][..]),
        ("data: a\r\n\ndata: b\n\r\ndata: c\n\rdata: d\r\r\n", &["a", "b", "c", "d"]),
        ("data: a\r\ndata: b\rdata: c\n\n", &["a\nb\nc"]),
        ("\n\r\r\n\n\ndata: a\n\n\n\n\n", &["a"]),
        // One space is removed, no tab, and no other.
        ("data:a\ndata: b\ndata:  c\ndata:\td\n\n", &["a\nb\n c\n\td"]),
        ("data:\n\n", &[""]),
        ("data: \n\n", &[""]),
        ("data:  \n\n", &[" "]),
        ("data::\ndata: :x\n\n", &[":\n:x"]),
        // Unknown fields, other cases, spaces before: ignored.
        ("Data: a\ndata : b\n data: c\ndat: d\ndataa: e\ndatabase\nDATA\nevents: f\ndata: g\n\n", &["g"]),
        (": comment\n:\n::\n:data: no\ndata: a\n: comment\ndata: b\n\n", &["a\nb"]),
        ("data: a\n:\ndata: b\nx\n\n", &["a\nb"]),
        // NUL is data as any other byte.
        ("data: \0\n\n", &["\0"]),
        // What is not whole is discarded.
        ("data: a\n", &[]),
        ("data: a", &[]),
        ("", &[]),
    ] {
        let got = every_split(wire.as_bytes());
        assert_eq!(got.events, messages(events), "{wire:?}");
        assert_eq!(got, model(wire.as_bytes()), "the model of {wire:?}");
    }
}

#[test]
fn one_byte_order_mark_is_ignored_at_the_beginning_only() {
    for (wire, events) in [
        ("\u{feff}data: a\n\n", &["a"][..]),
        ("\u{feff}\u{feff}data: a\n\ndata: b\n\n", &["b"]),
        ("data: a\n\u{feff}data: b\n\n\u{feff}data: c\n\ndata: d\n\n", &["a", "d"]),
        ("\n\u{feff}data: a\n\n", &[]),
        ("data: \u{feff}\n\n", &["\u{feff}"]),
        ("\u{feff}", &[]),
        ("\u{feff}\ndata: a\n\n", &["a"]),
    ] {
        assert_eq!(every_split(wire.as_bytes()).events, messages(events), "{wire:?}");
    }
    // The beginning of a mark is no mark.
    assert_eq!(every_split(b"\xEF\xBBdata: a\n\ndata: b\n\n").events, messages(&["b"]));
}

#[test]
fn names_and_ids_in_any_order() {
    for (wire, events) in [
        // The last name counts, for one event.
        ("event: a\nevent: b\ndata: 1\n\ndata: 2\n\n", vec![event("b", "1", ""), event("message", "2", "")]),
        ("event: a\nevent\ndata: 1\n\n", vec![event("message", "1", "")]),
        ("event: a\n\ndata: 1\n\n", vec![event("message", "1", "")]),
        // After, between and before the data; longer and shorter than it.
        ("data: 1\nevent: name\n\n", vec![event("name", "1", "")]),
        ("data: 1\nevent: a\ndata: 2\nevent: bcdef\ndata: 3\n\n", vec![event("bcdef", "1\n2\n3", "")]),
        ("data: 1\nid: x\nevent: n\ndata: long enough\nid: yz\n\n", vec![event("n", "1\nlong enough", "yz")]),
        ("data: 1\ndata: 2\nevent: last\n\n", vec![event("last", "1\n2", "")]),
        ("event: a\ndata: 1\nid: 7\ndata: 2\n\n", vec![event("a", "1\n2", "7")]),
        ("data\nevent: e\ndata\n\n", vec![event("e", "\n", "")]),
        // Values that look like the tags of other fields.
        ("data: e\ndata: i\ndata: d\nevent: d\nid: e\n\n", vec![event("d", "e\ni\nd", "e")]),
    ] {
        let got = every_split(wire.as_bytes());
        assert_eq!(got.events, events, "{wire:?}");
        assert_eq!(got, model(wire.as_bytes()), "the model of {wire:?}");
    }
}

#[test]
fn the_last_event_id_persists_and_changes_with_whole_events_only() {
    for (wire, ids, last) in [
        ("id: 1\ndata: a\n\ndata: b\n\nid: 2\ndata: c\n\n", &["1", "1", "2"][..], "2"),
        // Without data nothing is dispatched, but the id is taken.
        ("id: 1\n\ndata: a\n\nid: 2\n\n", &["1"], "2"),
        // An empty id takes the id away.
        ("id: 1\ndata: a\n\nid\ndata: b\n\n", &["1", ""], ""),
        ("id: 1\ndata: a\n\nid:\ndata: b\n\n", &["1", ""], ""),
        // An id with NUL is no id at all, wherever the NUL is.
        ("id: 1\nid: \0\nid: 2\0\nid: \x003\ndata: a\n\n", &["1"], "1"),
        // An event that was cut off would be lost if its id counted.
        ("id: 1\ndata: a\n\nid: 2\ndata: b\n", &["1"], "1"),
        ("id: 1\ndata: a\n\nid: 2\ndata: b\nevent: x\r", &["1"], "1"),
    ] {
        let got = every_split(wire.as_bytes());
        let expected: Vec<_> = ids.iter().map(|id| id.as_bytes().to_vec()).collect();
        assert_eq!(got.events.iter().map(|event| event.2.clone()).collect::<Vec<_>>(), expected, "{wire:?}");
        assert_eq!(got.last_event_id, last.as_bytes(), "{wire:?}");
    }
}

#[test]
fn retry_is_ascii_digits_and_saturates() {
    for (value, retry) in [
        ("retry: 3000\n", Some(3000)),
        ("retry:0\n", Some(0)),
        ("retry: 0010\n", Some(10)),
        ("retry: 4294967294\n", Some(4_294_967_294)),
        ("retry: 4294967296\n", Some(u32::MAX.into())),
        ("retry: 42949672950\n", Some(u32::MAX.into())),
        ("retry: 50000000000000000001\n", Some(u32::MAX.into())),
        ("retry: 99999999999999999999999999999999\n", Some(u32::MAX.into())),
        ("retry: 1\r\nretry: 2\r\n", Some(2)),
        ("retry: 7\nretry: 8x\nretry: -9\nretry:\nretry\nretry: 1.5\nretry: 1 \nretry:  1\n", Some(7)),
        ("retry: \u{0661}\n", None),
        ("retry: 1e3\n", None),
        ("Retry: 1\nretry : 1\nretrys: 1\n", None),
        // A line that is not whole says nothing yet.
        ("retry: 3000", None),
    ] {
        assert_eq!(every_split(value.as_bytes()).retry, retry, "{value:?}");
        // It is taken at once: also when no event follows.
        let got = every_split(format!("data: a\n{value}").as_bytes());
        assert_eq!((got.events, got.retry), (vec![], retry), "{value:?}");
    }
}

#[test]
fn invalid_utf_8_is_handed_out_as_it_came() {
    let got = every_split(b"event: \xFF\nid: \xC3\ndata: a\xE2\x82\ndata: \x80b\n\n");
    assert_eq!(got.events, [(b"\xFF".to_vec(), b"a\xE2\x82\n\x80b".to_vec(), b"\xC3".to_vec())]);
    let (mut bytes, mut cursor) = ([0; 32], RxCursor::default());
    let mut rx = RxBuf::new(&mut bytes, &mut cursor);
    rx.fill(b"data: a\xE2\x82\n\ndata: \xC3\xA9\n\n");
    let mut decoder: Decoder = Decoder::default();
    assert_eq!(decoder.poll(&mut rx), Ok(Step::Event));
    assert!(decoder.event(rx.reborrow()).data_str().is_err());
    assert_eq!(decoder.poll(&mut rx), Ok(Step::Event));
    assert_eq!(decoder.event(rx.reborrow()).data_str(), Ok("é"));
}

#[test]
fn the_default_limit_is_64_kib() {
    for (len, step) in [(65_534, Ok(Step::Event)), (65_535, Err(SseError::EventTooLarge))] {
        let mut bytes = format!("data: {}\n\n", "x".repeat(len)).into_bytes();
        let (wire, mut cursor) = (bytes.len(), RxCursor::default());
        let mut rx = RxBuf::new(&mut bytes, &mut cursor);
        rx.commit(wire);
        assert_eq!(Decoder::<64>::default().poll(&mut rx), step, "{len}");
    }
}

#[test]
fn max_event_holds_at_the_limit_and_ends_the_stream_one_above() {
    // Two bytes of overhead a line.
    let full = "x".repeat(MAX_EVENT - 2);
    let at = every_split(format!("data: {full}\n\n").as_bytes());
    assert_eq!((at.events, at.end), (messages(&[&full]), Ok(Step::NeedInput)));
    let shared = format!("event: {}\nid:\ndata\ndata: x\n\n", "x".repeat(MAX_EVENT - 9));
    assert_eq!(every_split(shared.as_bytes()).events.len(), 1);
    for above in [
        format!("data: {full}x\n\n"),
        format!("data: {}\nid:\n\n", &full[1..]),
        format!("event: {full}x\n\n"),
        format!("id: {full}x\n\n"),
        shared.replace("data: x", "data: xx"),
        // The smallest line is charged for what it holds.
        format!("{}data\n\n", "data\n".repeat(MAX_EVENT / 2)),
    ] {
        let got = every_split(format!("data: before\n\n{above}").as_bytes());
        assert_eq!(got.events, messages(&["before"]), "{above:?}");
        assert_eq!(got.end, Err(SseError::EventTooLarge), "{above:?}");
    }
    let at = every_split("data\n".repeat(MAX_EVENT / 2).as_bytes());
    assert_eq!(at.end, Ok(Step::NeedInput));
    // Retry times, comments and unknown fields are not charged.
    let none = format!("data: {full}\n: {full}\nretry: {}\nfoo: {full}\n\n", "0".repeat(MAX_EVENT));
    assert_eq!(every_split(none.as_bytes()).events, messages(&[&full]));
}

#[test]
fn a_small_buffer_is_enough_for_small_events_and_says_when_it_is_not() {
    let wire = b": a comment that is longer than all of it\nevent: e\nid: 1\ndata: 7\n\n".repeat(3);
    // Kept are `e e LF i 1 LF d 7 LF`, of which the last LF takes the place of the line's end; while the start of
    // the third line is looked at, six bytes are held, and `data: ` besides.
    assert_eq!(decode(12, 100, [&wire[..]]).events.len(), 3);
    for capacity in 0..12 {
        let got = decode(capacity, 100, [&wire[..]]);
        assert_eq!((got.events, got.end), (vec![], Ok(Step::NeedSpace)), "{capacity}");
    }
    // A larger buffer, with what the smaller one held, goes on.
    let (mut small, mut large, mut cursor) = ([0; 8], [0; 32], RxCursor::default());
    let mut decoder: Decoder = Decoder::default();
    let mut rx = RxBuf::new(&mut small, &mut cursor);
    rx.fill(b"data: 12");
    assert_eq!(decoder.poll(&mut rx), Ok(Step::NeedInput));
    rx.fill(b"345678");
    assert_eq!(decoder.poll(&mut rx), Ok(Step::NeedSpace));
    let held = rx.compact();
    large[..held.len()].copy_from_slice(held);
    let mut rx = RxBuf::new(&mut large, &mut cursor);
    rx.fill(b"8\n\n");
    assert_eq!(decoder.poll(&mut rx), Ok(Step::Event));
    assert_eq!(decoder.event(rx).data, b"12345678");
}

#[test]
fn an_id_holds_at_the_limit_and_ends_the_stream_one_above() {
    let id = "i".repeat(64);
    let at = every_split(format!("id: {id}\ndata: a\n\n").as_bytes());
    assert_eq!(at.events, [event("message", "a", &id)]);
    let above = every_split(format!("id: 1\ndata: a\n\nid: {id}i\ndata: b\n\ndata: c\n\n").as_bytes());
    assert_eq!(above.events, [event("message", "a", "1")]);
    assert_eq!((above.end, above.last_event_id), (Err(SseError::IdTooLong), b"1".to_vec()));
    let mut decoder = Decoder::<2>::default();
    assert_eq!(decoder.set_last_event_id(b"12"), Ok(()));
    assert_eq!(decoder.set_last_event_id(b"123"), Err(SseError::IdTooLong));
    assert_eq!(decoder.last_event_id(), b"12");
}

#[test]
fn after_an_error_no_event_comes_until_restart() {
    let (mut bytes, mut cursor) = ([0; 64], RxCursor::default());
    let mut rx = RxBuf::new(&mut bytes, &mut cursor);
    let mut decoder = Decoder::<4>::new(8);
    rx.fill(b"id: 7\nretry: 5\n\ndata: 123456\n\ndata: 1234567\n\ndata: b\n\n");
    assert_eq!(decoder.poll(&mut rx), Ok(Step::Event));
    for _ in 0..3 {
        assert_eq!(decoder.poll(&mut rx), Err(SseError::EventTooLarge));
        assert_eq!(decoder.event(rx.reborrow()).data, b"");
    }
    decoder.restart(&mut rx);
    rx.fill(b"id: 12345\n\ndata: b\n\n");
    for _ in 0..3 {
        assert_eq!(decoder.poll(&mut rx), Err(SseError::IdTooLong));
    }
    decoder.restart(&mut rx);
    assert_eq!(rx.held(), 0);
    rx.fill(b"\xEF\xBB\xBFdata: c\n\n");
    assert_eq!(decoder.poll(&mut rx), Ok(Step::Event));
    let event = decoder.event(rx.reborrow());
    assert_eq!((event.data, event.id), (&b"c"[..], &b"7"[..]));
    assert_eq!(decoder.retry().unwrap().as_millis(), 5);
}

#[test]
fn restart_discards_what_was_cut_off_in_any_state() {
    let wire = b"event: old\r\nid: old\r\ndata: old\r\ndata: old\r\n\r\n: old";
    for cut in 0..wire.len() {
        let (mut bytes, mut cursor) = ([0; 64], RxCursor::default());
        let mut rx = RxBuf::new(&mut bytes, &mut cursor);
        let mut decoder: Decoder = Decoder::default();
        rx.fill(&wire[..cut]);
        decoder.poll(&mut rx).unwrap();
        decoder.restart(&mut rx);
        rx.fill(b"\xEF\xBB\xBFdata: new\n\n");
        assert_eq!(decoder.poll(&mut rx), Ok(Step::Event), "cut at {cut}");
        let event = decoder.event(rx.reborrow());
        assert_eq!((event.name, event.data), (&b"message"[..], &b"new"[..]), "cut at {cut}");
    }
}

#[test]
fn the_event_stays_until_the_next_poll_also_in_another_buffer() {
    let (mut bytes, mut cursor) = ([0; 64], RxCursor::default());
    let mut decoder: Decoder = Decoder::default();
    let mut rx = RxBuf::new(&mut bytes, &mut cursor);
    rx.fill(b": gap\ndata: a\nevent: n\ndata: b\n\ndata: c\n\n");
    assert_eq!(decoder.poll(&mut rx), Ok(Step::Event));
    for _ in 0..2 {
        assert_eq!(decoder.event(rx.reborrow()).data, b"a\nb");
    }
    let mut other = rx.compact().to_vec();
    let mut rx = RxBuf::new(&mut other, &mut cursor);
    assert_eq!(decoder.event(rx.reborrow()).name, b"n");
    assert_eq!(decoder.poll(&mut rx), Ok(Step::Event));
    assert_eq!(decoder.event(rx.reborrow()).data, b"c");
    assert_eq!(decoder.poll(&mut rx), Ok(Step::NeedInput));
    assert!(cursor.is_idle());
}

#[test]
fn what_is_ignored_holds_nothing_however_long() {
    let (mut bytes, mut cursor) = ([0; 16], RxCursor::default());
    let mut decoder = Decoder::<8>::new(9);
    let mut feed = |piece: &[u8]| {
        for byte in piece {
            let mut rx = RxBuf::new(&mut bytes, &mut cursor);
            assert_eq!(rx.fill(&[*byte]), 1);
            if decoder.poll(&mut rx).unwrap() == Step::Event {
                return Some(decoder.event(rx).data.to_vec());
            }
        }
        None
    };
    assert_eq!(feed(b"data: 1234567\n"), None);
    for ignored in [&b": comment "[..], b"unknown: ", b"id2", b"retry: 1"] {
        assert_eq!(feed(ignored), None);
        (0..10_000).for_each(|_| assert_eq!(feed(b"0123456789"), None));
        assert_eq!(feed(b"\n"), None);
    }
    assert_eq!(feed(b"\n"), Some(b"1234567".to_vec()));
    (0..10_000).for_each(|_| assert_eq!(feed(b"id: 1\nevent:\n\n\r\n"), None));
}

/// Streams made of what matters to a decoder.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    const FIELDS: &[&str] =
        &["data", "data:", "data: ", "event: ", "event", "id: ", "id", "retry: ", "retry", ":", ": "];
    const ENDS: &[&str] = &["\n", "\r", "\r\n"];
    const LONG: &[u8] = b"long text, longer than a block of the scan";
    const VALUES: &[&[u8]] = &[b"x", LONG, b"1", b"23", b" ", b"\0", b"\xEF\xBB\xBF", b"\xC3"];
    let token = prop_oneof![
        4 => prop::sample::select(FIELDS).prop_map(str::as_bytes),
        6 => prop::sample::select(ENDS).prop_map(str::as_bytes),
        3 => prop::sample::select(VALUES),
    ];
    prop::collection::vec(token, 0..40).prop_map(|tokens| tokens.concat())
}

proptest! {
    #[test]
    fn streams_agree_with_the_standard_at_any_split(
        wire in stream(),
        cuts: [u8; 4],
        capacity in ENOUGH..900,
    ) {
        let mut cuts = cuts.map(|cut| usize::from(cut) % (wire.len() + 1));
        cuts.sort_unstable();
        let bounds: Vec<usize> = [0].into_iter().chain(cuts).chain([wire.len()]).collect();
        let pieces = bounds.windows(2).map(|bounds| &wire[bounds[0]..bounds[1]]);
        let cut = decode(capacity, MAX_EVENT, pieces);
        prop_assert_eq!(&cut, &whole(&wire));
        prop_assert_eq!(&cut, &decode(capacity, MAX_EVENT, wire.chunks(1)));
        if cut.end.is_ok() {
            prop_assert_eq!(cut, model(&wire));
        }
    }

    #[test]
    fn any_bytes_in_any_buffer_never_panic(
        wire in prop::collection::vec(
            prop_oneof![any::<u8>(), prop::sample::select(b"dataeventid:\r\n ".to_vec())],
            0..300,
        ),
        capacity in 0usize..40,
        max_event in 0usize..40,
        piece in 1usize..20,
    ) {
        decode(capacity, max_event, wire.chunks(piece));
        let free = decode(400, 400, wire.chunks(piece));
        if free.end.is_ok() {
            prop_assert_eq!(free, model(&wire));
        }
    }
}
