//! tokio-websockets: its Stream and Sink, and a broadcast channel for fan-out.

use super::{CHANNEL, MOST, Options, echo, follow, publish};
use std::sync::LazyLock;
use tokio::net::TcpStream;
use tokio::sync::broadcast;
use tokio_websockets::{Config, Limits, Message, ServerBuilder};

static EVENTS: LazyLock<broadcast::Sender<Message>> = LazyLock::new(|| broadcast::Sender::new(CHANNEL));

pub(super) async fn serve(stream: TcpStream, options: Options) {
    let accepted = ServerBuilder::new()
        .config(Config::default().frame_size(usize::MAX))
        .limits(Limits::default().max_payload_len(Some(MOST)))
        .accept(stream)
        .await;
    let Ok((request, socket)) = accepted else { return };
    match request.uri().path() {
        "/sub" => drop(tokio::spawn(follow(socket, EVENTS.subscribe()))),
        "/pub" => drop(tokio::spawn(publish(socket, &EVENTS, is_data))),
        _ => drop(tokio::spawn(echo(socket, options.batch, is_data))),
    }
}

fn is_data(message: &Message) -> bool {
    message.is_text() || message.is_binary()
}
