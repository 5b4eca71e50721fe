//! The opening handshake of WebSocket, both roles, over lent buffers.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test may panic, also in its helpers")]

use longwire_core::buf::{RxBuf, RxCursor, TxBuf, TxCursor};
use longwire_core::http::body::{BodyReader, BodyStep, Framing};
use longwire_core::http::head::{HeadReader, Limits, Step};
use longwire_core::http::upgrade::{self, ClientUpgrade, HandshakeError, Offer, ResponseError, Upgrade};
use longwire_core::http::write::WriteError;
use proptest::prelude::*;

/// The bytes that RFC 6455 uses in its example (section 1.3).
const NONCE: [u8; 16] = *b"the sample nonce";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

fn written(write: impl FnOnce(&mut TxBuf<'_>) -> Result<(), WriteError>) -> Result<String, WriteError> {
    let (mut bytes, mut cursor) = ([0; 2048], TxCursor::default());
    let mut tx = TxBuf::new(&mut bytes, &mut cursor);
    let result = write(&mut tx);
    assert!(result.is_ok() || tx.pending().is_empty(), "an error left something behind");
    result.map(|()| String::from_utf8(tx.pending().to_vec()).unwrap())
}

/// Has the server's side look at the request in a wire.
fn serve<T>(wire: &[u8], look: impl FnOnce(Result<Upgrade<'_>, HandshakeError>) -> T) -> T {
    let (mut bytes, mut cursor) = ([0; 8192], RxCursor::default());
    let mut rx = RxBuf::new(&mut bytes, &mut cursor);
    rx.fill(wire);
    let step = HeadReader::default().poll_request(&mut rx, &Limits::DEFAULT);
    let Ok(Step::Head(head)) = step else { panic!("{step:?}: {}", String::from_utf8_lossy(wire)) };
    look(upgrade::accept(&head.view(rx)))
}

/// What the client says about a response to an offer.
fn check(offer: &Offer<'_>, wire: &[u8]) -> Result<(Option<String>, Vec<String>), ResponseError> {
    let (mut bytes, mut cursor) = ([0; 8192], RxCursor::default());
    let mut rx = RxBuf::new(&mut bytes, &mut cursor);
    rx.fill(wire);
    let step = HeadReader::default().poll_response(&mut rx, &Limits::DEFAULT);
    let Ok(Step::Head(head)) = step else { panic!("{step:?}") };
    let agreed = ClientUpgrade::with_nonce(NONCE).check(offer, &head.view(rx))?;
    let extensions = agreed.extensions().map(|extension| extension.name().to_owned()).collect();
    Ok((agreed.subprotocol().map(str::to_owned), extensions))
}

/// A request whose lines may be replaced (by their name), or added to.
fn request(replace: &[(&str, &str)]) -> String {
    let mut lines = vec![
        ("GET", "GET /chat HTTP/1.1\r\n".to_owned()),
        ("Host", "Host: server.example.com\r\n".into()),
        ("Upgrade", "Upgrade: websocket\r\n".into()),
        ("Connection", "Connection: Upgrade\r\n".into()),
        ("Sec-WebSocket-Key", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n".into()),
        ("Sec-WebSocket-Version", "Sec-WebSocket-Version: 13\r\n".into()),
    ];
    for (name, text) in replace {
        match lines.iter_mut().find(|(n, _)| n == name) {
            Some((_, line)) => *line = (*text).to_owned(),
            None => lines.push((name, (*text).to_owned())),
        }
    }
    lines.into_iter().map(|(_, line)| line).collect::<String>() + "\r\n"
}

#[test]
fn rfc_6455_section_1_3_the_example() {
    let wire =
        request(&[("more", "Origin: http://example.com\r\nSec-WebSocket-Protocol: chat, superchat\r\n")]);
    serve(wire.as_bytes(), |upgrade| {
        let upgrade = upgrade.unwrap();
        assert_eq!(upgrade.key(), b"dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(upgrade.subprotocols().collect::<Vec<_>>(), ["chat", "superchat"]);
        assert_eq!(upgrade.request().header("origin"), Some(&b"http://example.com"[..]));
        assert_eq!(upgrade.extensions().count(), 0);
        assert_eq!(
            written(|tx| upgrade.write_response(tx, Some("chat"), None, &[("X", "y")])).unwrap(),
            format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: {ACCEPT}\r\nSec-WebSocket-Protocol: chat\r\nX: y\r\n\r\n"
            )
        );
    });
}

#[test]
fn rfc_6455_section_4_2_1_what_a_server_takes() {
    for replace in [
        ("Upgrade", "upgrade: WebSocket\r\n"),
        ("Upgrade", "Upgrade: h2c, websocket\r\n"),
        ("Upgrade", "Upgrade: h2c\r\nUpgrade: websocket\r\n"),
        ("Connection", "Connection: keep-alive, Upgrade\r\n"),
        ("Connection", "Connection: keep-alive\r\nConnection: UPGRADE\r\n"),
        ("Content-Length", "Content-Length: 0\r\n"),
        ("Sec-WebSocket-Protocol", "Sec-WebSocket-Protocol: ,a,, b ,\r\n"),
        ("Sec-WebSocket-Protocol", "Sec-WebSocket-Protocol: a\r\nSec-WebSocket-Protocol: A\r\n"),
        (
            "Sec-WebSocket-Extensions",
            "Sec-WebSocket-Extensions: a;b=\"c\"\r\nSec-WebSocket-Extensions: a\r\n",
        ),
        ("GET", "GET http://server.example.com/chat HTTP/1.1\r\n"),
    ] {
        serve(request(&[replace]).as_bytes(), |upgrade| assert!(upgrade.is_ok(), "{replace:?}: {upgrade:?}"));
    }
}

#[test]
fn rfc_6455_section_4_2_1_what_a_server_refuses() {
    use HandshakeError as E;
    for (name, lines, error, status) in [
        ("GET", "POST /chat HTTP/1.1\r\n", E::Method, 405),
        ("GET", "get /chat HTTP/1.1\r\n", E::Method, 405),
        ("GET", "GET /chat HTTP/1.0\r\n", E::HttpVersion, 400),
        ("Body", "Content-Length: 1\r\n", E::Body, 400),
        ("Body", "Transfer-Encoding: chunked\r\n", E::Body, 400),
        ("Upgrade", "", E::Upgrade, 400),
        ("Upgrade", "Upgrade: websockets\r\n", E::Upgrade, 400),
        ("Upgrade", "Upgrade: web socket\r\n", E::Upgrade, 400),
        ("Connection", "", E::Connection, 400),
        ("Connection", "Connection: keep-alive\r\n", E::Connection, 400),
        ("Connection", "Connection: not-upgrade\r\n", E::Connection, 400),
        ("Sec-WebSocket-Version", "", E::VersionCount, 400),
        (
            "Sec-WebSocket-Version",
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Version: 13\r\n",
            E::VersionCount,
            400,
        ),
        (
            "Sec-WebSocket-Version",
            "Sec-WebSocket-Version: 8\r\nSec-WebSocket-Version: 13\r\n",
            E::VersionCount,
            400,
        ),
        ("Sec-WebSocket-Version", "Sec-WebSocket-Version: 8\r\n", E::Version, 426),
        ("Sec-WebSocket-Version", "Sec-WebSocket-Version: 14\r\n", E::Version, 426),
        ("Sec-WebSocket-Version", "Sec-WebSocket-Version: 13, 8\r\n", E::Version, 426),
        ("Sec-WebSocket-Version", "Sec-WebSocket-Version: 013\r\n", E::Version, 426),
        ("Sec-WebSocket-Version", "Sec-WebSocket-Version:\r\n", E::Version, 426),
        ("Sec-WebSocket-Key", "", E::KeyCount, 400),
        (
            "Sec-WebSocket-Key",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
            E::KeyCount,
            400,
        ),
        ("P", "Sec-WebSocket-Protocol: a, a\r\n", E::Subprotocols, 400),
        ("P", "Sec-WebSocket-Protocol: a\r\nSec-WebSocket-Protocol: b, a\r\n", E::Subprotocols, 400),
        ("P", "Sec-WebSocket-Protocol: a b\r\n", E::Subprotocols, 400),
        ("P", "Sec-WebSocket-Protocol: a/b\r\n", E::Subprotocols, 400),
        ("P", "Sec-WebSocket-Protocol: \u{e9}\r\n", E::Subprotocols, 400),
        ("P", "Sec-WebSocket-Protocol:\r\n", E::Subprotocols, 400),
        ("P", "Sec-WebSocket-Protocol: ,\r\n", E::Subprotocols, 400),
        ("X", "Sec-WebSocket-Extensions: a;;b\r\n", E::Extensions, 400),
        ("X", "Sec-WebSocket-Extensions: a\r\nSec-WebSocket-Extensions: b=\r\n", E::Extensions, 400),
        ("X", "Sec-WebSocket-Extensions:\r\n", E::Extensions, 400),
    ] {
        serve(request(&[(name, lines)]).as_bytes(), |upgrade| {
            assert_eq!(upgrade.err(), Some(error), "{lines:?}")
        });
        assert_eq!(error.status(), status, "{error}");
        let refusal = written(|tx| error.write(tx)).unwrap();
        assert!(refusal.starts_with(&format!("HTTP/1.1 {status} ")), "{refusal}");
        assert!(refusal.ends_with(&format!("\r\n\r\n{}", error.as_str())), "{refusal}");
    }
}

#[test]
fn rfc_6455_section_4_4_a_refusal_says_the_version() {
    assert_eq!(
        written(|tx| HandshakeError::Version.write(tx)).unwrap(),
        "HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Content-Type: text/plain; charset=utf-8\r\nContent-Length: 31\r\nConnection: upgrade, close\r\n\r\n\
         Sec-WebSocket-Version is not 13"
    );
    assert!(written(|tx| HandshakeError::Method.write(tx)).unwrap().contains("\r\nAllow: GET\r\n"));
    assert!(
        written(|tx| HandshakeError::VersionCount.write(tx))
            .unwrap()
            .contains("\r\nSec-WebSocket-Version: 13\r\n")
    );
}

#[test]
fn cve_2026_5067_zephyr_a_key_has_24_characters_and_is_canonical() {
    let key = |key: &[u8]| {
        let wire = [
            &b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Version: 13\r\n"[..],
            b"Sec-WebSocket-Key: ",
            key,
            b"\r\n\r\n",
        ];
        serve(&wire.concat(), |upgrade| upgrade.map(|upgrade| *upgrade.key()))
    };
    for len in 0..=64 {
        for unit in [&b"A"[..], b"=", b"/"] {
            assert_eq!(key(&unit.repeat(len)), Err(HandshakeError::Key), "{len}");
        }
        let padded = [&b"A".repeat(len)[..], b"=="].concat();
        assert_eq!(key(&padded).is_ok(), len == 22, "{len}");
    }
    // Any byte at the start, in the middle, at the end, and in the last character that carries bits.
    let good = *b"dGhlIHNhbXBsZSBub25jZQ==";
    for byte in (0x21..=0xff).filter(|b| *b != 0x7f) {
        for at in [0, 11, 20, 21, 22, 23] {
            let mut changed = good;
            changed[at] = byte;
            let allowed = match at {
                21 => b"AQgw".contains(&byte),
                22 | 23 => byte == b'=',
                _ => byte.is_ascii_alphanumeric() || b"+/".contains(&byte),
            };
            assert_eq!(key(&changed).ok(), allowed.then_some(changed), "{byte:#x} at {at}");
        }
    }
}

#[test]
fn as_many_subprotocols_as_may_be_offered_and_one_more() {
    let offer = |n: usize| {
        let names: Vec<_> = (0..n).map(|n| format!("p{n}")).collect();
        request(&[("P", &format!("Sec-WebSocket-Protocol: {}\r\n", names.join(",")))])
    };
    let count = |wire: String| {
        serve(wire.as_bytes(), |upgrade| upgrade.map(|upgrade| upgrade.subprotocols().count()))
    };
    assert_eq!(count(offer(upgrade::MAX_SUBPROTOCOLS)), Ok(32));
    assert_eq!(count(offer(upgrade::MAX_SUBPROTOCOLS + 1)), Err(HandshakeError::Subprotocols));
}

#[test]
fn a_server_agrees_to_nothing_that_was_not_offered() {
    let wire = request(&[("more", "Sec-WebSocket-Protocol: a, b\r\nSec-WebSocket-Extensions: x;y=1, z\r\n")]);
    serve(wire.as_bytes(), |upgrade| {
        let upgrade = upgrade.unwrap();
        let respond = |subprotocol, extensions, fields: &[(&str, &str)]| {
            written(|tx| upgrade.write_response(tx, subprotocol, extensions, fields)).map(|_| ())
        };
        assert_eq!(respond(Some("b"), Some("z, x;y=2"), &[]), Ok(()));
        for subprotocol in ["c", "A", "", "a, b", "a\r\nX: y"] {
            assert_eq!(respond(Some(subprotocol), None, &[]), Err(WriteError::Subprotocol));
        }
        for extensions in ["w", "x, w", "", "x;", "x\r\nX: y"] {
            assert_eq!(respond(None, Some(extensions), &[]), Err(WriteError::Extension), "{extensions:?}");
        }
        for name in
            ["Connection", "upgrade", "Sec-WebSocket-Accept", "Content-Length", "sec-websocket-protocol"]
        {
            assert_eq!(respond(None, None, &[(name, "x")]), Err(WriteError::Reserved));
        }
        assert_eq!(respond(None, None, &[("X", "a\nb")]), Err(WriteError::Value));
        // A buffer that is too small by a byte gets nothing.
        let whole = written(|tx| upgrade.write_response(tx, None, None, &[])).unwrap();
        let (mut bytes, mut cursor) = (vec![0; whole.len() - 1], TxCursor::default());
        let mut tx = TxBuf::new(&mut bytes, &mut cursor);
        assert_eq!(upgrade.write_response(&mut tx, None, None, &[]), Err(WriteError::Full));
        assert!(tx.pending().is_empty());
    });
}

#[test]
fn rfc_6455_section_4_1_what_a_client_sends() {
    let offer = Offer {
        origin: Some("http://example.com"),
        subprotocols: &["longwire.v1.cbor", "longwire.v1.json"],
        extensions: Some("permessage-deflate; client_max_window_bits"),
        fields: &[("Authorization", "Bearer t")],
        ..Offer::new("server.example.com:8080", "/v1/stream?topic=a")
    };
    let client = ClientUpgrade::with_nonce(NONCE);
    assert_eq!(
        written(|tx| client.write_request(tx, &offer)).unwrap(),
        "GET /v1/stream?topic=a HTTP/1.1\r\nHost: server.example.com:8080\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
         Origin: http://example.com\r\nSec-WebSocket-Protocol: longwire.v1.cbor, longwire.v1.json\r\n\
         Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\nAuthorization: Bearer t\r\n\r\n"
    );
    for (offer, error) in [
        (Offer::new("", "/"), WriteError::Value),
        (Offer::new("a/b", "/"), WriteError::Value),
        (Offer::new("a\r\nX: y", "/"), WriteError::Value),
        (Offer::new("a", ""), WriteError::Target),
        (Offer::new("a", "b"), WriteError::Target),
        (Offer::new("a", "/ HTTP/1.1\r\nX: y"), WriteError::Target),
        (Offer { origin: Some("a\r\nX: y"), ..Offer::new("a", "/") }, WriteError::Value),
        (Offer { subprotocols: &["a", "a"], ..Offer::new("a", "/") }, WriteError::Subprotocol),
        (Offer { subprotocols: &["a b"], ..Offer::new("a", "/") }, WriteError::Subprotocol),
        (Offer { subprotocols: &["a\r\nX"], ..Offer::new("a", "/") }, WriteError::Subprotocol),
        (Offer { subprotocols: &[""], ..Offer::new("a", "/") }, WriteError::Subprotocol),
        (Offer { extensions: Some("a;"), ..Offer::new("a", "/") }, WriteError::Extension),
        (Offer { fields: &[("Host", "b")], ..Offer::new("a", "/") }, WriteError::Reserved),
        (Offer { fields: &[("sec-websocket-key", "b")], ..Offer::new("a", "/") }, WriteError::Reserved),
        (Offer { fields: &[("X", "a\0")], ..Offer::new("a", "/") }, WriteError::Value),
    ] {
        assert_eq!(written(|tx| client.write_request(tx, &offer)), Err(error), "{offer:?}");
    }
}

#[test]
fn rfc_6455_section_4_1_what_a_client_accepts() {
    use ResponseError as E;
    let offer = Offer { subprotocols: &["a", "b"], extensions: Some("x;y, z"), ..Offer::new("a", "/") };
    let plain = Offer::new("a", "/");
    let response = |replace: &str| {
        let mut text = String::from("HTTP/1.1 101 Switching Protocols\r\n");
        for line in ["Upgrade: websocket", "Connection: Upgrade", &format!("Sec-WebSocket-Accept: {ACCEPT}")]
        {
            let name = line.split_once(':').unwrap().0;
            if !replace.contains(&format!("{name}:")) {
                text += &format!("{line}\r\n");
            }
        }
        text + replace + "\r\n"
    };
    let ok = |subprotocol: Option<&str>, extensions: &[&str]| {
        Ok((subprotocol.map(str::to_owned), extensions.iter().map(|name| (*name).to_owned()).collect()))
    };
    for (lines, want) in [
        ("", ok(None, &[])),
        ("Upgrade: WebSocket\r\nConnection: x, UPGRADE\r\n", ok(None, &[])),
        ("Sec-WebSocket-Protocol: b\r\n", ok(Some("b"), &[])),
        ("Sec-WebSocket-Extensions: z, x;y=1\r\n", ok(None, &["z", "x"])),
        ("Upgrade: \r\n", Err(E::Upgrade)),
        ("Upgrade: h2c, websocket\r\n", Err(E::Upgrade)),
        ("Upgrade: websocket\r\nUpgrade: websocket\r\n", Err(E::Upgrade)),
        ("Connection: close\r\n", Err(E::Connection)),
        ("Sec-WebSocket-Accept: \r\n", Err(E::Accept)),
        ("Sec-WebSocket-Accept: S3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n", Err(E::Accept)),
        ("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo\r\n", Err(E::Accept)),
        ("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Accept: x\r\n", Err(E::Accept)),
        ("Sec-WebSocket-Protocol: c\r\n", Err(E::Subprotocol)),
        ("Sec-WebSocket-Protocol: A\r\n", Err(E::Subprotocol)),
        ("Sec-WebSocket-Protocol: a, b\r\n", Err(E::Subprotocol)),
        ("Sec-WebSocket-Protocol:\r\n", Err(E::Subprotocol)),
        ("Sec-WebSocket-Protocol: a\r\nSec-WebSocket-Protocol: a\r\n", Err(E::Subprotocol)),
        ("Sec-WebSocket-Extensions: w\r\n", Err(E::Extensions)),
        ("Sec-WebSocket-Extensions: x;\r\n", Err(E::Extensions)),
        ("Sec-WebSocket-Extensions:\r\n", Err(E::Extensions)),
        ("Sec-WebSocket-Extensions: x\r\nSec-WebSocket-Extensions: z\r\n", Err(E::Extensions)),
    ] {
        assert_eq!(check(&offer, response(lines).as_bytes()), want, "{lines:?}");
    }
    // Not asked for: no subprotocol, no extension.
    assert_eq!(check(&plain, response("Sec-WebSocket-Protocol: a\r\n").as_bytes()), Err(E::Subprotocol));
    assert_eq!(check(&plain, response("Sec-WebSocket-Extensions: x\r\n").as_bytes()), Err(E::Extensions));
    assert_eq!(check(&plain, response("").replace("HTTP/1.1", "HTTP/1.0").as_bytes()), Err(E::HttpVersion));
    for missing in
        ["Upgrade: websocket\r\n", "Connection: Upgrade\r\n", &format!("Sec-WebSocket-Accept: {ACCEPT}\r\n")]
    {
        assert!(check(&plain, response("").replace(missing, "").as_bytes()).is_err(), "{missing}");
    }
}

#[test]
fn a_refusal_leaves_what_it_says_to_be_read() {
    let wire = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\nContent-Length: 5\r\n\r\nlater";
    let (mut bytes, mut cursor) = ([0; 256], RxCursor::default());
    let mut rx = RxBuf::new(&mut bytes, &mut cursor);
    rx.fill(wire);
    let Ok(Step::Head(head)) = HeadReader::default().poll_response(&mut rx, &Limits::DEFAULT) else {
        panic!()
    };
    let response = head.view(rx.reborrow());
    let result = ClientUpgrade::with_nonce(NONCE).check(&Offer::new("a", "/"), &response);
    assert_eq!(result.err(), Some(ResponseError::Status(503)));
    assert_eq!(response.retry_after(), Some(7));
    let mut body = BodyReader::new(Framing::of_response(&response, "GET"), 100).unwrap();
    assert_eq!(body.poll(&mut rx), Ok(BodyStep::Data));
    assert_eq!(body.piece(rx), b"later");
}

/// Feeds `wire` in these pieces until a head is there, and says how the unread rest continues.
fn shake<'w>(offer: &Offer<'_>, cut: impl Fn(&'w [u8]) -> Vec<&'w [u8]>, up: &'w [u8], down: &'w [u8]) {
    let (mut bytes, mut cursor) = ([0; 512], RxCursor::default());
    let mut rx = RxBuf::new(&mut bytes, &mut cursor);
    let mut reader = HeadReader::default();
    let mut heads = 0;
    for piece in cut(up) {
        rx.fill(piece);
        if heads > 0 {
            continue;
        }
        if let Step::Head(head) = reader.poll_request(&mut rx, &Limits::DEFAULT).unwrap() {
            heads += 1;
            assert!(upgrade::accept(&head.view(rx.reborrow())).is_ok());
            head.release(&mut rx);
        }
    }
    assert_eq!((heads, rx.kept(), rx.unread()), (1, &b""[..], &b"\x81\x82mask.."[..]));

    let (mut bytes, mut cursor) = ([0; 512], RxCursor::default());
    let mut rx = RxBuf::new(&mut bytes, &mut cursor);
    let mut reader = HeadReader::default();
    let mut heads = 0;
    for piece in cut(down) {
        rx.fill(piece);
        if heads > 0 {
            continue;
        }
        if let Step::Head(head) = reader.poll_response(&mut rx, &Limits::DEFAULT).unwrap() {
            heads += 1;
            let agreed = ClientUpgrade::with_nonce(NONCE)
                .check(offer, &head.view(rx.reborrow()))
                .map(|a| a.subprotocol());
            assert_eq!(agreed, Ok(Some("b")));
            head.release(&mut rx);
        }
    }
    assert_eq!((heads, rx.kept(), rx.unread()), (1, &b""[..], &b"\x81\x02hi"[..]));
}

#[test]
fn the_first_frames_stay_unread_at_every_split() {
    let offer = Offer { subprotocols: &["a", "b"], ..Offer::new("example.org", "/v1/stream") };
    let up = written(|tx| ClientUpgrade::with_nonce(NONCE).write_request(tx, &offer)).unwrap();
    let down =
        serve(up.as_bytes(), |u| written(|tx| u.unwrap().write_response(tx, Some("b"), None, &[])).unwrap());
    let up = [up.as_bytes(), b"\x81\x82mask.."].concat();
    let down = [down.as_bytes(), b"\x81\x02hi"].concat();
    for at in 0..=up.len().max(down.len()) {
        shake(&offer, |wire| <[_; 2]>::from(wire.split_at(at.min(wire.len()))).to_vec(), &up, &down);
    }
    for len in [1, 2, 3, 17] {
        shake(&offer, |wire| wire.chunks(len).collect(), &up, &down);
    }
}

#[test]
fn keys_come_from_the_generator() {
    struct Counting(u8);
    impl rand_core::TryRng for Counting {
        type Error = std::convert::Infallible;
        fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
            unreachable!("bytes are asked for")
        }
        fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
            unreachable!("bytes are asked for")
        }
        fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), Self::Error> {
            for byte in to {
                *byte = self.0;
                self.0 += 1;
            }
            Ok(())
        }
    }
    impl rand_core::TryCryptoRng for Counting {}
    use longwire_core::rand_core;
    let mut rng = Counting(0);
    let mut request =
        || written(|tx| ClientUpgrade::new(&mut rng).write_request(tx, &Offer::new("a", "/"))).unwrap();
    assert!(request().contains("\r\nSec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==\r\n"));
    assert!(request().contains("\r\nSec-WebSocket-Key: EBESExQVFhcYGRobHB0eHw==\r\n"));
}

proptest! {
    #[test]
    fn any_key_is_taken_and_its_answer_fits(nonce: [u8; 16]) {
        let client = ClientUpgrade::with_nonce(nonce);
        let offer = Offer::new("a", "/");
        let up = written(|tx| client.write_request(tx, &offer)).unwrap();
        let down = serve(up.as_bytes(), |u| written(|tx| u.unwrap().write_response(tx, None, None, &[])).unwrap());
        let (mut bytes, mut cursor) = ([0; 512], RxCursor::default());
        let mut rx = RxBuf::new(&mut bytes, &mut cursor);
        rx.fill(down.as_bytes());
        let Ok(Step::Head(head)) = HeadReader::default().poll_response(&mut rx, &Limits::DEFAULT) else { panic!() };
        let response = head.view(rx);
        prop_assert!(client.check(&offer, &response).is_ok());
        // Nobody else's key fits.
        if nonce != NONCE {
            let other = ClientUpgrade::with_nonce(NONCE).check(&offer, &response).err();
            prop_assert_eq!(other, Some(ResponseError::Accept));
        }
    }

    #[test]
    fn any_fields_are_judged(
        values in prop::collection::vec("[ \t,;=\"\\\\a-d0-9\u{e9}]{0,30}", 4),
        names in prop::collection::vec(prop::sample::select(vec![
            "Upgrade", "Connection", "Sec-WebSocket-Key", "Sec-WebSocket-Version", "Sec-WebSocket-Protocol",
            "Sec-WebSocket-Extensions",
        ]), 4),
    ) {
        let more: String = names.iter().zip(&values).map(|(n, v)| format!("{n}: {v}\r\n")).collect();
        serve(request(&[("more", &more)]).as_bytes(), |upgrade| {
            if let Ok(upgrade) = upgrade {
                let names: Vec<_> = upgrade.subprotocols().collect();
                assert!(names.iter().enumerate().all(|(n, name)| !name.is_empty() && !names[..n].contains(name)));
                upgrade.extensions().flat_map(|e| e.params()).for_each(|(_, v)| {
                    assert!(v.is_none_or(|v| v.chars().count() > 0));
                });
            }
        });
    }
}
