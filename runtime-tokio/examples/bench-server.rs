//! A server on one thread that shows what the parts of longwire cost, and how little it takes to use them.
//!
//! ```text
//! cargo run --release -p longwire --example bench-server -- --addr 127.0.0.1:9001 --api serve
//! ```
//!
//! | path | what it does |
//! |---|---|
//! | `/echo` | a WebSocket that sends every message back, by one of three APIs (`--api`) |
//! | `/sub` | a WebSocket that gets every text published, from a hub |
//! | `/sse` | the same as Server-Sent Events |
//! | `/pub` | a WebSocket whose texts are published in the hub |
//!
//! `--api serve` (a set of connections on this thread, with a handler), `task` (the same handler, each connection in a task),
//! `async` (`recv` and `send`), `stream` (`Stream` and `Sink`). `--deflate` accepts compression.

use futures_util::StreamExt as _;
use longwire::hub::{Adoption, Data, Grant, Hub, HubConfig, Open, Protocol, Socket};
use longwire::websocket::{
    self, Acceptance, Adopter, Config, MessageRef, Output, Rejection, ServeSet, WebSocket, accept_with, serve,
};
use longwire_core::log::{Pattern, Since, Topic};
use longwire_core::ws::deflate::Agreed;
use std::error::Error;
use std::sync::Arc;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::task::spawn_local;

type Failure = Box<dyn Error>;
type Echo = fn(MessageRef<'_>, &mut Output<'_>) -> Result<(), websocket::Error>;

/// What `/echo` does with a message: it is sent from where it was received.
fn echo(message: MessageRef<'_>, out: &mut Output<'_>) -> Result<(), websocket::Error> {
    out.send(message)
}

#[derive(Clone)]
struct Server {
    api: Arc<str>,
    config: Arc<Config>,
    hub: Arc<Hub>,
    set: Adopter<Echo>,
}

fn main() -> Result<(), Failure> {
    let (mut address, mut api, mut deflate) = ("127.0.0.1:9001".to_owned(), "serve".to_owned(), false);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match &*argument {
            "--addr" => address = arguments.next().ok_or("--addr HOST:PORT")?,
            "--api" => api = arguments.next().ok_or("--api serve|task|async|stream")?,
            "--deflate" => deflate = true,
            _ => return Err(format!("{argument} is no option: --addr, --api, --deflate").into()),
        }
    }
    let mut config = Config::default();
    if !deflate {
        config.deflate = None;
    }
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.block_on(async {
        let (hub, shard) = Hub::local(HubConfig { deflate, ..HubConfig::default() }, Arc::new(Open))?;
        let (set, connections) = ServeSet::new()?;
        spawn_local(shard.run());
        spawn_local(connections.run());
        let server = Server { api: api.into(), config: config.into(), hub, set };
        let listener = TcpListener::bind(&address).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            let server = server.clone();
            spawn_local(async move {
                if let Err(error) = server.open(stream).await {
                    eprintln!("{error}");
                }
            });
        }
    })
}

impl Server {
    /// Reads the request, and hands the connection on to whoever serves it: what that takes does not stay with it.
    async fn open(self, mut stream: TcpStream) -> Result<(), Failure> {
        stream.set_nodelay(true)?;
        let mut head = [0; 2048];
        let n = stream.peek(&mut head).await?;
        if head.get(..n).is_some_and(|head| head.starts_with(b"GET /sse ")) {
            // The hub has no use for the request.
            let _ = stream.read(&mut head).await?;
            let head =
                "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n\r\n";
            self.subscribe(stream, head.into(), Vec::new(), Protocol::Sse, None)?;
            return Ok(());
        }
        let mut path = String::new();
        let socket = accept_with(stream, self.config.clone(), |upgrade| {
            upgrade.request().path().clone_into(&mut path);
            match path.as_str() {
                "/echo" | "/sub" | "/pub" => Ok(Acceptance::default()),
                _ => Err(Rejection::new(404, "there are /echo, /sub, /pub and /sse")),
            }
        });
        let socket = socket.await?;
        match path.as_str() {
            "/sub" => {
                let deflate = socket.deflate();
                let (stream, early) = socket.into_parts();
                self.subscribe(stream, Vec::new(), early, Protocol::WebSocketJson, deflate)?;
            }
            "/pub" => _ = spawn_local(self.publish(socket)),
            _ => self.echo(socket).await,
        }
        Ok(())
    }

    async fn echo(self, mut socket: WebSocket<TcpStream>) {
        match &*self.api {
            "task" => _ = spawn_local(serve(socket, |message, out| out.send(message))),
            "async" => {
                spawn_local(async move {
                    while let Some(Ok(message)) = socket.recv_message().await {
                        if socket.send(message).await.is_err() {
                            break;
                        }
                    }
                });
            }
            "stream" => {
                let (sink, stream) = socket.split();
                spawn_local(stream.forward(sink));
            }
            _ => _ = self.set.adopt(socket, echo).await,
        }
    }

    /// A reader of the hub: it gets what is published from now on.
    fn subscribe(
        &self,
        stream: TcpStream,
        head: Vec<u8>,
        early: Vec<u8>,
        protocol: Protocol,
        deflate: Option<Agreed>,
    ) -> Result<(), Failure> {
        self.hub.adopt(Adoption {
            head,
            early,
            deflate,
            subscription: Some((Pattern::parse("**").into_iter().collect(), Since::Now)),
            ..Adoption::new(Socket::Tcp(stream.into_std()?), protocol, Grant::open())
        });
        Ok(())
    }

    /// A publisher: each of its texts becomes an event, whose data is that text as JSON.
    async fn publish(self, mut socket: WebSocket<TcpStream>) {
        let Ok(topic) = Topic::parse("bench") else { return };
        while let Some(Ok(message)) = socket.recv_message().await {
            let text = serde_json::Value::from(message.as_str().unwrap_or_default()).to_string();
            let Ok(data) = Data::json(text.as_bytes()) else { return };
            if self.hub.publish(topic, None, data).await.is_err() {
                return;
            }
        }
    }
}
