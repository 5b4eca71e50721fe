//! sockudo-ws: its Stream and Sink, and its own publish/subscribe for fan-out.

use super::{Deflate, MOST, Options, echo, upgrade};
use futures_util::{SinkExt, StreamExt};
use sockudo_ws::protocol::Message;
use sockudo_ws::pubsub::PubSub;
use sockudo_ws::{CompressedWebSocketStream, Config, DeflateConfig, WebSocketStream};
use std::sync::LazyLock;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

static TOPICS: LazyLock<PubSub> = LazyLock::new(PubSub::new);

pub(super) async fn serve(mut stream: TcpStream, options: Options) {
    let deflate = options.deflate.map(|deflate| DeflateConfig {
        server_no_context_takeover: deflate == Deflate::Shared,
        client_no_context_takeover: deflate == Deflate::Shared,
        ..DeflateConfig::default()
    });
    let extension = deflate.as_ref().map(DeflateConfig::to_response_header);
    let Some(path) = upgrade(&mut stream, extension.as_deref()).await else { return };
    let config = Config::builder()
        .max_message_size(MOST)
        .max_frame_size(MOST)
        .max_backpressure(MOST)
        .idle_timeout(0)
        .auto_ping(false)
        .build();
    if let Some(deflate) = deflate {
        let socket = CompressedWebSocketStream::server(stream, config, deflate);
        tokio::spawn(echo(socket, options.batch, is_data));
        return;
    }
    let socket = WebSocketStream::server(stream, config);
    match &*path {
        "/sub" => drop(tokio::spawn(follow(socket))),
        "/pub" => drop(tokio::spawn(publish(socket))),
        _ => drop(tokio::spawn(echo(socket, options.batch, is_data))),
    }
}

fn is_data(message: &Message) -> bool {
    matches!(message, Message::Text(_) | Message::Binary(_))
}

async fn follow(mut socket: WebSocketStream<TcpStream>) {
    let (sender, mut events) = mpsc::unbounded_channel();
    let id = TOPICS.create_subscriber(sender);
    TOPICS.subscribe(id, "events");
    loop {
        tokio::select! {
            event = events.recv() => {
                let Some(event) = event else { break };
                let mut sent = socket.feed(event).await;
                while let Ok(event) = events.try_recv() {
                    sent = sent.and(socket.feed(event).await);
                }
                if sent.is_err() || socket.flush().await.is_err() {
                    break;
                }
            }
            message = socket.next() => if !matches!(message, Some(Ok(_))) { break },
        }
    }
    TOPICS.remove_subscriber(id);
}

async fn publish(mut socket: WebSocketStream<TcpStream>) {
    while let Some(Ok(message)) = socket.next().await {
        if is_data(&message) {
            TOPICS.publish("events", message);
        }
    }
}
