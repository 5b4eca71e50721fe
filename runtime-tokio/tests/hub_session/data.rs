//! Values: `PROTOCOL.md` section 4.1, from either form to either form.

use crate::client::*;
use longwire_core::session::{ClientMessage, Data};

fn exchange(from: Form, data: Data<'_>, key: Option<&str>) -> [Seen; 2] {
    let hub = hub(|_| {});
    let mut readers = FORMS.map(|form| Client::open(&hub, form));
    readers.iter_mut().for_each(|reader| reader.subscribed(&["a/*"]));
    let mut publisher = Client::open(&hub, from);
    publisher.send(&ClientMessage::Pub { n: Some(1), topic: "a/b".into(), key: key.map(Into::into), data });
    assert_eq!(publisher.must(), Seen::Ack(1));
    readers.each_mut().map(|reader| reader.must())
}

fn seen(key: Option<&str>, body: Body) -> Seen {
    Seen::Event { at: At::Live(1), topic: "a/b".into(), key: key.map(Into::into), body }
}

#[test]
fn json_is_read_as_cbor() {
    let json = br#" {"x" : [1, -1, 1.5, null, true, "\u00e9\n"]} "#;
    let [as_json, as_cbor] = exchange(Form::Json, Data::Json(json), Some("k/1"));
    assert_eq!(as_json, seen(Some("k/1"), Body::Json(r#"{"x":[1,-1,1.5,null,true,"\u00e9\n"]}"#.into())));
    let Seen::Event { body: Body::Cbor(cbor), key: Some(key), .. } = as_cbor else { panic!("{as_cbor:?}") };
    let mut back = String::new();
    let mut sink = |piece: &[u8]| {
        back.push_str(std::str::from_utf8(piece).unwrap());
        Ok(())
    };
    longwire_core::session::transcode::cbor_to_json(&cbor, &mut sink).unwrap();
    assert_eq!((key.as_str(), back.as_str()), ("k/1", r#"{"x":[1,-1,1.5,null,true,"é\n"]}"#));
}

#[test]
fn cbor_is_read_as_json() {
    // {"x": [1, -1, 1.5 (half), undefined, h'ff', 1("t")]}
    let cbor = b"\xa1\x61x\x86\x01\x20\xf9\x3e\x00\xf7\x41\xff\xc1\x61t";
    let [as_json, as_cbor] = exchange(Form::Cbor, Data::Cbor(cbor), None);
    assert_eq!(as_json, seen(None, Body::Json(r#"{"x":[1,-1,1.5,null,"_w","t"]}"#.into())));
    assert_eq!(as_cbor, seen(None, Body::Cbor(cbor.to_vec())));
}

#[test]
fn opaque_bytes_keep_their_content_type() {
    let all: Vec<u8> = (0..=255).collect();
    for from in FORMS {
        for kind in [Some("image/png"), None] {
            let data = Data::Bytes { content_type: kind.map(Into::into), bytes: all[..].into() };
            let body = Body::Bytes(kind.unwrap_or("application/octet-stream").into(), all.clone());
            assert_eq!(exchange(from, data, Some("k")), [(); 2].map(|()| seen(Some("k"), body.clone())));
        }
    }
}
