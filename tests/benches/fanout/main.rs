//! What a gateway does while it delivers to many readers: rate, CPU time of a delivery, and how long others wait.
//!
//! One publisher publishes a burst, waits until every reader has it, and publishes the next. Meanwhile a prober on the
//! same shard measures two things: the *echo*, from a `pub` to its `ack`, and the *heartbeat*, from a Ping to its Pong.
//!
//! `cargo bench -p longwire-tests --bench fanout -- --help`

mod gateway;
mod probe;
mod reader;

use gateway::{Gateway, own_cpu};
use longwire::net::NetStream;
use longwire::websocket::{ConnectOptions, WebSocket};
use longwire_tests::command_line::CommandLine;
use probe::Quantiles;
use reader::{MARK, Progress, Reader};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const HELP: &str = "\
What a gateway does while it delivers to many readers.

  --readers N     connections that read (default 1000)
  --silent N      further connections that subscribe and never read (default 0)
  --payload BYTES bytes of an event's data (default 100)
  --burst N       events published at once (default 1)
  --seconds N     how long to measure (default 5)
  --shards N      threads of the gateway that own connections (default 1)
  --pace MS       time between two probes (default 1); 0: each right after the one before
  --sse           the readers use Server-Sent Events
  --tls           all connections use TLS
  --apart         the prober is on a log of its own
  --matrix        {WebSocket, SSE} x {plain, TLS} x {1000, 10000 readers} x {single events, bursts of 16} x {1, 2 shards},
                  as a table; --payload, --seconds and --pace count
";

#[derive(Clone)]
struct Options {
    readers: usize,
    silent: usize,
    payload: usize,
    bursts: Vec<usize>,
    seconds: u64,
    shards: usize,
    pace: Duration,
    sse: bool,
    tls: bool,
    apart: bool,
    matrix: bool,
}

fn options() -> Options {
    let mut options = Options {
        readers: 1000,
        silent: 0,
        payload: 100,
        bursts: vec![1],
        seconds: 5,
        shards: 1,
        pace: Duration::from_millis(1),
        sse: false,
        tls: false,
        apart: false,
        matrix: false,
    };
    let mut line = CommandLine::new("fanout", HELP);
    while let Some(option) = line.option() {
        match &*option {
            "--readers" => options.readers = line.number(&option).max(1),
            "--silent" => options.silent = line.number(&option),
            "--payload" => options.payload = line.number(&option).max(1),
            "--burst" => options.bursts = vec![line.number(&option).max(1)],
            "--seconds" => options.seconds = line.number(&option) as u64,
            "--shards" => options.shards = line.number(&option),
            "--pace" => options.pace = Duration::from_millis(line.number(&option) as u64),
            "--sse" => options.sse = true,
            "--tls" => options.tls = true,
            "--apart" => options.apart = true,
            "--matrix" => options.matrix = true,
            _ => line.unknown(&option),
        }
    }
    options
}

fn main() {
    let options = options();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    if !options.matrix {
        return runtime.block_on(one(&options));
    }
    println!(
        "| readers | | event | shards | deliveries/s | gateway's CPU each | sends each | gateway, readers busy | echo p50, p99 |\n\
         |---|---|---|---|---|---|---|---|---|"
    );
    for (sse, tls) in [(false, false), (true, false), (false, true), (true, true)] {
        for (readers, shards) in [(1000, 1), (1000, 2), (10_000, 1), (10_000, 2)] {
            let bursts = vec![1, 16];
            let options = Options { readers, shards, sse, tls, bursts, ..options.clone() };
            runtime.block_on(rows(&options));
        }
    }
}

/// Connections that are open, and what was published to them.
struct Load<'a> {
    gateway: &'a Gateway,
    publisher: WebSocket<NetStream>,
    progress: Arc<Progress>,
    published: u64,
}

impl Drop for Load<'_> {
    fn drop(&mut self) {
        self.progress.over.store(true, Ordering::SeqCst);
    }
}

impl Load<'_> {
    /// Publishes a burst, and waits until everybody has it.
    async fn round(&mut self, payload: usize, burst: usize) {
        let mut data = vec![b'x'; payload.saturating_sub(MARK.len())];
        data.extend_from_slice(MARK);
        let data = String::from_utf8_lossy(&data);
        let message = format!(r#"{{"type":"pub","topic":"bench/fanout","data":"{data}"}}"#);
        for _ in 0..burst {
            self.publisher.feed(message.clone()).await.expect("the publisher's connection holds");
        }
        self.published += burst as u64;
        self.progress.want(self.published);
        self.publisher.flush().await.expect("the publisher's connection holds");
        self.progress.until(self.published).await;
    }
}

/// What was measured.
struct Measured {
    burst: usize,
    rate: f64,
    /// Microseconds of the gateway's CPU for a delivery, and writes.
    cpu: f64,
    writes: f64,
    /// Shares of one core.
    gateway: f64,
    load: f64,
    rounds: Quantiles,
    echo: Quantiles,
    heartbeat: Quantiles,
}

async fn measure(options: &Options, load: &mut Load<'_>, burst: usize) -> Measured {
    let over = Arc::new(AtomicBool::new(false));
    let prober = {
        let path = if options.apart { "/v1/logs/apart" } else { "/v1" };
        let session = session(load.gateway.address, load.gateway.tls.clone(), path);
        // On a thread of its own: it must not wait behind the publisher.
        probe::spawn(session, options.pace, Arc::clone(&over))
    };
    let gateway = load.gateway;
    let counts = || (gateway.metric("writes_total"), gateway.metric("delivered_total"));
    let before = counts();
    let (cpu, own) = (gateway.cpu(), own_cpu());
    let (begun, first) = (Instant::now(), load.published);
    let mut rounds = Vec::new();
    while begun.elapsed() < Duration::from_secs(options.seconds) {
        let begun = Instant::now();
        load.round(options.payload, burst).await;
        rounds.push(begun.elapsed());
    }
    let took = begun.elapsed().as_secs_f64();
    let (cpu, own) = (gateway.cpu() - cpu, own_cpu() - own);
    over.store(true, Ordering::Relaxed);
    let (echo, heartbeat) = prober.join().expect("the prober ends");
    let after = counts();
    let delivered = (load.published - first) as f64 * options.readers as f64;
    // The prober's acknowledgements and Pongs are writes, too: two for each of its samples.
    let writes = (after.0 - before.0).saturating_sub(2 * echo.len() as u64) as f64;
    Measured {
        burst,
        rate: delivered / took,
        cpu: cpu * 1e6 / delivered,
        writes: writes / (after.1 - before.1) as f64,
        gateway: cpu / took,
        load: own / took,
        rounds: Quantiles::of(rounds),
        echo: Quantiles::of(echo),
        heartbeat: Quantiles::of(heartbeat),
    }
}

async fn open<'a>(options: &Options, gateway: &'a Gateway) -> Load<'a> {
    let readers = (0..options.readers).map(|_| Reader::open(gateway, options.sse, false));
    let readers = readers.collect::<Result<Vec<_>, _>>().expect("the readers connect");
    let progress = Arc::new(Progress::default());
    reader::spawn(readers, Arc::clone(&progress)).expect("they are read");
    let publisher = session(gateway.address, gateway.tls.clone(), "/v1").await;
    Load { gateway, publisher, progress, published: 0 }
}

/// Rows of the matrix: the same readers, in turn with each burst.
async fn rows(options: &Options) {
    let gateway = Gateway::start(options.shards, options.tls, &[]);
    let mut load = open(options, &gateway).await;
    for burst in &options.bursts {
        // For what is allocated once.
        load.round(options.payload, *burst).await;
        let measured = measure(options, &mut load, *burst).await;
        println!(
            "| {} | {}{} | {} | {} | {:.0} | {:.2} us | {:.2} | {:.0} %, {:.0} % | {} |",
            options.readers,
            if options.sse { "SSE" } else { "WebSocket" },
            if options.tls { ", TLS" } else { "" },
            if *burst == 1 { "single".to_owned() } else { format!("bursts of {burst}") },
            options.shards,
            measured.rate,
            measured.cpu,
            measured.writes,
            measured.gateway * 100.,
            measured.load * 100.,
            measured.echo.short(),
        );
    }
}

async fn one(options: &Options) {
    let log: &[&str] = if options.apart { &["--log", "apart"] } else { &[] };
    let gateway = Gateway::start(options.shards, options.tls, log);
    let empty = gateway.program.resident();
    let mut load = open(options, &gateway).await;
    let open = gateway.program.resident();
    let silent = (0..options.silent).map(|_| Reader::open(&gateway, options.sse, true));
    let _silent = silent.collect::<Result<Vec<_>, _>>().expect("the silent readers connect");
    let Options { readers, silent, payload, shards, .. } = options;
    // For what is allocated once.
    load.round(*payload, options.bursts[0]).await;
    // Whoever never reads has to be stuck before it is measured what that does to the others.
    while gateway.metric("lagging") < *silent as u64 {
        load.round(32 << 10, 1).await;
    }
    for burst in &options.bursts {
        let measured = measure(options, &mut load, *burst).await;
        println!(
            "{readers} readers ({}{}), {silent} that never read, {payload} B, bursts of {}, {shards} shards{}",
            if options.sse { "SSE" } else { "WebSocket" },
            if options.tls { ", TLS" } else { "" },
            measured.burst,
            if options.apart { ", the prober on a log of its own" } else { "" }
        );
        println!(
            "  {:>9.0} deliveries/s, {:.2} us of the gateway's CPU and {:.2} sends each",
            measured.rate, measured.cpu, measured.writes
        );
        let (gateway, load) = (measured.gateway * 100., measured.load * 100.);
        println!("  gateway busy {gateway:.0} %, this program {load:.0} %");
        println!("  a burst, until the last reader has it: {}", measured.rounds);
        println!("  echo      {}", measured.echo);
        println!("  heartbeat {}", measured.heartbeat);
    }
    println!(
        "  memory: {} kB empty, {} kB with readers ({} B each), {} kB after",
        empty >> 10,
        open >> 10,
        open.saturating_sub(empty) / *readers as u64,
        gateway.program.resident() >> 10
    );
    println!("  kernel: {} pages of TCP memory", tcp_pages());
    let [lagging, pinned, skipped] =
        ["lagging", "pinned_bytes", "skipped_slow_total"].map(|name| gateway.metric(name));
    println!("  readers behind: {lagging}; {pinned} B pinned by what is half-sent; {skipped} events skipped");
}

/// A connection for publications.
async fn session(
    address: SocketAddr,
    tls: Option<Arc<rustls::ClientConfig>>,
    log: &str,
) -> WebSocket<NetStream> {
    let scheme = if tls.is_some() { "wss" } else { "ws" };
    let url = format!("{scheme}://{address}{log}/stream");
    let mut options = ConnectOptions::default().subprotocol("longwire.v1.json");
    options = tls.into_iter().fold(options, ConnectOptions::tls);
    let mut socket = longwire::websocket::connect(&url, &options).await.expect("the gateway accepts");
    let hello = socket.recv_message().await;
    assert!(matches!(hello, Some(Ok(_))), "{hello:?}");
    socket
}

/// Memory that the kernel's TCP uses now, on the whole machine.
fn tcp_pages() -> String {
    let stat = std::fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
    let tcp = stat.lines().find(|line| line.starts_with("TCP:")).unwrap_or_default();
    tcp.rsplit(' ').next().unwrap_or("?").to_owned()
}
