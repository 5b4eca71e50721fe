//! longwire's WebSocket for tokio, with its default buffers: as a server with a handler, as a client with `recv` and `send`.

use crate::{Error, MAX_MESSAGE, Peer};
use longwire::websocket::{
    self, Config, ConnectOptions, Delivery, Event, Handler, Kind, Message, MessageRef, Output, WebSocket,
    accept, connect, serve_with,
};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;

pub(crate) struct Plain {
    config: Arc<Config>,
}

impl Plain {
    pub(crate) fn new(delivery: Delivery) -> Self {
        let mut config = Config::default();
        config.protocol.max_message = MAX_MESSAGE;
        config.protocol.delivery = delivery;
        Self { config: Arc::new(config) }
    }
}

/// Sends every message back, also one that comes in pieces.
#[derive(Default)]
struct Echo(Vec<u8>);

impl Handler for Echo {
    fn message(&mut self, message: MessageRef<'_>, out: &mut Output<'_>) -> Result<(), websocket::Error> {
        out.send(message)
    }

    fn event(&mut self, event: Event<'_>, out: &mut Output<'_>) -> Result<(), websocket::Error> {
        let Event::Chunk(chunk) = event else { return Ok(()) };
        self.0.extend_from_slice(chunk.payload);
        if !chunk.last {
            return Ok(());
        }
        let data = std::mem::take(&mut self.0);
        match chunk.kind {
            Kind::Text => out.send(String::from_utf8_lossy(&data).as_ref()),
            Kind::Binary => out.send(&*data),
        }
    }
}

impl Peer for Plain {
    fn serve(&self) -> Result<(), Error> {
        run(async {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            println!("listening on {}", listener.local_addr()?);
            loop {
                let (stream, _) = listener.accept().await?;
                let config = self.config.clone();
                tokio::spawn(async move {
                    let served = async { serve_with(accept(stream, config).await?, Echo::default()).await };
                    if let Err(error) = served.await {
                        eprintln!("{error}");
                    }
                });
            }
        })
    }

    fn fetch(&self, address: &str, target: &str) -> Result<String, Error> {
        run(async {
            let mut socket = connect(&format!("ws://{address}{target}"), &self.options()).await?;
            let mut text = String::new();
            while let Some(message) = next_message(&mut socket).await? {
                text.extend(message.as_str());
            }
            Ok(text)
        })
    }

    fn echo(&self, address: &str, target: &str) -> Result<(), Error> {
        run(async { echo(&mut connect(&format!("ws://{address}{target}"), &self.options()).await?).await })
    }
}

impl Plain {
    fn options(&self) -> ConnectOptions {
        ConnectOptions::default().config(self.config.clone())
    }
}

fn run<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

async fn echo<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut WebSocket<S>) -> Result<(), Error> {
    while let Some(message) = next_message(socket).await? {
        socket.send(message).await?;
    }
    Ok(())
}

/// The next message, whole or put together of its pieces; `None` at the end of the connection.
async fn next_message<S>(socket: &mut WebSocket<S>) -> Result<Option<Message>, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut joined = Vec::new();
    while let Some(event) = socket.recv().await {
        let event = event?;
        if let Event::Chunk(chunk) = event {
            joined.extend_from_slice(chunk.payload);
            if chunk.last {
                return Ok(Some(match chunk.kind {
                    Kind::Text => Message::text(String::from_utf8(joined)?),
                    Kind::Binary => Message::binary(joined),
                }));
            }
        } else if let Some(message) = Message::from_event(&event) {
            return Ok(Some(message));
        }
    }
    Ok(None)
}
