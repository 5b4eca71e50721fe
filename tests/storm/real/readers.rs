//! Many subscribers, and what each of them saw.

use longwire::client::{Data, Endpoint, Event, GapReason, Item, Position, State};
use longwire::client::{Subscriber, Subscription, Transport};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// The topic of the numbered events.
pub(crate) const TOPIC: &str = "storm/number";

/// What one reader saw.
#[derive(Debug, Default)]
pub(crate) struct Book {
    /// The number that comes next, once there was one.
    next: Option<u64>,
    /// Numbers that were left out without a gap, and numbers that came again.
    pub(crate) lost: u64,
    pub(crate) repeated: u64,
    /// Gaps: the log is another one, or something was evicted or skipped.
    pub(crate) resets: u64,
    pub(crate) gaps: u64,
    pub(crate) attempts: Vec<Instant>,
    pub(crate) connected: Vec<Instant>,
    /// When the past was complete.
    pub(crate) caught_up: Vec<Instant>,
    /// Why it waited.
    pub(crate) waited: Vec<String>,
}

impl Book {
    fn write(&mut self, item: Item) {
        match item {
            Item::Event(event) => self.event(&event),
            Item::Gap(gap) => {
                // What was known is void; the state follows.
                self.next = None;
                *(if gap.reason == GapReason::Reset { &mut self.resets } else { &mut self.gaps }) += 1;
            }
            Item::CaughtUp(_) => self.caught_up.push(Instant::now()),
            Item::State(State::Connecting(_)) => self.attempts.push(Instant::now()),
            Item::State(State::Connected(_)) => self.connected.push(Instant::now()),
            Item::State(State::Waiting { why, .. }) => self.waited.push(why),
            _ => {}
        }
    }

    fn event(&mut self, event: &Event) {
        let number: u64 = match &event.data {
            Data::Json(json) => String::from_utf8_lossy(json).parse().expect("a number was published"),
            _ => panic!("numbers only were published"),
        };
        match (event.position, self.next) {
            (Position::At(_), Some(next)) if number < next => return self.repeated += 1,
            (Position::At(_), Some(next)) => self.lost += number - next,
            // The state, or the first event of a log that had none.
            _ => {}
        }
        self.next = Some(number + 1);
    }

    /// The last number that it saw.
    pub(crate) fn last(&self) -> u64 {
        self.next.map_or(0, |next| next - 1)
    }
}

/// Subscribers that run until this is dropped.
pub(crate) struct Readers {
    books: Vec<Arc<Mutex<Book>>>,
    _tasks: JoinSet<()>,
}

impl Readers {
    /// Starts so many, evenly within `over`, on each of these addresses in turn.
    pub(crate) fn start(count: usize, urls: &[String], over: Duration) -> Self {
        let mut tasks = JoinSet::new();
        let books = (0..count).zip(urls.iter().cycle()).map(|(number, url)| {
            let book = Arc::new(Mutex::new(Book::default()));
            let endpoint = Endpoint::new(url).expect("a good URL");
            let subscription = Subscription::new([TOPIC]).transport(Transport::WebSocket);
            let mut subscriber = Subscriber::new(endpoint, subscription).expect("a good subscription");
            let begin = over.mul_f64(number as f64 / count as f64);
            tasks.spawn({
                let book = Arc::clone(&book);
                async move {
                    tokio::time::sleep(begin).await;
                    while let Some(item) = subscriber.next().await {
                        open(&book).write(item.expect("nothing here is for good"));
                    }
                }
            });
            book
        });
        Self { books: books.collect(), _tasks: tasks }
    }

    pub(crate) fn books(&self) -> impl Iterator<Item = MutexGuard<'_, Book>> {
        self.books.iter().map(open)
    }

    /// Waits until all of them are as `done` says, at most this long.
    pub(crate) async fn wait(&self, what: &str, patience: Duration, done: impl Fn(&Book) -> bool) {
        let deadline = Instant::now() + patience;
        loop {
            let left = self.books().filter(|book| !done(book)).count();
            if left == 0 {
                return;
            }
            if Instant::now() > deadline {
                let one = self.books().find(|book| !done(book)).map(|book| format!("{book:?}"));
                panic!("{left} of {} readers: not {what}, such as {one:?}", self.books.len());
            }
            // The interval of a look.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn open(book: &Arc<Mutex<Book>>) -> MutexGuard<'_, Book> {
    book.lock().expect("nobody panics while it is open")
}
