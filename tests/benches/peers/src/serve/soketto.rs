//! soketto. Its receiver cannot be asked without waiting whether there is more, so each message is flushed.

use super::{MOST, Options};
use soketto::Data;
use soketto::handshake::{Server, server::Response};
use tokio::net::TcpStream;
use tokio_util::compat::TokioAsyncReadCompatExt;

pub(super) async fn serve(stream: TcpStream, _: Options) {
    // An error is the end of the connection, and nobody's loss here.
    let _ = echo(stream).await;
}

async fn echo(stream: TcpStream) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut server = Server::new(stream.compat());
    let key = server.receive_request().await?.key();
    server.send_response(&Response::Accept { key, protocol: None }).await?;
    let mut builder = server.into_builder();
    builder.set_max_message_size(MOST);
    builder.set_max_frame_size(MOST);
    let (mut sender, mut receiver) = builder.finish();
    let mut message = Vec::new();
    loop {
        message.clear();
        match receiver.receive_data(&mut message).await? {
            Data::Binary(_) => sender.send_binary_mut(&mut message).await?,
            // It leaves the check of a text to its user.
            Data::Text(_) => sender.send_text(std::str::from_utf8(&message)?).await?,
        }
        sender.flush().await?;
    }
}
