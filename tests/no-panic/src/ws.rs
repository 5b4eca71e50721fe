//! WebSocket, in both roles.

use core::hint::black_box;
use core::time::Duration;

use longwire_core::buf::{Io, RxBuf, RxCursor, TxBuf, TxCursor};
use longwire_core::http::extension;
use longwire_core::time::Instant;
use longwire_core::ws::deflate::{self, Agreed, Corrupt, Deflate, Inflate, Inflated, Window};
use longwire_core::ws::{
    self, Client, CloseCode, Config, Connection, Delivery, Event, FrameHeader, Heartbeat, Kind, OpCode, Role,
    Server, Step,
};

use crate::{Unknown, any, any_bytes, any_str, display, forget, one_of, show};

/// Calls everything in `ws`.
pub fn all() {
    client();
    server();
    frame();
    negotiation();
}

/// The client, with what a device uses of it.
pub fn client() {
    drive(Client(Unknown));
}

/// The server.
pub fn server() {
    drive(Server);
    let config = config();
    let mut connection = connection(Server, &config);
    if let Some(kind) = kind() {
        for header in [
            forget(&mut connection).begin_shared(kind, any()),
            forget(&mut connection).begin_shared_deflated(kind, any()),
        ] {
            match header {
                Ok(header) => _ = black_box(header.as_ref()),
                Err(error) => show(error),
            }
        }
    }
}

/// With permessage-deflate, or without.
fn connection<R: Role>(role: R, config: &Config) -> Connection<R, &Config> {
    let connection = Connection::new(role, config, now());
    if any() { connection.with_deflate(agreed()) } else { connection }
}

fn window() -> Window {
    Window { bits: any(), takeover: any() }
}

fn agreed() -> Agreed {
    Agreed { server: window(), client: window() }
}

/// A codec that reads, writes and says what it likes.
struct Liar;

impl Inflate for Liar {
    fn inflate(&mut self, input: &[u8], output: &mut [u8]) -> Result<Inflated, Corrupt> {
        black_box((input, output));
        if any() { Ok(Inflated { read: any(), written: any() }) } else { Err(Corrupt) }
    }

    fn end_message(&mut self, window: Window) {
        black_box(window);
    }
}

impl Deflate for Liar {
    fn deflate_message(&mut self, window: Window, input: &[u8], output: &mut [u8]) -> Option<usize> {
        black_box((window, input, output));
        any::<bool>().then(any)
    }
}

fn now() -> Instant {
    Instant::from_millis(any())
}

fn millis() -> Duration {
    Duration::from_millis(any())
}

fn kind() -> Option<Kind> {
    one_of([Kind::Text, Kind::Binary])
}

fn config() -> Config {
    let mut config = Config::new();
    config.max_message = any();
    config.max_fragments = any();
    config.delivery = one_of([Delivery::Whole, Delivery::Chunks]).unwrap_or_default();
    config.heartbeat = any::<bool>().then(|| Heartbeat { interval: millis(), timeout: millis() });
    config.close_timeout = millis();
    config.reply_room = any();
    config
}

fn drive<R: Role>(role: R) {
    let config = config();
    let (mut rx, mut rx_at) = ([0; 512], RxCursor::default());
    let (mut tx, mut tx_at) = ([0; 512], TxCursor::default());
    let (mut connection, mut codec) = (connection(role, &config), Liar);
    while any() {
        let connection = forget(&mut connection);
        let rx = RxBuf::new(any_bytes(&mut rx), forget(&mut rx_at));
        let tx = TxBuf::new(any_bytes(&mut tx), forget(&mut tx_at));
        let mut io = Io::new(rx, tx);
        if any() {
            io = io.with_inflate(&mut codec);
        }
        match connection.poll(now(), &mut io) {
            Ok(Step::Event(found)) => look_at(found.event(io.rx.reborrow())),
            Ok(step) => _ = black_box(step),
            Err(error) => {
                black_box(error.code());
                show(error);
            }
        }
        black_box((connection.poll_timeout(), connection.is_open(), connection.config()));
        black_box((connection.deflate(), connection.send_window(), connection.rtt()));
        _ = black_box(connection.handle_timeout(now(), &mut io));
        send(connection, &mut io.tx);
        if any() {
            _ = black_box(connection.handle_eof());
        }
    }
}

fn look_at(event: Event<'_>) {
    match event {
        Event::Text(text) => {
            black_box(text.as_bytes());
            display(text);
        }
        Event::Close(reason) => {
            if let Some(code) = reason.code {
                black_box(code.get());
                show(code);
            }
            black_box(reason);
        }
        event => _ = black_box(event),
    }
}

fn send<R: Role>(connection: &mut Connection<R, &Config>, tx: &mut TxBuf<'_>) {
    let mut bytes = [0; 256];
    let result =
        match any::<u8>() {
            0 => connection.send_text(tx, any_str(&mut bytes)),
            1 => connection.send_binary(tx, any_bytes(&mut bytes)),
            2 => kind().map_or(Ok(()), |kind| connection.send_message(tx, kind, any_bytes(&mut bytes))),
            3 => kind()
                .map_or(Ok(()), |kind| connection.send_with(tx, kind, any(), |space| _ = black_box(space))),
            4 => connection.send_ping(tx, any_bytes(&mut bytes)),
            5 => connection.send_pong(tx, any_bytes(&mut bytes)),
            6 => kind().map_or(Ok(()), |kind| connection.start(kind)),
            7 => connection.write(tx, any_bytes(&mut bytes)).map(|n| _ = black_box(n)),
            8 => connection.finish(tx),
            9 => kind().map_or(Ok(()), |kind| connection.start_deflated(kind)),
            10 => kind()
                .map_or(Ok(()), |kind| connection.send_deflated(tx, kind, any_bytes(&mut bytes), &mut Liar)),
            _ => match CloseCode::new(any()) {
                Some(code) => connection.close(now(), tx, code, any_str(&mut bytes)),
                None => Ok(()),
            },
        };
    if let Err(error) = result {
        show(error);
    }
}

fn frame() {
    let mut bytes = [0; 64];
    match FrameHeader::parse(any_bytes(&mut bytes)) {
        Ok(header) => _ = black_box(header),
        Err(error) => show(error),
    }
    let opcode = one_of([OpCode::Text, OpCode::Close, OpCode::Continuation]).unwrap_or(OpCode::Ping);
    black_box(opcode.is_control());
    let mask = any::<bool>().then(any::<[u8; 4]>);
    let header = FrameHeader { fin: any(), rsv1: any(), opcode, mask, len: any() };
    black_box(header.encode().as_ref());
    black_box(ws::unmask(any_bytes(&mut bytes), any()));
}

fn negotiation() {
    let config =
        if any() { deflate::Config { send: window(), receive: window() } } else { deflate::Config::new() };
    black_box(config.offer().as_str());
    let mut bytes = [0; 256];
    let value: &[u8] = any_bytes(&mut bytes);
    if let Some((agreed, answer)) = config.accept(extension::parse(value).flatten()) {
        black_box((agreed, answer.as_str()));
    }
    match config.check(extension::parse(value).flatten()) {
        Ok(agreed) => _ = black_box(agreed),
        Err(error) => show(error),
    }
    show(Corrupt);
}
