//! One server for each library, written after the library's documentation. All of them run on one thread, take messages
//! up to [`MOST`], and turn off Nagle's algorithm.

mod axum;
mod fastwebsockets;
mod floor;
mod sockudo;
mod soketto;
mod tokio_websockets;
mod tungstenite;
mod yawc;

use clap::{Args, ValueEnum};
use futures_util::{FutureExt, Sink, SinkExt, Stream, StreamExt};
use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::broadcast;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// Bytes of the largest message that a server takes.
const MOST: usize = 64 << 20;

/// Messages that a batching server answers in one write at most.
const BATCH: usize = 64;

/// Events that a broadcast channel holds for its slowest reader: more than a burst has, so that none is lost.
const CHANNEL: usize = 64;

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Library {
    Axum,
    Fastwebsockets,
    FloorEpoll,
    FloorTokio,
    Sockudo,
    Soketto,
    TokioWebsockets,
    Tungstenite,
    Yawc,
}

/// How permessage-deflate keeps its windows.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Deflate {
    /// Each connection its own, across messages.
    Takeover,
    /// No window across messages; the compressors are shared, where the library can.
    Shared,
}

#[derive(Args, Clone, Copy)]
pub(crate) struct Options {
    library: Library,
    #[arg(long)]
    addr: SocketAddr,
    /// Answer all messages that have arrived, then flush; without it, each is flushed by itself.
    #[arg(long)]
    batch: bool,
    #[arg(long, value_enum)]
    deflate: Option<Deflate>,
}

pub(crate) fn run(options: Options) -> io::Result<()> {
    if options.library == Library::FloorEpoll {
        return floor::epoll(options.addr);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(options.addr)?;
        let listener = socket.listen(4096)?;
        match options.library {
            Library::Axum => axum::serve(listener, options).await,
            Library::Fastwebsockets => accept(listener, options, fastwebsockets::serve).await,
            Library::FloorTokio => accept(listener, options, floor::tokio).await,
            Library::Sockudo => accept(listener, options, sockudo::serve).await,
            Library::Soketto => accept(listener, options, soketto::serve).await,
            Library::TokioWebsockets => accept(listener, options, tokio_websockets::serve).await,
            Library::Tungstenite => accept(listener, options, tungstenite::serve).await,
            Library::Yawc => accept(listener, options, yawc::serve).await,
            Library::FloorEpoll => Ok(()),
        }
    })
}

/// A task for each connection.
async fn accept<F, Fut>(listener: TcpListener, options: Options, serve: F) -> io::Result<()>
where
    F: Fn(TcpStream, Options) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(serve(stream, options));
    }
}

/// Echoes data messages on anything that is a stream and a sink of them.
async fn echo<S, M, E>(mut socket: S, batch: bool, is_data: fn(&M) -> bool)
where
    S: Stream<Item = Result<M, E>> + Sink<M> + Unpin,
{
    while let Some(Ok(message)) = socket.next().await {
        if is_data(&message) && socket.feed(message).await.is_err() {
            return;
        }
        for _ in 1..if batch { BATCH } else { 1 } {
            match socket.next().now_or_never() {
                None => break,
                Some(Some(Ok(message))) => {
                    if is_data(&message) && socket.feed(message).await.is_err() {
                        return;
                    }
                }
                Some(_) => return,
            }
        }
        if socket.flush().await.is_err() {
            return;
        }
    }
}

/// Sends what comes through the channel until the client closes: all that is there, then one flush.
async fn follow<S, M, E>(mut socket: S, mut events: broadcast::Receiver<M>)
where
    S: Stream<Item = Result<M, E>> + Sink<M> + Unpin,
    M: Clone,
{
    loop {
        tokio::select! {
            event = events.recv() => {
                let Ok(event) = event else { return };
                if socket.feed(event).await.is_err() {
                    return;
                }
                while let Ok(event) = events.try_recv() {
                    if socket.feed(event).await.is_err() {
                        return;
                    }
                }
                if socket.flush().await.is_err() {
                    return;
                }
            }
            message = socket.next() => if !matches!(message, Some(Ok(_))) { return },
        }
    }
}

/// Hands data messages on to all who follow.
async fn publish<S, M, E>(mut socket: S, events: &broadcast::Sender<M>, is_data: fn(&M) -> bool)
where
    S: Stream<Item = Result<M, E>> + Unpin,
{
    while let Some(Ok(message)) = socket.next().await {
        if is_data(&message) {
            // An error says that nobody follows.
            let _ = events.send(message);
        }
    }
}

/// The opening handshake for libraries that leave it to their user: the path that was asked for. `extension` is what is
/// agreed to if the client offers permessage-deflate.
async fn upgrade(stream: &mut TcpStream, extension: Option<&str>) -> Option<String> {
    let mut bytes = Vec::with_capacity(1024);
    while !bytes.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    let (path, response) = answer(&bytes, extension)?;
    stream.write_all(response.as_bytes()).await.ok()?;
    Some(path)
}

/// The path and the response to the head of an upgrade request.
fn answer(head: &[u8], extension: Option<&str>) -> Option<(String, String)> {
    let head = std::str::from_utf8(head).ok()?;
    let path = head.split(' ').nth(1)?.to_owned();
    let field = |wanted: &str| {
        head.lines()
            .filter_map(|line| line.split_once(':'))
            .find_map(|(name, value)| name.eq_ignore_ascii_case(wanted).then(|| value.trim()))
    };
    let accept = derive_accept_key(field("Sec-WebSocket-Key")?.as_bytes());
    let mut response = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n"
    );
    if let (Some(extension), Some(_)) = (extension, field("Sec-WebSocket-Extensions")) {
        response.push_str(&format!("Sec-WebSocket-Extensions: {extension}\r\n"));
    }
    response.push_str("\r\n");
    Some((path, response))
}
