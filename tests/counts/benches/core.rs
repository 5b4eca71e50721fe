//! How many instructions the core takes, counted by callgrind: unlike time they do not depend on the machine's load.
//! `tests/counts/run` runs this, and keeps the numbers in the README.
//!
//! What a function of this file does is counted, and nothing else: `setup` makes its input, and does the same once
//! before, so that nothing is counted which happens only the first time. Configurations pass through `black_box`, as
//! the compiler would otherwise fold them into code that no application gets.
#![expect(missing_docs, unused_qualifications, reason = "in what gungraun's macros expand to")]

use std::hint::black_box;

use gungraun::{Callgrind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main};
use longwire_core::buf::{Io, RxBuf, RxCursor, TxBuf, TxCursor};
use longwire_core::http::head::{HeadReader, Limits, Step as HeadStep};
use longwire_core::http::upgrade::{self, ClientUpgrade, Offer, accept_key};
use longwire_core::log::Cursor;
use longwire_core::rand_core;
use longwire_core::session::{Data, Event, Position, ServerMessage, SliceSink, cbor, json};
use longwire_core::sse::{Decoder, Fields, Step as SseStep};
use longwire_core::time::Instant;
use longwire_core::ws::{self, Client, Config, Connection, FrameHeader, Kind, OpCode, Role, Server, Step};

static CONFIG: Config = Config::new();
const NOW: Instant = Instant::from_millis(0);

/// The two buffers, as a runtime holds them between two calls.
struct Lent {
    rx: Vec<u8>,
    rx_at: RxCursor,
    tx: Vec<u8>,
    tx_at: TxCursor,
}

impl Lent {
    fn new() -> Self {
        let bytes = vec![0; 32 * 1024];
        Self { rx: bytes.clone(), rx_at: RxCursor::new(), tx: bytes, tx_at: TxCursor::new() }
    }

    fn io(&mut self) -> Io<'_> {
        Io::new(RxBuf::new(&mut self.rx, &mut self.rx_at), TxBuf::new(&mut self.tx, &mut self.tx_at))
    }

    /// As it was, with these bytes received.
    fn refill(&mut self, received: &[u8]) {
        (self.rx_at, self.tx_at) = (RxCursor::new(), TxCursor::new());
        assert_eq!(self.io().rx.fill(received), received.len());
    }
}

// --- WebSocket ----------------------------------------------------------------------------------------------------

/// Counts up: what the masks of an application cost is its own affair.
#[derive(Clone)]
struct Counter(u32);

impl rand_core::TryRng for Counter {
    type Error = core::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        self.0 = self.0.wrapping_add(0x9e37_79b9);
        Ok(self.0)
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        self.try_next_u32().map(u64::from)
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
        bytes.fill(1);
        Ok(())
    }
}

struct Endpoint<R> {
    connection: Connection<R>,
    lent: Lent,
    payload: Vec<u8>,
}

impl<R: Role> Endpoint<R> {
    fn new(role: R, payload: Vec<u8>) -> Self {
        Self { connection: Connection::new(role, black_box(&CONFIG), NOW), lent: Lent::new(), payload }
    }

    /// One message in, handed out.
    fn receive(&mut self) -> usize {
        let mut io = self.lent.io();
        match self.connection.poll(NOW, &mut io) {
            Ok(Step::Event(found)) => match found.event(io.rx.reborrow()) {
                ws::Event::Text(text) => text.as_bytes().len(),
                ws::Event::Binary(data) => data.len(),
                _ => 0,
            },
            _ => 0,
        }
    }

    /// One message out.
    fn send(&mut self) -> bool {
        let Lent { tx, tx_at, .. } = &mut self.lent;
        self.connection.send_message(&mut TxBuf::new(tx, tx_at), Kind::Binary, &self.payload).is_ok()
    }

    /// Ready to receive the payload as one message, for the second time.
    fn about_to_receive(mut self, opcode: OpCode) -> &'static mut Self {
        let mask = (!R::IS_CLIENT).then_some([0x37, 0xfa, 0x21, 0x3d]);
        let header = FrameHeader { fin: true, rsv1: false, opcode, mask, len: self.payload.len() as u64 };
        let mut frame = header.encode().as_ref().to_vec();
        let key = mask.unwrap_or_default();
        frame.extend(self.payload.iter().zip(key.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        self.lent.refill(&frame);
        assert_eq!(self.receive(), self.payload.len());
        assert_eq!(self.connection.poll(NOW, &mut self.lent.io()), Ok(Step::NeedInput));
        self.lent.refill(&frame);
        Box::leak(Box::new(self))
    }

    /// Ready to send the payload, for the second time.
    fn about_to_send(mut self) -> &'static mut Self {
        assert!(self.send());
        self.lent.refill(b"");
        Box::leak(Box::new(self))
    }
}

/// Payload of just this many bytes.
fn cut(pattern: &str, len: usize) -> Vec<u8> {
    let whole = pattern.chars().cycle().scan(0, |used, char| {
        *used += char.len_utf8();
        Some((*used, char))
    });
    let text: String = whole.take_while(|(used, _)| *used <= len).map(|(_, char)| char).collect();
    // What a long character would not fit into is ASCII.
    format!("{text}{}", "x".repeat(len - text.len())).into_bytes()
}

fn ascii(len: usize) -> Vec<u8> {
    cut(r#"{"topic":"fleet/7/cpu","data":0.25}"#, len)
}

fn beyond_ascii(len: usize) -> Vec<u8> {
    cut("Füße größer als Ängste; κόσμε, 速度与激情 ", len)
}

fn server_text(len: usize) -> &'static mut Endpoint<Server> {
    Endpoint::new(Server, ascii(len)).about_to_receive(OpCode::Text)
}

fn server_text_beyond_ascii(len: usize) -> &'static mut Endpoint<Server> {
    Endpoint::new(Server, beyond_ascii(len)).about_to_receive(OpCode::Text)
}

fn server_binary(len: usize) -> &'static mut Endpoint<Server> {
    Endpoint::new(Server, ascii(len)).about_to_receive(OpCode::Binary)
}

fn client_text(len: usize) -> &'static mut Endpoint<Client<Counter>> {
    Endpoint::new(Client(Counter(1)), ascii(len)).about_to_receive(OpCode::Text)
}

fn client_text_beyond_ascii(len: usize) -> &'static mut Endpoint<Client<Counter>> {
    Endpoint::new(Client(Counter(1)), beyond_ascii(len)).about_to_receive(OpCode::Text)
}

fn client_binary(len: usize) -> &'static mut Endpoint<Client<Counter>> {
    Endpoint::new(Client(Counter(1)), ascii(len)).about_to_receive(OpCode::Binary)
}

fn server_sender(len: usize) -> &'static mut Endpoint<Server> {
    Endpoint::new(Server, ascii(len)).about_to_send()
}

fn client_sender(len: usize) -> &'static mut Endpoint<Client<Counter>> {
    Endpoint::new(Client(Counter(1)), ascii(len)).about_to_send()
}

#[library_benchmark]
#[benches::text(args = [20, 125, 1024, 16384], setup = server_text)]
#[benches::text_beyond_ascii(args = [20, 125, 1024, 16384], setup = server_text_beyond_ascii)]
#[benches::binary(args = [20, 125, 1024, 16384], setup = server_binary)]
fn server_receives(endpoint: &mut Endpoint<Server>) -> usize {
    endpoint.receive()
}

#[library_benchmark]
#[benches::text(args = [20, 125, 1024, 16384], setup = client_text)]
#[benches::text_beyond_ascii(args = [20, 125, 1024, 16384], setup = client_text_beyond_ascii)]
#[benches::binary(args = [20, 125, 1024, 16384], setup = client_binary)]
fn client_receives(endpoint: &mut Endpoint<Client<Counter>>) -> usize {
    endpoint.receive()
}

#[library_benchmark]
#[benches::message(args = [20, 125, 1024, 16384], setup = server_sender)]
fn server_sends(endpoint: &mut Endpoint<Server>) -> bool {
    endpoint.send()
}

#[library_benchmark]
#[benches::message(args = [20, 125, 1024, 16384], setup = client_sender)]
fn client_sends(endpoint: &mut Endpoint<Client<Counter>>) -> bool {
    endpoint.send()
}

#[library_benchmark]
#[bench::message(args = (1024), setup = server_sender)]
fn server_shares(endpoint: &mut Endpoint<Server>) -> usize {
    let len = endpoint.payload.len() as u64;
    endpoint.connection.begin_shared(Kind::Binary, len).map_or(0, |header| header.as_ref().len())
}

// --- the opening handshake ----------------------------------------------------------------------------------------

/// As a browser sends it.
const REQUEST: &[u8] = b"GET /v1/stream?topic=fleet/**&since=latest HTTP/1.1\r\n\
    Host: live.example.org\r\n\
    Connection: Upgrade\r\n\
    Pragma: no-cache\r\n\
    Cache-Control: no-cache\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36\r\n\
    Upgrade: websocket\r\n\
    Origin: https://live.example.org\r\n\
    Sec-WebSocket-Version: 13\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: en-GB,en;q=0.9\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\
    Sec-WebSocket-Protocol: longwire.v1.json\r\n\r\n";

const NONCE: &[u8; 16] = b"the sample nonce";
const SUBPROTOCOLS: &[&str] = &["longwire.v1.cbor"];

fn offer() -> Offer<'static> {
    Offer { subprotocols: SUBPROTOCOLS, ..Offer::new("live.example.org", "/v1/stream?topic=fleet/**") }
}

/// From the request's bytes to the response's.
fn answer(lent: &mut Lent) -> usize {
    let mut io = lent.io();
    let Ok(HeadStep::Head(head)) =
        HeadReader::default().poll_request(&mut io.rx, black_box(&Limits::DEFAULT))
    else {
        return 0;
    };
    if let Ok(upgrade) = upgrade::accept(&head.view(io.rx.reborrow())) {
        let chosen = upgrade.subprotocols().next();
        let _ = upgrade.write_response(&mut io.tx, chosen, None, &[]);
    }
    head.release(&mut io.rx);
    io.tx.pending().len()
}

/// The client's request.
fn request(lent: &mut Lent) -> bool {
    ClientUpgrade::with_nonce(*black_box(NONCE)).write_request(&mut lent.io().tx, &black_box(offer())).is_ok()
}

/// The client reads the response, and checks it.
fn check((upgrade, lent): &mut (ClientUpgrade, Lent)) -> bool {
    let mut io = lent.io();
    let Ok(HeadStep::Head(head)) =
        HeadReader::default().poll_response(&mut io.rx, black_box(&Limits::DEFAULT))
    else {
        return false;
    };
    let agreed = upgrade.check(&black_box(offer()), &head.view(io.rx.reborrow())).is_ok();
    head.release(&mut io.rx);
    agreed
}

fn about_to_answer() -> &'static mut Lent {
    let lent = Box::leak(Box::new(Lent::new()));
    lent.refill(REQUEST);
    assert!(answer(lent) > 0);
    lent.refill(REQUEST);
    lent
}

fn about_to_request() -> &'static mut Lent {
    let lent = Box::leak(Box::new(Lent::new()));
    assert!(request(lent));
    lent.refill(b"");
    lent
}

fn about_to_check() -> &'static mut (ClientUpgrade, Lent) {
    let accept = accept_key(b"dGhlIHNhbXBsZSBub25jZQ==");
    let accept = std::str::from_utf8(&accept).expect("base64 is ASCII");
    let response = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: longwire.v1.cbor\r\n\r\n"
    );
    let both = Box::leak(Box::new((ClientUpgrade::with_nonce(*NONCE), Lent::new())));
    both.1.refill(response.as_bytes());
    assert!(check(both));
    both.1.refill(response.as_bytes());
    both
}

#[library_benchmark]
#[bench::browser(setup = about_to_answer)]
fn handshake_answer(lent: &mut Lent) -> usize {
    answer(lent)
}

#[library_benchmark]
#[bench::request(setup = about_to_request)]
fn handshake_request(lent: &mut Lent) -> bool {
    request(lent)
}

#[library_benchmark]
#[bench::response(setup = about_to_check)]
fn handshake_check(both: &mut (ClientUpgrade, Lent)) -> bool {
    check(both)
}

// --- Server-Sent Events -------------------------------------------------------------------------------------------

struct Stream {
    decoder: Decoder,
    lent: Lent,
    data: Vec<u8>,
}

impl Stream {
    fn encode(&mut self) -> bool {
        let fields =
            Fields { id: Some("2c1f93b0a7d4e856-4711"), name: Some("event"), ..Fields::event(&self.data) };
        fields.encode(&mut self.lent.io().tx).is_ok()
    }

    fn decode(&mut self) -> usize {
        let mut rx = RxBuf::new(&mut self.lent.rx, &mut self.lent.rx_at);
        match self.decoder.poll(&mut rx) {
            Ok(SseStep::Event) => self.decoder.event(rx).data.len(),
            _ => 0,
        }
    }
}

fn about_to_encode(len: usize) -> &'static mut Stream {
    let stream =
        Box::leak(Box::new(Stream { decoder: Decoder::default(), lent: Lent::new(), data: ascii(len) }));
    assert!(stream.encode());
    stream.lent.refill(b"");
    stream
}

fn about_to_decode(len: usize) -> &'static mut Stream {
    let stream = about_to_encode(len);
    assert!(stream.encode());
    let wire = stream.lent.io().tx.pending().to_vec();
    stream.lent.refill(&wire);
    assert_eq!(stream.decode(), len);
    assert_eq!(stream.decode(), 0);
    stream.lent.refill(&wire);
    stream
}

#[library_benchmark]
#[benches::event(args = [20, 125, 1024, 16384], setup = about_to_encode)]
fn sse_encode(stream: &mut Stream) -> bool {
    stream.encode()
}

#[library_benchmark]
#[benches::event(args = [20, 125, 1024, 16384], setup = about_to_decode)]
fn sse_decode(stream: &mut Stream) -> usize {
    stream.decode()
}

// --- the session protocol -----------------------------------------------------------------------------------------

/// Decodes or encodes an event's envelope, in one of the forms.
struct Envelope {
    wire: Vec<u8>,
    out: Vec<u8>,
}

const AT: Position = Position::At(Cursor { epoch: 0x2c1f_93b0_a7d4_e856, seq: 4711 });

/// An event whose data are one number, as most are.
fn event(data: Data<'_>) -> ServerMessage<'_> {
    ServerMessage::Event(Event { topic: "fleet/7/cpu".into(), position: AT, key: Some("core0".into()), data })
}

fn encode_json(out: &mut [u8]) -> usize {
    let mut sink = SliceSink::new(out);
    let _ = json::encode_server(&black_box(event(Data::Json(b"0.25"))), &mut sink);
    sink.written().len()
}

fn encode_cbor(out: &mut [u8]) -> usize {
    let mut sink = SliceSink::new(out);
    let _ = cbor::encode_server(&black_box(event(Data::Cbor(b"\xf9\x34\0"))), &mut sink);
    sink.written().len()
}

fn json_event() -> &'static mut Envelope {
    envelope(encode_json, |wire| json::decode_server(wire).is_ok())
}

fn cbor_event() -> &'static mut Envelope {
    envelope(encode_cbor, |wire| cbor::decode_server(wire).is_ok())
}

fn envelope(encode: fn(&mut [u8]) -> usize, decode: fn(&[u8]) -> bool) -> &'static mut Envelope {
    let mut out = vec![0; 256];
    let len = encode(&mut out);
    assert!(len > 0 && decode(&out[..len]));
    Box::leak(Box::new(Envelope { wire: out[..len].to_vec(), out }))
}

#[library_benchmark]
#[bench::event(setup = json_event)]
fn json_encode(envelope: &mut Envelope) -> usize {
    encode_json(&mut envelope.out)
}

#[library_benchmark]
#[bench::event(setup = json_event)]
fn json_decode(envelope: &mut Envelope) -> bool {
    black_box(json::decode_server(&envelope.wire)).is_ok()
}

#[library_benchmark]
#[bench::event(setup = cbor_event)]
fn cbor_encode(envelope: &mut Envelope) -> usize {
    encode_cbor(&mut envelope.out)
}

#[library_benchmark]
#[bench::event(setup = cbor_event)]
fn cbor_decode(envelope: &mut Envelope) -> bool {
    black_box(cbor::decode_server(&envelope.wire)).is_ok()
}

library_benchmark_group!(
    name = websocket,
    benchmarks = [server_receives, client_receives, server_sends, client_sends, server_shares]
);
library_benchmark_group!(
    name = handshake,
    benchmarks = [handshake_answer, handshake_request, handshake_check]
);
library_benchmark_group!(name = sse, benchmarks = [sse_encode, sse_decode]);
library_benchmark_group!(name = session, benchmarks = [json_encode, json_decode, cbor_encode, cbor_decode]);

main!(
    config = LibraryBenchmarkConfig::default()
        .tool(Callgrind::with_args(["--cache-sim=no"]))
        // Callgrind counts `rep movsb`, which the C library takes for long copies, once for each byte.
        .env("GLIBC_TUNABLES", "glibc.cpu.x86_rep_movsb_threshold=0x7fffffff"),
    library_benchmark_groups = [websocket, handshake, sse, session]
);
