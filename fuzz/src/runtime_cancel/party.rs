//! One end: what it does, what it said, and what it heard.

use super::stream::{Script, Stream};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use longwire::websocket::{CloseCause, CloseCode, Error, Event, Message, Receiver, Sender, WebSocket};
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use tokio::sync::Notify;

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It will be sent.
    Taken,
    /// It will not.
    Refused,
    /// A `send` was dropped: all of it, or nothing.
    Unknown,
}

/// How a connection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Course {
    /// Each end says all that it has to say, and then they close.
    Orderly,
    /// An end may close at any moment: what the other one has not flushed by then may be lost.
    Hasty,
    /// The same, because the stream is cut.
    Cut,
}

/// The last message.
const END: &str = "end";

pub(super) struct Party<'d> {
    script: &'d Script<'d>,
    name: &'static str,
    closes: bool,
    course: Course,
    said: RefCell<Vec<(Message, Fate)>>,
    heard: RefCell<Vec<Message>>,
    /// Pings by the length of their payload.
    pings_said: RefCell<Vec<(usize, Fate)>>,
    pings_heard: RefCell<Vec<usize>>,
    pongs_heard: RefCell<Vec<usize>>,
    /// How many messages a flush has covered.
    flushed: Cell<usize>,
    /// Control frames were passed over, so not all were heard.
    passed_over: Cell<bool>,
    heard_end: Cell<bool>,
    over: Cell<bool>,
    /// Tells the sending half of either.
    news: Notify,
}

/// A connection, whole or in halves.
#[expect(clippy::large_enum_variant, reason = "there are two of them in all")]
enum Socket<'d> {
    Whole(WebSocket<Stream<'d>>),
    Halves(Sender<Stream<'d>>, Receiver<Stream<'d>>),
}

/// Polls a future at most `n` times, whether it was woken or not, then drops it. `None`: it was not ready.
async fn at_most<T>(n: usize, future: impl Future<Output = T>) -> Option<T> {
    let (mut future, mut left) = (pin!(future), n);
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending if left == 0 => Poll::Ready(None),
        Poll::Pending => {
            left -= 1;
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await
}

/// Does the same with whichever half it is for.
macro_rules! sender {
    ($socket:expr, $s:ident => $does:expr) => {
        match &mut $socket {
            Socket::Whole($s) => $does.await,
            Socket::Halves($s, _) => $does.await,
        }
    };
}

macro_rules! receiver {
    ($socket:expr, $r:ident => $does:expr) => {
        match &mut $socket {
            Socket::Whole($r) => $does.await,
            Socket::Halves(_, $r) => $does.await,
        }
    };
}

impl<'d> Party<'d> {
    pub(super) fn new(script: &'d Script<'d>, name: &'static str, closes: bool, course: Course) -> Self {
        Self {
            script,
            name,
            closes,
            course,
            said: RefCell::default(),
            heard: RefCell::default(),
            pings_said: RefCell::default(),
            pings_heard: RefCell::default(),
            pongs_heard: RefCell::default(),
            flushed: Cell::default(),
            passed_over: Cell::default(),
            heard_end: Cell::default(),
            over: Cell::default(),
            news: Notify::new(),
        }
    }

    /// What the script says, then the last message, then the closing handshake.
    pub(super) async fn run(&self, socket: WebSocket<Stream<'d>>) {
        let mut socket = Socket::Whole(socket);
        while !self.script.borrow().is_empty() && !self.over.get() {
            socket = self.act(socket).await;
            // Let the other end go on.
            tokio::task::yield_now().await;
        }
        match socket {
            Socket::Whole(socket) => self.finish(socket).await,
            Socket::Halves(sender, receiver) => {
                // Each half has a waker of its own, as two tasks would have.
                let mut halves = FuturesUnordered::<Pin<Box<dyn Future<Output = ()> + '_>>>::new();
                halves.push(Box::pin(self.finish_sending(sender)));
                halves.push(Box::pin(self.finish_receiving(receiver)));
                while halves.next().await.is_some() {}
            }
        }
    }

    fn upto(&self, max: usize) -> usize {
        self.script.borrow_mut().upto(max)
    }

    /// One act of the script.
    async fn act(&self, mut socket: Socket<'d>) -> Socket<'d> {
        let (act, polls) = (self.upto(10), self.upto(3));
        match act {
            0 | 1 => {
                receiver!(socket, r => at_most(polls, async { self.hear(r.recv().await) }));
            }
            2 => {
                self.passed_over.set(true);
                match receiver!(socket, r => at_most(polls, r.recv_message())) {
                    None => {}
                    Some(Some(Ok(message))) => self.hear_message(message),
                    Some(Some(Err(error))) => self.end(Some(error)),
                    Some(None) => self.end(None),
                }
            }
            3 | 4 => {
                let message = self.message();
                let fed = sender!(socket, s => at_most(polls, s.feed(message.clone())));
                // It is taken if it is ready, and only then.
                self.fed(message, fed);
            }
            5 => {
                let message = self.message();
                let sent = sender!(socket, s => at_most(polls, s.send(message.clone())));
                self.sent(message, sent, matches!(socket, Socket::Whole(_)));
            }
            6 => {
                let message = self.message();
                let sent = match &message {
                    Message::Text(text) => sender!(socket, s => at_most(polls, s.send_text(text))),
                    Message::Binary(data) => sender!(socket, s => at_most(polls, s.send_binary(data))),
                };
                self.sent(message, sent, matches!(socket, Socket::Whole(_)));
            }
            7 => {
                let flushed = sender!(socket, s => at_most(polls, s.flush()));
                self.covered(&flushed);
                self.allow(flushed);
            }
            8 => {
                // No two Pings in a row have the same length; none is empty.
                let len = 1 + self.pings_said.borrow().len() % 125;
                let sent = sender!(socket, s => at_most(polls, s.ping(&vec![0; len])));
                let fate = self.fate(sent, Fate::Unknown);
                self.pings_said.borrow_mut().push((len, fate));
            }
            // Not too often, or nothing is ever said.
            9 if self.course == Course::Hasty && self.upto(3) == 0 => match &mut socket {
                Socket::Whole(socket) => socket.start_close(CloseCode::NORMAL, "hasty"),
                Socket::Halves(sender, _) => {
                    let closed = at_most(polls, sender.close(CloseCode::NORMAL, "hasty")).await;
                    self.allow(closed);
                }
            },
            9 => {}
            _ => {
                return match socket {
                    Socket::Whole(socket) => {
                        let (sender, receiver) = socket.split();
                        Socket::Halves(sender, receiver)
                    }
                    Socket::Halves(sender, receiver) => Socket::Whole(receiver.reunite(sender).ok().unwrap()),
                };
            }
        }
        socket
    }

    /// A message that is like no other, in either kind, as compressible as the script likes.
    fn message(&self) -> Message {
        let (n, len) = (self.said.borrow().len(), self.upto(1000));
        let text = format!("{} {n} {}", self.name, "€".repeat(len / 3));
        if len % 2 == 0 { Message::text(text) } else { Message::binary(text.into_bytes()) }
    }

    /// A message was fed, or not.
    fn fed(&self, message: Message, result: Option<Result<(), Error>>) {
        let fate = self.fate(result, Fate::Refused);
        self.said.borrow_mut().push((message, fate));
    }

    /// A message was sent, or its future was dropped.
    /// Of a message that was sent. By the half that sends it is on its way; the whole may hold it back for the next one.
    fn sent(&self, message: Message, result: Option<Result<(), Error>>, whole: bool) {
        let flushed = !whole && matches!(result, Some(Ok(())));
        let fate = self.fate(result, Fate::Unknown);
        self.said.borrow_mut().push((message, fate));
        if flushed {
            self.flushed.set(self.said.borrow().len());
        }
    }

    fn fate(&self, result: Option<Result<(), Error>>, otherwise: Fate) -> Fate {
        match result {
            Some(Ok(())) => Fate::Taken,
            failed => {
                self.allow(failed);
                otherwise
            }
        }
    }

    /// Nothing fails on an orderly course.
    fn allow(&self, result: Option<Result<(), Error>>) {
        if let Some(Err(error)) = result {
            assert!(self.course != Course::Orderly, "{}: {error}", self.name);
        }
    }

    fn hear(&self, event: Option<Result<Event<'_>, Error>>) {
        match event {
            Some(Ok(Event::Ping(payload))) => self.pings_heard.borrow_mut().push(payload.len()),
            Some(Ok(Event::Pong(payload))) => self.pongs_heard.borrow_mut().push(payload.len()),
            Some(Ok(Event::Close(close))) => assert_eq!(close.code, Some(CloseCode::NORMAL)),
            Some(Ok(event)) => self.hear_message(Message::from_event(&event).unwrap()),
            Some(Err(error)) => self.end(Some(error)),
            None => self.end(None),
        }
    }

    fn hear_message(&self, message: Message) {
        assert!(!self.heard_end.get(), "something behind the end");
        self.heard_end.set(message.as_str() == Some(END));
        self.heard.borrow_mut().push(message);
        self.news.notify_one();
    }

    fn end(&self, error: Option<Error>) {
        self.allow(error.map(Err));
        self.over.set(true);
        self.news.notify_one();
    }

    /// The last message and the end, of a connection in one piece.
    async fn finish(&self, mut socket: WebSocket<Stream<'d>>) {
        let (mut last, mut closing) = (Some(Message::text(END)), false);
        while !self.over.get() {
            if self.closes && !closing && last.is_none() && self.heard_end.get() {
                closing = true;
                self.close(&mut socket).await;
                continue;
            }
            // Both at once, as `select!` does in a loop: both futures are new each time.
            poll_fn(|cx| {
                if let Some(message) = last.clone()
                    && let Poll::Ready(fed) = pin!(socket.feed(message.clone())).poll(cx)
                {
                    self.fed(message, Some(fed));
                    last = None;
                    return Poll::Ready(());
                }
                pin!(socket.recv()).poll(cx).map(|event| self.hear(event))
            })
            .await;
        }
        assert!(self.course == Course::Cut || socket.close_cause() == Some(CloseCause::Clean));
    }

    /// Begins to close, and goes on receiving; or closes, at the second attempt.
    async fn close(&self, socket: &mut WebSocket<Stream<'d>>) {
        if self.said.borrow().len().is_multiple_of(2) {
            return socket.start_close(CloseCode::NORMAL, "");
        }
        let closed = match at_most(1, socket.close(CloseCode::NORMAL, "")).await {
            Some(closed) => closed,
            None => socket.close(CloseCode::NORMAL, "").await,
        };
        // What came meanwhile was dropped.
        self.passed_over.set(true);
        self.end(closed.err());
    }

    /// The same, of the half that sends.
    async fn finish_sending(&self, mut sender: Sender<Stream<'d>>) {
        let last = Message::text(END);
        let fed = sender.feed(last.clone()).await;
        self.fed(last, Some(fed));
        let flushed = Some(sender.flush().await);
        self.covered(&flushed);
        self.allow(flushed);
        while self.closes && !self.heard_end.get() && !self.over.get() {
            self.news.notified().await;
        }
        if self.closes {
            let closed = sender.close(CloseCode::NORMAL, "").await;
            self.allow(Some(closed));
        }
    }

    /// And of the half that receives.
    async fn finish_receiving(&self, mut receiver: Receiver<Stream<'d>>) {
        while !self.over.get() {
            self.hear(receiver.recv().await);
        }
        assert!(self.course == Course::Cut || receiver.close_cause() == Some(CloseCause::Clean));
    }

    fn covered(&self, flushed: &Option<Result<(), Error>>) {
        if let Some(Ok(())) = flushed {
            self.flushed.set(self.said.borrow().len());
        }
    }

    /// What this end said, the other one heard.
    pub(super) fn check(&self, other: &Self) {
        let (said, heard) = (self.said.borrow(), other.heard.borrow());
        let (mut heard, mut lost) = (heard.iter().peekable(), false);
        for (n, (message, fate)) in said.iter().enumerate() {
            if heard.next_if(|next| *next == message).is_some() {
                assert!(*fate != Fate::Refused, "{n} was heard, and never taken");
                assert!(!lost, "{n} was heard, and one before it was not");
            } else if *fate == Fate::Taken {
                assert!(
                    self.course != Course::Orderly && n >= self.flushed.get(),
                    "{n} of {} was lost",
                    self.name
                );
                lost = true;
            }
        }
        assert_eq!(heard.next(), None, "repeated, out of order, or nobody's");

        let pings = self.pings_said.borrow();
        let orderly = self.course == Course::Orderly;
        woven(&pings, &other.pings_heard.borrow(), orderly && !other.passed_over.get());
        woven(&pings, &self.pongs_heard.borrow(), orderly && !self.passed_over.get());
    }
}

/// What was heard are Pings that were said, in order; all that were taken, if `all` were heard.
fn woven(said: &[(usize, Fate)], heard: &[usize], all: bool) {
    let mut heard = heard.iter().peekable();
    for (len, fate) in said {
        let found = heard.next_if(|next| *next == len).is_some();
        assert!(found || !all || *fate != Fate::Taken, "a Ping of {len} bytes was lost");
    }
    assert_eq!(heard.next(), None, "a Ping, or its answer, that nobody sent");
}
