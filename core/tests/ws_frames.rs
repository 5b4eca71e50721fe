//! Frames and their order: RFC 6455 sections 5.1 to 5.5, exhaustively where that is possible.

mod common;

use common::{AnyClient, End, Endpoint, Heard, Transcript, Wire, every_split, frames, millis, transcript};
use longwire_core::ws::{CloseCause, CloseCode, Config, ProtocolError, Server};

fn heard<R: End>(wire: &[u8]) -> Vec<Heard> {
    transcript(Endpoint::<R>::new(Config::new()), &[wire]).heard
}

#[test]
fn rfc6455_5_7_examples() {
    let hello = || vec![Heard::Text("Hello".into())];
    let to_client: [(&[u8], Vec<Heard>); 3] = [
        (b"\x81\x05\x48\x65\x6c\x6c\x6f", hello()),
        (b"\x01\x03\x48\x65\x6c\x80\x02\x6c\x6f", hello()),
        (b"\x89\x05\x48\x65\x6c\x6c\x6f", vec![Heard::Ping(b"Hello".into())]),
    ];
    for (wire, want) in to_client {
        every_split(wire, |pieces| {
            assert_eq!(transcript(Endpoint::<AnyClient>::new(Config::new()), pieces).heard, want);
        });
    }
    let to_server: [(&[u8], Vec<Heard>); 2] = [
        (b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", hello()),
        (b"\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", vec![Heard::Pong(b"Hello".into())]),
    ];
    for (wire, want) in to_server {
        every_split(wire, |pieces| {
            assert_eq!(transcript(Endpoint::<Server>::new(Config::new()), pieces).heard, want);
        });
    }
    for len in [256usize, 65536] {
        let data: Vec<u8> = (0..len).map(|i| i as u8).collect();
        let mut wire =
            if len == 256 { b"\x82\x7e\x01\x00".to_vec() } else { b"\x82\x7f\0\0\0\0\0\x01\0\0".to_vec() };
        wire.extend(&data);
        assert_eq!(heard::<AnyClient>(&wire), [Heard::Binary(data)]);
    }
}

/// The rules of section 5, written a second time: what a frame with an empty payload leads to.
fn rules<R: End>(b0: u8, masked: bool, in_message: Option<u8>) -> Result<Vec<Heard>, ProtocolError> {
    use ProtocolError as E;
    let (fin, opcode) = (b0 & 0x80 != 0, b0 & 0x0f);
    let whole = |opcode| if opcode == 1 { Heard::Text(String::new()) } else { Heard::Binary(Vec::new()) };
    if b0 & 0x30 != 0 {
        return Err(E::ReservedBits);
    }
    match opcode {
        3..=7 | 11..=15 => return Err(E::ReservedOpcode),
        8..=10 if !fin => return Err(E::ControlFragmented),
        _ if masked == R::IS_CLIENT => return Err(if masked { E::Masked } else { E::Unmasked }),
        _ if b0 & 0x40 != 0 => return Err(E::ReservedBits),
        8 => return Ok(vec![Heard::Close(None, String::new())]),
        9 => return Ok(vec![Heard::Ping(Vec::new())]),
        10 => return Ok(vec![Heard::Pong(Vec::new())]),
        _ => {}
    }
    let kind = match (opcode, in_message) {
        (0, None) => return Err(E::UnexpectedContinuation),
        (0, Some(kind)) => kind,
        (kind, None) => kind,
        (_, Some(_)) => return Err(E::ExpectedContinuation),
    };
    Ok(if fin { vec![whole(kind)] } else { Vec::new() })
}

fn every_first_byte<R: End>() {
    for b0 in 0..=255u8 {
        for masked in [false, true] {
            for in_message in [None, Some(1), Some(2)] {
                let mut wire = Wire::to::<R>();
                if let Some(opcode) = in_message {
                    wire = wire.frame(opcode, b"");
                }
                let frame: &[u8] = if masked { &[b0, 0x80, 1, 2, 3, 4] } else { &[b0, 0] };
                let wire = wire.raw(frame);
                let want = match rules::<R>(b0, masked, in_message) {
                    Ok(heard) => heard,
                    Err(error) => vec![Heard::Failed(error)],
                };
                let got = transcript(Endpoint::<R>::new(Config::new()), &[wire.bytes()]);
                assert_eq!(got.heard, want, "{b0:#x}, masked: {masked}, in message: {in_message:?}");
                if let [Heard::Failed(error)] = got.heard[..] {
                    fails_with::<R>(&got, error);
                }
            }
        }
    }
}

/// The Close with the error's code is the last thing written.
fn fails_with<R: End>(got: &Transcript, error: ProtocolError) {
    let close = got.sent.last().unwrap();
    assert_eq!((close.b0, &close.payload[..]), (0x88, &error.code().get().to_be_bytes()[..]));
    assert_eq!(got.closed, CloseCause::Failed(error.code()));
}

#[test]
fn every_first_byte_masked_and_not_in_and_out_of_messages() {
    every_first_byte::<Server>();
    every_first_byte::<AnyClient>();
}

fn error_of<R: End>(config: Config, wire: &Wire) -> Transcript {
    let mut transcripts = Vec::new();
    every_split(wire.bytes(), |pieces| {
        let endpoint = Endpoint::<R>::with(config.clone(), 64, 512);
        transcripts.push(transcript(endpoint, pieces));
    });
    let first = transcripts.swap_remove(0);
    assert!(transcripts.iter().all(|other| *other == first), "{wire:x?}");
    first
}

fn lengths<R: End>() {
    use ProtocolError as E;
    let bit = if R::IS_CLIENT { 0 } else { 0x80 };
    // Not minimal: section 5.2.
    for (len, bytes) in
        [(126, &[0u8, 0][..]), (126, &[0, 125]), (127, &[0; 8]), (127, &[0, 0, 0, 0, 0, 0, 255, 255])]
    {
        let wire = Wire::to::<R>().raw(&[0x82, bit | len]).raw(bytes).raw(&[0; 4]);
        let got = error_of::<R>(Config::new(), &wire);
        assert_eq!(got.heard, [Heard::Failed(E::LengthNotMinimal)], "{wire:x?}");
        fails_with::<R>(&got, E::LengthNotMinimal);
    }
    // The first length that needs each size is taken.
    for len in [126, 0x1_0000] {
        let wire = Wire::to::<R>().binary(&vec![7; len]);
        assert_eq!(heard::<R>(wire.bytes()), [Heard::Binary(vec![7; len])]);
    }
    // Control frames: section 5.5.
    for b0 in [0x88, 0x89, 0x8a] {
        for len in [126, 127] {
            let got = error_of::<R>(Config::new(), &Wire::to::<R>().raw(&[b0, bit | len]));
            assert_eq!(got.heard, [Heard::Failed(E::ControlTooLong)]);
            fails_with::<R>(&got, E::ControlTooLong);
        }
    }
}

#[test]
fn rfc6455_5_2_lengths_are_minimal() {
    lengths::<Server>();
    lengths::<AnyClient>();
}

#[test]
fn nothing_comes_after_an_error_and_nothing_is_written_after_its_close() {
    // A message and a Ping stand before the error, and again behind it.
    let good = |wire: Wire| wire.text("before").ping(b"p");
    let wire = good(good(Wire::to::<Server>()).raw(b"\x83\x80\0\0\0\0"));
    let got = error_of::<Server>(Config::new(), &wire);
    let want = [
        Heard::Text("before".into()),
        Heard::Ping(b"p".into()),
        Heard::Failed(ProtocolError::ReservedOpcode),
    ];
    assert_eq!(got.heard, want);
    assert_eq!(got.sent.iter().map(|frame| frame.b0).collect::<Vec<_>>(), [0x8a, 0x88]);

    let mut endpoint = Endpoint::<Server>::new(Config::new());
    endpoint.receive(wire.bytes());
    let (sent, rest) = frames(&endpoint.sent);
    assert_eq!((sent[1].payload[2..].as_ref(), rest), (&b"reserved opcode"[..], &b""[..]));
    // Calls of the application, too, write nothing more.
    let before = endpoint.sent.len();
    endpoint.lend(|connection, io| {
        assert!(connection.send_text(&mut io.tx, "late").is_err());
        assert!(connection.send_pong(&mut io.tx, b"late").is_err());
        assert!(connection.close(millis(1000), &mut io.tx, CloseCode::NORMAL, "late").is_err());
    });
    endpoint.at(1_000_000);
    assert_eq!((endpoint.sent.len(), endpoint.pending()), (before, 0));
}

#[test]
fn a_message_in_pieces_is_the_same_message() {
    let whole = "κόσμε".as_bytes();
    for cuts in 1..whole.len() {
        let wire = whole.chunks(cuts).enumerate().fold(Wire::to::<Server>(), |wire, (i, piece)| {
            let fin = if (i + 1) * cuts >= whole.len() { 0x80 } else { 0 };
            wire.frame(fin | u8::from(i == 0), piece)
        });
        assert_eq!(heard::<Server>(wire.bytes()), [Heard::Text("κόσμε".into())]);
    }
    let empty = Wire::to::<Server>().frame(0x02, b"").frame(0, b"").frame(0, b"").frame(0x80, b"");
    assert_eq!(heard::<Server>(empty.bytes()), [Heard::Binary(Vec::new())]);
}
