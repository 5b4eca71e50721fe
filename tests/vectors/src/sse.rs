//! Runs an event stream through the decoder.

use crate::run::{is_named, same, wrong};
use crate::{Case, Setup, Space, Vector, Wrong};
use core::time::Duration;
use longwire_core::buf::{RxBuf, RxCursor};
use longwire_core::sse::{DEFAULT_MAX_EVENT, Decoder, SseError, Step};

pub(crate) fn run(case: &Case, setup: &Setup, space: &mut Space<'_>) -> Result<(), Wrong> {
    let vector = case.vector;
    vector.knows(&["max_event", "last_id", "retry", "end"], &["event"])?;
    let max_event = vector.line("max_event").map(|line| line.parse()).transpose()?;
    let mut reader = Reader {
        vector,
        decoder: Decoder::new(max_event.unwrap_or(DEFAULT_MAX_EVENT)),
        rx: space.rx,
        rx_len: setup.rx,
        rx_at: RxCursor::new(),
        events: 0,
        error: None,
    };
    let mut arrived = 0;
    for byte in case.wire()? {
        arrived += 1;
        reader.receive(byte)?;
        if setup.cut.is_at(arrived) {
            reader.turn()?;
        }
    }
    reader.turn()?;
    reader.end()
}

struct Reader<'a> {
    vector: Vector,
    decoder: Decoder,
    rx: &'a mut [u8],
    /// So much of it is lent.
    rx_len: usize,
    rx_at: RxCursor,
    /// Events that have come.
    events: usize,
    error: Option<SseError>,
}

impl Reader<'_> {
    fn receive(&mut self, byte: u8) -> Result<(), Wrong> {
        while self.error.is_none() {
            if self.lend()?.fill(&[byte]) == 1 {
                break;
            }
            self.turn()?;
        }
        Ok(())
    }

    /// Works off what was received.
    fn turn(&mut self) -> Result<(), Wrong> {
        while self.error.is_none() {
            let Some(rx) = self.rx.get_mut(..self.rx_len) else {
                return wrong!(self.vector.head, "asks for {} bytes", self.rx_len);
            };
            let mut rx = RxBuf::new(rx, &mut self.rx_at);
            match self.decoder.poll(&mut rx) {
                Ok(Step::Event) => {
                    let event = self.decoder.event(rx);
                    let mut lines = self.vector.lines().filter(|line| line.word == "event");
                    let Some(line) = lines.nth(self.events) else {
                        return wrong!(self.vector.head, "an event too many: {event:x?}");
                    };
                    self.events += 1;
                    let [name, data, id] = line.list()?;
                    if !same(event.name, name) || !same(event.data, data) || !same(event.id, id) {
                        return wrong!(line, "another event: {event:x?}");
                    }
                }
                Ok(Step::NeedInput) if rx.spare_mut().is_empty() => {
                    return wrong!(self.vector.head, "there is no room for what it needs");
                }
                Ok(Step::NeedInput) => return Ok(()),
                Ok(Step::NeedSpace) => self.rx_len = 2 * self.rx_len + 1,
                Err(error) => self.error = Some(error),
            }
        }
        Ok(())
    }

    fn lend(&mut self) -> Result<RxBuf<'_>, Wrong> {
        match self.rx.get_mut(..self.rx_len) {
            Some(rx) => Ok(RxBuf::new(rx, &mut self.rx_at)),
            None => wrong!(self.vector.head, "asks for {} bytes", self.rx_len),
        }
    }

    fn end(self) -> Result<(), Wrong> {
        let Some(line) = self.vector.line("end") else { return wrong!(self.vector.head, "no end") };
        if let Some(missing) = self.vector.lines().filter(|line| line.word == "event").nth(self.events) {
            return wrong!(missing, "this event does not come");
        }
        let as_expected = match self.error {
            None => line.rest == "cut",
            Some(error) => line.rest.strip_prefix("failed ").is_some_and(|name| is_named(&error, name)),
        };
        if !as_expected {
            return wrong!(line, "another end: {:?}", self.error);
        }
        let id = self.vector.line("last_id").map(|line| line.bytes()).transpose()?;
        if !same(self.decoder.last_event_id(), id.into_iter().flatten()) {
            return wrong!(line, "another last id: {:x?}", self.decoder.last_event_id());
        }
        let retry = self.vector.number("retry")?.map(Duration::from_millis);
        if self.decoder.retry() != retry {
            return wrong!(line, "another retry: {:?}", self.decoder.retry());
        }
        Ok(())
    }
}
