//! What comes down over SSE (`PROTOCOL.md` section 7), or by long polls (section 8).

use core::cell::RefCell;
use core::pin::pin;

use embassy_futures::select::{Either, select};
use embassy_time::{Timer, with_deadline};
use longwire_core::buf::{RxBuf, RxCursor};
use longwire_core::http::body::{BodyReader, BodyStep};
use longwire_core::http::write::WriteError;
use longwire_core::log::Since;
use longwire_core::rand_core::CryptoRng;
use longwire_core::session::connector::{ConnectorConfig, Event};
use longwire_core::session::json;
use longwire_core::session::ladder::{LadderConfig, Rung, Rungs};
use longwire_core::sse::{self, Decoder};

use super::hear::Heard;
use super::http::{self, Url};
use super::pilot::Pilot;
use super::posts::Posts;
use super::renewal::Renewal;
use super::tokens::{Purse, Tokens};
use super::{Desk, End, Line, Lost, Status};
use crate::buffered::{Buffered, Input};
use crate::error::Error;
use crate::link::{Connect, Link};
use crate::outbox::Source;

/// Reads over SSE or by long polls, and posts beside it, until either fails.
pub(super) async fn over_stream<C: Connect, R: CryptoRng, T: Tokens, O: Source>(
    rung: Rung,
    line: &mut Line<'_, C>,
    side: &mut Line<'_, C>,
    rng: &mut R,
    purse: &mut Purse<'_, T>,
    desk: &mut Desk<'_, '_, O>,
) -> End {
    let Line { connect, rx, tx } = line;
    let mut place = None;
    let link = match desk.reach(connect, &mut place, purse).await {
        Ok(link) => link,
        Err(end) => return end,
    };
    let (purse, renewal) = (RefCell::new(purse), Renewal::new());
    let posts = desk.posts(&purse, &renewal, rng);
    let config = ConnectorConfig {
        ladder: LadderConfig { rungs: Rungs::only(Rung::Poll), ..desk.config.ladder },
        backoff: desk.config.backoff,
        renewable: false,
    };
    let mut pilot = Pilot::new(config, Since::Now, None, rng);
    let write_timeout = desk.config.connection.write_timeout;
    let end = async {
        match rung {
            #[cfg(feature = "ladder")]
            Rung::LongPoll => {
                super::polls::poll(Buffered::new(link, write_timeout, rx, tx), &purse, desk).await
            }
            // The request goes out of what is later the room for an event, and what comes from the wire comes into the other.
            _ => listen(Buffered::new(link, write_timeout, tx, rx), &purse, &renewal, desk).await,
        }
    };
    // In this order: see `Renewal`.
    let end = match select(pin!(end), pin!(posts.beside(side, &mut pilot))).await {
        Either::First(end) => end,
        Either::Second(lost) => End::new(lost),
    };
    // Whoever posts was stopped wherever it was.
    if pilot.was_answered(None) {
        side.connect.answered();
    }
    end
}

/// Posts, and nothing else.
pub(super) async fn over_posts<C: Connect, R: CryptoRng, T: Tokens, O: Source>(
    line: &mut Line<'_, C>,
    rng: &mut R,
    purse: &mut Purse<'_, T>,
    desk: &mut Desk<'_, '_, O>,
) -> End {
    if let Err(end) = desk.token(purse).await {
        return end;
    }
    let (purse, renewal) = (RefCell::new(purse), Renewal::new());
    let posts = desk.posts(&purse, &renewal, rng);
    let Desk { pilot, observe, counts, outbox, .. } = desk;
    posts
        .over(line, pilot, &mut |status| match status {
            Some(status) => status.tell(*observe),
            None => super::report_counts(counts, *outbox),
        })
        .await
}

/// An event stream.
struct Events<'l, L> {
    stream: Buffered<'l, L>,
    renewal: &'l Renewal,
    body: BodyReader,
    /// Bytes of the body's present piece that were passed on.
    taken: usize,
    decoder: Decoder,
    at: RxCursor,
}

/// Asks for the stream, and works off what comes.
async fn listen<'l, L: Link, O: Source, T: Tokens>(
    mut stream: Buffered<'l, L>,
    purse: &RefCell<&mut Purse<'_, T>>,
    renewal: &'l Renewal,
    desk: &mut Desk<'_, '_, O>,
) -> End {
    if let Err(error) = desk.ask(&mut stream, purse, "text/event-stream", "") {
        return End::request(error);
    }
    let head = match with_deadline(desk.pilot.deadline(), http::answer(&mut stream, "GET")).await {
        Ok(Ok(head)) => head,
        Ok(Err(lost)) => return End::new(lost),
        Err(_) => return desk.pilot.timed_out(Lost::NoHello),
    };
    if head.status != 200 || !head.is_event_stream {
        return match with_deadline(desk.pilot.deadline(), http::refused(&mut stream, &head)).await {
            Ok(lost) => End::new(lost),
            Err(_) => desk.pilot.timed_out(Lost::NoHello),
        };
    }
    let Ok(body) = BodyReader::new(head.framing, u64::MAX) else { return End::new(Lost::BadMessage) };
    let max_event = stream.split().1.len();
    let mut events =
        Events { stream, renewal, body, taken: 0, decoder: Decoder::new(max_event), at: RxCursor::new() };
    events.work::<O, T>(desk).await
}

impl<L: Link> Events<'_, L> {
    async fn work<O: Source, T: Tokens>(&mut self, desk: &mut Desk<'_, '_, O>) -> End {
        let mut open = false;
        loop {
            // 1. Work off what was received.
            if let Err(lost) = self.work_off::<O, T>(desk, &mut open) {
                return End::new(lost);
            }
            // 2. Do what is due.
            if let Some(end) = desk.pilot.overdue(open) {
                return end;
            }
            desk.report_counts();
            let mut deadline = desk.pilot.deadline();
            if T::SOME {
                self.renewal.look();
                deadline = deadline.min(self.renewal.deadline());
            }
            // 3. Wait for more.
            match select(self.stream.read(None), Timer::at(deadline)).await {
                Either::First(Ok(Input::End)) => return End::new(Lost::Closed(None)),
                Either::First(Ok(_)) => {
                    desk.pilot.handle(Event::Heard);
                }
                Either::First(Err(error)) => return error.into(),
                Either::Second(()) => {}
            }
        }
    }

    /// Takes in what was received. (Out of the future that waits for it: see `poll_head`.)
    #[cfg_attr(target_os = "none", inline(never))]
    fn work_off<O: Source, T: Tokens>(
        &mut self,
        desk: &mut Desk<'_, '_, O>,
        open: &mut bool,
    ) -> Result<(), Lost> {
        while self.poll()? {
            let (_, bytes) = self.stream.split();
            let event = self.decoder.event(RxBuf::new(bytes, &mut self.at));
            let message = json::decode_server(event.data);
            if T::SOME
                && let Ok(message) = &message
            {
                self.renewal.heard(message);
            }
            // Nothing is published here, and what there is to be renewed was heard.
            if let Heard::Hello(hello) = desk.hear(message)? {
                let (heartbeat, window) = (Some(hello.heartbeat), hello.window);
                desk.pilot.handle(Event::Opened { heartbeat, window });
                let renewed = core::mem::replace(open, true);
                desk.tell(if renewed { Status::Renewed } else { Status::Open(Rung::Sse) });
            }
        }
        Ok(())
    }

    /// Finds the next event in what was received; false when there is none yet.
    fn poll(&mut self) -> Result<bool, Lost> {
        loop {
            let (mut wire, bytes) = self.stream.split();
            let mut rx = RxBuf::new(bytes, &mut self.at);
            match self.decoder.poll(&mut rx) {
                Ok(sse::Step::Event) => return Ok(true),
                Ok(sse::Step::NeedInput) => {}
                Ok(sse::Step::NeedSpace) | Err(sse::SseError::EventTooLarge) => {
                    return Err(Lost::Broken(Error::MessageTooBig));
                }
                Err(_) => return Err(Lost::BadMessage),
            }
            let piece = self.body.piece(wire.reborrow()).get(self.taken..).unwrap_or_default();
            if piece.is_empty() {
                self.taken = 0;
                match self.body.poll(&mut wire) {
                    Ok(BodyStep::Data) => continue,
                    Ok(BodyStep::NeedInput) => return Ok(false),
                    Ok(BodyStep::End) => return Err(Lost::Closed(None)),
                    Ok(BodyStep::NeedSpace) | Err(_) => return Err(Lost::BadMessage),
                }
            }
            self.taken = self.taken.saturating_add(rx.fill(piece));
        }
    }
}

impl<'d, 'b, O: Source> Desk<'d, 'b, O> {
    /// Queues the request for what comes down: the patterns, from where the reader is; `more` is the end of the query.
    pub(super) fn ask<L: Link, T: Tokens>(
        &self,
        stream: &mut Buffered<'_, L>,
        purse: &RefCell<&mut Purse<'_, T>>,
        accept: &str,
        more: &str,
    ) -> Result<(), WriteError> {
        let mut url = Url::new();
        self.push_url(&mut url, more).ok_or(WriteError::Target)?;
        let purse = purse.try_borrow().map_err(|_| WriteError::Full)?;
        let authorization = purse.authorization_or(self.gateway.authorization);
        http::queue(stream, ("GET", &url), self.gateway, authorization, &[("Accept", accept)], None)
    }

    fn push_url(&self, url: &mut Url, more: &str) -> Option<()> {
        url.push_str(self.gateway.target).ok()?;
        let mut separator = if self.gateway.target.contains('?') { "&topic=" } else { "?topic=" };
        for pattern in self.subscription.iter().flat_map(|subscription| subscription.patterns) {
            url.push_str(separator).ok()?;
            http::push_encoded(url, pattern)?;
            separator = "&topic=";
        }
        url.push_str("&since=").ok()?;
        url.push_str(&self.pilot.reader.since().to_text()).ok()?;
        url.push_str(more).ok()
    }

    /// Who posts what is in the outbox.
    fn posts<'a, 'p, T: Tokens>(
        &self,
        purse: &'a RefCell<&'a mut Purse<'p, T>>,
        renewal: &'a Renewal,
        rng: &mut impl CryptoRng,
    ) -> Posts<'a, 'b, 'p, O, T>
    where
        Self: 'a,
        'd: 'a,
    {
        self.outbox.incarnation(|| rng.next_u64());
        let Self { gateway, config, outbox, not_before, .. } = *self;
        Posts { gateway, config, purse, renewal, outbox, not_before }
    }
}
