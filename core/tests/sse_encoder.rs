//! What is written into an event stream: what a reader makes of it, and what is refused.
#![expect(clippy::unwrap_used, reason = "a test that is wrong may stop")]

use std::time::Duration;

use longwire_core::buf::{RxBuf, RxCursor, TxBuf, TxCursor};
use longwire_core::sse::{Decoder, EncodeError, Fields, Step};
use proptest::prelude::*;

/// The bytes, written in both ways.
fn encode(fields: &Fields<'_>) -> Result<Vec<u8>, EncodeError> {
    let parts = fields.parts().map(|parts| parts.flatten().copied().collect::<Vec<u8>>());
    let (mut bytes, mut cursor) = ([0; 4096], TxCursor::default());
    let mut tx = TxBuf::new(&mut bytes, &mut cursor);
    let result = fields.encode(&mut tx).map(|()| tx.pending().to_vec());
    assert_eq!(parts, result);
    assert!(result.is_ok() || tx.pending().is_empty(), "a refusal writes nothing");
    result
}

/// Name, data and id of each event in a stream; and the retry time.
fn decode(wire: &[u8]) -> (Vec<(String, String, String)>, Option<Duration>) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (mut bytes, mut cursor) = (wire.to_vec(), RxCursor::default());
    let mut rx = RxBuf::new(&mut bytes, &mut cursor);
    rx.commit(wire.len());
    let (mut decoder, mut events) = (Decoder::<512>::default(), Vec::new());
    while decoder.poll(&mut rx).unwrap() == Step::Event {
        let event = decoder.event(rx.reborrow());
        events.push((text(event.name), text(event.data), text(event.id)));
    }
    assert_eq!(rx.held(), 0, "an event was left open");
    (events, decoder.retry())
}

#[test]
fn what_is_written() {
    let event = Fields::event(b"x");
    for (fields, wire) in [
        (Fields::default(), ""),
        (Fields::comment("hello"), ": hello\n"),
        (Fields::comment(""), ": \n"),
        (Fields::retry(Duration::from_millis(3000)), "retry: 3000\n"),
        (Fields::retry(Duration::ZERO), "retry: 0\n"),
        (Fields::retry(Duration::from_micros(1_000_999)), "retry: 1000\n"),
        (Fields::retry(Duration::from_millis(4_294_967_295)), "retry: 4294967295\n"),
        (Fields::retry(Duration::MAX), "retry: 4294967295\n"),
        (event, "data: x\n\n"),
        (Fields { id: Some("7"), name: Some("tick"), ..event }, "id: 7\nevent: tick\ndata: x\n\n"),
        (Fields { id: Some("7"), ..Fields::default() }, "id: 7\n\n"),
        (Fields { id: Some(""), ..event }, "id: \ndata: x\n\n"),
        (
            Fields { retry: Some(Duration::from_millis(2000)), comment: Some("hi"), ..event },
            ": hi\nretry: 2000\ndata: x\n\n",
        ),
        (Fields::event(b""), "data: \n\n"),
        (Fields::event(b"\n"), "data: \ndata: \n\n"),
        (Fields::event(b"a\nb\rc\r\nd\n\re"), "data: a\ndata: b\ndata: c\ndata: d\ndata: \ndata: e\n\n"),
        (Fields::event(b" a"), "data:  a\n\n"),
        (Fields::event(b"\0\xFF"), "data: \0\u{fffd}\n\n"),
    ] {
        assert_eq!(String::from_utf8_lossy(&encode(&fields).unwrap()), wire, "{fields:?}");
    }
}

#[test]
fn a_refusal_says_which_field_it_was() {
    for (error, field) in [
        (EncodeError::Comment, "comment"),
        (EncodeError::Id, "id"),
        (EncodeError::Name, "name"),
        (EncodeError::Full, "no room"),
    ] {
        assert!(error.to_string().contains(field), "{error}");
    }
}

#[test]
fn all_or_nothing() {
    let fields = Fields { id: Some("7"), ..Fields::event(b"a\nb") };
    let wire = encode(&fields).unwrap();
    for capacity in 0..=wire.len() {
        let (mut bytes, mut cursor) = (vec![0; capacity], TxCursor::default());
        let mut tx = TxBuf::new(&mut bytes, &mut cursor);
        let fits = capacity == wire.len();
        assert_eq!(fields.encode(&mut tx), if fits { Ok(()) } else { Err(EncodeError::Full) });
        assert_eq!(tx.pending(), if fits { &wire[..] } else { b"" });
    }
}

/// CR, LF, CRLF and NUL, at each place of a text that would forge an event.
fn hostile() -> impl Iterator<Item = String> {
    ["\r", "\n", "\r\n", "\0", "\n\n", "\r\r", "\r\n\r\n"].into_iter().flat_map(|cut| {
        ["{}", "x{}", "{}x", "x{}data: forged{}{}", "x{}id: 9{}event: forged{}data: forged{}{}"]
            .map(|text| text.replace("{}", cut))
    })
}

#[test]
fn cve_2026_33128_h3_newlines_in_fields_forge_no_event() {
    for text in hostile() {
        let event = Fields::event(b"x");
        assert_eq!(encode(&Fields { id: Some(&text), ..event }), Err(EncodeError::Id), "{text:?}");
        assert_eq!(encode(&Fields { name: Some(&text), ..event }), Err(EncodeError::Name), "{text:?}");
        assert_eq!(encode(&Fields { comment: Some(&text), ..event }), Err(EncodeError::Comment), "{text:?}");
    }
}

#[test]
fn ghsa_4hxc_9384_m385_h3_a_bare_cr_in_data_or_comment_forges_no_event() {
    for text in hostile() {
        assert_eq!(encode(&Fields::comment(&text)), Err(EncodeError::Comment), "{text:?}");
        // In data they are lines, and stay data.
        let wire = encode(&Fields { id: Some("7"), ..Fields::event(text.as_bytes()) }).unwrap();
        let data = text.replace("\r\n", "\n").replace('\r', "\n");
        assert_eq!(decode(&wire).0, [("message".into(), data, "7".into())], "{text:?}");
    }
}

#[test]
fn cve_2026_29085_hono_control_fields_are_checked_and_retry_is_a_number() {
    for text in hostile() {
        let alone = Fields::default();
        assert_eq!(encode(&Fields { id: Some(&text), ..alone }), Err(EncodeError::Id), "{text:?}");
        assert_eq!(encode(&Fields { name: Some(&text), ..alone }), Err(EncodeError::Name), "{text:?}");
    }
    // No text that could carry anything else.
    for millis in [0, 1, 9, 10, 99, 100, 1_000_000_000, u64::from(u32::MAX), u64::MAX] {
        let wire = encode(&Fields::retry(Duration::from_millis(millis))).unwrap();
        let expected = Duration::from_millis(millis.min(u32::MAX.into()));
        assert_eq!(decode(&wire), (vec![], Some(expected)));
    }
}

#[test]
fn cve_2026_44214_eventsource_encoder_one_call_is_one_event_with_its_own_id() {
    let mut wire = encode(&Fields { id: Some("1"), name: Some("real"), ..Fields::event(b"first") }).unwrap();
    for text in hostile() {
        let forged = Fields { id: Some(&text), name: Some(&text), ..Fields::event(b"x") };
        assert!(encode(&forged).is_err());
        wire.extend(encode(&Fields { name: Some("real"), ..Fields::event(text.as_bytes()) }).unwrap());
    }
    let (events, retry) = decode(&wire);
    assert_eq!((events.len(), retry), (1 + hostile().count(), None));
    assert!(events.iter().all(|(name, _, id)| name == "real" && id == "1"));
}

proptest! {
    #[test]
    fn what_is_written_arrives(
        id in prop::option::of("[^\r\n\0]{0,40}"),
        name in prop::option::of("[^\r\n\0]{0,40}"),
        data in "([a-zé :\0]|\r|\n|\r\n|data: ){0,30}",
        comment in prop::option::of("[^\r\n\0]{0,40}"),
        retry in prop::option::of(any::<u32>()),
    ) {
        let retry = retry.map(|millis| Duration::from_millis(millis.into()));
        let fields = Fields {
            comment: comment.as_deref(),
            retry,
            id: id.as_deref(),
            name: name.as_deref(),
            data: Some(data.as_bytes()),
        };
        let (events, got) = decode(&encode(&fields).unwrap());
        let name = name.filter(|name| !name.is_empty()).unwrap_or("message".into());
        let data = data.replace("\r\n", "\n").replace('\r', "\n");
        prop_assert_eq!(events, vec![(name, data, id.unwrap_or_default())]);
        prop_assert_eq!(got, retry);
    }

    #[test]
    fn any_text_is_written_whole_or_refused(
        id in "[a\r\n\0é]{0,3}",
        name: String,
        comment in "[a\r\n\0é]{0,3}",
        data: Vec<u8>,
    ) {
        let fields =
            Fields { comment: Some(&comment), id: Some(&id), name: Some(&name), data: Some(&data), retry: None };
        let hostile = |text: &str| text.contains(['\r', '\n', '\0']);
        let refused = hostile(&comment) || hostile(&id) || hostile(&name);
        prop_assert_eq!(fields.parts().is_err(), refused);
    }
}
