//! longwire's WebSocket for tokio, with its default buffers.

use crate::{Error, MAX_MESSAGE, Peer};
use longwire::websocket::{
    Config, ConnectOptions, Delivery, Event, Kind, Message, WebSocket, accept, connect,
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

impl Peer for Plain {
    fn serve(&self) -> Result<(), Error> {
        run(async {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            println!("listening on {}", listener.local_addr()?);
            loop {
                let (stream, _) = listener.accept().await?;
                let config = self.config.clone();
                tokio::spawn(async move {
                    let served = async { echo(&mut accept(stream, config).await?).await };
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
