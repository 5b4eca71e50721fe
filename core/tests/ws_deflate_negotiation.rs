//! What client and server agree on about permessage-deflate (RFC 7692 sections 5 and 7.1), from the heads of the
//! opening handshake to [`Agreed`].
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic, also in its helpers")]

use longwire_core::buf::{RxBuf, RxCursor, TxBuf, TxCursor};
use longwire_core::http::extension;
use longwire_core::http::head::{HeadReader, Limits, Step};
use longwire_core::http::upgrade::{self, ClientUpgrade, Offer};
use longwire_core::ws::deflate::{Agreed, BadAnswer, Config, Corrupt, Window};

/// The bytes that RFC 6455 uses in its example (section 1.3), and what a server answers to them.
const NONCE: [u8; 16] = *b"the sample nonce";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

const NAMES: [&str; 4] = [
    "server_no_context_takeover",
    "client_no_context_takeover",
    "server_max_window_bits",
    "client_max_window_bits",
];

/// What is behind a parameter's name, and what that is.
const VALUES: [(&str, Is); 44] = [
    ("", Is::Absent),
    ("=8", Is::Bits(8)),
    ("=9", Is::Bits(9)),
    ("=10", Is::Bits(10)),
    ("=11", Is::Bits(11)),
    ("=12", Is::Bits(12)),
    ("=13", Is::Bits(13)),
    ("=14", Is::Bits(14)),
    ("=15", Is::Bits(15)),
    (" = 15 ", Is::Bits(15)),
    ("=\t8\t", Is::Bits(8)),
    // RFC 6455 9.1: quoted, it has to be a token once it is unescaped.
    ("=\"8\"", Is::Bits(8)),
    ("=\"12\"", Is::Bits(12)),
    ("=\"\\1\\5\"", Is::Bits(15)),
    ("=0", Is::OutOfRange),
    ("=00", Is::OutOfRange),
    ("=1", Is::OutOfRange),
    ("=7", Is::OutOfRange),
    ("=16", Is::OutOfRange),
    ("=17", Is::OutOfRange),
    ("=\"16\"", Is::OutOfRange),
    ("=08", Is::OutOfRange),
    ("=015", Is::OutOfRange),
    ("=\"\\08\"", Is::OutOfRange),
    ("=-8", Is::OutOfRange),
    ("=+8", Is::OutOfRange),
    ("=-1", Is::OutOfRange),
    ("=8.0", Is::OutOfRange),
    ("=0x8", Is::OutOfRange),
    ("=1e1", Is::OutOfRange),
    ("=true", Is::OutOfRange),
    // 8 and 15, if a number of fewer bits is made of it.
    ("=264", Is::OutOfRange),
    ("=65544", Is::OutOfRange),
    ("=4294967304", Is::OutOfRange),
    ("=18446744073709551624", Is::OutOfRange),
    ("=100000000000000000000000000000000000000000000000000008", Is::OutOfRange),
    ("=", Is::Malformed),
    ("=\"\"", Is::Malformed),
    ("=\"8 \"", Is::Malformed),
    ("=\" 8\"", Is::Malformed),
    ("=8 9", Is::Malformed),
    ("=\"8", Is::Malformed),
    ("=8=9", Is::Malformed),
    ("=\u{ff18}", Is::Malformed),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Is {
    Absent,
    Bits(u8),
    /// A value by the grammar, but none that such a parameter may have.
    OutOfRange,
    /// Not even that: RFC 6455 section 9.1 fails the handshake for it.
    Malformed,
}

/// What a server makes of a client's offers.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Served {
    Agreed(Agreed, String),
    Declined,
    Refused,
}

/// Has a server look at the offers of a request, and write its response.
fn serve(config: &Config, offers: &[&str]) -> Served {
    let fields: String = offers.iter().map(|o| format!("Sec-WebSocket-Extensions: {o}\r\n")).collect();
    let request = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{fields}\r\n"
    );
    let (mut bytes, mut cursor) = ([0; 4096], RxCursor::default());
    let mut rx = RxBuf::new(&mut bytes, &mut cursor);
    assert_eq!(rx.fill(request.as_bytes()), request.len());
    let Ok(Step::Head(head)) = HeadReader::default().poll_request(&mut rx, &Limits::DEFAULT) else {
        // Other bytes than a field may have.
        return Served::Refused;
    };
    let Ok(upgrade) = upgrade::accept(&head.view(rx)) else { return Served::Refused };
    let Some((agreed, answer)) = config.accept(upgrade.extensions()) else { return Served::Declined };
    let (mut bytes, mut cursor) = ([0; 1024], TxCursor::default());
    let mut tx = TxBuf::new(&mut bytes, &mut cursor);
    assert_eq!(upgrade.write_response(&mut tx, None, Some(&answer), &[]), Ok(()), "{answer}");
    let field = format!("\r\nSec-WebSocket-Extensions: {answer}\r\n");
    assert!(String::from_utf8(tx.pending().to_vec()).unwrap().contains(&field));
    Served::Agreed(agreed, answer.as_str().to_owned())
}

/// What a client makes of a server's answer to its offer. An error: it fails the connection.
fn answered(config: &Config, answers: &[&str]) -> Result<Option<Agreed>, ()> {
    let offered = config.offer();
    let offer = Offer { extensions: Some(&offered), ..Offer::new("a", "/") };
    let upgrade = ClientUpgrade::with_nonce(NONCE);
    let (mut bytes, mut cursor) = ([0; 1024], TxCursor::default());
    assert_eq!(upgrade.write_request(&mut TxBuf::new(&mut bytes, &mut cursor), &offer), Ok(()), "{offered}");

    let fields: String = answers.iter().map(|a| format!("Sec-WebSocket-Extensions: {a}\r\n")).collect();
    let response = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {ACCEPT}\r\n{fields}\r\n"
    );
    let (mut bytes, mut cursor) = ([0; 4096], RxCursor::default());
    let mut rx = RxBuf::new(&mut bytes, &mut cursor);
    assert_eq!(rx.fill(response.as_bytes()), response.len());
    let Ok(Step::Head(head)) = HeadReader::default().poll_response(&mut rx, &Limits::DEFAULT) else {
        return Err(());
    };
    let agreed = upgrade.check(&offer, &head.view(rx)).map_err(|_| ())?;
    config.check(agreed.extensions()).map_err(|BadAnswer| ())
}

const fn window(bits: u8, takeover: bool) -> Window {
    Window { bits, takeover }
}

/// Wants all that the RFC has.
const LIBERAL: Config = Config { send: window(15, true), receive: window(15, true) };

/// All that there are with such windows.
fn configs_of(bits: &[u8]) -> impl Iterator<Item = Config> + Clone + use<'_> {
    let windows = bits.iter().flat_map(|bits| [window(*bits, false), window(*bits, true)]);
    windows.clone().flat_map(move |send| windows.clone().map(move |receive| Config { send, receive }))
}

fn configs() -> impl Iterator<Item = Config> + Clone {
    configs_of(&[8, 9, 10, 11, 12, 13, 14, 15])
}

fn parse(text: &str) -> impl Iterator<Item = extension::Extension<'_>> {
    extension::parse(text.as_bytes()).map(|extension| extension.unwrap())
}

/// The four parameters as they can stand in an offer or an answer: both flags, and both numbers, of which that of
/// the client may come without a value (0).
fn parameters() -> impl Iterator<Item = (bool, bool, Option<u8>, Option<u8>)> + Clone {
    let bits = || std::iter::once(None).chain((8..=15).map(Some));
    let flags = [(false, false), (false, true), (true, false), (true, true)].into_iter();
    flags.flat_map(move |(server, client)| {
        bits().flat_map(move |server_bits| {
            let client_bits = bits().chain([Some(0)]);
            client_bits.map(move |client_bits| (server, client, server_bits, client_bits))
        })
    })
}

fn written(parameters: (bool, bool, Option<u8>, Option<u8>)) -> String {
    let mut text = String::from("permessage-deflate");
    let (server, client, server_bits, client_bits) = parameters;
    text += if server { ";server_no_context_takeover" } else { "" };
    text += if client { ";client_no_context_takeover" } else { "" };
    text += &server_bits.map(|bits| format!(";server_max_window_bits={bits}")).unwrap_or_default();
    text += &match client_bits {
        None => String::new(),
        Some(0) => ";client_max_window_bits".to_owned(),
        Some(bits) => format!(";client_max_window_bits={bits}"),
    };
    text
}

#[test]
fn rfc7692_7_1_every_value_of_every_parameter_as_an_offer() {
    for name in NAMES {
        for (value, is) in VALUES {
            let offer = format!("permessage-deflate; {name}{value}");
            let (mut server, mut client) = (window(15, true), window(15, true));
            let taken = match (name, is) {
                ("server_no_context_takeover", Is::Absent) => {
                    server.takeover = false;
                    true
                }
                ("client_no_context_takeover", Is::Absent) => {
                    client.takeover = false;
                    true
                }
                ("server_max_window_bits", Is::Bits(bits)) => {
                    server.bits = bits;
                    true
                }
                ("client_max_window_bits", Is::Bits(bits)) => {
                    client.bits = bits;
                    true
                }
                ("client_max_window_bits", Is::Absent) => true,
                _ => false,
            };
            let got = serve(&LIBERAL, &[&offer]);
            match got {
                Served::Agreed(agreed, _) if taken => {
                    assert_eq!(agreed, Agreed { server, client }, "{offer}")
                }
                Served::Declined => assert!(!taken && is != Is::Malformed, "{offer}"),
                Served::Refused => assert_eq!(is, Is::Malformed, "{offer}"),
                Served::Agreed(..) => panic!("{offer}: {got:?}"),
            }
        }
    }
}

#[test]
fn rfc7692_7_1_every_value_of_every_parameter_as_an_answer() {
    for name in NAMES {
        for (value, is) in VALUES {
            let answer = format!("permessage-deflate; {name}{value}");
            let (mut server, mut client) = (window(15, true), window(15, true));
            match (name, is) {
                ("server_no_context_takeover", Is::Absent) => server.takeover = false,
                ("client_no_context_takeover", Is::Absent) => client.takeover = false,
                ("server_max_window_bits", Is::Bits(bits)) => server.bits = bits,
                ("client_max_window_bits", Is::Bits(bits)) => client.bits = bits,
                // 7.1.2.2: in an answer it has a value, too.
                _ => {
                    assert_eq!(answered(&LIBERAL, &[&answer]), Err(()), "{answer}");
                    continue;
                }
            }
            assert_eq!(answered(&LIBERAL, &[&answer]), Ok(Some(Agreed { server, client })), "{answer}");
        }
    }
}

/// undici built its decompressor with whatever number the server had answered.
#[test]
fn cve_2026_2229_undici_window_bits_out_of_range_fail_the_handshake() {
    for (value, is) in VALUES {
        let answer = format!("permessage-deflate; server_max_window_bits{value}");
        for config in [Config::new(), LIBERAL] {
            let agreed = answered(&config, &[&format!("{answer}; server_no_context_takeover")]);
            match is {
                Is::Bits(bits) => assert_eq!(agreed.unwrap().unwrap().server.bits, bits),
                _ => assert_eq!(agreed, Err(()), "{answer}"),
            }
        }
    }
}

#[test]
fn rfc7692_7_1_a_parameter_twice_or_unknown_or_in_other_letters() {
    let twice = NAMES.map(|name| match name {
        "server_max_window_bits" | "client_max_window_bits" => format!("{name}=10; {name}=10"),
        _ => format!("{name}; {name}"),
    });
    let others = [
        "client_max_window_bits; client_max_window_bits=10",
        "client_max_window_bits=10; client_max_window_bits",
        "server_max_window_bits=10; client_no_context_takeover; server_max_window_bits=11",
        "x",
        "x=1",
        "x=\"8\"",
        "Server_No_Context_Takeover",
        "SERVER_MAX_WINDOW_BITS=10",
        "server-max-window-bits=10",
        "server_max_window_bit=10",
        "server_max_window_bitss=10",
        "max_window_bits=10",
        "no_context_takeover",
        "client_no_context_takeove",
        "__proto__",
        "constructor=8",
    ];
    for parameter in twice.iter().map(String::as_str).chain(others) {
        for offer in [
            format!("permessage-deflate; {parameter}"),
            format!("permessage-deflate; {parameter}; server_no_context_takeover=8"),
            format!("permessage-deflate; client_max_window_bits; {parameter}"),
        ] {
            assert_eq!(serve(&LIBERAL, &[&offer]), Served::Declined, "{offer}");
            assert_eq!(answered(&LIBERAL, &[&offer]), Err(()), "{offer}");
        }
    }
}

#[test]
fn other_extensions_are_none_of_its_business() {
    for other in
        ["permessage-deflat", "permessage-deflate2", "Permessage-Deflate", "permessage-bzip2", "x; a=1"]
    {
        assert_eq!(serve(&LIBERAL, &[other]), Served::Declined);
        let offers = format!("{other}, permessage-deflate");
        assert!(matches!(serve(&LIBERAL, &[&offers]), Served::Agreed(..)));
        // A client did not offer that.
        assert_eq!(answered(&LIBERAL, &[other]), Err(()));
        assert_eq!(LIBERAL.check(parse(other)), Ok(None));
    }
    assert_eq!(serve(&LIBERAL, &[]), Served::Declined);
    assert_eq!(answered(&LIBERAL, &[]), Ok(None));
}

#[test]
fn rfc7692_5_1_of_several_offers_the_first_that_can_be_taken() {
    let config = Config { send: window(15, true), receive: window(12, true) };
    let agreed = |server, client| Agreed { server: window(server, true), client: window(client, true) };
    for (offers, want) in [
        // The example of section 7.1.3: a fallback for servers that know no window bits.
        (
            "permessage-deflate; client_max_window_bits; server_max_window_bits=10, \
             permessage-deflate; client_max_window_bits",
            agreed(10, 12),
        ),
        // Unknown, repeated, out of range, not to be held to fewer bits: passed over.
        (
            "permessage-deflate; client_max_window_bits; x, permessage-deflate; client_max_window_bits=11",
            agreed(15, 11),
        ),
        (
            "permessage-deflate; server_max_window_bits=16, permessage-deflate; client_max_window_bits",
            agreed(15, 12),
        ),
        (
            "permessage-deflate, x, permessage-deflate; client_max_window_bits=13; server_max_window_bits=8",
            agreed(8, 12),
        ),
        // The client's order decides, not what the server would like best.
        (
            "permessage-deflate; client_max_window_bits=8, permessage-deflate; client_max_window_bits",
            agreed(15, 8),
        ),
    ] {
        let fields: Vec<&str> = offers.split(", ").collect();
        for offers in [&[offers][..], &fields] {
            let Served::Agreed(got, _) = serve(&config, offers) else { panic!("{offers:?}") };
            assert_eq!(got, want, "{offers:?}");
        }
    }
    assert_eq!(
        serve(&config, &["permessage-deflate, permessage-deflate; client_max_window_bits=7"]),
        Served::Declined
    );
}

#[test]
fn rfc7692_7_1_a_client_takes_one_answer() {
    for answers in [
        &["permessage-deflate, permessage-deflate"][..],
        &["permessage-deflate", "permessage-deflate"],
        &["permessage-deflate; server_no_context_takeover, permessage-deflate"],
    ] {
        assert_eq!(answered(&LIBERAL, answers), Err(()), "{answers:?}");
    }
}

#[test]
fn what_a_server_answers_follows_from_its_config_and_the_offer() {
    for (config, offer) in
        configs_of(&[8, 11, 15]).flat_map(|config| parameters().map(move |offer| (config, offer)))
    {
        let (no_server_takeover, no_client_takeover, server_bits, client_bits) = offer;
        let text = written(offer);
        let got = config.accept(parse(&text));
        // 7.1.2.2: who does not say that it knows the parameter cannot be held to fewer bits.
        if client_bits.is_none() && config.receive.bits < 15 {
            assert_eq!(got, None, "{config:?} {text}");
            continue;
        }
        let (agreed, answer) = got.unwrap();
        let client_most = client_bits.filter(|bits| *bits > 0).unwrap_or(15);
        let want = Agreed {
            server: window(
                config.send.bits.min(server_bits.unwrap_or(15)),
                config.send.takeover && !no_server_takeover,
            ),
            client: window(
                config.receive.bits.min(client_most),
                config.receive.takeover && !no_client_takeover,
            ),
        };
        assert_eq!(agreed, want, "{config:?} {text}");

        // And the answer says so, with nothing that the offer does not allow.
        let params: Vec<_> = parse(&answer).next().unwrap().params().collect();
        let number = |wanted: &str| {
            params.iter().find(|(name, _)| *name == wanted).map(|(_, value)| value.unwrap().number().unwrap())
        };
        let flag = |wanted: &str| params.iter().any(|(name, value)| *name == wanted && value.is_none());
        assert_eq!(flag(NAMES[0]), !want.server.takeover);
        assert_eq!(flag(NAMES[1]), !want.client.takeover);
        assert_eq!(number(NAMES[2]).unwrap_or(15), u64::from(want.server.bits));
        assert_eq!(number(NAMES[3]).unwrap_or(15), u64::from(want.client.bits));
        // 7.1.2.1: "by including" the parameter a server accepts such an offer.
        assert!(server_bits.is_none() || number(NAMES[2]).is_some(), "{text}: {answer}");
        assert!(client_bits.is_some() || number(NAMES[3]).is_none(), "{text}: {answer}");
        // A limit that limits nothing is said only to someone who asked.
        assert!(server_bits.is_some() || number(NAMES[2]) != Some(15), "{text}: {answer}");
        assert_ne!(number(NAMES[3]), Some(15), "{text}: {answer}");
    }
}

#[test]
fn what_a_client_takes_follows_from_its_config_and_the_answer() {
    for (config, answer) in
        configs_of(&[8, 11, 15]).flat_map(|config| parameters().map(move |answer| (config, answer)))
    {
        let (no_server_takeover, no_client_takeover, server_bits, client_bits) = answer;
        let text = written(answer);
        let (send, receive) = (config.send, config.receive);
        let server = window(server_bits.unwrap_or(15), !no_server_takeover);
        // What it offered as a limit, for it has no memory for more; and a value where one has to be.
        let bad =
            server.bits > receive.bits || server.takeover && !receive.takeover || client_bits == Some(0);
        let client = window(client_bits.unwrap_or(15).min(send.bits), send.takeover && !no_client_takeover);
        let want = if bad { Err(BadAnswer) } else { Ok(Some(Agreed { server, client })) };
        assert_eq!(config.check(parse(&text)), want, "{config:?} {text}");
    }
}

#[test]
fn both_ends_agree_whatever_they_want() {
    for client in configs() {
        let offer = client.offer();
        for server in configs() {
            let Some((agreed, answer)) = server.accept(parse(&offer)) else {
                panic!("{server:?} declines {offer}, which names everything");
            };
            assert_eq!(client.check(parse(&answer)), Ok(Some(agreed)), "{offer}: {answer}");
            // Nobody gives or gets more than it wants.
            for (got, one, other) in
                [(agreed.server, server.send, client.receive), (agreed.client, client.send, server.receive)]
            {
                assert_eq!(got, window(one.bits.min(other.bits), one.takeover && other.takeover));
            }
        }
    }
}

#[test]
fn both_ends_agree_through_the_heads_of_a_handshake() {
    for (client, server) in configs().step_by(7).flat_map(|c| configs().step_by(11).map(move |s| (c, s))) {
        let Served::Agreed(agreed, answer) = serve(&server, &[&client.offer()]) else { panic!() };
        assert_eq!(answered(&client, &[&answer]), Ok(Some(agreed)));
    }
}

#[test]
fn bits_that_there_are_not_count_as_the_nearest() {
    for (bits, nearest) in [(0, 8), (7, 8), (16, 15), (255, 15)] {
        let [odd, even] =
            [bits, nearest].map(|bits| Config { send: window(bits, true), receive: window(bits, true) });
        assert_eq!(odd.offer(), even.offer());
        for offer in parameters().map(written) {
            assert_eq!(odd.accept(parse(&offer)), even.accept(parse(&offer)));
            assert_eq!(odd.check(parse(&offer)), even.check(parse(&offer)));
        }
    }
}

#[test]
fn offers_and_answers_in_full() {
    let offer = |send, receive| Config { send, receive }.offer();
    for (config, text) in [
        (
            Config::new().offer(),
            "; server_no_context_takeover; client_no_context_takeover; client_max_window_bits",
        ),
        (offer(window(15, true), window(15, true)), "; client_max_window_bits"),
        (
            offer(window(10, false), window(10, false)),
            "; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=10; \
             client_max_window_bits=10",
        ),
    ] {
        assert_eq!(config, format!("permessage-deflate{text}").as_str());
    }
}

#[test]
fn errors_say_what_they_are_about() {
    assert!(BadAnswer.to_string().contains("permessage-deflate"));
    assert!(Corrupt.to_string().contains("compressed data"));
}
