//! `WebSocket<S>`, `serve` and `ServeSet`: against themselves, tungstenite, and bytes written by hand.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test that is wrong may stop"
)]

mod cancel;
mod deflate;
mod handshake;
mod interop;
mod serve;
mod set;
mod socket;
#[path = "../wire/mod.rs"]
mod wire;

use longwire::net::rustls::{RootCertStore, ServerConfig, pki_types::PrivateKeyDer};
use longwire::websocket::{Config, ConnectOptions};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, DuplexStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

/// After this a test has hung.
const LONG: Duration = Duration::from_secs(60);

fn config(change: impl FnOnce(&mut Config)) -> Config {
    let mut config = Config::default();
    change(&mut config);
    config
}

async fn read(stream: &mut DuplexStream, n: usize) -> Vec<u8> {
    let mut bytes = vec![0; n];
    timeout(LONG, stream.read_exact(&mut bytes)).await.unwrap().unwrap();
    bytes
}

async fn read_to_end(stream: &mut DuplexStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    bytes
}

/// A TLS server for `localhost`, and the options of a client that trusts its certificate.
fn tls() -> (TlsAcceptor, ConnectOptions) {
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = signed.cert.der().clone();
    let key = PrivateKeyDer::try_from(signed.signing_key.serialize_der()).unwrap();
    let server = ServerConfig::builder().with_no_client_auth();
    let server = server.with_single_cert(vec![certificate.clone()], key).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let options = ConnectOptions::default().tls(longwire::net::client_config(roots));
    (TlsAcceptor::from(Arc::new(server)), options)
}
