//! Long polls (`PROTOCOL.md` section 8.1).

use core::cell::RefCell;

use embassy_time::with_deadline;
use heapless::String;
use longwire_core::digits::push_decimal;
use longwire_core::log::Since;
use longwire_core::session::connector::Event;
use longwire_core::session::ladder::Rung;
use longwire_core::session::{Code, ServerMessage, json};

use super::http::{self, Head, TooLarge};
use super::tokens::{Purse, Tokens};
use super::{Desk, End, Lost, Status};
use crate::buffered::Buffered;
use crate::error::Error;
use crate::link::Link;
use crate::outbox::Source;

/// How many events to ask for: an answer has to fit the receive buffer whole, and nobody knows how large they are.
struct Pages {
    limit: u64,
    /// No more than that: half of what did not fit, and one more after each that did.
    most: u64,
    /// No more than there are places in the application's queue, where a whole page arrives at once.
    places: u64,
    /// Nothing can be had from where the cursor is but the state.
    state: bool,
}

impl Pages {
    fn new(places: usize) -> Self {
        let places = u64::try_from(places).unwrap_or(u64::MAX);
        Self { limit: 1, most: places, places, state: false }
    }

    /// So many events took so many bytes of the buffer: the next time as many of that size as fill half of it.
    fn fitted(&mut self, events: usize, bytes: usize, buffer: usize) {
        if events > 0 {
            let fit = u64::try_from(buffer.saturating_mul(events) / bytes.max(1) / 2).unwrap_or(1);
            self.most = self.most.saturating_add(1).min(self.places);
            self.limit = fit.min(self.most).max(1);
        }
    }

    /// The answer did not fit: the same is asked for again, one by one.
    fn overflowed(&mut self) {
        self.most = self.limit / 2;
        self.limit = 1;
    }
}

/// Asks again and again over one connection. The first poll does not wait, so that it tells whether polls work.
pub(super) async fn poll<L: Link, O: Source, T: Tokens>(
    mut stream: Buffered<'_, L>,
    purse: &RefCell<&mut Purse<'_, T>>,
    desk: &mut Desk<'_, '_, O>,
) -> End {
    let places = desk.subscription.map_or(1, |subscription| subscription.inbox.places());
    let (mut open, mut pages) = (false, Pages::new(places));
    loop {
        let mut more = String::<40>::new();
        // The state cannot be had in parts.
        let state = pages.state || desk.pilot.reader.since() == Since::Latest;
        let limit = (!state).then_some(pages.limit);
        if let Some(limit) = limit {
            let _ = more.push_str("&limit=");
            push_decimal(&mut more, limit);
        }
        if open {
            let _ = more.push_str("&wait=");
            push_decimal(&mut more, desk.pilot.reader.connector().wait().as_secs());
        }
        if let Err(error) = desk.ask(&mut stream, purse, "application/json", &more) {
            return End::request(error);
        }
        let (head, answer) = match with_deadline(desk.pilot.deadline(), whole(&mut stream, limit)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(lost)) => return End::new(lost),
            Err(_) => return desk.pilot.timed_out(if open { Lost::Silent } else { Lost::NoHello }),
        };
        desk.pilot.handle(Event::Opened { heartbeat: None, window: None });
        if !core::mem::replace(&mut open, true) {
            desk.tell(Status::Open(Rung::LongPoll));
        }
        match answer {
            Answer::Fits => {
                if let Err(lost) = desk.take(&mut stream, &head, &mut pages) {
                    return End::new(lost);
                }
            }
            Answer::TooLarge => pages.overflowed(),
            Answer::StateTooLarge => pages.state = true,
        }
        http::release(&mut stream);
        if let Some(end) = desk.pilot.overdue(true) {
            return end;
        }
        desk.report_counts();
        if !head.keeps_alive {
            // Nobody has done anything wrong.
            return End { action: Some(desk.pilot.reopen()), ..End::new(Lost::Closed(None)) };
        }
    }
}

/// What was answered.
enum Answer {
    /// The receive buffer holds it.
    Fits,
    /// It did not fit, and was passed over: a smaller one can be asked for.
    TooLarge,
    /// The cursor is void, and the state has more events than were asked for.
    StateTooLarge,
}

/// Reads the answer to a poll for so many events whole. What does not fit, and cannot be had in smaller parts, is a message too big.
async fn whole<L: Link>(stream: &mut Buffered<'_, L>, limit: Option<u64>) -> Result<(Head, Answer), Lost> {
    let head = http::answer(stream, "GET").await?;
    if matches!(head.status, 200 | 204) {
        let in_parts = limit.is_some_and(|limit| limit > 1);
        let too_large = if in_parts { TooLarge::PassOver } else { TooLarge::Fail };
        let fits = http::body(stream, head.framing, too_large).await?;
        return Ok((head, if fits { Answer::Fits } else { Answer::TooLarge }));
    }
    let lost = http::refused(stream, &head).await;
    let code = http::refusal(stream.rx().kept(), None).and_then(|refusal| refusal.code());
    match limit {
        _ if code != Some(Code::StateTooLarge) => Err(lost),
        // On the next connection the same would happen: it does not know of it.
        Some(_) if head.keeps_alive => Ok((head, Answer::StateTooLarge)),
        // It is above what any answer holds. What is to come is not.
        _ => Err(Lost::Broken(Error::MessageTooBig)),
    }
}

impl<O: Source> Desk<'_, '_, O> {
    /// Takes in what a poll was answered with.
    fn take<L: Link>(
        &mut self,
        stream: &mut Buffered<'_, L>,
        head: &Head,
        pages: &mut Pages,
    ) -> Result<(), Lost> {
        let next = if head.status == 204 {
            head.next.ok_or(Lost::BadMessage)?
        } else {
            let rx = stream.rx();
            let answer = json::decode_poll(rx.kept()).map_err(|_| http::lost(head, None))?;
            if let Some(gap) = answer.gap {
                self.hear(Ok(ServerMessage::Gap(gap)))?;
            }
            let mut events = 0;
            for event in answer.events() {
                self.hear(event)?;
                events += 1;
            }
            pages.fitted(events, rx.kept().len(), rx.capacity());
            answer.next
        };
        self.passed(next);
        pages.state = false;
        Ok(())
    }
}
