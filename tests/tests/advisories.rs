//! Attacks on the running gateway that other servers fell to, each named after its advisory: its memory stays flat, and
//! a bystander is served all the while.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use flate2::{Compress, Compression, FlushCompress};
use longwire_tests::gateway::Gateway;
use longwire_tests::http;
use longwire_tests::refusal::{Bystander, assert_refused, exchange};
use longwire_tests::rng::Rng;
use longwire_tests::ws::{self, Message, Socket, opcode};
use rustix::fd::AsFd;
use rustix::net::sockopt::set_socket_linger;
use serde_json::json;

const MIB: u64 = 1 << 20;
/// What the bystander waits for at most. An attack whose work is not linear takes minutes.
const UNHARMED: Duration = Duration::from_secs(10);
/// How often the bystander is served, at least, while an attack goes on.
const ROUNDS: u32 = 50;
const DEFLATE: (&str, &str) = ("Sec-WebSocket-Extensions", "permessage-deflate");

/// Attackers, and the sockets by which they are ended when they have had their time.
#[derive(Default)]
struct Attackers {
    held: Mutex<Vec<TcpStream>>,
}

impl Attackers {
    fn websocket(&self, gateway: SocketAddr, headers: &[(&str, &str)]) -> Socket {
        let socket = Socket::open(gateway, "/v1/stream", headers).expect("101");
        self.hold(socket.stream());
        socket
    }

    fn hold(&self, stream: TcpStream) {
        self.held.lock().expect("no panic").push(stream);
    }
}

/// Lets `attack` loose, several times side by side, while a bystander is served; then looks at the memory, and ends
/// whatever is left of the attack.
fn under_attack<A>(what: &str, options: &[&str], most: u64, attackers: usize, attack: A)
where
    A: Fn(SocketAddr, &Attackers) + Sync,
{
    let gateway = Gateway::start_with(options);
    let mut bystander = Bystander::of(&gateway);
    // Its buffers and threads are there.
    for _ in 0..ROUNDS {
        bystander.is_served("nothing");
    }
    let before = gateway.program.resident();
    let all = Attackers::default();
    let mut worst = Duration::ZERO;
    let grown = thread::scope(|scope| {
        let running: Vec<_> = (0..attackers).map(|_| scope.spawn(|| attack(gateway.address, &all))).collect();
        let begun = Instant::now();
        let mut rounds = 0;
        let mut grown = 0;
        // An attack that has an end is seen to it, one that hangs on a full socket is not.
        while rounds < ROUNDS || (running.iter().any(|t| !t.is_finished()) && begun.elapsed() < UNHARMED) {
            let begun = Instant::now();
            bystander.is_served(what);
            worst = worst.max(begun.elapsed());
            grown = grown.max(gateway.program.resident().saturating_sub(before));
            rounds += 1;
        }
        for stream in all.held.lock().expect("no panic").iter() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        grown
    });
    println!("{what}: {} KiB more at most, the bystander waited {worst:?} at most", grown >> 10);
    assert!(worst < UNHARMED, "{what}: the bystander waited {worst:?}");
    assert!(grown < most, "{what}: {} KiB more than before", grown >> 10);
    bystander.is_served(what);
}

/// A whole masked message whose payload is compressed.
fn compressed(payload: &[u8]) -> Vec<u8> {
    ws::frame(0xc1, payload)
}

/// `times` MiB of zeros, compressed to about a thousandth.
fn bomb(times: usize) -> Vec<u8> {
    let mut block = Vec::with_capacity(1 << 14);
    let zeros = vec![0; 1 << 20];
    Compress::new(Compression::best(), false)
        .compress_vec(&zeros, &mut block, FlushCompress::Sync)
        .expect("fits");
    let mut bomb = block.repeat(times);
    bomb.truncate(bomb.len() - 4);
    bomb
}

#[test]
fn cve_2023_43669_tungstenite_a_long_head_in_small_pieces() {
    under_attack("a head of 1 MiB", &["--max-head", "1MiB"], 24 * MIB, 4, |address, all| {
        let mut stream = http::connect(address);
        all.hold(stream.try_clone().expect("a handle"));
        stream.set_nodelay(true).expect("a socket");
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nX: ").expect("it reads");
        while stream.write_all(&[b'x'; 64]).is_ok() {}
    });
}

#[test]
fn cve_2020_35896_ws_rs_a_peer_that_never_reads() {
    let ping = ws::frame(0x89, &[b'?'; 125]).repeat(500);
    under_attack("Pings, and nobody reads the Pongs", &[], 16 * MIB, 8, |address, all| {
        let mut socket = all.websocket(address, &[]).stream();
        while socket.write_all(&ping).is_ok() {}
    });
    // Subscribers: what waits for them is the log's, and bounded by it.
    let log = ["--history-events", "0", "--tail-bytes", "1MiB", "--latest-bytes", "4MiB"];
    under_attack("subscribers that never read", &log, 48 * MIB, 1, |address, all| {
        let sleepers: Vec<_> =
            (0..50).map(|_| Socket::open(address, "/v1/stream?topic=**", &[]).expect("101")).collect();
        sleepers.iter().for_each(|sleeper| all.hold(sleeper.stream()));
        let mut publisher = all.websocket(address, &[]);
        let event = json!({"type": "pub", "n": 1, "topic": "flood", "data": "x".repeat(100_000)});
        for _ in 0..400 {
            publisher.send_json(&event);
            // Each is acknowledged, or the attack has had its time.
            if publisher.receive() == Message::End {
                break;
            }
        }
    });
}

#[test]
fn cve_2022_35922_rust_websocket_an_announced_length_reserves_nothing() {
    // At the limit, so that it is not refused; a byte of it, and no more.
    let header = [ws::header(0x82, 0x80, MIB), vec![0; 5]].concat();
    under_attack("200 announced megabytes", &[], 16 * MIB, 1, |address, all| {
        for _ in 0..200 {
            all.websocket(address, &[]).send_raw(&header);
        }
        for length in [MIB + 1, 1 << 31, 1 << 32, (1 << 32) + 5, (1 << 63) - 1, 1 << 63, u64::MAX] {
            let mut socket = all.websocket(address, &[]);
            socket.send_raw(&[ws::header(0x82, 0x80, length), vec![0; 4]].concat());
            assert!(matches!(socket.close_code(), Some(1009 | 1002)), "{length}");
        }
    });
}

#[test]
fn cve_2026_48779_cve_2026_62389_cve_2026_12151_cve_2026_65623_a_million_tiny_fragments() {
    for (what, fragment) in [("1-byte", ws::frame(0x00, b" ")), ("empty", ws::frame(0x00, b""))] {
        let many = fragment.repeat(10_000);
        under_attack(&format!("a million {what} fragments"), &[], 24 * MIB, 8, |address, all| {
            let mut socket = all.websocket(address, &[]);
            socket.send_raw(&ws::frame(0x01, b" "));
            for _ in 0..100 {
                socket.send_raw(&many);
            }
            // Unless it was reset: what was sent after the end may take our last words with it.
            assert!(matches!(socket.close_code(), Some(1008) | None));
        });
        // As many as are allowed, and then the attacker waits.
        under_attack(&format!("130,000 {what} fragments"), &[], 32 * MIB, 16, |address, all| {
            let mut socket = all.websocket(address, &[]);
            socket.send_raw(&ws::frame(0x01, b" "));
            for _ in 0..13 {
                socket.send_raw(&many);
            }
            socket.receive();
        });
    }
}

#[test]
fn cve_2026_1526_cve_2026_39804_cve_2018_1000518_ghsa_hxp9_w8x3_p566_cve_2026_27571_inflate_bombs() {
    let gigabyte = compressed(&bomb(1024));
    // Eight at a time, each of which comes in a megabyte and may become another.
    under_attack("bombs of 1 GiB", &[], 128 * MIB, 8, |address, all| {
        for _ in 0..4 {
            let mut socket = all.websocket(address, &[DEFLATE]);
            socket.send_raw(&gigabyte);
            assert!(matches!(socket.close_code(), Some(1009) | None));
        }
    });
    // Each within the limit, one behind the other.
    let megabytes = compressed(&bomb(1)).repeat(100);
    under_attack("100 MiB, each within the limit", &[], 64 * MIB, 8, |address, all| {
        let mut socket = all.websocket(address, &[DEFLATE]);
        socket.send_raw(&megabytes);
        // Zeros are no envelopes, and too many of those end it.
        assert!(matches!(socket.close_code(), Some(1008) | None));
    });
    // Begun and not ended: what each holds is what came, and nothing that came of it.
    let begun = &compressed(&bomb(1))[..1000];
    under_attack("400 messages that come in part", &[], 16 * MIB, 1, |address, all| {
        for _ in 0..400 {
            all.websocket(address, &[DEFLATE]).send_raw(begun);
        }
    });
}

#[test]
fn cve_2026_128131_aiohttp_half_a_million_members_that_yield_nothing() {
    // Empty blocks with BFINAL: each ends a stream of DEFLATE, and nothing comes of it.
    let members = compressed(&[0x03, 0x00].repeat(500_000));
    // Empty blocks of the other kinds.
    let stored = compressed(&[0x00, 0x00, 0x00, 0xff, 0xff].repeat(200_000));
    under_attack("empty members", &[], 24 * MIB, 4, |address, all| {
        for wire in [&members, &stored] {
            let mut socket = all.websocket(address, &[DEFLATE]);
            socket.send_raw(wire);
            socket.send_raw(wire);
            // An empty message is no envelope.
            let answer = socket.envelope_of(&["error"]);
            assert_eq!(answer["code"], "bad_message");
        }
    });
}

#[test]
fn cve_2021_32640_ws_spaces_and_commas_in_every_header() {
    const NAMES: [&str; 12] = [
        "Host",
        "Connection",
        "Upgrade",
        "Sec-WebSocket-Version",
        "Sec-WebSocket-Key",
        "Sec-WebSocket-Protocol",
        "Sec-WebSocket-Extensions",
        "Origin",
        "Accept",
        "Authorization",
        "Content-Length",
        "Transfer-Encoding",
    ];
    under_attack("64 KiB of separators", &["--max-head", "128KiB"], 24 * MIB, 2, |address, all| {
        for name in NAMES {
            for unit in [" ", ",", ", ", ";", " ;", "\t", "a,", "a; b=\"", "\\"] {
                let value = unit.repeat((64 << 10) / unit.len());
                let upgrade = http::head(address, "GET", "/v1/stream?topic=a", &ws::UPGRADE, 0);
                let head = upgrade.trim_end().to_owned() + &format!("\r\n{name}: a{value}a\r\n\r\n");
                let mut stream = http::connect(address);
                all.hold(stream.try_clone().expect("a handle"));
                let _ = stream.write_all(head.as_bytes());
                let mut answer = [0; 12];
                stream.read_exact(&mut answer).expect("an answer");
                assert!(answer.starts_with(b"HTTP/1.1 "), "{name}: {answer:?}");
                // Accepted (an unknown extension is declined) or refused, but not our fault.
                assert!(answer[9] != b'5', "{name} {unit:?}: {:?}", String::from_utf8_lossy(&answer));
            }
        }
    });
}

#[test]
fn cve_2024_37890_ws_too_many_headers() {
    let gateway = Gateway::start_with(&["--max-head", "1MiB"]);
    let mut bystander = Bystander::of(&gateway);
    for (count, status) in [(10, 200), (100_000, 431)] {
        let headers: String = (0..count).map(|n| format!("a{n}:\r\n")).collect();
        let request = format!("GET /healthz HTTP/1.1\r\nHost: {}\r\n{headers}\r\n", gateway.address);
        let response = exchange(gateway.address, request.as_bytes());
        assert_eq!(response.status, status, "{count}: {response:?}");
        if status == 431 {
            assert_refused("headers", &response, "head_too_large");
        }
        bystander.is_served("many headers");
    }
}

#[test]
fn cve_2025_11677_libwebsockets_an_upgrade_that_is_aborted_at_every_byte() {
    let gateway = Gateway::start();
    let mut bystander = Bystander::of(&gateway);
    let head = http::head(gateway.address, "GET", "/v1/stream?topic=a", &ws::UPGRADE, 0);
    let wire = [head.as_bytes(), &ws::frame(0x81, br#"{"type":"sub","topics":["b"]}"#)].concat();
    for cut in 0..=wire.len() {
        let mut stream = http::connect(gateway.address);
        stream.write_all(&wire[..cut]).expect("it reads");
        // Reset, and not ended in order.
        set_socket_linger(stream.as_fd(), Some(Duration::ZERO)).expect("a socket");
        drop(stream);
    }
    bystander.is_served("aborted upgrades");
    // Nothing is left of them: the bystander, and the one that asks.
    let begun = Instant::now();
    loop {
        let metrics = gateway.get("/metrics");
        if String::from_utf8_lossy(&metrics.body).contains("\nlongwire_connections 2\n") {
            break;
        }
        assert!(begun.elapsed() < longwire_tests::PATIENCE, "connections are left");
    }
}

#[test]
fn cve_2026_33219_cve_2026_41399_ghsa_r635_g3xr_vw7x_connections_that_have_not_said_who_they_are() {
    // From an address of their own, which has as many places as it may have; the bystander has another.
    let source = Ipv4Addr::new(127, 0, 0, 2);
    under_attack("slow heads", &["--max-handshakes", "500"], 16 * MIB, 1, |address, all| {
        for _ in 0..1000 {
            let mut stream = http::connect_from(source, address);
            all.hold(stream.try_clone().expect("a handle"));
            // Those beyond the limit are closed, and may be so at once.
            let _ = stream.write_all(b"GET /v1/stream HTTP/1.1\r\nHost: a\r\nX: ");
        }
    });
}

#[test]
fn cve_2022_21676_cve_2026_59725_cve_2026_48802_engine_io_malformed_polls_and_publications() {
    let gateway = Gateway::start();
    let mut bystander = Bystander::of(&gateway);
    let before = gateway.program.resident();
    let mut rng = Rng::from_env();
    let words = [
        "topic",
        "since",
        "wait",
        "=",
        "&",
        "%",
        "%00",
        "%ff",
        "/",
        "**",
        "*",
        "..",
        "now",
        "latest",
        "-",
        "0",
        "18446744073709551616",
        "ffffffffffffffff-ffffffffffffffff",
        "\u{e9}",
        "{",
        "}",
        "[",
        "]",
        "\"",
        ":",
        ",",
        "data",
        "key",
        "null",
        "1e999",
        "\\u0000",
        "\\ud800",
        "type",
        "pub",
        "n",
        "?",
        "#",
        "+",
        "25",
        "_",
        "a",
    ];
    for n in 0..3000 {
        let mut text = |most: u64| -> String {
            (0..rng.below(most)).map(|_| words[rng.below(words.len() as u64) as usize]).collect()
        };
        let query: String = text(12).chars().filter(|c| c.is_ascii_graphic()).collect();
        let path: String = text(6).chars().filter(|c| c.is_ascii_graphic() && !"?#".contains(*c)).collect();
        let body = text(20);
        let types = ["application/json", "application/cbor", "text/plain", "application/octet-stream", ""];
        let content_type = ("Content-Type", types[n % types.len()]);
        let response = match n % 3 {
            // `wait` would be waited for.
            0 => gateway.get(&format!("/v1/stream?topic=a&{}", query.replace("wait", "wai"))),
            1 => gateway.request("POST", &format!("/v1/topics/{path}"), &[content_type], body.as_bytes()),
            _ => gateway.request("POST", "/v1/topics/a", &[content_type], body.as_bytes()),
        };
        assert!(response.status < 500, "{query:?} {path:?} {body:?}: {response:?}");
        if n % 100 == 0 {
            bystander.is_served("nonsense");
        }
    }
    assert!(gateway.program.resident() < before + 32 * MIB, "3,000 bad requests left something behind");
}

#[test]
fn rustsec_2023_0034_h2_http_2_is_not_spoken() {
    // Where there is no HTTP/2, its floods find nobody.
    let gateway = Gateway::start();
    let mut bystander = Bystander::of(&gateway);
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let response = exchange(gateway.address, preface);
    assert!((400..=505).contains(&response.status), "{response:?}");
    let upgrade =
        [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABk")];
    assert_eq!(gateway.request("GET", "/healthz", &upgrade, b"").status, 200, "h2c is not taken up");
    bystander.is_served("HTTP/2");
}

#[test]
fn cve_2026_2229_undici_and_every_other_offer_is_declined_or_agreed_on() {
    let gateway = Gateway::start();
    for (offer, agreed) in [
        ("permessage-deflate", true),
        ("permessage-deflate; server_max_window_bits=8", true),
        ("permessage-deflate; server_max_window_bits=15; client_max_window_bits=8", true),
        ("permessage-deflate; server_max_window_bits=7", false),
        ("permessage-deflate; server_max_window_bits=16", false),
        ("permessage-deflate; server_max_window_bits=0", false),
        ("permessage-deflate; server_max_window_bits", false),
        ("permessage-deflate; client_max_window_bits=99999999999999999999", false),
        ("permessage-deflate; server_no_context_takeover; server_no_context_takeover", false),
        ("permessage-deflate; unknown", false),
        ("permessage-deflate; unknown, permessage-deflate", true),
        ("permessage-deflate;;", false),
    ] {
        let headers = [("Sec-WebSocket-Extensions", offer)];
        match Socket::open(gateway.address, "/v1/stream?topic=a", &headers) {
            Ok(mut socket) => {
                socket.envelope_of(&["caught_up"]);
                // RSV1 is understood, or refused.
                socket.send_raw(&compressed(&[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]));
                match socket.receive() {
                    Message::Text(answer) => assert!(agreed && answer.contains("bad_message"), "{offer}"),
                    Message::Close(1002) => assert!(!agreed, "{offer}"),
                    other => panic!("{offer}: {other:?}"),
                }
                socket.send(opcode::CLOSE, &[]);
            }
            Err(response) => assert_eq!((response.status, agreed), (400, false), "{offer}"),
        }
    }
}
