//! "Are you open to X?" Advisories about frames in other implementations, each as a test with its name. What went
//! wrong there stands beside it; the general behaviour is tested in the other files.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test that is wrong has to stop"
)]

mod common;

use common::{AnyClient, End, Endpoint, Flush, Heard, Keys, Wire, every_split, limits, transcript};
use longwire_core::ws::{CloseCause, CloseCode, Config, Delivery, MIN_RX, MIN_TX, ProtocolError, Server};

/// Lengths at which arithmetic has wrapped around: in 32 bits, in 64, with a sign.
const AWKWARD_LENGTHS: [u64; 10] = [
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
    1 << 32,
    (1 << 32) + 5,
    (1 << 53) + 1,
    (1 << 63) - 1,
    1 << 63,
    u64::MAX - 13,
    u64::MAX,
];

/// Fails by the header alone, whatever was received before, and asks for no space.
fn refuses<R: End>(before: &Wire, b0: u8, len: u64) {
    let error = if len >> 63 == 0 { ProtocolError::MessageTooBig } else { ProtocolError::LengthTooLarge };
    let wire = before.clone().header(b0, len, 0);
    every_split(wire.bytes(), |pieces| {
        let mut endpoint = Endpoint::<R>::with(limits(1 << 16, 100), 64, MIN_TX);
        for piece in pieces {
            endpoint.receive(piece);
        }
        assert_eq!(endpoint.heard.last(), Some(&Heard::Failed(error)), "{len:#x}");
        assert_eq!((endpoint.capacity(), endpoint.asked.len()), (64, 0), "{len:#x}");
        assert_eq!(endpoint.frames().last().unwrap().payload[..2], error.code().get().to_be_bytes());
    });
}

/// gorilla/websocket: the sum of frame lengths overflowed, and the read limit did not hold.
#[test]
fn cve_2020_27813_lengths_that_overflow_the_sum_of_a_message() {
    for len in AWKWARD_LENGTHS {
        refuses::<Server>(&Wire::to::<Server>(), 0x82, len);
        refuses::<Server>(&Wire::to::<Server>().frame(0x02, b"12345"), 0x80, len);
        refuses::<AnyClient>(&Wire::to::<AnyClient>().frame(0x02, b"12345"), 0x00, len);
    }
}

/// websocket-driver, libre, undici: a 64-bit length lost its upper bits on the way to a size.
#[test]
fn cve_2026_54466_cve_2026_50161_cve_2026_1528_lengths_keep_all_their_bits() {
    for len in AWKWARD_LENGTHS {
        refuses::<Server>(&Wire::to::<Server>(), 0x81, len);
        refuses::<AnyClient>(&Wire::to::<AnyClient>(), 0x81, len);
        // With a limit that lets it through, 2^32 + 5 is not 5: the message does not end after five bytes.
        if len >> 63 == 0 {
            let config = Config { delivery: Delivery::Chunks, ..limits(u64::MAX, 1) };
            let wire = Wire::to::<AnyClient>().header(0x82, len, 0).raw(b"12345\x89\0");
            let got = transcript(Endpoint::<AnyClient>::with(config, MIN_RX, MIN_TX), &[wire.bytes()]);
            assert_eq!((got.heard, got.closed), (vec![], CloseCause::EndOfStream), "{len:#x}");
        }
    }
}

/// rust-websocket: the announced length was allocated.
#[test]
fn cve_2022_35922_an_announced_length_allocates_nothing() {
    let mut server = Endpoint::<Server>::with(limits(u64::MAX, 1), 64, MIN_TX);
    server.receive(Wire::to::<Server>().header(0x82, u64::from(u32::MAX) - MIN_RX as u64, 0).bytes());
    assert_eq!((server.closed, server.capacity()), (None, 64));
    // And when bytes do arrive, it grows with them.
    server.receive(&[0; 1000]);
    assert!(server.capacity() <= 2 * 1000 + MIN_RX);
}

/// ws-rs: a peer that never reads made the send buffer grow.
#[test]
fn cve_2020_35896_a_peer_that_never_reads_stalls_itself() {
    let mut server = Endpoint::<Server>::with(Config::new(), 4096, 4096);
    server.flush = Flush::ByHand;
    let ping = Wire::to::<Server>().ping(&[0; 125]);
    let mut taken = 0;
    for _ in 0..10_000 {
        taken += server.append(ping.bytes());
        server.turn();
    }
    assert!(taken <= 2 * 4096 + 131, "{taken}");
    assert!(server.pending() <= 4096 && server.closed.is_none());
}

/// ws: memory, not written to, was sent as the reason of a Close.
#[test]
fn cve_2026_45736_the_reason_of_a_close_is_what_was_given() {
    for len in 0..=123 {
        let reason = "r".repeat(len);
        let mut client = Endpoint::<AnyClient>::new(Config::new());
        let now = client.now;
        client.lend(|connection, io| connection.close(now, &mut io.tx, CloseCode::NORMAL, &reason)).unwrap();
        let frames = client.frames();
        assert_eq!(frames[0].payload, [b"\x03\xe8", reason.as_bytes()].concat());
        assert_eq!(frames[0].mask, Some(Keys::nth(1)));
    }
}

/// A million fragments of `payload` in one message: nothing but the payload is kept, and the buffer that is asked
/// for is bounded by the limit.
fn a_million_fragments(payload: &[u8]) {
    let total = 1_000_000 * payload.len();
    let mut server = Endpoint::<Server>::with(limits(1_000_000, 2_000_000), 4096, MIN_TX);
    server.receive(Wire::to::<Server>().frame(0x02, b"").bytes());
    let thousand = (0..1000).fold(Wire::to::<Server>(), |wire, _| wire.frame(0x00, payload));
    for _ in 0..1000 {
        server.receive(thousand.bytes());
    }
    assert!(server.capacity() <= 1_000_000 + MIN_RX);
    assert!(server.asked.len() <= 10, "each growth copies: {:?}", server.asked);
    server.receive(Wire::to::<Server>().frame(0x80, b"").bytes());
    assert_eq!(server.heard, [Heard::Binary(payload.repeat(1_000_000))]);
    assert_eq!(payload.len() * 1_000_000, total);
}

/// ws: each tiny fragment cost an object, many times its bytes, and the limit counted only the bytes.
#[test]
fn cve_2026_48779_cve_2026_62389_a_million_tiny_fragments_cost_their_bytes() {
    a_million_fragments(b"x");
}

/// undici, bandit: no bound on fragments, and a message put together anew for each.
#[test]
fn cve_2026_12151_ghsa_pf94_94m9_536p_cve_2026_65623_a_million_empty_fragments_cost_nothing() {
    a_million_fragments(b"");
    // The default has a bound on their number, too.
    let mut server = Endpoint::<Server>::new(Config::new());
    server.receive(Wire::to::<Server>().frame(0x02, b"").bytes());
    let empty = Wire::to::<Server>().frame(0x00, b"");
    for _ in 1..Config::new().max_fragments {
        server.receive(empty.bytes());
    }
    assert_eq!(server.closed, None);
    server.receive(empty.bytes());
    assert_eq!(server.heard, [Heard::Failed(ProtocolError::TooManyFragments)]);
}

/// aiohttp: RSV1 was taken although no extension was negotiated.
#[test]
fn ghsa_mq44_7p77_q5h7_reserved_bits_without_an_extension() {
    for rsv in 1..8u8 {
        for opcode in [0, 1, 2, 8, 9, 10] {
            for start in [Wire::to::<Server>(), Wire::to::<Server>().frame(0x01, b"")] {
                let wire = start.frame(0x80 | rsv << 4 | opcode, b"");
                let got = transcript(Endpoint::<Server>::new(Config::new()), &[wire.bytes()]);
                assert_eq!(got.heard, [Heard::Failed(ProtocolError::ReservedBits)], "{rsv} {opcode}");
            }
        }
    }
}

/// civetweb, NetX Duo, uWebSockets: out of bounds when a masked payload was cut by the end of a buffer.
#[test]
fn cve_2026_29035_cve_2026_102761_cve_2021_45945_the_mask_keeps_its_phase_over_every_cut() {
    let data: Vec<u8> = (0..250).collect();
    let wire = Wire::to::<Server>().frame(0x02, &data[..99]).ping(&data[..33]).frame(0x80, &data[99..]);
    for delivery in [Delivery::Whole, Delivery::Chunks] {
        every_split(wire.bytes(), |pieces| {
            let config = Config { delivery, ..Config::new() };
            let got = transcript(Endpoint::<Server>::with(config, MIN_RX, MIN_TX), pieces);
            assert_eq!(got.heard, [Heard::Ping(data[..33].into()), Heard::Binary(data.clone())]);
        });
    }
}

/// mongoose: a continuation without a message, and a message inside a message, were taken.
#[test]
fn cve_2026_106024_the_order_of_fragments() {
    use ProtocolError::{ExpectedContinuation, UnexpectedContinuation};
    // All sequences of four data frames, beside a model of three lines. `rfc6455` in `ws_frames.rs` has the rest.
    let first_bytes = [0x00, 0x80, 0x01, 0x81, 0x02, 0x82];
    for n in 0..6usize.pow(4) {
        let sequence = [n % 6, n / 6 % 6, n / 36 % 6, n / 216].map(|i| first_bytes[i]);
        let (mut in_message, mut error) = (false, None);
        for b0 in sequence {
            error = error.or(match (b0 & 0x0f, in_message) {
                (0, false) => Some(UnexpectedContinuation),
                (1.., true) => Some(ExpectedContinuation),
                _ => None,
            });
            in_message = b0 & 0x80 == 0;
        }
        let wire = sequence.iter().fold(Wire::to::<Server>(), |wire, b0| wire.frame(*b0, b"x"));
        let got = transcript(Endpoint::<Server>::new(Config::new()), &[wire.bytes()]);
        let failed = got.heard.last().and_then(|heard| match heard {
            Heard::Failed(error) => Some(*error),
            _ => None,
        });
        assert_eq!(failed, error, "{sequence:x?}");
    }
}

/// daphne: no limit unless one was set.
#[test]
fn cve_2026_44545_every_default_is_finite() {
    let config = Config::default();
    assert!(config.max_message <= 16 << 20 && config.max_fragments <= 1 << 20);
    assert!(config.heartbeat.is_some() && config.close_timeout.as_secs() <= 60);
}
