//! A TLS server, or somebody in between, that sends anything at any stage: whatever it is, the device ends with an error, and
//! takes nobody for its gateway. What embedded-tls has to be kept from is in `src/tls/suite.rs` and `src/tls/below.rs`.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test's helper fails the test"
)]

mod common;
#[path = "common/tls_server.rs"]
mod tls_server;

use common::{Memory, Numbers, Once, Pace, poll_times};
use longwire_embassy::{
    Connect as _, Link, Tls, TlsBuffers, TlsConfig, TlsConnectError, TlsError, TlsLinkError, Trust,
};
use tls_server::{APPLICATION_DATA, CERTIFICATES, HANDSHAKE, Manner, Part, answer, message};

/// 2026-06-01.
const NOW: u64 = 1_780_272_000;

/// How far the device came.
#[derive(Debug)]
enum Outcome {
    /// It took its peer for the gateway, heard this, and then this was the end.
    Connected(Vec<u8>, Result<usize, TlsLinkError>),
    Refused(TlsConnectError<()>),
}

/// The device meets a server.
fn meet(manner: &Manner, change: &mut dyn FnMut(Part, &mut Vec<u8>)) -> Outcome {
    let link = Memory::new(Pace::Bytes(4096));
    let wire = link.wire.clone();
    let mut buffers = TlsBuffers::<2048, 512>::new();
    let cas = [&CERTIFICATES.ca[..]];
    let config = TlsConfig { clock: || Some(NOW), ..TlsConfig::new("gateway.example", Trust::Cas(&cas)) };
    let mut tls = Tls::new(Once(Some(link)), config, Numbers(1), &mut buffers);
    let mut device = std::pin::pin!(async {
        let mut link = match tls.connect().await {
            Ok(link) => link,
            Err(error) => return Outcome::Refused(error),
        };
        let (mut heard, mut some) = (Vec::new(), [0; 100]);
        loop {
            match link.read(&mut some).await {
                Ok(n @ 1..) => heard.extend(&some[..n]),
                end => return Outcome::Connected(heard, end),
            }
        }
    });
    assert!(poll_times(device.as_mut(), 20).is_none());
    let hello = std::mem::take(&mut wire.borrow_mut().from_client);
    wire.borrow_mut().to_client.extend(answer(&hello, manner, change));
    wire.borrow_mut().ended = true;
    poll_times(device, 10_000).expect("it ends")
}

fn unchanged(manner: &Manner) -> Outcome {
    meet(manner, &mut |_, _| {})
}

/// The gateway itself, which sends these records behind its handshake.
fn after(records: &[&[u8]]) -> Outcome {
    unchanged(&Manner { after: records.iter().map(|inside| inside.to_vec()).collect(), ..Manner::default() })
}

fn inside(content: &[u8], kind: u8) -> Vec<u8> {
    [content, &[kind]].concat()
}

/// Or else the others would show nothing.
#[test]
fn a_server_that_keeps_the_rules_is_taken_for_the_gateway() {
    for apart in [false, true] {
        let after = vec![inside(b"some data", APPLICATION_DATA)];
        let met = unchanged(&Manner { apart, after, ..Manner::default() });
        assert!(matches!(&met, Outcome::Connected(heard, _) if heard == b"some data"), "{met:?}");
    }
}

#[test]
fn who_shows_the_gateways_certificate_without_its_key_is_refused() {
    let met = unchanged(&Manner { impostor: true, ..Manner::default() });
    assert!(matches!(met, Outcome::Refused(TlsConnectError::Tls(TlsError::InvalidSignature))), "{met:?}");
}

#[test]
fn who_leaves_out_a_message_is_refused() {
    for missing in [Part::Certificate, Part::CertificateVerify, Part::Finished] {
        for apart in [false, true] {
            let manner = Manner { apart, ..Manner::default() };
            let met = meet(&manner, &mut |part, message| {
                if part == missing {
                    message.clear();
                }
                // A record without a message is refused for that.
                if part == Part::Inside && *message == [HANDSHAKE] {
                    message.splice(0..0, [8, 0, 0, 2, 0, 0]);
                }
            });
            assert!(matches!(met, Outcome::Refused(_)), "{missing:?}: {met:?}");
        }
    }
}

/// Each of them costs the device signatures to check, and anybody can replay the gateway's. (The transcript has them all, so the rest
/// of the handshake is as it should be.)
#[test]
fn who_shows_its_certificate_more_than_once_is_refused() {
    for apart in [false, true] {
        for again in [2, 3] {
            let manner = Manner { apart, ..Manner::default() };
            let met = meet(&manner, &mut |part, message| {
                if part == Part::Certificate {
                    *message = message.repeat(again);
                }
            });
            let refused = matches!(met, Outcome::Refused(TlsConnectError::Tls(TlsError::InvalidHandshake)));
            assert!(refused, "{again}: {met:?}");
        }
    }
    // Behind CertificateVerify, too.
    let mut certificate = Vec::new();
    let met = meet(&Manner { apart: true, ..Manner::default() }, &mut |part, message| match part {
        Part::Certificate => certificate = message.clone(),
        Part::CertificateVerify => message.extend(&certificate),
        _ => {}
    });
    assert!(matches!(met, Outcome::Refused(TlsConnectError::Tls(TlsError::InvalidHandshake))), "{met:?}");
}

/// `DecryptedReadHandler` of embedded-tls 0.19 has `unimplemented!()` for these.
#[test]
fn messages_of_a_handshake_behind_its_end_are_refused_from_the_gateway_itself() {
    let data = inside(b"data", APPLICATION_DATA);
    // They are whole and well-formed, so that embedded-tls would understand them.
    let certificate = [&[0, 0, 0, 6, 0, 0, 1, 0x30, 0, 0][..]].concat();
    for (kind, content) in [
        (8, &[0, 0][..]),
        (11, &certificate),
        (13, &[0, 0, 0]),
        (15, &[4, 3, 0, 1, 7]),
        (20, &[7; 32]),
        (1, &[7; 40]),
        (2, &[7; 80]),
        (5, &[]),
        (254, &[]),
    ] {
        for padding in [0, 5] {
            let mut record = inside(&message(kind, content), HANDSHAKE);
            record.extend(vec![0; padding]);
            let met = after(&[&data, &record, &data]);
            let Outcome::Connected(heard, end) = met else { panic!("{kind}: {met:?}") };
            assert_eq!(heard, b"data", "{kind}");
            assert!(matches!(end, Err(TlsLinkError::Tls(TlsError::CryptoError))), "{kind}: {end:?}");
        }
    }
}

#[test]
fn a_message_hidden_in_a_ticket_is_not_found() {
    let data = inside(b"data", APPLICATION_DATA);
    // Lifetime, age, no nonce, no ticket, no extensions; then what embedded-tls would take for the next message.
    let ticket = [&[0; 8][..], &[0, 0, 0, 0, 0], &message(20, &[7; 32])].concat();
    let met = after(&[&inside(&message(4, &ticket), HANDSHAKE), &data]);
    assert!(matches!(&met, Outcome::Connected(heard, _) if heard == b"data"), "{met:?}");
}

#[test]
fn empty_records_are_refused_and_records_of_no_data_are_passed_over() {
    let data = inside(b"data", APPLICATION_DATA);
    for empty in [&[][..], &[0], &[0; 200]] {
        let met = after(&[&data, empty, &data]);
        assert!(matches!(&met, Outcome::Connected(heard, Err(_)) if heard == b"data"), "{empty:?}: {met:?}");
    }
    let nothing = inside(b"", APPLICATION_DATA);
    let met = after(&[&nothing, &nothing, &data]);
    assert!(matches!(&met, Outcome::Connected(heard, _) if heard == b"data"), "{met:?}");
    for at in [Part::Inside, Part::Record] {
        for apart in [false, true] {
            let manner = Manner { apart, ..Manner::default() };
            let met = meet(&manner, &mut |part, bytes| {
                if part == at {
                    match part {
                        Part::Inside => bytes.clear(),
                        // A tag and nothing else, and less than a tag.
                        _ if bytes[0] == APPLICATION_DATA => {
                            *bytes = [&[23, 3, 3, 0, 16][..], &[7; 16]].concat()
                        }
                        _ => {}
                    }
                }
            });
            assert!(matches!(met, Outcome::Refused(_)), "{met:?}");
        }
    }
}

/// Each byte of each message is changed, cut off, and doubled, also where the lengths around it are put right.
#[test]
fn whatever_is_changed_at_any_stage_is_an_error_and_no_panic() {
    let mut numbers = Numbers(11);
    let (mut cases, mut taken) = (0, 0);
    for part in Part::ALL {
        for apart in [false, true] {
            let manner = Manner { apart, ..Manner::default() };
            let mut len = 0;
            meet(&manner, &mut |at, bytes| len = if at == part { len.max(bytes.len()) } else { len });
            for at in 0..len {
                // The other ways are the turn of other bytes; a fuzzer (`fuzz/src/tls.rs`) has more time.
                for how in [numbers.below(2), 2 + numbers.below(3)] {
                    let number = numbers.next() as u8;
                    let met = meet(&manner, &mut |of, bytes| {
                        if of == part && at < bytes.len() {
                            match how {
                                0 => bytes[at] = number,
                                1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][usize::from(number) % 5],
                                2 => bytes.truncate(at),
                                3 => bytes.splice(at..at, [number; 3]).for_each(drop),
                                _ => drop(bytes.remove(at)),
                            }
                            if number & 1 == 1 && matches!(how, 2..) {
                                mend_length(of, bytes);
                            }
                        }
                    });
                    cases += 1;
                    taken += usize::from(matches!(met, Outcome::Connected(..)));
                }
            }
        }
    }
    // What is not looked at: versions, a random number, contents of extensions, a byte that became itself.
    println!("{cases} handshakes, of which {taken} were good enough");
    assert!(cases > 3000 && taken < cases / 10, "{taken} of {cases}");
}

/// As [`whatever_is_changed_at_any_stage_is_an_error_and_no_panic`], by somebody in between who has no key: none of it opens
/// a connection.
#[test]
fn an_impostor_gets_nowhere_whatever_it_sends() {
    let mut numbers = Numbers(12);
    for _ in 0..1000 {
        let manner = Manner { impostor: true, apart: numbers.below(2) == 0, after: Vec::new() };
        let part = Part::ALL[numbers.below(Part::ALL.len())];
        let (at, what, how) = (numbers.next() as usize, numbers.next() as u8, numbers.below(4));
        let met = meet(&manner, &mut |of, bytes| {
            if of == part && !bytes.is_empty() {
                let at = at % bytes.len();
                match how {
                    0 => bytes[at] = what,
                    1 => bytes.truncate(at),
                    2 => bytes.clear(),
                    _ => bytes.extend(bytes.clone()),
                }
                mend_length(of, bytes);
            }
        });
        assert!(matches!(met, Outcome::Refused(_)), "{part:?} {at} {what} {how}: {met:?}");
    }
}

/// Puts the outermost length right.
fn mend_length(part: Part, bytes: &mut [u8]) {
    let (at, header) = match part {
        Part::Inside => return,
        Part::Record => (3, 5),
        _ => (2, 4),
    };
    if let Some(len) = bytes.len().checked_sub(header) {
        bytes[at..at + 2].copy_from_slice(&(len as u16).to_be_bytes());
    }
}

/// What the gateway itself sends behind its handshake, at random: an error, or data; never a panic.
#[test]
fn any_record_behind_the_handshake_is_data_or_an_error() {
    let mut numbers = Numbers(13);
    let kinds = [1, 2, 4, 8, 11, 13, 15, 20, 24, 254];
    for _ in 0..1000 {
        let records = (0..1 + numbers.below(3))
            .map(|_| {
                let mut content = Vec::new();
                for _ in 0..numbers.below(3) {
                    let len = numbers.below(60);
                    let body: Vec<u8> =
                        (0..len).map(|_| [0, 0, 4, 20, numbers.next() as u8][numbers.below(5)]).collect();
                    content.extend(message(kinds[numbers.below(kinds.len())], &body));
                }
                let end = content.len() - numbers.below(1 + content.len() / 4);
                let kind =
                    [HANDSHAKE, HANDSHAKE, 21, APPLICATION_DATA, numbers.next() as u8][numbers.below(5)];
                inside(&content[..end], kind)
            })
            .collect();
        let met = unchanged(&Manner { after: records, ..Manner::default() });
        assert!(matches!(met, Outcome::Connected(..)), "{met:?}");
    }
}
