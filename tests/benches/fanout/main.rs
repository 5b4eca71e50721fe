//! What a gateway does while it delivers to many readers: rate, CPU time of a delivery, and how long others wait.
//!
//! One publisher publishes a burst, waits until every reader has it, and publishes the next. Meanwhile a prober on the
//! same shard measures two things: the *echo*, from a `pub` to its `ack`, and the *heartbeat*, from a Ping to its Pong.
//!
//! `cargo bench -p longwire-tests --bench fanout -- --help`

mod reader;

use longwire::websocket::{ConnectOptions, Event, WebSocket};
use longwire_tests::gateway::Gateway;
use reader::Reader;
use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Notify;
use tokio::task::LocalSet;

const HELP: &str = "\
What a gateway does while it delivers to many readers.

  --readers N     connections that read (default 1000)
  --silent N      further connections that subscribe and never read (default 0)
  --payload BYTES bytes of an event's data (default 100)
  --burst N       events published at once (default 1)
  --seconds N     how long to measure (default 5)
  --shards N      threads of the gateway that own connections (default 1)
  --sse           the readers use Server-Sent Events
  --apart         the prober is on a log of its own
";

struct Options {
    readers: usize,
    silent: usize,
    payload: usize,
    burst: usize,
    seconds: u64,
    shards: usize,
    sse: bool,
    apart: bool,
}

fn options() -> Options {
    let mut options = Options {
        readers: 1000,
        silent: 0,
        payload: 100,
        burst: 1,
        seconds: 5,
        shards: 1,
        sse: false,
        apart: false,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || {
            let number = arguments.next().and_then(|n| n.parse::<usize>().ok());
            number.unwrap_or_else(|| quit(&format!("{argument} wants a number")))
        };
        match &*argument {
            "--readers" => options.readers = number(),
            "--silent" => options.silent = number(),
            "--payload" => options.payload = number(),
            "--burst" => options.burst = number().max(1),
            "--seconds" => options.seconds = number() as u64,
            "--shards" => options.shards = number(),
            "--sse" => options.sse = true,
            "--apart" => options.apart = true,
            "--bench" => {} // cargo says so
            "--help" => {
                print!("{HELP}");
                std::process::exit(0);
            }
            _ => quit(&format!("{argument} is no option: see --help")),
        }
    }
    options
}

fn quit(why: &str) -> ! {
    eprintln!("fanout: {why}");
    std::process::exit(2);
}

/// What all readers together have got, and who waits for them to have it.
#[derive(Default)]
struct Progress {
    got: Cell<u64>,
    wanted: Cell<u64>,
    reached: Notify,
}

impl Progress {
    fn add(&self, events: u64) {
        self.got.set(self.got.get() + events);
        if self.got.get() >= self.wanted.get() {
            self.reached.notify_one();
        }
    }

    async fn until(&self, wanted: u64) {
        self.wanted.set(wanted);
        while self.got.get() < wanted {
            self.reached.notified().await;
        }
    }
}

fn main() {
    let options = options();
    let shards = options.shards.to_string();
    // Nobody here answers a Ping but the prober, and the gateway's memory is asked for while all are open.
    let more = [
        "--shards",
        &shards,
        "--max-rate",
        "1000000000",
        "--max-topic-rate",
        "1000000000",
        "--heartbeat",
        "1h",
        "--max-handshakes",
        "20000",
        "--max-connections",
        "20000",
    ];
    let log: &[&str] = if options.apart { &["--log", "apart"] } else { &[] };
    let gateway = Gateway::start_with(&[&more, log].concat());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, measure(&options, &gateway));
}

async fn measure(options: &Options, gateway: &Gateway) {
    let empty = gateway.program.resident();
    let progress = Rc::new(Progress::default());
    for _ in 0..options.readers {
        let mut reader = Reader::open(gateway.address, options.sse).await.expect("a reader connects");
        let progress = Rc::clone(&progress);
        tokio::task::spawn_local(async move {
            while let Ok(events) = reader.next().await {
                progress.add(events);
            }
            panic!("a reader's connection ended");
        });
    }
    let mut silent = Vec::new();
    for _ in 0..options.silent {
        silent
            .push(Reader::open_narrow(gateway.address, options.sse).await.expect("a silent reader connects"));
    }
    let mut publisher = session(gateway.address, "/v1").await;
    let data = "x".repeat(options.payload);
    let mut published = 0;
    // Once for the readers to be there, and for what is allocated once.
    round(&mut publisher, &data, options.burst, &mut published, &progress, options.readers).await;
    let idle = gateway.program.resident();
    // Whoever never reads has to be stuck before it is measured what that does to the others.
    let large = "x".repeat(32 << 10);
    while metric(gateway, "lagging") < options.silent as u64 {
        round(&mut publisher, &large, 1, &mut published, &progress, options.readers).await;
    }

    let over = Arc::new(AtomicBool::new(false));
    let prober = {
        // On a thread of its own: it must not wait behind the readers, which keep this one busy.
        let (over, address, log) = (Arc::clone(&over), gateway.address, options.apart);
        std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                probe(session(address, if log { "/v1/logs/apart" } else { "/v1" }).await, &over).await
            })
        })
    };
    let (cpu, begun, first) = (cpu(gateway), Instant::now(), progress.got.get());
    let mut rounds = Vec::new();
    while begun.elapsed() < Duration::from_secs(options.seconds) {
        let begun = Instant::now();
        round(&mut publisher, &data, options.burst, &mut published, &progress, options.readers).await;
        rounds.push(begun.elapsed());
    }
    let took = begun.elapsed().as_secs_f64();
    let cpu = self::cpu(gateway) - cpu;
    let delivered = (progress.got.get() - first) as f64;
    over.store(true, Ordering::Relaxed);
    let (echo, heartbeat) = prober.join().expect("the prober ends");

    let Options { readers, silent, payload, burst, shards, sse, .. } = options;
    let transport = if *sse { "SSE" } else { "WebSocket" };
    println!(
        "{readers} readers ({transport}), {silent} that never read, {payload} B, bursts of {burst}, {shards} shards{}",
        if options.apart { ", the prober on a log of its own" } else { "" }
    );
    println!(
        "  {:>9.0} deliveries/s, {:.2} us of the gateway's CPU each",
        delivered / took,
        cpu * 1e6 / delivered
    );
    println!("  gateway busy {:.0} %, this program {:.0} %", 100. * cpu / took, 100. * own_cpu() / took);
    println!("  a burst, until the last reader has it: {}", Quantiles::of(rounds));
    println!("  echo      {}", Quantiles::of(echo));
    println!("  heartbeat {}", Quantiles::of(heartbeat));
    println!(
        "  memory: {} kB empty, {} kB with readers, {} kB after",
        empty >> 10,
        idle >> 10,
        gateway.program.resident() >> 10
    );
    println!("  kernel: {} pages of TCP memory", tcp_pages());
    let (lagging, pinned, skipped) =
        (metric(gateway, "lagging"), metric(gateway, "pinned_bytes"), metric(gateway, "skipped_slow_total"));
    println!("  readers behind: {lagging}; {pinned} B pinned by what is half-sent; {skipped} events skipped");
}

/// Publishes a burst, and waits until everybody has it.
async fn round(
    publisher: &mut WebSocket<longwire::net::NetStream>,
    data: &str,
    burst: usize,
    published: &mut u64,
    progress: &Progress,
    readers: usize,
) {
    for _ in 0..burst {
        let message = format!(r#"{{"type":"pub","topic":"bench/fanout","data":"{data}"}}"#);
        publisher.feed(message).await.expect("the publisher's connection holds");
    }
    publisher.flush().await.expect("the publisher's connection holds");
    *published += burst as u64;
    progress.until(*published * readers as u64).await;
}

async fn session(address: std::net::SocketAddr, log: &str) -> WebSocket<longwire::net::NetStream> {
    let url = format!("ws://{address}{log}/stream");
    let options = ConnectOptions::default().subprotocol("longwire.v1.json");
    let mut socket = longwire::websocket::connect(&url, &options).await.expect("the gateway accepts");
    let hello = socket.recv_message().await;
    assert!(matches!(hello, Some(Ok(_))), "{hello:?}");
    socket
}

/// Measures echo and heartbeat in turn, each right after the one before.
async fn probe(
    mut socket: WebSocket<longwire::net::NetStream>,
    over: &AtomicBool,
) -> (Vec<Duration>, Vec<Duration>) {
    let (mut echo, mut heartbeat) = (Vec::new(), Vec::new());
    for n in 1u64.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let begun = Instant::now();
        let message = format!(r#"{{"type":"pub","n":{n},"topic":"bench/echo","data":0}}"#);
        socket.send_text(&message).await.expect("the prober's connection holds");
        heard(&mut socket, |event| matches!(event, Event::Text(text) if text.as_str().contains("\"ack\"")))
            .await;
        echo.push(begun.elapsed());
        let begun = Instant::now();
        socket.ping(b"?").await.expect("the prober's connection holds");
        heard(&mut socket, |event| matches!(event, Event::Pong(b"?"))).await;
        heartbeat.push(begun.elapsed());
    }
    (echo, heartbeat)
}

async fn heard(
    socket: &mut WebSocket<longwire::net::NetStream>,
    mut awaited: impl FnMut(&Event<'_>) -> bool,
) {
    while !awaited(&socket.recv().await.expect("it is open").expect("it holds")) {}
}

/// The value of one of the gateway's metrics, of the default log if there are several.
fn metric(gateway: &Gateway, name: &str) -> u64 {
    let text = gateway.get("/metrics").body;
    let text = String::from_utf8_lossy(&text);
    let name = format!("longwire_{name}");
    let mut values = text.lines().filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let (series, label) = series.split_once('{').unwrap_or((series, "default"));
        (series == name && label.contains("default")).then(|| value.parse().ok()).flatten()
    });
    values.next().expect("the gateway has this metric")
}

struct Quantiles(Vec<Duration>);

impl Quantiles {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }
}

impl std::fmt::Display for Quantiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let at = |share: f64| self.0.get((self.0.len() as f64 * share) as usize).or(self.0.last());
        let ms = |time: Option<&Duration>| time.map_or(f64::NAN, |time| time.as_secs_f64() * 1e3);
        let (p50, p99, max) = (ms(at(0.5)), ms(at(0.99)), ms(self.0.last()));
        write!(f, "p50 {p50:.2} ms, p99 {p99:.2} ms, max {max:.2} ms ({} samples)", self.0.len())
    }
}

/// Seconds of CPU time that the gateway has used.
fn cpu(gateway: &Gateway) -> f64 {
    cpu_of(&format!("/proc/{}/stat", gateway.program.pid()))
}

fn own_cpu() -> f64 {
    cpu_of("/proc/self/stat")
}

fn cpu_of(path: &str) -> f64 {
    let stat = std::fs::read_to_string(path).expect("Linux says it");
    let (_, fields) = stat.rsplit_once(") ").expect("the name is in parentheses");
    let ticks: Vec<u64> = fields.split(' ').skip(11).take(2).map(|n| n.parse().expect("a number")).collect();
    ticks.iter().sum::<u64>() as f64 / rustix::param::clock_ticks_per_second() as f64
}

/// Memory that the kernel's TCP uses now, on the whole machine.
fn tcp_pages() -> String {
    let stat = std::fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
    let tcp = stat.lines().find(|line| line.starts_with("TCP:")).unwrap_or_default();
    tcp.rsplit(' ').next().unwrap_or("?").to_owned()
}

/// A new connection; with a narrow one this end of the kernel takes little that nobody reads.
async fn connected(address: std::net::SocketAddr, narrow: bool) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if narrow {
        socket.set_recv_buffer_size(4 << 10)?;
    }
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
