//! Long polls (`PROTOCOL.md` section 8.1).

use embassy_time::with_deadline;
use longwire_core::digits::push_decimal;
use longwire_core::http::write::WriteError;
use longwire_core::log::Since;
use longwire_core::session::connector::Event;
use longwire_core::session::ladder::Rung;
use longwire_core::session::subscriber::Mark;
use longwire_core::session::{ServerMessage, json};

use super::http::{self, Head};
use super::{Desk, End, Lost, Status};
use crate::buffered::Buffered;
use crate::link::Link;
use crate::outbox::Source;

/// Asks again and again over one connection. The first poll does not wait, so that it tells whether polls work.
pub(super) async fn poll<L: Link, O: Source>(
    mut stream: Buffered<'_, L>,
    authorization: Option<&str>,
    desk: &mut Desk<'_, '_, O>,
) -> End {
    let mut open = false;
    loop {
        if let Err(error) = ask(&mut stream, authorization, desk, open) {
            return End::request(error);
        }
        let head = match with_deadline(desk.pilot.deadline(), whole(&mut stream)).await {
            Ok(Ok(head)) => head,
            Ok(Err(lost)) => return End::new(lost),
            Err(_) => return desk.pilot.timed_out(if open { Lost::Silent } else { Lost::NoHello }),
        };
        desk.pilot.handle(Event::Opened { heartbeat: None, window: None });
        if !core::mem::replace(&mut open, true) {
            desk.tell(Status::Open(Rung::LongPoll));
        }
        if let Err(lost) = desk.take(&mut stream, &head) {
            return End::new(lost);
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

/// Queues a poll. One event at a time: what is to be read whole has to fit the buffer.
fn ask<L: Link, O: Source>(
    stream: &mut Buffered<'_, L>,
    authorization: Option<&str>,
    desk: &Desk<'_, '_, O>,
    wait: bool,
) -> Result<(), WriteError> {
    let mut url = desk.stream_url().ok_or(WriteError::Target)?;
    // The state cannot be had in parts.
    if desk.pilot.reader.since() != Since::Latest {
        url.push_str("&limit=1").map_err(|_| WriteError::Target)?;
    }
    if wait {
        let seconds = desk.pilot.reader.connector().wait().as_secs();
        url.push_str("&wait=").map_err(|_| WriteError::Target)?;
        push_decimal(&mut url, seconds);
    }
    let accept = [("Accept", "application/json")];
    http::queue(stream, ("GET", &url), desk.gateway, authorization, &accept, None)
}

/// Reads an answer whole.
async fn whole<L: Link>(stream: &mut Buffered<'_, L>) -> Result<Head, Lost> {
    let head = http::answer(stream, "GET").await?;
    match head.status {
        200 | 204 => http::body(stream, head.framing).await.map(|()| head),
        _ => Err(http::refused(stream, &head).await),
    }
}

impl<O: Source> Desk<'_, '_, O> {
    /// Takes in what a poll was answered with.
    fn take<L: Link>(&mut self, stream: &mut Buffered<'_, L>, head: &Head) -> Result<(), Lost> {
        let next = if head.status == 204 {
            head.next.ok_or(Lost::BadMessage)?
        } else {
            let rx = stream.rx();
            let answer = json::decode_poll(rx.kept()).map_err(|_| http::foreign(head.status, None))?;
            if let Some(gap) = answer.gap {
                self.hear(Ok(ServerMessage::Gap(gap)))?;
            }
            for event in answer.events() {
                self.hear(event)?;
            }
            answer.next
        };
        self.pilot.reader.passed(Mark::At(next));
        Ok(())
    }
}
