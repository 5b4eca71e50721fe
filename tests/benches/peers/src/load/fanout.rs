//! One publisher, many readers. A burst goes out when every reader has the one before, so a server cannot gain by
//! letting events pile up; what it gains within a burst is what a burst is for.

use super::connect::{event_stream, try_echo, websocket};
use super::system::Usage;
use super::wire::{Kind, MARK, Message, Walk};
use super::{Result, Target, percentile};
use clap::Args;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use rustix::process::setpriority_process;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

/// Between two messages of the prober.
const PROBE_EVERY: Duration = Duration::from_millis(1);

/// After so long without a delivery something was lost.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Args)]
pub(crate) struct Options {
    /// `--connections` is the number of readers.
    #[command(flatten)]
    target: Target,
    #[arg(long, default_value_t = 100)]
    size: usize,
    /// Events that are published at once.
    #[arg(long, default_value_t = 1)]
    burst: usize,
    /// The readers use Server-Sent Events.
    #[arg(long)]
    sse: bool,
    /// Where readers subscribe.
    #[arg(long, default_value = "/sub")]
    sub: String,
    #[arg(long, default_value = "/pub")]
    publish: String,
    /// One connection echoes meanwhile, at /echo, every millisecond.
    #[arg(long)]
    probe: bool,
}

struct Readers {
    epoll: OwnedFd,
    streams: Vec<TcpStream>,
    /// Of WebSockets: a frame's header may contain any byte, the mark too.
    walks: Option<Vec<Walk>>,
    scratch: Vec<u8>,
    ready: Vec<epoll::Event>,
    delivered: u64,
}

pub(super) fn run(options: &Options) -> Result<Value> {
    let target = &options.target;
    let message = Message::new(Kind::Plain, options.size)?;
    let streams = (0..target.connections)
        .map(|n| subscribe(options).map_err(|error| format!("reader {n}: {error}").into()))
        .collect::<Result<Vec<_>>>()?;
    let mut publisher = websocket(target.addr, &options.publish, false)?;
    // A server may answer a subscription before it has taken it.
    sleep(Duration::from_millis(300));
    let mut readers = Readers::new(streams, &mut publisher, &message, options.sse)?;
    let prober = options.probe.then(|| Prober::start(target.addr)).transpose()?;

    let burst = message.frame.repeat(options.burst);
    let each = (target.connections * options.burst) as u64;
    let mut rounds = Vec::new();
    readers.rounds(&mut publisher, &burst, each, target.warm(), &mut rounds)?;
    rounds.clear();
    let before = (Usage::now(&target.pids)?, prober.as_ref().map(Prober::count));
    readers.rounds(&mut publisher, &burst, each, target.seconds(), &mut rounds)?;
    let after = (Usage::now(&target.pids)?, prober.as_ref().map(Prober::count));

    // A publication is one segment, and so are the prober's message and its echo.
    let probes = after.1.unwrap_or(0) - before.1.unwrap_or(0);
    let own = rounds.len() as u64 + 2 * probes;
    let mut result = before.0.until(&after.0, each * rounds.len() as u64, own)?;
    result["round_p50"] = json!(percentile(&mut rounds, 0.5));
    result["round_p99"] = json!(percentile(&mut rounds, 0.99));
    if let Some(prober) = prober {
        let mut delays = prober.stop()?;
        result["echo_p50"] = json!(percentile(&mut delays, 0.5));
        result["echo_p99"] = json!(percentile(&mut delays, 0.99));
    }
    Ok(result)
}

fn subscribe(options: &Options) -> Result<TcpStream> {
    if options.sse {
        return event_stream(options.target.addr, &options.sub);
    }
    websocket(options.target.addr, &options.sub, false)
}

impl Readers {
    /// Every reader has had the whole of one event.
    fn new(
        mut streams: Vec<TcpStream>,
        publisher: &mut TcpStream,
        message: &Message,
        sse: bool,
    ) -> Result<Self> {
        publisher.write_all(&message.frame)?;
        let mut scratch = vec![0; 256 << 10];
        for (n, stream) in streams.iter_mut().enumerate() {
            let mut came = Vec::new();
            // What the server sends before it may come along; after it nothing is due.
            while !came.windows(message.payload.len()).any(|part| part == message.payload) {
                match stream.read(&mut scratch) {
                    Ok(read) if read > 0 => came.extend_from_slice(&scratch[..read]),
                    end => return Err(format!("reader {n} did not get the first event: {end:?}").into()),
                }
            }
        }
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        for (n, stream) in streams.iter().enumerate() {
            epoll::add(&epoll, stream, EventData::new_u64(n as u64), EventFlags::IN)?;
        }
        let walks = (!sse).then(|| streams.iter().map(|_| Walk::default()).collect());
        Ok(Self { epoll, streams, walks, scratch, ready: Vec::with_capacity(1024), delivered: 0 })
    }

    /// Publishes bursts for so long; how long each took until the last reader had it.
    fn rounds(
        &mut self,
        publisher: &mut TcpStream,
        burst: &[u8],
        each: u64,
        time: Duration,
        rounds: &mut Vec<Duration>,
    ) -> Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            let begin = Instant::now();
            self.delivered = 0;
            publisher.write_all(burst)?;
            while self.delivered < each {
                self.receive()?;
            }
            rounds.push(begin.elapsed());
            if self.delivered > each {
                return Err(format!("{} deliveries instead of {each}", self.delivered).into());
            }
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<()> {
        self.ready.clear();
        let patience = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
        epoll::wait(&self.epoll, spare_capacity(&mut self.ready), Some(&patience))?;
        if self.ready.is_empty() {
            return Err(format!("stuck after {} deliveries of a burst", self.delivered).into());
        }
        for event in &self.ready {
            let n = event.data.u64() as usize;
            match recv(&self.streams[n], &mut *self.scratch, RecvFlags::DONTWAIT) {
                Ok((_, 0)) => return Err(format!("the server closed reader {n}").into()),
                Ok((came, _)) => {
                    let came = &self.scratch[..came];
                    let mut count = |bytes: &[u8]| {
                        self.delivered += bytes.iter().filter(|byte| **byte == MARK).count() as u64;
                    };
                    match &mut self.walks {
                        None => count(came),
                        Some(walks) => _ = walks[n].over(came, count)?,
                    }
                }
                Err(Errno::AGAIN) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// Echoes on a thread of its own: what everybody else on that server waits. Messages go out at their times, whether or
/// not those before have come back.
struct Prober {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    thread: JoinHandle<std::io::Result<Vec<Duration>>>,
}

impl Prober {
    fn start(address: SocketAddr) -> Result<Self> {
        let message = Message::new(Kind::Binary, 20)?;
        let mut stream = websocket(address, "/echo", false)?;
        try_echo(&mut stream, &message)?;
        let (stop, count) = (Arc::default(), Arc::default());
        let (stopped, counter) = (Arc::clone(&stop), Arc::clone(&count));
        let thread = spawn(move || probe(stream, &message, &stopped, &counter));
        Ok(Self { stop, count, thread })
    }

    fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    fn stop(self) -> Result<Vec<Duration>> {
        self.stop.store(true, Ordering::Relaxed);
        Ok(self.thread.join().map_err(|_| "the prober panicked")??)
    }
}

fn probe(
    mut stream: TcpStream,
    message: &Message,
    stop: &AtomicBool,
    count: &AtomicU64,
) -> std::io::Result<Vec<Duration>> {
    // Before the readers' thread, with which it shares a core; where that is not allowed, it waits a little longer.
    let _ = setpriority_process(None, -15);
    let reply = 2 + message.payload.len();
    let (mut came, mut bytes) = (0, [0; 4096]);
    let (mut sent, mut delays) = (VecDeque::new(), Vec::new());
    let mut due = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let now = Instant::now();
        if now >= due {
            stream.write_all(&message.frame)?;
            sent.push_back(now);
            count.fetch_add(1, Ordering::Relaxed);
            due = now.max(due + PROBE_EVERY);
        }
        let left = due.saturating_duration_since(Instant::now());
        let left = Timespec { tv_sec: 0, tv_nsec: left.subsec_nanos().into() };
        if poll(&mut [PollFd::new(&stream, PollFlags::IN)], Some(&left))? == 0 {
            continue;
        }
        let read = stream.read(&mut bytes)?;
        if read == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        came += read;
        while came >= reply {
            came -= reply;
            delays.extend(sent.pop_front().map(|sent| sent.elapsed()));
        }
    }
    // Those that have not come back have waited so long at least.
    delays.extend(sent.iter().map(Instant::elapsed));
    Ok(delays)
}
