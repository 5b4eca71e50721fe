//! Under virtual time: no event leaves after the end of a grant, whatever the socket and the publishers do.

use super::handle::LogHandle;
use super::shared::{Common, Shared};
use super::{Adoption, Data, Filter, Grant, HubConfig, LocalShard, LogConfig, Open, Protocol, Socket};
use crate::clock::Clock;
use longwire_core::log::{Pattern, Since, Topic};
use longwire_core::ws::FrameHeader;
use proptest::prelude::*;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::LocalSet;
use tokio::time::Instant;

/// A socket that takes as many bytes as the test gives it room for, and notes when.
#[derive(Default)]
struct Taken {
    bytes: Vec<u8>,
    /// Up to which of them was written, and when.
    times: Vec<(usize, Instant)>,
    room: usize,
    waker: Option<Waker>,
    closed: bool,
}

struct Wire(Arc<Mutex<Taken>>);

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut taken = self.0.lock().unwrap();
        let n = buf.len().min(taken.room);
        if n == 0 {
            taken.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        taken.room -= n;
        taken.bytes.extend_from_slice(&buf[..n]);
        let end = taken.bytes.len();
        taken.times.push((end, Instant::now()));
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // The client says nothing.
        Poll::Pending
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.0.lock().unwrap().closed = true;
    }
}

/// Stands behind what was cut off.
const CUT: &str = " -- cut off";

impl Taken {
    fn time_of(&self, byte: usize) -> Instant {
        self.times.iter().find(|(end, _)| byte < *end).unwrap().1
    }

    /// The pieces on the wire, each with the moment of its last byte; the last of them may be cut off.
    fn pieces(&self, protocol: Protocol) -> Vec<(String, Instant)> {
        let mut pieces = Vec::new();
        let mut start = 0;
        while start < self.bytes.len() {
            let rest = &self.bytes[start..];
            let len = match protocol {
                Protocol::Sse => rest.windows(2).position(|two| two == b"\n\n").map(|at| at + 2),
                _ => FrameHeader::parse(rest)
                    .unwrap()
                    .map(|(header, size)| size + usize::try_from(header.len).unwrap()),
            };
            let end = len.map_or(usize::MAX, |len| start + len);
            let whole = end <= self.bytes.len();
            let end = end.min(self.bytes.len());
            let mut text = String::from_utf8_lossy(&self.bytes[start..end]).into_owned();
            if !whole {
                text.push_str(CUT);
            }
            pieces.push((text, self.time_of(end - 1)));
            start = end;
        }
        pieces
    }
}

fn shared(renew_before: Duration) -> Arc<Shared> {
    let bounds = LogConfig { tail_events: 4, ..LogConfig::default() };
    let config =
        HubConfig { shards: 1, renew_before, heartbeat: Duration::from_secs(60), ..HubConfig::default() };
    let common = Common {
        websocket: Arc::new(config.websocket()),
        config: Arc::new(config),
        authorize: Arc::new(Open),
        revocations: Arc::default(),

        clock: Clock::start(),
        next: Arc::default(),
    };
    Arc::new(Shared::new("default", bounds, common).unwrap())
}

#[derive(Clone, Debug)]
enum Act {
    /// So many milliseconds go by.
    Wait(u64),
    /// An event of that size.
    Publish(usize),
    /// The socket takes so many bytes more.
    Room(usize),
    /// The grant is replaced by one of so many milliseconds (SSE).
    Renew(u64),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        3 => (1..40u64).prop_map(Act::Wait),
        3 => (1..2000usize).prop_map(Act::Publish),
        3 => prop_oneof![1..200usize, Just(1 << 20)].prop_map(Act::Room),
        1 => (1..200u64).prop_map(Act::Renew),
    ];
    proptest::collection::vec(act, 1..40)
}

/// Runs a script, and returns what was written, when the grant ended, and how many events left.
async fn run(
    protocol: Protocol,
    lease: u64,
    renew_before: u64,
    acts: Vec<Act>,
) -> (Vec<(String, Instant)>, Instant, bool) {
    let shared = shared(Duration::from_millis(renew_before));
    let serving = tokio::task::spawn_local(LocalShard::new(0, vec![Arc::clone(&shared)]).run());
    let log = LogHandle { shared: Arc::clone(&shared) };
    let taken = Arc::new(Mutex::new(Taken::default()));
    let mut deadline = Instant::now() + Duration::from_millis(lease);
    let all: Filter = Pattern::parse("**").into_iter().collect();
    let issued = Instant::now();
    log.adopt(Adoption {
        subscription: Some((all, Since::Now)),
        ..Adoption::new(
            Socket::Stream(Box::new(Wire(Arc::clone(&taken)))),
            protocol,
            Grant { expires: Some(deadline), issued, ..Grant::open() },
        )
    });
    let room = |bytes| {
        let mut taken = taken.lock().unwrap();
        taken.room += bytes;
        if let Some(waker) = taken.waker.take() {
            waker.wake();
        }
    };
    for act in acts {
        match act {
            Act::Wait(by) => tokio::time::sleep(Duration::from_millis(by)).await,
            Act::Publish(size) => {
                let json = format!("\"{}\"", "x".repeat(size));
                let data = Data::json(json.as_bytes()).unwrap();
                shared.append(Topic::parse("a").unwrap(), None, data).unwrap();
                tokio::task::yield_now().await;
            }
            Act::Room(bytes) => room(bytes),
            Act::Renew(by) => {
                let end = Instant::now() + Duration::from_millis(by);
                let grant = Grant { expires: Some(end), issued: Instant::now(), ..Grant::open() };
                if renew(&shared, &taken, grant).await {
                    deadline = end;
                }
            }
        }
    }
    // Beyond the end, with all the room there could be.
    tokio::time::sleep_until(deadline + Duration::from_millis(1)).await;
    room(1 << 30);
    tokio::time::sleep(Duration::from_secs(5)).await;
    serving.abort();
    let taken = taken.lock().unwrap();
    (taken.pieces(protocol), deadline, taken.closed)
}

/// As a request would do it, if the session is known already.
async fn renew(shared: &Arc<Shared>, taken: &Arc<Mutex<Taken>>, grant: Grant) -> bool {
    let name = {
        let taken = taken.lock().unwrap();
        let text = String::from_utf8_lossy(&taken.bytes);
        let name = text.split("\"session\":\"").nth(1).and_then(|rest| rest.split('"').next());
        name.filter(|name| name.len() > 40).map(str::to_owned)
    };
    let Some(name) = name else { return false };
    let secret = u128::from_str_radix(name.rsplit('-').next().unwrap(), 16).unwrap();
    let (answer, answered) = tokio::sync::oneshot::channel();
    let renewal = super::sessions::Renewal { secret, grant, answer };
    shared.shards[0].post(super::mailbox::Mail::Renew(Box::new(renewal)));
    answered.await.unwrap().is_ok()
}

fn virtually<T>(work: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    LocalSet::new().block_on(&runtime, work)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_event_leaves_after_the_deadline(
        sse: bool,
        lease in 1..300u64,
        renew_before in 0..100u64,
        acts in acts(),
    ) {
        let protocol = if sse { Protocol::Sse } else { Protocol::WebSocketJson };
        let (pieces, deadline, closed) = virtually(run(protocol, lease, renew_before, acts));
        for (text, at) in &pieces {
            // What is cut off counts as what it was.
            let event = text.contains("\"type\":\"event\"") || text.contains("xxx");
            prop_assert!(!event || *at < deadline, "{:?} after the deadline: {text:.200}", *at - deadline);
        }
        prop_assert!(closed, "the connection goes on");
        // Nothing was lost on the way out either: whoever could be told was told.
        if let Some((last, _)) = pieces.iter().rfind(|(text, _)| text.contains("\"type\"")) {
            let cut = pieces.last().is_some_and(|(text, _)| text.ends_with(CUT));
            prop_assert!(cut || last.contains("\"bye\""), "{last}");
        }
    }
}

/// The two cases for which the checks are there, by themselves.
#[test]
fn the_rest_of_an_event_that_is_blocked_at_the_deadline_never_leaves() {
    for protocol in [Protocol::WebSocketJson, Protocol::Sse] {
        // Room for the greeting, and for a part of the event.
        let acts = vec![Act::Room(600), Act::Wait(1), Act::Publish(5000), Act::Wait(1)];
        let (pieces, deadline, closed) = virtually(run(protocol, 50, 0, acts));
        let (last, at) = pieces.last().unwrap();
        assert!(last.contains("xxx") && last.len() < 5000 && *at < deadline && closed, "{last:.300}");
    }
}

#[test]
fn a_flood_ends_at_the_deadline_with_a_bye() {
    for protocol in [Protocol::WebSocketJson, Protocol::Sse] {
        let flood = (0..200).flat_map(|_| [Act::Publish(10), Act::Publish(10), Act::Wait(1)]);
        let acts = [Act::Room(1 << 30)].into_iter().chain(flood).collect();
        let (pieces, deadline, closed) = virtually(run(protocol, 100, 10, acts));
        let events: Vec<_> = pieces.iter().filter(|(text, _)| text.contains("\"type\":\"event\"")).collect();
        assert!(events.len() > 100 && events.iter().all(|(_, at)| *at < deadline), "{}", events.len());
        let renew = pieces.iter().filter(|(text, _)| text.contains("\"type\":\"renew\"")).count();
        assert_eq!((renew, closed), (1, true));
        assert!(pieces.iter().any(|(text, at)| text.contains("the grant has ended") && *at == deadline));
    }
}

#[test]
fn a_renewal_in_time_carries_the_events_on() {
    let acts = vec![
        Act::Room(1 << 30),
        Act::Wait(30),
        Act::Renew(100),
        Act::Wait(60),
        Act::Publish(3),
        Act::Wait(1),
    ];
    let (pieces, deadline, _) = virtually(run(Protocol::Sse, 50, 10, acts));
    let event = pieces.iter().find(|(text, _)| text.contains("xxx")).unwrap();
    assert!(event.1 < deadline);
    let hellos = pieces.iter().filter(|(text, _)| text.contains("\"type\":\"hello\"")).count();
    assert_eq!(hellos, 2, "the answer to a renewal stands in the stream: {pieces:?}");
}

/// A shard writes to its own sockets at once, and may come to it before the timer of the connection does.
#[test]
fn what_is_delivered_at_the_deadline_finds_a_check_there_and_does_not_wait_for_the_timer() {
    let text = virtually(async {
        let shared = shared(Duration::ZERO);
        tokio::task::spawn_local(LocalShard::new(0, vec![Arc::clone(&shared)]).run());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_nonblocking(true).unwrap();
        let mut client = tokio::net::TcpStream::from_std(client).unwrap();
        let lease = Duration::from_secs(3600);
        LogHandle { shared: Arc::clone(&shared) }.adopt(Adoption {
            subscription: Some((Pattern::parse("**").into_iter().collect(), Since::Now)),
            ..Adoption::new(
                Socket::Tcp(listener.accept().unwrap().0),
                Protocol::Sse,
                Grant { expires: Some(Instant::now() + lease), ..Grant::open() },
            )
        });
        let publish = || shared.append(Topic::parse("a").unwrap(), None, Data::json(b"\"xxx\"").unwrap());
        let mut text = Vec::new();
        // Until it is live, which the first event shows.
        for (mark, next) in [("caught_up", true), ("xxx", false)] {
            while !String::from_utf8_lossy(&text).contains(mark) {
                tokio::task::yield_now().await;
                let _ = client.try_read_buf(&mut text);
            }
            if next {
                publish().unwrap();
            }
        }
        // Both are due: the delivery, which is first in the queue, and the timer.
        publish().unwrap();
        tokio::time::advance(lease).await;
        tokio::io::AsyncReadExt::read_to_end(&mut client, &mut text).await.unwrap();
        String::from_utf8(text).unwrap()
    });
    assert_eq!(text.matches("xxx").count(), 1, "{text}");
    assert!(text.contains("the grant has ended"), "{text}");
}
