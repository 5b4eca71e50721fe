//! tokio-tungstenite: its Stream and Sink, and a broadcast channel for fan-out.

use super::{CHANNEL, MOST, Options, echo, follow, publish};
use std::sync::LazyLock;
use tokio::net::TcpStream;
use tokio::sync::broadcast;
use tokio_tungstenite::accept_hdr_async_with_config;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

static EVENTS: LazyLock<broadcast::Sender<Message>> = LazyLock::new(|| broadcast::Sender::new(CHANNEL));

pub(super) async fn serve(stream: TcpStream, options: Options) {
    let config = WebSocketConfig::default().max_message_size(Some(MOST)).max_frame_size(Some(MOST));
    let mut path = String::new();
    #[expect(clippy::result_large_err, reason = "the library's own type")]
    let note_path = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
        request.uri().path().clone_into(&mut path);
        Ok(response)
    };
    let Ok(socket) = accept_hdr_async_with_config(stream, note_path, Some(config)).await else { return };
    match &*path {
        "/sub" => drop(tokio::spawn(follow(socket, EVENTS.subscribe()))),
        "/pub" => drop(tokio::spawn(publish(socket, &EVENTS, is_data))),
        _ => drop(tokio::spawn(echo(socket, options.batch, is_data))),
    }
}

fn is_data(message: &Message) -> bool {
    message.is_text() || message.is_binary()
}
