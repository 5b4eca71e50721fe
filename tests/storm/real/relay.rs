//! A relay between clients and a gateway: when it is gone, all connections through it are cut at once, and neither side
//! has done anything wrong.

use std::net::SocketAddr;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Relays until the future is dropped, and its connections with it; those there are are cut when `cuts` says so.
pub(crate) async fn relay(listener: TcpListener, target: SocketAddr, mut cuts: mpsc::Receiver<()>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((mut client, _)) = listener.accept() => {
                connections.spawn(async move {
                    let Ok(mut server) = TcpStream::connect(target).await else { return };
                    // However it ends, it is over.
                    let _ = tokio::io::copy_bidirectional_with_sizes(&mut client, &mut server, 4096, 4096).await;
                });
            }
            Some(()) = cuts.recv() => connections.abort_all(),
            Some(_) = connections.join_next() => {}
        }
    }
}
