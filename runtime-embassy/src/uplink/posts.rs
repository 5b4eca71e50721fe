//! Publishing by POST (`PROTOCOL.md` section 8.2): one reading at a time, under its (incarnation, n).

use embassy_futures::select::Either3::{First, Second, Third};
use embassy_futures::select::{select, select3};
use embassy_time::{Duration, Instant, Timer, with_deadline};
use longwire_core::http::write::WriteError;
use longwire_core::session::Code;
use longwire_core::session::connector::{Action, Event};
use longwire_core::session::json;
use longwire_core::session::ladder::Rung;
use longwire_core::session::publisher::{Incarnation, PublicationId};

use super::http::{self, Head, Url};
use super::pilot::Pilot;
use super::{End, Gateway, Line, Lost, Status, UplinkConfig};
use crate::buffered::{Buffered, Input};
use crate::link::{Connect, Link};
use crate::outbox::{Reading, Source};

/// What is posted, where, and as whom.
pub(super) struct Posts<'d, 'b, O> {
    pub(super) gateway: &'d Gateway<'b>,
    pub(super) config: &'b UplinkConfig,
    pub(super) authorization: Option<&'d str>,
    pub(super) outbox: &'d O,
    /// Drawn already.
    pub(super) incarnation: Incarnation,
}

/// What became of a connection.
enum Ended {
    /// It may be opened again as soon as there is something to send.
    Idle,
    End(End),
}

impl<O: Source> Posts<'_, '_, O> {
    /// Posts what there is, beside a stream, with a machine of its own. Comes back when the gateway refuses for good.
    pub(super) async fn beside<C: Connect>(&self, line: &mut Line<'_, C>, pilot: &mut Pilot) -> Lost {
        self.outbox.rewind();
        self.wait_for_next().await;
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
                    self.wait_for_next().await;
                    pilot.handle_timeout()
                }
            };
        }
    }

    async fn wait_for_next(&self) {
        while !self.outbox.has_next() {
            self.outbox.reported().await;
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
        let mut not_before = Instant::MIN;
        loop {
            let Line { connect, rx, tx } = &mut *line;
            let link = match pilot.reach(connect.connect()).await {
                Ok(link) => link,
                Err(end) => return end,
            };
            let mut stream = Buffered::new(link, self.config.connection.write_timeout, rx, tx);
            self.outbox.rewind();
            match self.serve(&mut stream, pilot, notice, &mut not_before).await {
                Ended::End(end) => return end,
                Ended::Idle => {}
            }
            drop(stream);
            while !self.outbox.has_next() {
                if let Some(end) = pilot.idle() {
                    return end;
                }
                select(self.outbox.reported(), Timer::at(pilot.deadline())).await;
            }
        }
    }

    /// Posts over one connection.
    async fn serve<L: Link>(
        &self,
        stream: &mut Buffered<'_, L>,
        pilot: &mut Pilot,
        notice: &mut dyn FnMut(Option<Status>),
        not_before: &mut Instant,
    ) -> Ended {
        let mut open = false;
        let mut opened = |pilot: &mut Pilot| {
            pilot.handle(Event::Opened { heartbeat: None, window: None });
            let first = !core::mem::replace(&mut open, true);
            notice(first.then_some(Status::Open(Rung::Poll)));
        };
        loop {
            let paused = Instant::now() < *not_before;
            let next = if paused { None } else { self.queue_next(stream) };
            match next {
                Some(Ok(n)) => {
                    let answered = with_deadline(pilot.deadline(), self.settle(stream, n, not_before)).await;
                    match answered {
                        Ok(Ok(keeps_alive)) => {
                            opened(pilot);
                            if !keeps_alive {
                                return Ended::Idle;
                            }
                        }
                        Ok(Err(lost)) => return Ended::End(End::new(lost)),
                        Err(_) => return Ended::End(pilot.timed_out(Lost::NoHello)),
                    }
                }
                Some(Err(WriteError::Full)) => self.outbox.give_up_next(),
                // What is wrong with the request is wrong with the next one.
                Some(Err(error)) => return Ended::End(End::request(error)),
                None => {
                    // Nothing is asked, so nobody is silent.
                    opened(pilot);
                    if let Some(end) = pilot.idle() {
                        return Ended::End(end);
                    }
                    let until = if paused { pilot.deadline().min(*not_before) } else { pilot.deadline() };
                    let waited = select3(self.outbox.reported(), stream.read(None), Timer::at(until)).await;
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

    /// Queues the next reading, and says its number.
    fn queue_next<L: Link>(&self, stream: &mut Buffered<'_, L>) -> Option<Result<u64, WriteError>> {
        let mut number = 0;
        let queued = self.outbox.send_next(1, |n, reading| {
            number = n;
            self.queue(stream, n, reading)
        })?;
        Some(queued.map(|()| number))
    }

    fn queue<L: Link>(
        &self,
        stream: &mut Buffered<'_, L>,
        n: u64,
        reading: Reading<'_>,
    ) -> Result<(), WriteError> {
        let url = self.url(&reading).ok_or(WriteError::Full)?;
        // It needs no quotes: "or without them if it has printable ASCII".
        let key = PublicationId { incarnation: self.incarnation, n }.to_text();
        let fields = [("Content-Type", "application/cbor"), ("Idempotency-Key", &key)];
        http::queue(stream, ("POST", &url), self.gateway, self.authorization, &fields, Some(reading.data))
    }

    /// Where a reading is posted: beside the stream.
    fn url(&self, reading: &Reading<'_>) -> Option<Url> {
        let path = self.gateway.target.split('?').next().unwrap_or_default();
        let mut url = Url::new();
        url.push_str(path.strip_suffix("stream").unwrap_or("/v1/")).ok()?;
        url.push_str("topics/").ok()?;
        http::push_encoded(&mut url, reading.topic)?;
        if let Some(key) = reading.key {
            url.push_str("?key=").ok()?;
            http::push_encoded(&mut url, key)?;
        }
        Some(url)
    }

    /// Waits for the answer, and does what it says. True when the connection can be used again.
    async fn settle<L: Link>(
        &self,
        stream: &mut Buffered<'_, L>,
        n: u64,
        not_before: &mut Instant,
    ) -> Result<bool, Lost> {
        let Head { status, retry_after, framing, keeps_alive, .. } = http::answer(stream, "POST").await?;
        http::body(stream, framing).await?;
        let max = self.config.backoff.max_told;
        let mut wait = |time: core::time::Duration| {
            let time = Duration::try_from(time.min(max)).unwrap_or(Duration::MAX);
            *not_before = (*not_before).max(Instant::now().saturating_add(time));
        };
        let rx = stream.rx();
        if status == 200 {
            let published =
                json::decode_published(rx.kept()).map_err(|_| http::foreign(status, retry_after))?;
            self.outbox.acknowledge(n);
            if let Some(pressure) = published.pressure {
                wait(pressure);
            }
        } else {
            let refusal = json::decode_refusal(rx.kept()).map_err(|_| http::foreign(status, retry_after))?;
            match refusal.code() {
                // Of this reading, and not of this client.
                Some(Code::OverQuota | Code::TopicsFull) => {
                    let again = refusal.retry_after;
                    self.outbox.refuse(n, again.is_none());
                    if let Some(again) = again {
                        wait(again);
                    }
                }
                Some(Code::Unauthorized | Code::BadRequest) => {
                    return Err(http::refusal(status, retry_after, refusal));
                }
                _ if refusal.permanent => self.outbox.refuse(n, true),
                _ => return Err(http::refusal(status, retry_after, refusal)),
            }
        }
        http::release(stream);
        Ok(keeps_alive)
    }
}
