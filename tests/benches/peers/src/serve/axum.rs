//! axum: WebSocket through its extractor, SSE through its responder, and a broadcast channel for both.

use super::{CHANNEL, MOST, Options, echo, follow, publish};
use axum::Router;
use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::response::Sse;
use axum::response::sse::Event;
use axum::routing::any;
use axum::serve::ListenerExt;
use futures_util::stream;
use std::convert::Infallible;
use std::io;
use std::sync::LazyLock;
use tokio::net::TcpListener;
use tokio::sync::broadcast;

static EVENTS: LazyLock<broadcast::Sender<Message>> = LazyLock::new(|| broadcast::Sender::new(CHANNEL));

pub(super) async fn serve(listener: TcpListener, options: Options) -> io::Result<()> {
    let batch = options.batch;
    let app = Router::new()
        .route(
            "/echo",
            any(async move |upgrade: WebSocketUpgrade| {
                limits(upgrade).on_upgrade(move |socket| echo(socket, batch, is_data))
            }),
        )
        .route(
            "/sub",
            any(async |upgrade: WebSocketUpgrade| {
                let events = EVENTS.subscribe();
                limits(upgrade).on_upgrade(|socket| follow(socket, events))
            }),
        )
        .route(
            "/pub",
            any(async |upgrade: WebSocketUpgrade| {
                limits(upgrade).on_upgrade(|socket| publish(socket, &EVENTS, is_data))
            }),
        )
        .route("/sse", any(async || Sse::new(events())));
    let listener = listener.tap_io(|stream| {
        // Without it an event waits for the acknowledgement of the one before.
        let _ = stream.set_nodelay(true);
    });
    axum::serve(listener, app).await
}

fn limits(upgrade: WebSocketUpgrade) -> WebSocketUpgrade {
    upgrade.max_message_size(MOST).max_frame_size(MOST)
}

fn events() -> impl stream::Stream<Item = Result<Event, Infallible>> {
    stream::unfold(EVENTS.subscribe(), async |mut events| {
        loop {
            if let Message::Text(text) = events.recv().await.ok()? {
                return Some((Ok(Event::default().data(text.as_str())), events));
            }
        }
    })
}

fn is_data(message: &Message) -> bool {
    matches!(message, Message::Text(_) | Message::Binary(_))
}
