//! Publishing by POST (`PROTOCOL.md` section 8.2): one reading at a time, under its (incarnation, n).

use core::cell::{Cell, RefCell};
use core::future::poll_fn;
use core::task::Poll;

use embassy_futures::select::Either3::{First, Second, Third};
use embassy_futures::select::{select, select3};
use embassy_time::{Duration, Instant, Timer, with_deadline};
use longwire_core::http::write::{Field, WriteError};
use longwire_core::session::connector::{Action, Event};
use longwire_core::session::json;
use longwire_core::session::ladder::{Ending, Rung};
use longwire_core::session::publisher::PublicationId;
use longwire_core::session::{Code, Refusal};

use super::http::{self, Head, TooLarge, Url};
use super::pilot::Pilot;
use super::renewal::{Renewal, Task};
use super::tokens::{Purse, Tokens, Why};
use super::{End, Gateway, Line, Lost, Status, UplinkConfig};
use crate::buffered::{Buffered, Input};
use crate::link::{Connect, Link};
use crate::outbox::{Reading, Source};

/// What is posted, where, and as whom.
pub(super) struct Posts<'d, 'b, 'p, O, T> {
    pub(super) gateway: &'d Gateway<'b>,
    pub(super) config: &'b UplinkConfig,
    pub(super) purse: &'d RefCell<&'d mut Purse<'p, T>>,
    /// Of the stream that is read beside it.
    pub(super) renewal: &'d Renewal,
    pub(super) outbox: &'d O,
    /// No reading is posted earlier, over whatever connection: the gateway asked for it.
    pub(super) not_before: &'d Cell<Instant>,
}

/// What was posted.
#[derive(Clone, Copy)]
enum Posted {
    /// The reading of this number.
    Reading(u64),
    Renewal,
}

/// What became of a connection.
enum Ended {
    /// It may be opened again as soon as there is something to send.
    Idle,
    End(End),
}

impl<O: Source, T: Tokens> Posts<'_, '_, '_, O, T> {
    /// Posts what there is, beside a stream, with a machine of its own. Comes back when the gateway refuses for good.
    pub(super) async fn beside<C: Connect>(&self, line: &mut Line<'_, C>, pilot: &mut Pilot) -> Lost {
        self.wait_for_next(None).await;
        let mut action = pilot.start();
        loop {
            action = match action {
                Action::Open(_) => {
                    let end = self.over(line, pilot, &mut |_| {}).await;
                    let action = end.action.unwrap_or_else(|| pilot.handle(Event::Ended(end.lost.ending())));
                    if action == Action::Stop {
                        return end.lost;
                    }
                    action
                }
                _ => {
                    Timer::at(pilot.deadline()).await;
                    // The time of an attempt begins when there is something to send.
                    self.wait_for_next(None).await;
                    pilot.handle_timeout()
                }
            };
        }
    }

    /// What is to be done about the grant of the stream.
    fn task(&self) -> Option<Task> {
        self.renewal.task().filter(|_| T::SOME)
    }

    fn has_next(&self) -> bool {
        self.task().is_some() || self.may_post() && self.resumes().is_none() && self.outbox.has_next()
    }

    /// When readings may be posted again; `None`: now.
    fn resumes(&self) -> Option<Instant> {
        Some(self.not_before.get()).filter(|at| Instant::now() < *at)
    }

    /// What stood where the next credential was to come is gone, whether one came or not.
    fn may_post(&self) -> bool {
        !T::SOME || self.purse.try_borrow().is_ok_and(|purse| purse.token().is_some())
    }

    /// Waits until there may be something else to send.
    async fn news(&self) {
        let task = self.task();
        let changed = poll_fn(|_| if self.task() == task { Poll::Pending } else { Poll::Ready(()) });
        let resumed = Timer::at(self.resumes().unwrap_or(Instant::MAX));
        select3(self.outbox.reported(), changed, resumed).await;
    }

    /// Between two connections: waits until there is something to send. What was `open` looks for something better meanwhile.
    async fn wait_for_next(&self, mut open: Option<&mut Pilot>) -> Option<End> {
        // What was posted last may not have been answered.
        self.outbox.rewind();
        loop {
            // Not over a connection, whose time it would take.
            self.ask().await;
            if self.has_next() {
                return None;
            }
            let mut deadline = Instant::MAX;
            if let Some(pilot) = &mut open {
                if let Some(end) = pilot.idle() {
                    return Some(end);
                }
                deadline = pilot.deadline();
            }
            select(self.news(), Timer::at(deadline)).await;
        }
    }

    /// Posts over one connection after the other, until one fails. `notice` is told when it works, and before each look for
    /// what is to be posted next.
    pub(super) async fn over<C: Connect>(
        &self,
        line: &mut Line<'_, C>,
        pilot: &mut Pilot,
        notice: &mut dyn FnMut(Option<Status>),
    ) -> End {
        loop {
            pilot.asks();
            let Line { connect, rx, tx } = &mut *line;
            let mut place = None;
            let link = match pilot.reach(connect, &mut place).await {
                Ok(link) => link,
                Err(end) => return end,
            };
            let mut stream = Buffered::new(link, self.config.connection.write_timeout, rx, tx);
            self.outbox.rewind();
            let ended = self.serve(&mut stream, pilot, notice).await;
            drop(place);
            let lost = match &ended {
                Ended::End(end) => Some(end.lost),
                Ended::Idle => None,
            };
            if pilot.was_answered(lost) {
                connect.answered();
            }
            if let Ended::End(end) = ended {
                return end;
            }
            if let Some(end) = self.wait_for_next(Some(pilot)).await {
                return end;
            }
        }
    }

    /// Posts over one connection.
    async fn serve<L: Link>(
        &self,
        stream: &mut Buffered<'_, L>,
        pilot: &mut Pilot,
        notice: &mut dyn FnMut(Option<Status>),
    ) -> Ended {
        let mut open = false;
        let mut opened = |pilot: &mut Pilot| {
            pilot.handle(Event::Opened { heartbeat: None, window: None });
            let first = !core::mem::replace(&mut open, true);
            notice(first.then_some(Status::Open(Rung::Poll)));
        };
        // An answer came over this connection.
        let mut answers = false;
        loop {
            if self.task() == Some(Task::Ask) {
                // Nothing is asked of the gateway meanwhile, so it is not silent.
                opened(pilot);
                self.ask().await;
            }
            match self.queue_next(stream) {
                Ok(Some(posted)) => {
                    pilot.asks();
                    let answered = with_deadline(pilot.deadline(), self.settle(stream, posted)).await;
                    match answered {
                        Ok(Ok(keeps_alive)) => {
                            opened(pilot);
                            answers = true;
                            if !keeps_alive {
                                return Ended::Idle;
                            }
                        }
                        // RFC 9112 section 9.3.1: a server may close a connection that it thinks is idle at any time, also while
                        // a request is under way. What is posted may be posted again: each has its number.
                        Ok(Err(lost)) if answers && lost.ending() == Ending::Cut => return Ended::Idle,
                        Ok(Err(lost)) => return Ended::End(End::new(lost)),
                        Err(_) => {
                            let lost = if answers { Lost::Silent } else { Lost::NoHello };
                            return Ended::End(pilot.timed_out(lost));
                        }
                    }
                }
                // What is wrong with the request is wrong with the next one.
                Err(WriteError::Full) => return Ended::End(End::new(Lost::TooLong)),
                Err(error) => return Ended::End(End::request(error)),
                Ok(None) => {
                    // Nothing is asked, so nobody is silent.
                    opened(pilot);
                    if let Some(end) = pilot.idle() {
                        return Ended::End(end);
                    }
                    let due = Timer::at(pilot.deadline());
                    let waited = select3(self.news(), stream.read(None), due).await;
                    match waited {
                        First(()) | Third(()) => {}
                        // Nobody asked for an answer: the server closes what is idle.
                        Second(Ok(Input::End) | Err(_)) => return Ended::Idle,
                        Second(Ok(_)) => return Ended::End(End::new(Lost::BadMessage)),
                    }
                }
            }
        }
    }

    /// Asks for another credential, if one is wanted. Until it is there nothing is posted.
    #[expect(
        clippy::await_holding_refcell_ref,
        reason = "the others who look into it are whoever posts, which is what waits here, and the reader at its beginning"
    )]
    async fn ask(&self) {
        if self.task() != Some(Task::Ask) {
            return;
        }
        let given = match self.purse.try_borrow_mut() {
            Ok(mut purse) => purse.fill(Why::Renew).await,
            Err(_) => false,
        };
        // Without another one the grant ends, and with it the stream: then a new one is opened.
        self.renewal.set_task(given.then_some(Task::Show));
    }

    /// Queues what is to be posted next: a credential, or a reading unless they have to wait. (Out of the future, too.)
    #[cfg_attr(target_os = "none", inline(never))]
    fn queue_next<L: Link>(&self, stream: &mut Buffered<'_, L>) -> Result<Option<Posted>, WriteError> {
        // The one place for it: it is large.
        let mut url = Url::new();
        if T::SOME && self.task() == Some(Task::Show) {
            if self.push_base(&mut url).and_then(|()| self.renewal.push_to(&mut url)).is_some() {
                return self.queue(stream, &url, &[], &[]).map(|()| Some(Posted::Renewal));
            }
            // A session without a name.
            self.renewal.set_task(None);
        }
        if self.resumes().is_some() || !self.may_post() {
            return Ok(None);
        }
        loop {
            let mut number = 0;
            // Each post says it, so another one may take over at any. The first was drawn already.
            let incarnation = self.outbox.incarnation(|| 0);
            let queued = self.outbox.send_next(1, |n, reading| {
                number = n;
                self.queue_reading(stream, &mut url, PublicationId { incarnation, n }, reading)
            });
            match queued {
                None => return Ok(None),
                Some(Ok(())) => return Ok(Some(Posted::Reading(number))),
                Some(Err(WriteError::Full)) => {
                    // Where not even an empty one fits it is not the reading that is too large.
                    let empty = Reading { topic: "", key: None, data: &[] };
                    self.queue_reading(stream, &mut url, PublicationId { incarnation, n: number }, empty)?;
                    stream.clear_tx();
                    self.outbox.give_up_next();
                }
                Some(Err(error)) => return Err(error),
            }
        }
    }

    fn queue_reading<L: Link>(
        &self,
        stream: &mut Buffered<'_, L>,
        url: &mut Url,
        id: PublicationId,
        reading: Reading<'_>,
    ) -> Result<(), WriteError> {
        url.clear();
        self.push_url(url, &reading).ok_or(WriteError::Full)?;
        // It needs no quotes: "or without them if it has printable ASCII".
        let key = id.to_text();
        let fields = [("Content-Type", "application/cbor"), ("Idempotency-Key", &key)];
        self.queue(stream, url, &fields, reading.data)
    }

    fn queue<L: Link>(
        &self,
        stream: &mut Buffered<'_, L>,
        url: &Url,
        fields: &[Field<'_>],
        body: &[u8],
    ) -> Result<(), WriteError> {
        let purse = self.purse.try_borrow().map_err(|_| WriteError::Full)?;
        let authorization = purse.authorization_or(self.gateway.authorization);
        http::queue(stream, ("POST", url), self.gateway, authorization, fields, Some(body))
    }

    /// Appends what the gateway's URLs begin with.
    fn push_base(&self, url: &mut Url) -> Option<()> {
        let path = self.gateway.target.split('?').next().unwrap_or_default();
        url.push_str(path.strip_suffix("stream").unwrap_or("/v1/")).ok()
    }

    /// Appends where a reading is posted: beside the stream.
    fn push_url(&self, url: &mut Url, reading: &Reading<'_>) -> Option<()> {
        self.push_base(url)?;
        url.push_str("topics/").ok()?;
        http::push_encoded(url, reading.topic)?;
        if let Some(key) = reading.key {
            url.push_str("?key=").ok()?;
            http::push_encoded(url, key)?;
        }
        Some(())
    }

    /// Waits for the answer, and does what it says. True when the connection can be used again.
    async fn settle<L: Link>(&self, stream: &mut Buffered<'_, L>, posted: Posted) -> Result<bool, Lost> {
        let head = http::answer(stream, "POST").await?;
        http::body(stream, head.framing, TooLarge::Fail).await?;
        self.answered(posted, &head, stream.rx().kept())?;
        http::release(stream);
        Ok(head.keeps_alive)
    }

    /// Does what an answer says. (Out of the future that waits for it: see `poll_head`.)
    #[cfg_attr(target_os = "none", inline(never))]
    fn answered(&self, posted: Posted, head: &Head, body: &[u8]) -> Result<(), Lost> {
        let refusal = || http::refusal(body, head.retry_after).ok_or_else(|| http::lost(head, None));
        let wait = match posted {
            // What the gateway makes of a credential, the stream says. If it refuses it, the grant ends, as without another one.
            Posted::Renewal => {
                if !(200..300).contains(&head.status) {
                    refusal()?;
                }
                self.renewal.shown();
                None
            }
            Posted::Reading(n) if head.status == 200 => {
                let published = json::decode_published(body).ok();
                // Any JSON object would do otherwise, also that of who stands in the way and wants a password.
                let published = published.filter(|published| published.at.is_some() || head.repeated);
                let published = published.ok_or_else(|| http::lost(head, None))?;
                self.outbox.acknowledge(n);
                published.pressure
            }
            Posted::Reading(n) => {
                let refusal = refusal()?;
                match self.refused(n, &refusal) {
                    Some(wait) => wait,
                    None => return Err(http::lost(head, Some(Ending::from_refusal(&refusal, None)))),
                }
            }
        };
        if let Some(wait) = wait {
            let wait = Duration::try_from(wait.min(self.config.backoff.max_told)).unwrap_or(Duration::MAX);
            self.not_before.set(self.not_before.get().max(Instant::now().saturating_add(wait)));
        }
        Ok(())
    }

    /// A reading was refused: how long the next one has to wait; `None` when it is about this client, and no reading.
    fn refused(&self, n: u64, refusal: &Refusal<'_>) -> Option<Option<core::time::Duration>> {
        match refusal.code() {
            Some(Code::OverQuota | Code::TopicsFull) => {
                let again = refusal.retry_after;
                self.outbox.refuse(n, again.is_none());
                Some(again)
            }
            Some(Code::Unauthorized | Code::BadRequest | Code::NotFound | Code::MethodNotAllowed) => None,
            _ if refusal.permanent => {
                self.outbox.refuse(n, true);
                Some(None)
            }
            _ => None,
        }
    }
}
