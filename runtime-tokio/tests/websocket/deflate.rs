//! permessage-deflate between two `WebSocket`s, and against bytes written by hand.

use super::wire::frame;
use flate2::{Compress, Compression, FlushCompress};
use longwire::websocket::{
    CloseCode, Config, ConnectOptions, Deflate, Delivery, Error, Event, Message, Role, WebSocket, accept,
    connect_over,
};
use longwire_core::ws::ProtocolError;
use longwire_core::ws::deflate::{self, Agreed, Window};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

type Socket = WebSocket<DuplexStream>;

const AGREED: Agreed =
    Agreed { server: Window { bits: 15, takeover: false }, client: Window { bits: 15, takeover: false } };

fn windows(bits: u8, takeover: bool) -> deflate::Config {
    let window = Window { bits, takeover };
    deflate::Config { send: window, receive: window }
}

fn config(windows: Option<deflate::Config>) -> Arc<Config> {
    let mut config = Config::default();
    config.deflate = windows.map(|windows| {
        let mut deflate = Deflate::default();
        deflate.windows = windows;
        deflate
    });
    Arc::new(config)
}

/// Both ends after their opening handshake.
async fn open(client: Arc<Config>, server: Arc<Config>) -> (Socket, Socket) {
    let (a, b) = duplex(1 << 16);
    let options = ConnectOptions::default().config(client);
    let (client, server) = tokio::join!(connect_over(a, "ws://localhost/", &options), accept(b, server));
    (client.unwrap(), server.unwrap())
}

/// Compressed by a library, without the tail.
fn compressed(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len() / 500 + 1000);
    Compress::new(Compression::best(), false).compress_vec(data, &mut out, FlushCompress::Sync).unwrap();
    out.truncate(out.len() - 4);
    out
}

#[tokio::test]
async fn what_both_want_is_agreed_on() {
    let none = Window { bits: 15, takeover: false };
    let kept = Window { bits: 15, takeover: true };
    let small = Window { bits: 10, takeover: false };
    let agreed = |server, client| Some(Agreed { server, client });
    for (client, server, want) in [
        (Some(windows(15, false)), Some(windows(15, false)), agreed(none, none)),
        (Some(windows(15, true)), Some(windows(15, true)), agreed(kept, kept)),
        (Some(windows(15, true)), Some(windows(15, false)), agreed(none, none)),
        (Some(windows(10, false)), Some(windows(15, false)), agreed(small, small)),
        (Some(windows(15, false)), Some(windows(10, false)), agreed(small, small)),
        (None, Some(windows(15, false)), None),
        (Some(windows(15, false)), None, None),
    ] {
        let (client, server) = open(config(client), config(server)).await;
        assert_eq!((client.deflate(), server.deflate()), (want, want));
    }
}

#[tokio::test]
async fn messages_of_every_size_go_both_ways() {
    for (bits, takeover) in [(15, false), (15, true), (9, false), (9, true), (8, false), (8, true)] {
        let (mut client, mut server) =
            open(config(Some(windows(bits, takeover))), config(Some(windows(bits, takeover)))).await;
        for len in [0, 1, 125, 511, 512, 513, 4096, 65_535, 65_536, 200_000, 1 << 20] {
            let text: String = "the same again, ".chars().cycle().take(len).collect();
            let (mut to, mut from) = (&mut client, &mut server);
            for _ in 0..2 {
                let message = Message::from(text.clone());
                let (sent, got) = tokio::join!(to.send(message), from.recv_message());
                sent.unwrap();
                assert!(got.unwrap().unwrap() == Message::from(text.clone()), "{len} {bits} {takeover}");
                (to, from) = (from, to);
            }
        }
    }
}

#[tokio::test]
async fn what_is_long_enough_is_short_on_the_wire_whatever_the_send_buffer() {
    for max_send_buffer in [2048, 1 << 20] {
        let (a, mut wire) = duplex(1 << 20);
        let mut config = Config::default();
        config.max_send_buffer = max_send_buffer;
        let mut server = WebSocket::from_parts(a, Role::Server, &[], config).with_deflate(AGREED);
        server.send("a".repeat(511)).await.unwrap();
        server.send("a".repeat(512)).await.unwrap();
        server.send("a".repeat(1_000_000)).await.unwrap();
        drop(server);
        let mut bytes = Vec::new();
        wire.read_to_end(&mut bytes).await.unwrap();
        // The first goes as it is, the others with RSV1.
        assert_eq!(bytes[..4], [0x81, 126, 1, 255]);
        assert_eq!(bytes[4 + 511], 0xc1);
        assert!(bytes.len() < 511 + 16_000, "{}", bytes.len());
    }
}

#[tokio::test]
async fn the_limit_is_on_what_comes_out() {
    for (len, fits) in [(100_000, true), (100_001, false), (50_000_000, false)] {
        for delivery in [Delivery::Whole, Delivery::Chunks] {
            let (a, mut wire) = duplex(1 << 20);
            let mut config = Config::default();
            config.protocol.max_message = 100_000;
            config.protocol.delivery = delivery;
            let mut server = WebSocket::from_parts(a, Role::Server, &[], config).with_deflate(AGREED);
            wire.write_all(&frame(0xc2, &compressed(&vec![0; len]))).await.unwrap();
            wire.shutdown().await.unwrap();
            let mut heard = 0;
            let result = loop {
                match server.recv().await.unwrap() {
                    Ok(Event::Binary(data)) => break Ok(data.len()),
                    Ok(Event::Chunk(chunk)) => {
                        heard += chunk.payload.len();
                        if chunk.last {
                            break Ok(heard);
                        }
                    }
                    Ok(other) => panic!("{other:?}"),
                    Err(error) => break Err(error),
                }
            };
            match result {
                Ok(n) => assert!(fits && n == len),
                Err(Error::Protocol(error)) => assert!(!fits && error == ProtocolError::MessageTooBig),
                Err(other) => panic!("{other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn corrupt_data_fails_with_1007_and_unagreed_rsv1_with_1002() {
    for (agreed, payload, code) in [
        (Some(AGREED), &[0xff, 0xff, 0xff][..], CloseCode::INVALID_PAYLOAD),
        // A distance that reaches before the message.
        (Some(AGREED), &[0xf2, 0x00, 0x11, 0x00, 0x00], CloseCode::INVALID_PAYLOAD),
        (None, &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00], CloseCode::PROTOCOL),
    ] {
        let (a, mut wire) = duplex(1 << 16);
        let mut server = WebSocket::from_parts(a, Role::Server, &[], Config::default());
        if let Some(agreed) = agreed {
            server = server.with_deflate(agreed);
        }
        wire.write_all(&frame(0xc1, payload)).await.unwrap();
        wire.shutdown().await.unwrap();
        let Some(Err(Error::Protocol(error))) = server.recv().await else { panic!() };
        assert_eq!(error.code(), code);
    }
}

#[tokio::test]
async fn the_halves_of_a_split_connection_compress_too() {
    let (client, server) = open(config(Some(windows(15, true))), config(Some(windows(15, true)))).await;
    let (mut to, mut back) = client.split();
    let (mut echo, mut from) = server.split();
    let text = "over and over and ".repeat(100);
    for _ in 0..3 {
        let (sent, got) = tokio::join!(to.send(text.clone()), from.recv_message());
        sent.unwrap();
        let (sent, got) = tokio::join!(echo.send(got.unwrap().unwrap()), back.recv_message());
        sent.unwrap();
        assert!(got.unwrap().unwrap() == Message::from(text.clone()));
    }
}
