//! What an idle connection costs a gateway in memory, with heartbeat and lease armed, and what is given back afterwards.
//!
//! Connections are opened, each a subscriber with a credential that ends, and left alone but for their heartbeats. Then
//! the gateway's resident memory is read, all are closed, and it is read again.
//!
//! `cargo bench -p longwire-tests --bench idle -- --help`

use longwire::websocket::{ConnectOptions, Event, WebSocket};
use longwire_tests::command_line::CommandLine;
use longwire_tests::gateway::Gateway;
use std::io::Write as _;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::LocalSet;

const HELP: &str = "\
What an idle connection costs a gateway in memory, and what is given back when all have closed.

  --connections N   how many (default 10000; a process can open about 20000 files)
  --rounds N        how often they come and go (default 1)
  --topics N        different topics that they are subscribed to, in turn (default 1)
  --sse             they use Server-Sent Events
  --open            the gateway asks for no credential: no lease
";

struct Options {
    connections: usize,
    rounds: usize,
    topics: usize,
    sse: bool,
    open: bool,
}

fn options() -> Options {
    let mut options = Options { connections: 10_000, rounds: 1, topics: 1, sse: false, open: false };
    let mut line = CommandLine::new("idle", HELP);
    while let Some(option) = line.option() {
        match &*option {
            "--connections" => options.connections = line.number(&option),
            "--rounds" => options.rounds = line.number(&option),
            "--topics" => options.topics = line.number(&option).max(1),
            "--sse" => options.sse = true,
            "--open" => options.open = true,
            _ => line.unknown(&option),
        }
    }
    options
}

/// A secret that ends long after the measurement: what it costs is that it does.
const TOKEN: &str = "\
[[token]]
secret = \"idle\"
subject = \"dashboard\"
subscribe = [\"**\"]
expires = \"2999-01-01T00:00:00Z\"
";
const HEARTBEAT: Duration = Duration::from_secs(5);

fn main() {
    let options = options();
    let tokens = std::env::temp_dir().join(format!("longwire-idle-{}", std::process::id()));
    std::fs::File::create(&tokens).and_then(|mut file| file.write_all(TOKEN.as_bytes())).expect("a file");
    let access = ["--token-file", tokens.to_str().expect("a path in UTF-8")];
    let access: &[&str] = if options.open { &[] } else { &access };
    let heartbeat = format!("{}s", HEARTBEAT.as_secs());
    let more = [
        "--shards",
        "1",
        "--heartbeat",
        &heartbeat,
        "--max-handshakes",
        "20000",
        "--max-connections",
        "20000",
    ];
    let gateway = Gateway::start_with(&[access, &more].concat());
    std::fs::remove_file(&tokens).expect("it was made above");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, measure(&options, &gateway));
}

async fn measure(options: &Options, gateway: &Gateway) {
    // Once for what is allocated once.
    round(options, gateway, 10).await;
    let base = gateway.program.resident();
    println!(
        "{} connections ({}), {}, heartbeat {HEARTBEAT:?}, {} topics; {} kB before",
        options.connections,
        if options.sse { "SSE" } else { "WebSocket" },
        if options.open { "no lease" } else { "a lease each" },
        options.topics,
        base >> 10
    );
    for _ in 0..options.rounds {
        let begun = Instant::now();
        let (opened, held, closed) = round(options, gateway, options.connections).await;
        println!(
            "  {:>5.0} B a connection ({} kB; {} kB when all had just come); after all have closed {} kB: {:+.1} % of the base ({:.0} s)",
            (held as f64 - base as f64) / options.connections as f64,
            held >> 10,
            opened >> 10,
            closed >> 10,
            100. * (closed as f64 / base as f64 - 1.),
            begun.elapsed().as_secs_f64(),
        );
    }
}

/// Opens connections, lets them be for two heartbeats, and closes them. The gateway's memory when the last has come, before they
/// close, and afterwards.
async fn round(options: &Options, gateway: &Gateway, connections: usize) -> (u64, u64, u64) {
    let over = Rc::new(Notify::new());
    for n in 0..connections {
        let topic = format!("bench/idle/{}", n % options.topics);
        let mut idle = Idle::open(gateway.address, &topic, options).await;
        let over = Rc::clone(&over);
        tokio::task::spawn_local(async move {
            tokio::select! {
                () = idle.stay() => panic!("a connection ended"),
                () = over.notified() => {}
            }
        });
    }
    let opened = gateway.program.resident();
    tokio::time::sleep(2 * HEARTBEAT).await;
    let held = gateway.program.resident();
    over.notify_waiters();
    let gauge = if options.sse { "sse" } else { "websockets" };
    while gateway.metric(gauge) > 0. {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // What is given back late is given back by now.
    tokio::time::sleep(Duration::from_secs(2)).await;
    (opened, held, gateway.program.resident())
}

/// One connection, on which nothing happens but heartbeats.
enum Idle {
    WebSocket(Box<WebSocket<longwire::net::NetStream>>),
    Sse(TcpStream),
}

impl Idle {
    /// Connects and waits for the first words.
    async fn open(address: SocketAddr, topic: &str, options: &Options) -> Self {
        if !options.sse {
            let url = format!("ws://{address}/v1/stream?topic={topic}");
            let how = ConnectOptions::default().header("Authorization", "Bearer idle");
            let mut socket = longwire::websocket::connect(&url, &how).await.expect("the gateway accepts");
            let hello = socket.recv().await;
            assert!(matches!(hello, Some(Ok(Event::Text(_)))), "{hello:?}");
            return Self::WebSocket(Box::new(socket));
        }
        let mut stream = TcpStream::connect(address).await.expect("the gateway accepts");
        let request = format!(
            "GET /v1/stream?topic={topic} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer idle\r\n\
             Accept: text/event-stream\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.expect("the gateway reads");
        let mut head = [0; 16];
        stream.read_exact(&mut head).await.expect("the gateway answers");
        assert!(head.starts_with(b"HTTP/1.1 200"), "{head:?}");
        Self::Sse(stream)
    }

    /// Answers heartbeats, until the gateway ends it.
    async fn stay(&mut self) {
        match self {
            Self::WebSocket(socket) => while matches!(socket.recv().await, Some(Ok(_))) {},
            Self::Sse(stream) => while matches!(stream.read(&mut [0; 1024]).await, Ok(1..)) {},
        }
    }
}
