//! A publisher that stays: what it was given it brings to the gateway, once, over whatever works.

mod outbox;
mod work;

use super::publish::check;
use super::{Data, Endpoint, Error, Form, Incarnation, Memory, Policy, Refusal, State, Transport};
use longwire_core::session::backoff::BackoffConfig;
pub use outbox::PublisherCounts;
use outbox::{Entry, Full, Outbox};
use std::fmt;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinHandle;

/// How a [`Publisher`] works.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PublisherConfig {
    /// Most publications that wait or are under way. Default: 1000.
    pub outbox_events: usize,
    /// Most bytes of them: topics, keys and values, and 64 for each. Default: 4 MiB.
    pub outbox_bytes: usize,
    /// What gives way when [`try_publish`](Publisher::try_publish) finds the outbox full: the oldest that is not under way
    /// (`DropOldest`, the default), the new one (`DropNewest`), or one of the same topic and key, else the oldest (`Conflate`). `Disconnect`
    /// means nothing here, and is taken as `DropNewest`.
    pub policy: Policy,
    /// Most publications that are sent ahead of their acknowledgements, if the gateway allows as many. Default: 64.
    pub max_inflight: u64,
    /// [`Transport::Auto`] (the default): WebSocket, and where that is not let through a POST each. [`Transport::WebSocket`] and
    /// [`Transport::Poll`], which means POST here, are that alone. The others are taken as `Auto`.
    pub transport: Transport,
    /// In which form messages go over WebSocket. Default: JSON.
    pub form: Form,
    /// What an earlier publisher has [learned](Publisher::memory) about the way to the gateway.
    pub memory: Option<Memory>,
    /// When to connect again.
    pub backoff: BackoffConfig,
}

impl Default for PublisherConfig {
    fn default() -> Self {
        Self {
            outbox_events: 1000,
            outbox_bytes: 4 << 20,
            policy: Policy::DropOldest,
            max_inflight: 64,
            transport: Transport::Auto,
            form: Form::Json,
            memory: None,
            backoff: BackoffConfig::default(),
        }
    }
}

/// What became of a publication.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The gateway has it.
    Taken,
    /// The gateway refused it: for good, or without a word when it might be taken (`topics_full`; [`Refusal::permanent`] tells).
    Refused(Refusal),
    /// It was given up here. One that was under way may have been taken all the same.
    Dropped(Dropped),
}

/// Why a publication was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dropped {
    /// The outbox was full, and it was the oldest.
    Oldest,
    /// The outbox was full, and there was a later one of the same topic and key.
    Conflated,
    /// The publisher has ended.
    Closed,
}

/// Why a publication was not taken.
#[derive(Debug)]
#[non_exhaustive]
pub enum PublishError {
    /// It cannot be published: [`Error::Name`], [`Error::Data`], [`Error::TooBig`] for what is above the outbox.
    Invalid(Error),
    /// The outbox is full, and its policy is to refuse what is new.
    Full,
    /// The publisher has ended; [`Publisher::flush`] says why.
    Ended,
}

/// What will tell the [`Outcome`] of a publication, as a future. It may be dropped.
#[derive(Debug)]
pub struct Receipt {
    n: u64,
    outcome: oneshot::Receiver<Outcome>,
}

impl Receipt {
    /// The number of the publication.
    pub fn n(&self) -> u64 {
        self.n
    }
}

impl Future for Receipt {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let outcome = Pin::new(&mut self.outcome).poll(cx);
        outcome.map(|told| told.unwrap_or(Outcome::Dropped(Dropped::Closed)))
    }
}

/// Publishes at a gateway for as long as it lives: over a connection that ends and comes back, over WebSocket or by POST.
///
/// What is published waits in an outbox, bounded in [number](PublisherConfig::outbox_events) and [bytes](PublisherConfig::outbox_bytes), until the
/// gateway has settled it. What was under way when a connection ended is sent again under its number, and stored
/// once (`PROTOCOL.md` section 5.2). When the gateway asks for time (`pressure`, `over_quota`) it gets it.
///
/// A task of the tokio runtime in which it was made does the work. Dropping it ends the task, and what is in the outbox is given up;
/// [`close`](Self::close) waits until everything is settled.
///
/// ```no_run
/// use longwire::client::{Data, Endpoint, Outcome, Publisher, PublisherConfig};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let endpoint = Endpoint::new("https://telemetry.example.org")?;
/// let publisher = Publisher::new(endpoint, PublisherConfig::default());
/// // Never waits: when the outbox is full something gives way, and is counted.
/// publisher.try_publish("fleet/7/cpu", None, Data::json("0.25")?)?;
/// // Waits for room, and then for the gateway's word.
/// let receipt = publisher.publish("orders", Some("17"), Data::json(r#"{"state":"paid"}"#)?).await?;
/// assert_eq!(receipt.await, Outcome::Taken);
/// publisher.close().await?;
/// # Ok(()) }
/// ```
pub struct Publisher {
    shared: Arc<Shared>,
    commands: watch::Sender<()>,
    state: watch::Receiver<State>,
    task: JoinHandle<()>,
}

/// What the handle and the task share.
struct Shared {
    outbox: Mutex<Outbox>,
    /// There is something to be sent.
    work: Notify,
    /// Something was settled, or it has ended.
    settled: Notify,
    /// Why it ended.
    error: Mutex<Option<Error>>,
    about: Mutex<About>,
    incarnation: Incarnation,
}

#[derive(Clone, Copy, Default)]
struct About {
    rtt: Option<Duration>,
    memory: Option<Memory>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it is locked.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Publisher {
    /// A publisher that connects at once.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new(endpoint: Endpoint, config: PublisherConfig) -> Self {
        let incarnation = Incarnation(rand::random());
        let shared = Arc::new(Shared {
            outbox: Mutex::new(Outbox::new(&config)),
            work: Notify::new(),
            settled: Notify::new(),
            error: Mutex::new(None),
            about: Mutex::new(About { rtt: None, memory: config.memory }),
            incarnation,
        });
        let (commands, commanded) = watch::channel(());
        let (told, state) = watch::channel(State::Connecting(Transport::Auto));
        let task = tokio::spawn(work::run(endpoint, config, shared.clone(), commanded, told));
        Self { shared, commands, state, task }
    }

    /// Puts a publication into the outbox, whatever has to give way.
    ///
    /// # Errors
    /// [`PublishError`]; [`PublishError::Full`] with the policy `DropNewest` only.
    pub fn try_publish(&self, topic: &str, key: Option<&str>, data: Data) -> Result<Receipt, PublishError> {
        let (entry, outcome) = self.entry(topic, key, data)?;
        let mut outbox = lock(&self.shared.outbox);
        if outbox.closed {
            return Err(PublishError::Ended);
        }
        let n = outbox.push(entry).map_err(|Full(_)| PublishError::Full)?;
        self.shared.work.notify_one();
        Ok(Receipt { n, outcome })
    }

    /// Puts a publication into the outbox, and waits for room when there is none: so nothing gives way.
    ///
    /// Cancel-safe: when dropped, it was not taken; when ready, it was.
    ///
    /// # Errors
    /// [`PublishError::Invalid`], [`PublishError::Ended`].
    pub async fn publish(&self, topic: &str, key: Option<&str>, data: Data) -> Result<Receipt, PublishError> {
        let (mut entry, outcome) = self.entry(topic, key, data)?;
        loop {
            // Listens before it looks.
            let mut settled = pin!(self.shared.settled.notified());
            settled.as_mut().enable();
            {
                let mut outbox = lock(&self.shared.outbox);
                if outbox.closed {
                    return Err(PublishError::Ended);
                }
                match outbox.offer(entry) {
                    Ok(n) => {
                        self.shared.work.notify_one();
                        return Ok(Receipt { n, outcome });
                    }
                    Err(Full(back)) => entry = *back,
                }
            }
            settled.await;
        }
    }

    fn entry(
        &self,
        topic: &str,
        key: Option<&str>,
        data: Data,
    ) -> Result<(Entry, oneshot::Receiver<Outcome>), PublishError> {
        check(topic, key, &data).map_err(PublishError::Invalid)?;
        let (told, outcome) = oneshot::channel();
        let entry = Entry::new(topic, key, data, told);
        let size = entry.size();
        let most = lock(&self.shared.outbox).max_bytes();
        if size > most { Err(PublishError::Invalid(Error::TooBig(most))) } else { Ok((entry, outcome)) }
    }

    /// Publications in the outbox, and their bytes.
    pub fn waiting(&self) -> (usize, usize) {
        lock(&self.shared.outbox).len()
    }

    /// What became of the publications so far.
    pub fn counts(&self) -> PublisherCounts {
        lock(&self.shared.outbox).counts
    }

    /// How the connection is.
    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// How the connection is, from now on: the latest state, whenever it is looked at. Its other end is gone when the publisher has ended.
    pub fn states(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// By which name the gateway knows this publisher.
    pub fn incarnation(&self) -> Incarnation {
        self.shared.incarnation
    }

    /// What was learned about the way to the gateway: another publisher that is [given](PublisherConfig::memory) it begins with what
    /// works. `None` before anything has worked.
    pub fn memory(&self) -> Option<Memory> {
        lock(&self.shared.about).memory
    }

    /// How long the gateway's last answer to a Ping took: one is sent when it greets, and whenever it asks for a sign of
    /// life. `None` before the first answer, and without WebSocket.
    pub fn rtt(&self) -> Option<Duration> {
        lock(&self.shared.about).rtt
    }

    /// Waits until everything in the outbox is settled: as long as the gateway is away, that is.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// Why the publisher has ended: what makes further attempts pointless, as for a
    /// [`Subscriber`](super::Subscriber::next). Told once; then it is [`Error::Ended`].
    pub async fn flush(&self) -> Result<(), Error> {
        loop {
            let mut settled = pin!(self.shared.settled.notified());
            settled.as_mut().enable();
            {
                let outbox = lock(&self.shared.outbox);
                if outbox.closed {
                    return Err(lock(&self.shared.error).take().unwrap_or(Error::Ended));
                }
                if outbox.len().0 == 0 {
                    return Ok(());
                }
            }
            settled.await;
        }
    }

    /// Waits until everything is settled, as [`flush`](Self::flush), and then ends the connection in order.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    pub async fn close(mut self) -> Result<(), Error> {
        self.flush().await?;
        let _ = self.commands.send(());
        // It was aborted, at worst: nothing waits any more.
        let _ = (&mut self.task).await;
        Ok(())
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.task.abort();
        lock(&self.shared.outbox).close();
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher").field("waiting", &self.waiting()).finish_non_exhaustive()
    }
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(error) => error.fmt(f),
            Self::Full => f.write_str("the outbox is full"),
            Self::Ended => f.write_str("the publisher has ended"),
        }
    }
}

impl std::error::Error for PublishError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Invalid(error) => Some(error),
            Self::Full | Self::Ended => None,
        }
    }
}
