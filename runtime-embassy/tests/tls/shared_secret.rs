//! A shared secret in place of certificates, against OpenSSL over TCP.

use std::convert::Infallible;
use std::future::Future as _;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::pin::pin;
use std::process::{Child, Command, Stdio};
use std::task::{Context, Poll, Waker};

use longwire_embassy::{Connect, Link, Tls, TlsBuffers, TlsConfig, TlsConnectError, Trust};

use crate::authority::{Authority, params};
use crate::common::Numbers;
use crate::{Failed, meet};

/// TCP, for a test that may block.
struct Blocking(TcpStream);

impl Link for Blocking {
    type Error = std::io::Error;

    async fn read(&mut self, bytes: &mut [u8]) -> Result<usize, std::io::Error> {
        self.0.read(bytes)
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<usize, std::io::Error> {
        self.0.write(bytes)
    }
}

struct Dial(u16);

impl Connect for Dial {
    type Link<'a> = Blocking;
    type Error = Infallible;

    async fn connect(&mut self) -> Result<Blocking, Infallible> {
        for _ in 0..600 {
            if let Ok(stream) = TcpStream::connect(("127.0.0.1", self.0)) {
                stream.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
                return Ok(Blocking(stream));
            }
            // It has not begun to listen yet.
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        panic!("OpenSSL does not listen")
    }
}

/// A program that ends with this, also where a test fails.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Against `openssl s_server`, which says what it hears backwards.
fn meet_openssl(key: &[u8], server_key: &str) -> Result<Vec<u8>, TlsConnectError<Infallible>> {
    let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let server = Command::new("openssl")
        .args(["s_server", "-quiet", "-rev", "-nocert", "-tls1_3", "-accept", &format!("127.0.0.1:{port}")])
        .args(["-psk_identity", "device-7", "-psk", server_key])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl is installed");
    let _server = Ended(server);
    let mut buffers = TlsBuffers::<2048, 512>::new();
    let config = TlsConfig::new("gateway.example", Trust::Psk { identity: b"device-7", key });
    let mut tls = Tls::new(Dial(port), config, Numbers(3), &mut buffers);
    let device = async {
        let mut link = tls.connect().await?;
        link.write(b"abc\n").await.unwrap();
        link.flush().await.unwrap();
        let (mut heard, mut some) = (Vec::new(), [0; 9]);
        while heard.len() < 4 {
            let n = link.read(&mut some).await.unwrap();
            heard.extend(&some[..n]);
        }
        Ok(heard)
    };
    match pin!(device).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => panic!("nothing here waits"),
    }
}

#[test]
fn a_shared_secret_opens_a_connection_and_another_does_not() {
    let key: Vec<u8> = (1..=16).collect();
    let hex = "0102030405060708090a0b0c0d0e0f10";
    assert_eq!(meet_openssl(&key, hex).unwrap(), b"cba\n");
    assert!(meet_openssl(&key, "1102030405060708090a0b0c0d0e0f10").is_err());
}

#[test]
fn who_shares_a_secret_takes_no_certificate_for_it() {
    let root = Authority::root();
    let trust = Trust::Psk { identity: b"device-7", key: &[7; 16] };
    let met =
        meet(TlsConfig::new("gateway.example", trust), root.server(params("gateway.example"), &[]), None);
    assert!(matches!(met, Err(Failed::Connect(_))), "{met:?}");
}
