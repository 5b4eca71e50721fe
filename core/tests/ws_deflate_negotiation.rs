//! What two ends agree on for permessage-deflate (RFC 7692 sections 5.1 and 7.1): every value, and what is malformed.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that is wrong has to stop")]

use longwire_core::http::extension;
use longwire_core::ws::deflate::{Agreed, BadAnswer, Config, Corrupt, ExtensionText, Window};

fn window(bits: u8, takeover: bool) -> Window {
    Window { bits, takeover }
}

/// What an end may want for one direction: the smallest window, the largest two, kept or not.
fn windows() -> impl Iterator<Item = Window> + Clone {
    [8, 14, 15].into_iter().flat_map(|bits| [window(bits, false), window(bits, true)])
}

fn configs() -> impl Iterator<Item = Config> {
    windows().flat_map(|send| windows().map(move |receive| Config { send, receive }))
}

fn accept(config: Config, offers: &str) -> Option<(Agreed, ExtensionText)> {
    config.accept(extension::parse(offers.as_bytes()).flatten())
}

fn check(config: Config, answer: &str) -> Result<Option<Agreed>, BadAnswer> {
    config.check(extension::parse(answer.as_bytes()).flatten())
}

/// What an offer or an answer says, read without the code that is tested.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Said {
    server_no_takeover: bool,
    client_no_takeover: bool,
    server_bits: Option<u8>,
    client_bits: Option<Option<u8>>,
}

impl Said {
    fn read(text: &str) -> Self {
        let mut parts = text.split("; ");
        assert_eq!(parts.next(), Some("permessage-deflate"));
        let mut said = Self::default();
        for part in parts {
            let (name, value) = part
                .split_once('=')
                .map_or((part, None), |(name, value)| (name, Some(value.parse().unwrap())));
            let fresh = match name {
                "server_no_context_takeover" => !std::mem::replace(&mut said.server_no_takeover, true),
                "client_no_context_takeover" => !std::mem::replace(&mut said.client_no_takeover, true),
                "server_max_window_bits" => said.server_bits.replace(value.unwrap()).is_none(),
                "client_max_window_bits" => said.client_bits.replace(value).is_none(),
                _ => panic!("{part}"),
            };
            assert!(fresh, "{text}");
        }
        said
    }

    fn write(self) -> String {
        let mut text = String::from("permessage-deflate");
        for (said, name) in [
            (self.server_no_takeover, "server_no_context_takeover"),
            (self.client_no_takeover, "client_no_context_takeover"),
        ] {
            text += &if said { format!("; {name}") } else { String::new() };
        }
        text += &self.server_bits.map_or(String::new(), |bits| format!("; server_max_window_bits={bits}"));
        match self.client_bits {
            Some(Some(bits)) => text + &format!("; client_max_window_bits={bits}"),
            Some(None) => text + "; client_max_window_bits",
            None => text,
        }
    }

    /// Everything that can be said with valid values.
    fn all() -> impl Iterator<Item = Self> {
        let server = [None].into_iter().chain((8..=15).map(Some));
        let client = [None, Some(None)].into_iter().chain((8..=15).map(|bits| Some(Some(bits))));
        server.flat_map(move |server_bits| {
            client.clone().flat_map(move |client_bits| {
                (0..4).map(move |flags| Self {
                    server_no_takeover: flags & 1 != 0,
                    client_no_takeover: flags & 2 != 0,
                    server_bits,
                    client_bits,
                })
            })
        })
    }
}

#[test]
fn rfc7692_7_1_every_offer_to_every_server() {
    for offer in Said::all() {
        for config in configs() {
            let Some((agreed, answer)) = accept(config, &offer.write()) else {
                // 7.1.2.2: a client that did not offer it cannot be told to use a smaller window.
                assert!(offer.client_bits.is_none() && config.receive.bits < 15, "{offer:?} {config:?}");
                continue;
            };
            let said = Said::read(&answer);
            // 7.1.1.1 and 7.1.1.2: what was offered holds, and either end's wish not to is enough.
            assert_eq!(agreed.server.takeover, config.send.takeover && !offer.server_no_takeover);
            assert_eq!(agreed.client.takeover, config.receive.takeover && !offer.client_no_takeover);
            assert_eq!(said.server_no_takeover, !agreed.server.takeover);
            assert_eq!(said.client_no_takeover, !agreed.client.takeover);
            // 7.1.2.1: an offered limit is answered by itself or a smaller one.
            assert_eq!(agreed.server.bits, offer.server_bits.unwrap_or(15).min(config.send.bits));
            let must_say = offer.server_bits.is_some() || agreed.server.bits < 15;
            assert_eq!(said.server_bits, must_say.then_some(agreed.server.bits), "{offer:?} {config:?}");
            // 7.1.2.2: and only what was offered is answered.
            let most = offer.client_bits.flatten().unwrap_or(15);
            assert_eq!(agreed.client.bits, most.min(config.receive.bits), "{offer:?} {config:?}");
            let must_say = agreed.client.bits < 15;
            assert_eq!(said.client_bits, must_say.then_some(Some(agreed.client.bits)));
            assert!(said.client_bits.is_none() || offer.client_bits.is_some());
        }
    }
}

#[test]
fn rfc7692_7_1_every_answer_to_every_client() {
    for answer in Said::all() {
        for config in configs() {
            let server = window(answer.server_bits.unwrap_or(15), !answer.server_no_takeover);
            let client_bits = answer.client_bits.map_or(Some(config.send.bits), |bits| bits);
            let fits = server.bits <= config.receive.bits
                && (config.receive.takeover || !server.takeover)
                && client_bits.is_some_and(|bits| bits <= config.send.bits);
            let agreed = client_bits.map(|bits| Agreed {
                server,
                client: window(bits, config.send.takeover && !answer.client_no_takeover),
            });
            let want = if fits { Ok(agreed) } else { Err(BadAnswer) };
            assert_eq!(check(config, &answer.write()), want, "{answer:?} {config:?}");
        }
    }
}

#[test]
fn any_two_ends_agree_on_the_same_or_go_on_without() {
    for client in configs() {
        let offer = client.offer();
        for server in configs() {
            let (agreed, answer) = accept(server, &offer).unwrap();
            assert_eq!(check(client, &answer), Ok(Some(agreed)), "{offer} {answer}");
        }
    }
}

#[test]
fn what_a_client_offers() {
    const NO: &str = "server_no_context_takeover; client_no_context_takeover";
    for (send, receive, offer) in [
        (window(15, false), window(15, false), format!("; {NO}; client_max_window_bits")),
        (window(15, true), window(15, true), "; client_max_window_bits".into()),
        (
            window(14, true),
            window(15, false),
            "; server_no_context_takeover; client_max_window_bits=14".into(),
        ),
        (
            window(15, false),
            window(14, true),
            "; client_no_context_takeover; server_max_window_bits=14; client_max_window_bits".into(),
        ),
        // What is out of range counts as the nearest that the RFC allows; and this is as long as it gets.
        (window(0, true), window(7, true), "; server_max_window_bits=8; client_max_window_bits=8".into()),
        (window(16, true), window(255, true), "; client_max_window_bits".into()),
        (window(10, false), window(10, false), {
            format!("; {NO}; server_max_window_bits=10; client_max_window_bits=10")
        }),
    ] {
        assert_eq!(Config { send, receive }.offer(), format!("permessage-deflate{offer}").as_str());
    }
    assert_eq!(Config::default(), Config::new());
}

#[test]
fn rfc7692_7_1_what_is_malformed_is_passed_over_by_a_server_and_fails_a_client() {
    let config = Config { send: window(15, true), receive: window(15, true) };
    for params in [
        "unknown",
        "server_no_context_takeover=1",
        "client_no_context_takeover=true",
        "server_no_context_takeover; server_no_context_takeover",
        "client_no_context_takeover; client_no_context_takeover",
        "server_max_window_bits=10; server_max_window_bits=10",
        "client_max_window_bits=10; client_max_window_bits=10",
        "client_max_window_bits; client_max_window_bits",
        "server_max_window_bits",
        "server_max_window_bits=7",
        "server_max_window_bits=16",
        "server_max_window_bits=08",
        "server_max_window_bits=8a",
        "server_max_window_bits=0",
        "server_max_window_bits=264",
        "client_max_window_bits=7",
        "client_max_window_bits=16",
        "client_max_window_bits=010",
        "client_max_window_bits=\"+9\"",
        "client_max_window_bits=18446744073709551624",
        "Server_Max_Window_Bits=10",
        "server_no_context_takeover; x=1",
    ] {
        let text = format!("permessage-deflate; {params}");
        assert_eq!(accept(config, &text), None, "{params}");
        assert_eq!(check(config, &text), Err(BadAnswer), "{params}");
        // Section 5.1: an offer may be followed by another, in the order of preference.
        let two = format!("{text}, permessage-deflate; client_max_window_bits=9");
        assert_eq!(accept(config, &two).unwrap().0.client.bits, 9, "{params}");
    }
    // A value may be quoted (RFC 6455 section 9.1).
    let quoted = "permessage-deflate; server_max_window_bits=\"10\"; client_max_window_bits=\"11\"";
    assert_eq!(check(config, quoted).unwrap().unwrap().server.bits, 10);
    assert_eq!(accept(config, quoted).unwrap().0.client.bits, 11);
}

#[test]
fn only_permessage_deflate_is_taken_and_once() {
    let config = Config::new();
    for none in
        ["", "x-webkit-deflate-frame", "permessage-bzip2; client_max_window_bits", "Permessage-Deflate"]
    {
        assert_eq!(accept(config, none), None, "{none}");
        assert_eq!(check(config, none), Ok(None), "{none}");
    }
    let answer = "permessage-deflate; server_no_context_takeover";
    assert!(accept(config, &format!("x, {answer}")).is_some());
    assert!(check(config, &format!("x, {answer}")).unwrap().is_some());
    assert_eq!(check(config, &format!("{answer}, {answer}")), Err(BadAnswer));
}

#[test]
fn errors_say_what_they_are_about() {
    assert!(BadAnswer.to_string().contains("permessage-deflate"));
    assert!(Corrupt.to_string().contains("compressed data"));
}
