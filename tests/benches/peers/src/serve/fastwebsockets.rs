//! fastwebsockets over the TCP stream itself, after a handshake of ours. It writes each message at once.

use super::{MOST, Options, upgrade};
use fastwebsockets::{FragmentCollector, OpCode, Role, WebSocket};
use tokio::net::TcpStream;

pub(super) async fn serve(mut stream: TcpStream, _: Options) {
    if upgrade(&mut stream, None).await.is_some() {
        tokio::spawn(echo(stream));
    }
}

async fn echo(stream: TcpStream) {
    let mut socket = WebSocket::after_handshake(stream, Role::Server);
    socket.set_max_message_size(MOST);
    socket.set_writev(true);
    socket.set_auto_close(true);
    socket.set_auto_pong(true);
    let mut socket = FragmentCollector::new(socket);
    while let Ok(frame) = socket.read_frame().await {
        let data = matches!(frame.opcode, OpCode::Text | OpCode::Binary);
        if frame.opcode == OpCode::Close || data && socket.write_frame(frame).await.is_err() {
            return;
        }
    }
}
