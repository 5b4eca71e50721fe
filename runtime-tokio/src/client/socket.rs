//! A WebSocket to a gateway (`PROTOCOL.md` section 6).

use super::item::{Arrival, Hello};
use super::{Endpoint, Error, Form};
use crate::net::NetStream;
use crate::websocket::{self, CloseCode, Config, ConnectOptions, Message, WebSocket};
use longwire_core::session::ClientMessage;
use std::time::Duration;
use tokio::time::Instant;

pub(super) struct Socket {
    socket: WebSocket<NetStream>,
    form: Form,
    echo: Echo,
}

/// The round-trip time of Pings of ours.
#[derive(Debug, Default)]
struct Echo {
    /// The last one, which its payload names.
    asked: Option<(u32, Instant)>,
    pings: u32,
    rtt: Option<Duration>,
}

impl Echo {
    fn answer(&mut self, payload: &[u8]) {
        if let Some((_, since)) = self.asked.take_if(|(n, _)| n.to_be_bytes() == payload) {
            self.rtt = Some(since.elapsed());
        }
    }
}

impl Socket {
    /// The opening handshake, and the gateway's `hello`.
    pub(super) async fn open(
        stream: NetStream,
        endpoint: &Endpoint,
        path: &str,
        form: Form,
    ) -> Result<(Self, Hello), Error> {
        let mut config = Config::default();
        config.protocol.max_message = endpoint.max_message as u64;
        config.handshake_timeout = endpoint.open_timeout;
        // The gateway keeps the heartbeat; this end listens for it.
        config.protocol.heartbeat = None;
        let mut options = ConnectOptions::default().subprotocol(form.subprotocol()).config(config);
        if let Some(authorization) = endpoint.authorization() {
            options = options.header("Authorization", authorization);
        }
        let url = endpoint.websocket_url(path);
        let socket = websocket::connect_over(stream, &url, &options).await.map_err(Error::from)?;
        // A gateway that does not know the form it was asked for speaks JSON.
        let form = if socket.subprotocol() == Some(form.subprotocol()) { form } else { Form::Json };
        let mut socket = Self { socket, form, echo: Echo::default() };
        match socket.next().await? {
            Arrival::Hello(hello) => Ok((socket, hello)),
            Arrival::Bye(refusal) | Arrival::Error(refusal) => Err(Error::Refused(refusal)),
            _ => Err(Error::Protocol("the first message is no `hello`".to_owned())),
        }
    }

    /// What arrives next; a control frame is a sign of life. Writes what was [fed](Self::feed), too. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<Arrival, Error> {
        let arrival = match self.socket.recv().await {
            Some(Ok(websocket::Event::Text(text))) if self.form == Form::Json => {
                self.form.decode(text.as_bytes())?
            }
            Some(Ok(websocket::Event::Binary(bytes))) if self.form == Form::Cbor => {
                self.form.decode(bytes)?
            }
            Some(Ok(websocket::Event::Close(close))) => {
                let code = close.code.map_or(1005, CloseCode::get);
                return Err(Error::Closed(code, close.reason.as_str().to_owned()));
            }
            Some(Ok(websocket::Event::Ping(_))) => {
                self.ping();
                Arrival::Other
            }
            Some(Ok(websocket::Event::Pong(payload))) => {
                self.echo.answer(payload);
                Arrival::Other
            }
            Some(Ok(_)) => return Err(Error::Protocol("a message in another form".to_owned())),
            Some(Err(error)) => return Err(error.into()),
            None => return Err(Error::Ended),
        };
        if let Arrival::Hello(_) = arrival {
            self.ping();
        }
        Ok(arrival)
    }

    /// Sends a Ping with what is written next. The gateway is asked when it greets, and whenever it asks: so it costs no
    /// timer, and the gateway goes on asking a client that is silent otherwise.
    pub(super) fn ping(&mut self) {
        self.echo.pings = self.echo.pings.wrapping_add(1);
        if self.socket.feed_ping(&self.echo.pings.to_be_bytes()) {
            self.echo.asked = Some((self.echo.pings, Instant::now()));
        }
    }

    pub(super) const fn rtt(&self) -> Option<Duration> {
        self.echo.rtt
    }

    pub(super) fn encode(&self, message: &ClientMessage<'_>) -> Result<Message, Error> {
        self.form.encode(message)
    }

    /// Takes a message, to be written by [`next`](Self::next). Cancel-safe.
    pub(super) async fn feed(&mut self, message: Message) -> Result<(), Error> {
        Ok(self.socket.feed(message).await?)
    }

    pub(super) async fn renew(&mut self, endpoint: &Endpoint) -> Result<(), Error> {
        let Some(token) = endpoint.tokens.current() else { return Ok(()) };
        let message = self.encode(&ClientMessage::Auth { token: (&*token).into() })?;
        self.feed(message).await
    }

    pub(super) async fn close(mut self) {
        // It is over in any case.
        let _ = self.socket.close(CloseCode::NORMAL, "").await;
    }
}
