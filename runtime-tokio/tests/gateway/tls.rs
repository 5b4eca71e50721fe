//! `longwire sub` and `pub` with `--ca`, through a proxy that speaks TLS in front of a gateway.

use crate::authority::Authority;
use crate::support::{PATIENCE, Served};
use longwire::net::rustls::{ServerConfig, pki_types::PrivateKeyDer};
use std::process::{Output, Stdio};
use std::sync::Arc;
use tokio::io::{AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

impl Authority {
    /// A proxy at `localhost`, with a certificate of this authority.
    async fn proxy(&self, gateway: &Served) -> String {
        let (certificate, key) = self.certificate();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind(("localhost", 0)).await.unwrap();
        let (port, gateway) = (listener.local_addr().unwrap().port(), gateway.address);
        tokio::spawn(async move {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    // Who does not trust it goes away.
                    let Ok(mut near) = acceptor.accept(near).await else { return };
                    let mut far = TcpStream::connect(gateway).await.unwrap();
                    let _ = copy_bidirectional(&mut near, &mut far).await;
                });
            }
        });
        format!("https://localhost:{port}")
    }
}

/// Runs it with one line of standard input to its end, which has to come by itself.
pub(crate) async fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_longwire"));
    command.args(arguments).env_remove("LONGWIRE_URL").env_remove("LONGWIRE_TOKEN").env_remove("LONGWIRE_CA");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    // Not everybody reads it.
    let _ = child.stdin.take().unwrap().write_all(b"2\n").await;
    tokio::time::timeout(PATIENCE, child.wait_with_output()).await.expect("it does not end").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_of_ones_own_is_trusted_and_another_one_is_not() {
    let (own, other) = (Authority::new("own"), Authority::new("other"));
    let served = Served::open().await;
    let url = own.proxy(&served).await;
    let published = run(&["pub", "a", "1", "--url", &url, "--ca", own.path()]).await;
    assert!(published.status.success(), "{published:?}");
    let published = run(&["pub", "a", "-", "--url", &url, "--ca", own.path()]).await;
    assert!(published.status.success(), "{published:?}");
    for transport in ["auto", "ws", "sse", "longpoll", "poll"] {
        let read = ["sub", "a", "--count", "1", "--transport", transport, "--url", &url, "--ca", own.path()];
        let read = run(&read).await;
        assert_eq!((read.status.code(), &*read.stdout), (Some(0), &b"a  2\n"[..]), "{transport}: {read:?}");
    }

    let missing = std::env::temp_dir().join("longwire-no-such-authority.pem");
    let empty = std::env::temp_dir().join(format!("longwire-{}-empty.pem", std::process::id()));
    std::fs::write(&empty, "nothing").unwrap();
    for (ca, code, why) in [
        (Some(other.path()), 1, "UnknownIssuer"),
        (None, 1, "UnknownIssuer"),
        (missing.to_str(), 2, "--ca"),
        (empty.to_str(), 2, "--ca"),
    ] {
        for mut arguments in [vec!["sub", "a"], vec!["pub", "a", "1"], vec!["pub", "a", "-"]] {
            arguments.extend(["--url", &url]);
            arguments.extend(ca.into_iter().flat_map(|ca| ["--ca", ca]));
            let refused = run(&arguments).await;
            let said = String::from_utf8(refused.stderr).unwrap();
            assert_eq!(
                (refused.status.code(), said.lines().count()),
                (Some(code), 1),
                "{arguments:?}: {said}"
            );
            assert!(said.contains(why) && refused.stdout.is_empty(), "{arguments:?}: {said}");
        }
    }
    std::fs::remove_file(empty).unwrap();
    assert_eq!(served.numbers("a", "").await, [1, 2]);
}
