//! yawc over the TCP stream itself, after a handshake of ours.

use super::{Deflate, MOST, Options, echo, upgrade};
use futures_util::StreamExt;
use std::convert::Infallible;
use std::sync::LazyLock;
use tokio::net::TcpStream;
use yawc::{DeflatePool, Frame, OpCode, Role, WebSocket};

/// One thread needs one compressor and one decompressor at a time.
static POOL: LazyLock<DeflatePool> = LazyLock::new(|| DeflatePool::new(2));

pub(super) async fn serve(mut stream: TcpStream, options: Options) {
    let settings = yawc::Options::default().with_limits(MOST, MOST).with_utf8();
    let (settings, extension) = match options.deflate {
        None => (settings.without_compression(), None),
        Some(Deflate::Takeover) => (settings.with_low_latency_compression(), Some("permessage-deflate")),
        Some(Deflate::Shared) => (
            settings
                .with_low_latency_compression()
                .server_no_context_takeover()
                .client_no_context_takeover()
                .with_deflate_pool(POOL.clone()),
            Some("permessage-deflate; server_no_context_takeover; client_no_context_takeover"),
        ),
    };
    if upgrade(&mut stream, extension).await.is_none() {
        return;
    }
    let socket = WebSocket::from_stream_with_extensions(stream, Role::Server, extension, settings);
    let Ok(socket) = socket else { return };
    // Its stream ends at an error.
    tokio::spawn(echo(socket.map(Ok::<_, Infallible>), options.batch, is_data));
}

fn is_data(frame: &Frame) -> bool {
    matches!(frame.opcode(), OpCode::Text | OpCode::Binary)
}
