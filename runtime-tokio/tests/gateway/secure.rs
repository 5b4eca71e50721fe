//! TLS of the gateway's own: its streams, its front door, and those who do not speak it well.

use crate::authority::{Authority, Files};
use crate::support::{Client, PATIENCE, Served, within};
use crate::tls::run;
use longwire::client::{Endpoint, Item, Publisher, PublisherConfig, Subscriber, Subscription, Transport};
use longwire::gateway::{CertificateFiles, Gateway, GatewayConfig};
use longwire::hub::{Adoption, Grant, Hub, HubConfig, LogConfig, Open, Protocol, Socket};
use longwire::net::rustls::pki_types::ServerName;
use longwire::net::rustls::{self, ClientConfig};
use longwire_core::log::{Pattern, Since};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::process::Command;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A gateway with a certificate of an authority of its own.
struct Secure {
    served: Served,
    authority: Authority,
    files: Files,
}

static NUMBER: AtomicU64 = AtomicU64::new(0);

impl Secure {
    async fn open() -> Self {
        Self::with(GatewayConfig::default(), HubConfig::default()).await
    }

    async fn with(gateway: GatewayConfig, hub: HubConfig) -> Self {
        let name = format!("secure-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let authority = Authority::new(&name);
        let files = Files::new(&name, &authority.certificate());
        let (certificate, key) = (files.certificate.clone(), files.key.clone());
        let (config, watcher) = CertificateFiles { certificate, key }.load().unwrap();
        let hub = Hub::start(HubConfig { shards: 1, ..hub }, Arc::new(Open)).unwrap();
        tokio::spawn(watcher.run(Arc::downgrade(&hub)));
        let gateway = Gateway::new(hub, gateway);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn({
            let gateway = gateway.clone();
            async move { gateway.serve_tls(listener, config).await }
        });
        Self { served: Served { gateway, address }, authority, files }
    }

    async fn connect(&self) -> Client<TlsStream<TcpStream>> {
        self.connect_with(TcpSocket::new_v4().unwrap(), self.authority.client()).await.unwrap()
    }

    async fn connect_with(
        &self,
        socket: TcpSocket,
        config: Arc<ClientConfig>,
    ) -> std::io::Result<Client<TlsStream<TcpStream>>> {
        let tcp = socket.connect(self.served.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TlsConnector::from(config).connect(name, tcp).await?;
        Ok(Client { stream, unread: Vec::new() })
    }

    /// A reader over SSE that is there.
    async fn reader(&self, socket: TcpSocket) -> Client<TlsStream<TcpStream>> {
        let mut client = self.connect_with(socket, self.authority.client()).await.unwrap();
        let accept = "Accept: text/event-stream\r\n";
        client.send(&self.served.request("GET", "/v1/stream?topic=**", accept, b"")).await;
        client.until("caught_up").await;
        client
    }

    fn endpoint(&self) -> Endpoint {
        let url = format!("https://localhost:{}", self.served.address.port());
        Endpoint::new(&url).unwrap().tls(self.authority.client())
    }

    fn gauge(&self, which: fn(&longwire::hub::Counters) -> &AtomicU64) -> u64 {
        which(self.served.gateway.hub().counters()).load(Ordering::Relaxed)
    }

    async fn wait_for(&self, what: &str, holds: impl Fn() -> bool) {
        tokio::time::timeout(PATIENCE, async {
            while !holds() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await
        .expect(what);
    }

    /// Of those that got no further than the front door.
    async fn refused(&self, reason: &str) -> Option<u64> {
        let mut client = self.connect().await;
        client.send(&self.served.request("GET", "/metrics", "", b"")).await;
        let metrics = client.answer().await.body;
        let line = metrics.lines().find(|line| line.contains(&format!("reason=\"{reason}\"")))?;
        line.rsplit_once(' ').unwrap().1.parse().ok()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn few_handshakes_are_spent_on_refusals_and_each_is_counted_once() {
    let few = GatewayConfig { max_connections: 1, ..GatewayConfig::default() };
    let secure = Secure::with(few, HubConfig::default()).await;
    let mut held = secure.connect().await;
    held.send(&secure.served.request("GET", "/healthz", "", b"")).await;
    assert_eq!(held.answer().await.status, 200);
    // Each is gone before the next one comes, but its place is not.
    for _ in 0..320 {
        let mut tcp = TcpStream::connect(secure.served.address).await.unwrap();
        let _ = tcp.write_all(b"GET / HTTP/1.1\r\n\r\n").await;
        let _ = tcp.shutdown().await;
        let _ = within(tcp.read_to_end(&mut Vec::new())).await;
    }
    held.send(&secure.served.request("GET", "/metrics", "", b"")).await;
    let metrics = held.answer().await.body;
    let count = |reason: &str| -> u64 {
        let line = metrics.lines().find(|line| line.contains(&format!("reason=\"{reason}\"")));
        line.map_or(0, |line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
    };
    let (told, flood) = (count("too_many_connections"), count("flood"));
    assert_eq!((told + flood, count("no_tls"), count("tls")), (320, 0, 0), "{metrics}");
    assert!(told >= 64 && flood > 0, "{told} {flood}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_reads_and_publishes_over_every_transport() {
    let secure = Secure::open().await;
    let mut readers = Vec::new();
    for transport in [Transport::WebSocket, Transport::Sse, Transport::LongPoll, Transport::Poll] {
        let subscription = Subscription::new(["**"]).transport(transport);
        let mut reader = Subscriber::new(secure.endpoint(), subscription).unwrap();
        while !matches!(within(reader.next()).await.unwrap().unwrap(), Item::CaughtUp(_)) {}
        readers.push((transport, reader));
    }
    let publisher = Publisher::new(secure.endpoint(), PublisherConfig::default());
    // Of one record, and of sixty.
    for size in [1, 900_000] {
        let data = longwire::client::Data::json(format!("\"{}\"", "x".repeat(size))).unwrap();
        within(publisher.publish("a", None, data.clone())).await.unwrap();
        for (transport, reader) in &mut readers {
            loop {
                if let Item::Event(event) = within(reader.next()).await.unwrap().unwrap() {
                    assert!(event.data == data, "{transport:?}, {size}");
                    break;
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_takes_little_at_a_time_gets_every_byte_in_order() {
    let log = LogConfig { tail_bytes: 64 << 20, history_bytes: 64 << 20, ..LogConfig::default() };
    let secure = Secure::with(GatewayConfig::default(), HubConfig { log, ..HubConfig::default() }).await;
    let narrow = TcpSocket::new_v4().unwrap();
    narrow.set_recv_buffer_size(4 << 10).unwrap();
    let mut reader = secure.reader(narrow).await;
    // Small ones that fit into a record together, and larger ones than a record.
    let size = |n: usize| if n.is_multiple_of(3) { 50_000 } else { 100 };
    for n in 0..200 {
        let data = format!("\"{n}:{}\"", "x".repeat(size(n)));
        secure.served.publish("a", None, &data).await;
    }
    secure.wait_for("it is blocked", || secure.gauge(|c| &c.lagging) == 1).await;
    // What is half-sent counts, and is bounded: the rest of an event, and a record.
    let pinned = secure.served.gateway.hub().log_named("default").unwrap().pinned_bytes();
    assert!((1..150_000).contains(&pinned), "{pinned}");
    for n in 0..200 {
        let text = reader.until(&format!("\"{n}:{}\"", "x".repeat(size(n)))).await;
        assert!(text.matches("id: ").count() == 1 && !text.contains("gap"), "{n}: {text:.300}");
    }
    secure.wait_for("it is live again", || secure.gauge(|c| &c.lagging) == 0).await;
    assert_eq!(secure.served.gateway.hub().log_named("default").unwrap().pinned_bytes(), 0);
    // And in turns that find it live.
    for n in 200..210 {
        secure.served.publish("a", None, &n.to_string()).await;
        reader.until(&format!("\"data\":{n}}}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_takes_nothing_is_given_up() {
    let hub = HubConfig {
        heartbeat: Duration::from_millis(50),
        heartbeat_timeout: Duration::from_millis(200),
        ..HubConfig::default()
    };
    let secure = Secure::with(GatewayConfig::default(), hub).await;
    let narrow = TcpSocket::new_v4().unwrap();
    narrow.set_recv_buffer_size(4 << 10).unwrap();
    let reader = secure.reader(narrow).await;
    let data = format!("\"{}\"", "x".repeat(100_000));
    while secure.gauge(|c| &c.lagging) == 0 && secure.gauge(|c| &c.timeouts) == 0 {
        secure.served.publish("a", None, &data).await;
        tokio::task::yield_now().await;
    }
    secure.wait_for("it is given up", || secure.gauge(|c| &c.sse) == 0).await;
    assert_eq!(secure.gauge(|c| &c.timeouts), 1);
    drop(reader);
}

#[tokio::test(flavor = "multi_thread")]
async fn blocked_readers_have_a_budget_for_what_is_encrypted() {
    // An eighth of it is less than a record.
    let hub = HubConfig { max_pinned_bytes: 64 << 10, ..HubConfig::default() };
    let secure = Secure::with(GatewayConfig::default(), hub).await;
    let narrow = TcpSocket::new_v4().unwrap();
    narrow.set_recv_buffer_size(4 << 10).unwrap();
    let _reader = secure.reader(narrow).await;
    let data = format!("\"{}\"", "x".repeat(100_000));
    while secure.gauge(|c| &c.sse) == 1 {
        secure.served.publish("a", None, &data).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(secure.gauge(|c| &c.too_slow), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_tls_is_closed_and_counted_and_disturbs_nobody() {
    let secure = Secure::open().await;
    let mut reader = secure.reader(TcpSocket::new_v4().unwrap()).await;
    let hello = {
        let name = ServerName::try_from("localhost").unwrap();
        let mut client = rustls::ClientConnection::new(secure.authority.client(), name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    };
    let middle = hello.len() / 2;
    let broken = [&hello[..middle], &[0xff; 40], &hello[middle + 40..]].concat();
    // A record of application data before there are keys.
    let early = [&hello[..], &[23, 3, 3, 0, 20], &[7; 20]].concat();
    let wrong =
        [&[0; 64][..], &[0x80, 0x2e, 1, 0, 2], &[22, 3, 1, 0xff, 0xff, 1, 0xff, 0xff, 0xff], &broken, &early];
    for bytes in wrong {
        let mut client = secure.served.connect().await;
        client.send(bytes).await;
        let _ = client.stream.shutdown().await;
        // An alert, or nothing; never a page.
        let said = client.read_all().await;
        assert!(!said.windows(4).any(|four| four == b"HTTP"), "{said:?}");
    }
    // Gone in the middle of it.
    let mut client = secure.served.connect().await;
    client.send(&hello[..middle]).await;
    drop(client);
    tokio::time::timeout(PATIENCE, async {
        while secure.refused("tls").await != Some(wrong.len() as u64 + 1) {}
    })
    .await
    .expect("they are counted");
    secure.served.publish("a", None, "1").await;
    reader.until("\"data\":1}").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_tls_is_told_so() {
    let secure = Secure::open().await;
    for request in [secure.served.request("GET", "/", "", b""), secure.served.handshake("/v1/stream", "")] {
        let answer = secure.served.ask(&request).await;
        assert_eq!((answer.status, &*answer.code()), (400, "bad_request"));
        assert!(answer.body.contains("https://"), "{answer:?}");
    }
    assert_eq!(secure.refused("no_tls").await, Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_has_its_time_and_its_place() {
    let config = GatewayConfig {
        handshake_timeout: Duration::from_millis(300),
        max_handshakes: 1,
        ..Default::default()
    };
    let secure = Secure::with(config, HubConfig::default()).await;
    // One that never begins, and one that never goes on, each in the only place that there is.
    for bytes in [&[][..], &[22, 3, 1, 2, 0]] {
        let mut client = secure.served.connect().await;
        client.send(bytes).await;
        // Another is told to come again, over TLS, while the first has its place.
        let mut second = secure.connect().await;
        second.send(&secure.served.request("GET", "/healthz", "", b"")).await;
        let answer = second.answer().await;
        assert_eq!((answer.status, &*answer.code()), (503, "too_many_connections"));
        assert_eq!(within(client.stream.read(&mut [0])).await.unwrap_or(0), 0);
    }
    let mut client = secure.connect().await;
    client.send(&secure.served.request("GET", "/healthz", "", b"")).await;
    assert_eq!(client.answer().await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_is_announced_with_close_notify() {
    let secure = Secure::open().await;
    let mut reader = secure.reader(TcpSocket::new_v4().unwrap()).await;
    let (drained, end) = tokio::join!(secure.served.gateway.drain(), async {
        let mut text = Vec::new();
        // Without the alert this is an error.
        reader.stream.read_to_end(&mut text).await.unwrap();
        reader.stream.shutdown().await.unwrap();
        String::from_utf8(text).unwrap()
    });
    assert!(end.contains("draining"), "{end} {drained:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_cut_off_or_half_closed_is_gone() {
    let secure = Secure::open().await;
    let cut = secure.reader(TcpSocket::new_v4().unwrap()).await;
    // Without a word of TLS.
    let mut tcp = cut.stream.into_inner().0;
    tcp.shutdown().await.unwrap();
    secure.wait_for("it is gone", || secure.gauge(|c| &c.sse) == 0).await;
    let mut over = secure.reader(TcpSocket::new_v4().unwrap()).await;
    // With one.
    over.stream.shutdown().await.unwrap();
    secure.wait_for("it is gone", || secure.gauge(|c| &c.sse) == 0).await;
    // What is no record of the peer's ends it, too.
    let damaged = secure.reader(TcpSocket::new_v4().unwrap()).await;
    let mut tcp = damaged.stream.into_inner().0;
    tcp.write_all(&[23, 3, 3, 0, 30]).await.unwrap();
    tcp.write_all(&[9; 30]).await.unwrap();
    secure.wait_for("it is gone", || secure.gauge(|c| &c.sse) == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_1_2_is_spoken_too_and_only_http_1_1() {
    let secure = Secure::open().await;
    let mut roots = rustls::RootCertStore::empty();
    let pem = std::fs::read(secure.authority.path()).unwrap();
    use rustls::pki_types::pem::PemObject as _;
    roots.add(rustls::pki_types::CertificateDer::from_pem_slice(&pem).unwrap()).unwrap();
    let old = ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS12])
        .with_root_certificates(roots.clone())
        .with_no_client_auth();
    let mut client = secure.connect_with(TcpSocket::new_v4().unwrap(), Arc::new(old)).await.unwrap();
    client
        .send(&secure.served.request("GET", "/v1/stream?topic=**", "Accept: text/event-stream\r\n", b""))
        .await;
    client.until("caught_up").await;
    secure.served.publish("a", None, "1").await;
    client.until("\"data\":1}").await;
    let mut h2 = longwire::net::client_config(roots);
    h2.alpn_protocols = vec![b"h2".to_vec()];
    let refused = secure.connect_with(TcpSocket::new_v4().unwrap(), Arc::new(h2)).await;
    assert!(refused.err().unwrap().to_string().contains("NoApplicationProtocol"));
}

#[tokio::test(flavor = "multi_thread")]
async fn its_own_origin_is_https() {
    let secure = Secure::open().await;
    let host = secure.served.address;
    for (scheme, status) in [("https", 200), ("http", 403)] {
        for (target, accept) in [("/healthz", ""), ("/v1/stream?topic=a", "Accept: text/event-stream\r\n")] {
            let mut client = secure.connect().await;
            let origin = format!("Origin: {scheme}://{host}\r\n{accept}");
            client.send(&secure.served.request("GET", target, &origin, b"")).await;
            assert_eq!(client.head().await.status, status, "{scheme} {target}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_certificate_in_the_files_is_taken_and_one_that_does_not_fit_is_not() {
    let secure = Secure::open().await;
    let other = Authority::new("renewed");
    let trusts = async |authority: &Authority| {
        secure.connect_with(TcpSocket::new_v4().unwrap(), authority.client()).await.is_ok()
    };
    assert!(trusts(&secure.authority).await && !trusts(&other).await);
    let mut reader = secure.reader(TcpSocket::new_v4().unwrap()).await;
    let (certificate, key) = other.certificate();
    // Half of it.
    std::fs::write(&secure.files.certificate, certificate.pem()).unwrap();
    secure.wait_for("it is said", || secure.gauge(|c| &c.bad_files) == 1).await;
    assert!(trusts(&secure.authority).await && !trusts(&other).await);
    secure.files.put(&certificate, &key);
    tokio::time::timeout(PATIENCE, async {
        while !trusts(&other).await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("it is taken");
    assert!(!trusts(&secure.authority).await);
    // Who was there stays.
    secure.served.publish("a", None, "1").await;
    reader.until("\"data\":1}").await;
    assert_eq!(secure.gauge(|c| &c.bad_files), 1);
}

/// As a service does that has a listener of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_another_server_is_handed_over_with_what_it_has_read() {
    let authority = Authority::new("embedded");
    let files = Files::new("embedded", &authority.certificate());
    let (certificate, key) = (files.certificate.clone(), files.key.clone());
    let (config, _) = CertificateFiles { certificate, key }.load().unwrap();
    let hub = Hub::start(HubConfig::default(), Arc::new(Open)).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let server = async {
        let tcp = listener.accept().await.unwrap().0;
        let mut stream = tokio_rustls::TlsAcceptor::from(config).accept(tcp).await.unwrap();
        let mut first = [0; 5];
        stream.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"hello");
        hub.adopt(Adoption {
            subscription: Some((Pattern::parse("**").into_iter().collect(), Since::Now)),
            ..Adoption::new(Socket::try_from(stream).unwrap(), Protocol::WebSocketJson, Grant::open())
        });
    };
    let client = async {
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TlsConnector::from(authority.client()).connect(name, tcp).await.unwrap();
        let mut client = Client { stream, unread: Vec::new() };
        // In one record: what the service reads, and a Ping for the shard.
        client.send(b"hello\x89\x81\0\0\0\0!").await;
        client
    };
    let ((), mut client) = within(async { tokio::join!(server, client) }).await;
    let has = |unread: &[u8], mark: &[u8]| unread.windows(mark.len()).any(|window| window == mark);
    while !has(&client.unread, b"\x8a\x01!") || !has(&client.unread, b"caught_up") {
        assert!(client.read().await, "{:?}", client.unread);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_serves_with_a_certificate_and_talks_to_one() {
    let (authority, other) = (Authority::new("program"), Authority::new("stranger"));
    let (own, theirs) = (authority.certificate(), other.certificate());
    let (files, others) = (Files::new("program", &own), Files::new("stranger", &theirs));
    let path = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let (certificate, key) = (path(&files.certificate), path(&files.key));
    let serve = ["serve", "--listen", "localhost:0", "--tls-cert", &certificate, "--tls-key", &key];
    let mut server = Command::new(env!("CARGO_BIN_EXE_longwire"))
        .args(serve)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut first = String::new();
    within(BufReader::new(server.stdout.take().unwrap()).read_line(&mut first)).await.unwrap();
    let address = first.trim().strip_prefix("listening on https://").expect(&first);
    let port = address.rsplit_once(':').unwrap().1;
    let (https, wss) = (format!("https://localhost:{port}"), format!("wss://localhost:{port}"));
    let ca = authority.path();
    let published = run(&["pub", "a", "2", "--url", &https, "--ca", ca]).await;
    assert!(published.status.success(), "{published:?}");
    for (url, transport) in [(&wss, "auto"), (&wss, "ws"), (&https, "sse"), (&https, "longpoll")] {
        let latest = ["sub", "a", "--count", "1", "--since", "latest"];
        let read = run(&[&latest[..], &["--transport", transport, "--url", url, "--ca", ca]].concat()).await;
        assert_eq!((read.status.code(), &*read.stdout), (Some(0), &b"a  2\n"[..]), "{transport}: {read:?}");
    }
    let talk = run(&["connect", &format!("{wss}/v1/stream"), "--ca", ca]).await;
    assert!(String::from_utf8_lossy(&talk.stdout).contains("hello"), "{talk:?}");
    let stream = format!("{wss}/v1/stream");
    for refused in [
        vec!["sub", "a", "--url", &wss, "--ca", other.path()],
        vec!["sub", "a", "--url", &wss],
        vec!["connect", &stream, "--ca", other.path()],
    ] {
        let refused = run(&refused).await;
        let said = String::from_utf8(refused.stderr).unwrap();
        assert_eq!((refused.status.code(), said.lines().count()), (Some(1), 1), "{said}");
        assert!(said.contains("UnknownIssuer"), "{said}");
    }
    // What cannot be used is said in a line.
    let (none, strange) = (format!("{certificate}.none"), path(&others.key));
    for (certificate, key, why) in [
        (&none, &key, "certificate "),
        (&certificate, &none, "key "),
        (&key, &key, "no certificate in it"),
        (&certificate, &certificate, "key "),
        (&certificate, &strange, "it is not the certificate's"),
    ] {
        let refused =
            run(&["serve", "--listen", "localhost:0", "--tls-cert", certificate, "--tls-key", key]).await;
        let said = String::from_utf8(refused.stderr).unwrap();
        assert_eq!((refused.status.code(), said.lines().count()), (Some(2), 1), "{said}");
        assert!(said.contains(why), "{said}");
    }
    let alone = run(&["serve", "--tls-cert", &certificate]).await;
    assert_eq!(alone.status.code(), Some(2));
}
