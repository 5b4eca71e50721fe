//! The opening handshake, both roles, and lists of extensions.

use crate::choices::Choices;
use longwire_core::buf::{RxBuf, RxCursor, TxBuf, TxCursor};
use longwire_core::http::extension::{self, Malformed};
use longwire_core::http::head::{HeadReader, Limits, Step};
use longwire_core::http::upgrade::{ClientUpgrade, HandshakeError, MAX_SUBPROTOCOLS, Offer, Upgrade, accept};
use longwire_core::http::view::{Headers, Request, Response};
use longwire_core::http::write::{Field, WriteError};

/// `kind | ...`: 0 a request's bytes, 1 a response's bytes to the client of the RFC's sample nonce, 2 the value of a
/// `Sec-WebSocket-Extensions`, 3 what a client offers and a server answers, as choices.
///
/// # Panics
/// When something that was written is read back as something else, or not at all; when a handshake is taken that breaks a rule of
/// RFC 6455 section 4; when what one role writes is not what the other accepts; when a refusal leaves bytes behind.
pub fn upgrade(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    match kind % 4 {
        0 => request(rest),
        1 => response(rest),
        2 => drop(extensions(rest)),
        _ => handshake(Choices::new(rest)),
    }
}

/// Nothing is refused for its size alone.
const LIMITS: Limits = Limits {
    max_head: 1 << 20,
    max_headers: 1 << 16,
    max_name: 1 << 16,
    max_value: 1 << 16,
    max_target: 1 << 16,
};

/// RFC 6455 section 1.3: its key is `dGhlIHNhbXBsZSBub25jZQ==`.
const SAMPLE: &[u8; 16] = b"the sample nonce";

/// A server takes these bytes, or refuses them. If it takes them, its answer opens the client's end.
fn request(wire: &[u8]) {
    read_request(wire, |request| match accept(request) {
        Ok(upgrade) => answer(&upgrade, &mut Choices::new(wire)),
        Err(error) => refuse(error),
    });
}

fn refuse(error: HandshakeError) {
    let wire = written(|tx| error.write(tx)).unwrap();
    let body = read_response(&wire, |response| {
        assert_eq!(response.status(), error.status());
        assert!(!response.keeps_alive(), "RFC 6455 section 4.2.2: the server closes");
        for (name, value) in error.fields() {
            assert_eq!(response.header(name), Some(value.as_bytes()));
        }
        response.headers().content_length()
    });
    assert!(body.unwrap().unwrap() > 0 && wire.ends_with(error.as_str().as_bytes()));
}

/// A server takes the handshake. What it may answer is up to the choices.
fn answer(upgrade: &Upgrade<'_>, choices: &mut Choices<'_>) {
    let offered: Vec<&str> = upgrade.subprotocols().collect();
    assert!(offered.len() <= MAX_SUBPROTOCOLS);
    for (n, name) in offered.iter().enumerate() {
        assert!(is_token(name), "RFC 6455 section 4.1, step 10: {name:?}");
        assert!(!offered[..n].contains(name), "RFC 6455 section 4.1, step 10: all unique");
    }
    let nonce = nonce(upgrade.key());
    let client = ClientUpgrade::with_nonce(nonce);
    let subprotocol = offered.get(choices.upto(offered.len())).copied();
    let names: Vec<String> = upgrade.extensions().map(|extension| extension.name().to_owned()).collect();
    let agreed = names.get(choices.upto(names.len())).map(String::as_str);
    let wire = written(|tx| upgrade.write_response(tx, subprotocol, agreed, &[("X-Field", "x")])).unwrap();

    let offers = names.join(", ");
    let offer = Offer {
        subprotocols: &offered,
        extensions: (!names.is_empty()).then_some(&offers),
        ..Offer::new("a", "/")
    };
    read_response(&wire, |response| {
        let found = client.check(&offer, response).unwrap();
        assert_eq!(found.subprotocol(), subprotocol);
        assert!(found.extensions().map(|extension| extension.name()).eq(agreed));
        assert_eq!(response.headers().iter().last(), Some(("X-Field", &b"x"[..])));
        // Another client's key, and an offer of less, are not answered by it.
        let mut other = nonce;
        other[0] ^= 1;
        assert!(ClientUpgrade::with_nonce(other).check(&offer, response).is_err());
        let less = Offer::new("a", "/");
        assert_eq!(client.check(&less, response).is_ok(), subprotocol.is_none() && agreed.is_none());
    })
    .unwrap();
    let not_offered = offered.concat() + "x";
    let refused = written(|tx| upgrade.write_response(tx, Some(&not_offered), None, &[]));
    assert_eq!(refused, Err(WriteError::Subprotocol));
}

/// The bytes of a key, read without the code that is tested.
fn nonce(key: &[u8; 24]) -> [u8; 16] {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |b: &u8| DIGITS.iter().position(|digit| digit == b).unwrap() as u128;
    let bits = key[..21].iter().fold(0, |bits, b| bits << 6 | digit(b));
    let last = digit(&key[21]);
    assert!(last & 0xf == 0 && key.ends_with(b"=="), "RFC 4648 section 3.5: not canonical");
    (bits << 2 | last >> 4).to_be_bytes()
}

/// A client gets these bytes for an answer.
fn response(wire: &[u8]) {
    let client = ClientUpgrade::with_nonce(*SAMPLE);
    let subprotocols = ["longwire.v1.json", "chat"];
    let offer = Offer {
        subprotocols: &subprotocols,
        extensions: Some("permessage-deflate; client_max_window_bits, x"),
        ..Offer::new("a", "/")
    };
    read_response(wire, |response| {
        let Ok(agreed) = client.check(&offer, response) else { return };
        // RFC 6455 section 4.1, the last six steps.
        assert_eq!(response.status(), 101);
        let one = |name: &str| {
            let mut values = response.headers().get_all(name);
            let first = values.next().map(|value| String::from_utf8_lossy(value).into_owned());
            assert!(values.next().is_none(), "several {name}");
            first.unwrap_or_default()
        };
        assert!(one("Upgrade").eq_ignore_ascii_case("websocket"));
        assert_eq!(one("Sec-WebSocket-Accept"), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let connection: Vec<_> = response.headers().get_all("Connection").collect();
        let connection = String::from_utf8_lossy(&connection.join(&b","[..])).to_ascii_lowercase();
        assert!(connection.split(',').any(|option| option.trim_matches([' ', '\t']) == "upgrade"));
        assert_eq!(one("Sec-WebSocket-Protocol"), agreed.subprotocol().unwrap_or_default());
        assert!(agreed.subprotocol().is_none_or(|chosen| subprotocols.contains(&chosen)));
        let _ = one("Sec-WebSocket-Extensions");
        for extension in agreed.extensions() {
            assert!(matches!(extension.name(), "permessage-deflate" | "x"));
        }
    });
}

/// Any value of a `Sec-WebSocket-Extensions` header, taken apart. What is left of it in one canonical form is the
/// same list.
fn extensions(value: &[u8]) -> Option<Vec<String>> {
    let list = |value: &[u8]| -> Option<Vec<String>> {
        let mut list = Vec::new();
        let mut extensions = extension::parse(value);
        for extension in &mut extensions {
            let Ok(extension) = extension else {
                assert_eq!(extension.map(|found| found.name()), Err(Malformed));
                assert!(extensions.next().is_none(), "there is nothing behind what is malformed");
                return None;
            };
            let mut text = extension.name().to_owned();
            assert!(is_token(&text));
            for (name, value) in extension.params() {
                assert!(is_token(name));
                text = text + ";" + name;
                let Some(value) = value else { continue };
                let token: String = value.chars().collect();
                assert!(is_token(&token) && value.is(&token) && !value.is(""));
                let canonical = |number: u64| number.to_string() == token;
                assert_eq!(value.number(), token.parse().ok().filter(|number| canonical(*number)));
                text = text + "=" + &token;
            }
            list.push(text);
        }
        Some(list)
    };
    let found = list(value)?;
    assert_eq!(list(found.join(",").as_bytes()), Some(found.clone()));
    Some(found)
}

/// A client offers what the choices say, and a server takes it.
fn handshake(mut choices: Choices<'_>) {
    let nonce = *choices.bytes(16).first_chunk().unwrap_or(SAMPLE);
    let client = ClientUpgrade::with_nonce(nonce);
    let text = |choices: &mut Choices<'_>| choices.text(40).to_owned();
    let texts = |choices: &mut Choices<'_>, most| -> Vec<String> {
        (0..choices.upto(most)).map(|_| text(choices)).collect()
    };
    let (host, target) = (text(&mut choices), format!("/{}", text(&mut choices)));
    let origin = choices.option(text);
    let subprotocols = texts(&mut choices, 40);
    let subprotocols: Vec<&str> = subprotocols.iter().map(String::as_str).collect();
    let extensions = choices.option(text);
    let (up, down) = (texts(&mut choices, 6), texts(&mut choices, 6));
    let pairs = |texts: &[String]| -> Vec<(String, String)> {
        texts.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()
    };
    let (up, down) = (pairs(&up), pairs(&down));
    let (up, down) = (as_fields(&up), as_fields(&down));
    let offer = Offer {
        host: &host,
        target: &target,
        origin: origin.as_deref(),
        subprotocols: &subprotocols,
        extensions: extensions.as_deref(),
        fields: &up,
    };
    let Ok(wire) = written(|tx| client.write_request(tx, &offer)) else { return };
    let rest = read_request(&wire, |request| {
        assert_eq!((request.method(), request.target()), ("GET", &target[..]));
        let mut expected = vec![
            ("Host", &host[..]),
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Key", ""),
            ("Sec-WebSocket-Version", "13"),
        ];
        let list = subprotocols.join(", ");
        expected.extend(offer.origin.map(|origin| ("Origin", origin)));
        expected.extend((!list.is_empty()).then_some(("Sec-WebSocket-Protocol", &list[..])));
        expected.extend(offer.extensions.map(|list| ("Sec-WebSocket-Extensions", list)));
        expected.extend(&up);
        same_fields(request.headers(), &expected, "Sec-WebSocket-Key");
        // A field of the caller's that another reader might mind is his business: all but that is accepted.
        let upgrade = accept(request).unwrap();
        assert_eq!(self::nonce(upgrade.key()), nonce);
        assert!(upgrade.subprotocols().eq(subprotocols.iter().copied()));
        answer(&upgrade, &mut choices);
        agree(&client, &offer, &upgrade, &down, &mut choices);
    });
    assert!(rest.is_some(), "a request that no server reads: {:?}", String::from_utf8_lossy(&wire));
}

/// The server chooses, with fields of its own, and the client takes that.
fn agree(
    client: &ClientUpgrade,
    offer: &Offer<'_>,
    upgrade: &Upgrade<'_>,
    fields: &[Field<'_>],
    choices: &mut Choices<'_>,
) {
    let subprotocol = offer.subprotocols.get(choices.upto(offer.subprotocols.len())).copied();
    let extensions = if choices.flag() { offer.extensions } else { None };
    let Ok(wire) = written(|tx| upgrade.write_response(tx, subprotocol, extensions, fields)) else { return };
    read_response(&wire, |response| {
        let mut expected =
            vec![("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", "")];
        expected.extend(subprotocol.map(|chosen| ("Sec-WebSocket-Protocol", chosen)));
        expected.extend(extensions.map(|list| ("Sec-WebSocket-Extensions", list)));
        expected.extend(fields);
        same_fields(response.headers(), &expected, "Sec-WebSocket-Accept");
        let agreed = client.check(offer, response).unwrap();
        assert_eq!(agreed.subprotocol(), subprotocol);
        let list = |list: Option<&str>| self::extensions(list.unwrap_or_default().as_bytes()).unwrap().len();
        assert_eq!(agreed.extensions().count(), list(extensions));
    })
    .unwrap();
}

fn as_fields(pairs: &[(String, String)]) -> Vec<Field<'_>> {
    pairs.iter().map(|(name, value)| (&name[..], &value[..])).collect()
}

/// The fields of a head are exactly these, but for the value of one.
fn same_fields(headers: Headers<'_>, expected: &[Field<'_>], drawn: &str) {
    let found: Vec<_> =
        headers.iter().map(|(name, value)| (name, if name == drawn { b"" } else { value })).collect();
    let expected: Vec<_> = expected.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
    assert_eq!(found, expected, "a field was lost, joined, or let in by another");
}

/// RFC 9110 section 5.6.2.
fn is_token(text: &str) -> bool {
    let is_tchar = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(is_tchar)
}

/// What a writer writes: all of it, or nothing in a buffer that is one byte too small.
fn written(write: impl Fn(&mut TxBuf<'_>) -> Result<(), WriteError>) -> Result<Vec<u8>, WriteError> {
    let attempt = |size: usize| {
        let (mut bytes, mut cursor) = (vec![0; size], TxCursor::default());
        let mut tx = TxBuf::new(&mut bytes, &mut cursor);
        let result = write(&mut tx);
        assert!(result.is_ok() || tx.pending().is_empty(), "an error left something behind");
        result.map(|()| tx.pending().to_vec())
    };
    let wire = attempt(1 << 14)?;
    assert_eq!(attempt(wire.len()).as_deref(), Ok(&wire[..]));
    assert_eq!(attempt(wire.len() - 1), Err(WriteError::Full));
    Ok(wire)
}

/// Shows the head that these bytes begin with, if there is one.
fn read_request<T>(wire: &[u8], show: impl FnOnce(&Request<'_>) -> T) -> Option<T> {
    let (mut bytes, mut cursor) = (wire.to_vec(), RxCursor::default());
    let mut rx = RxBuf::new(&mut bytes, &mut cursor);
    rx.commit(wire.len());
    match HeadReader::default().poll_request(&mut rx, &LIMITS) {
        Ok(Step::Head(head)) => Some(show(&head.view(rx.reborrow()))),
        _ => None,
    }
}

/// As [`read_request`].
fn read_response<T>(wire: &[u8], show: impl FnOnce(&Response<'_>) -> T) -> Option<T> {
    let (mut bytes, mut cursor) = (wire.to_vec(), RxCursor::default());
    let mut rx = RxBuf::new(&mut bytes, &mut cursor);
    rx.commit(wire.len());
    match HeadReader::default().poll_response(&mut rx, &LIMITS) {
        Ok(Step::Head(head)) => Some(show(&head.view(rx.reborrow()))),
        _ => None,
    }
}
