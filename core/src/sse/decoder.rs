//! An event stream, read in a lent buffer.

use core::{fmt, ops::Range, time::Duration};

use super::{CR, LF, line_end};
use crate::buf::{RxBuf, slide};

/// [`Decoder::default`]'s limit for one event, in bytes.
pub const DEFAULT_MAX_EVENT: usize = 64 * 1024;

/// Reads an event stream (WHATWG HTML section 9.2.6) out of a lent [`RxBuf`].
///
/// Call [`poll`](Self::poll) until it says [`Step::Event`], then take the [`event`](Self::event); the next poll
/// drops it. An event that was not taken, because a future was dropped in between, is lost by the next poll only.
///
/// # What it keeps
/// Of an event that is not whole yet, the values of `data`, `event` and `id` lines wait in the buffer, each with
/// two bytes of overhead; `max_event` limits their sum, and so what a peer can make a reader hold. Comments, unknown
/// fields and events without data pass through in any length and number. A buffer of `max_event + 7` bytes never
/// [needs more space](Step::NeedSpace); a smaller one is enough for smaller events.
///
/// The decoder itself holds the last event id, up to `ID` bytes, because it has to outlive the connection. A longer
/// id is an error: without it the stream could not be resumed where it ended.
///
/// # UTF-8
/// The standard decodes the stream first, and replaces what is not UTF-8 by U+FFFD. That does not fit into the
/// place of the bytes it replaces, so data, names and ids are handed out as the bytes that came:
/// [`SseEvent::data_str`] refuses what is not UTF-8, and [`utf8_chunks`](slice::utf8_chunks) replaces it as the
/// standard wants. Lines and fields come out the same, since every byte that decides about them is ASCII.
///
/// # Signs of life
/// A comment is a usual heartbeat, but no event: count reads from the socket, not events.
///
/// An example is in the [module](super).
#[derive(Clone, Debug)]
pub struct Decoder<const ID: usize = 64> {
    max_event: usize,
    at: At,
    /// The last line with a field ended in CR: an LF that comes next belongs to it.
    after_cr: bool,
    found: Option<Found>,
    retry: Option<u32>,
    id: heapless::Vec<u8, ID>,
}

// The bytes of the id come on top.
const _: () = assert!(size_of::<Decoder<0>>() <= 80);

/// Where in the stream we are.
#[derive(Clone, Copy, Debug)]
enum At {
    /// At its beginning, where one byte order mark is ignored.
    Start,
    /// At the beginning of a line.
    Line,
    /// In a line, behind its field name, colon and space.
    Value(Field),
    /// Behind an error.
    Failed(SseError),
}

#[derive(Clone, Copy, Debug)]
enum Field {
    Data,
    Name,
    Id,
    /// The milliseconds so far, if there was a digit.
    Retry(Option<u32>),
    /// Comments, unknown fields, and a retry time that is no number.
    Ignored,
}

impl Field {
    /// The byte before a kept value. Kept are records of a tag, a value and an LF, which no value contains.
    const fn tag(self) -> Option<u8> {
        match self {
            Self::Data => Some(b'd'),
            Self::Name => Some(b'e'),
            Self::Id => Some(b'i'),
            Self::Retry(_) | Self::Ignored => None,
        }
    }
}

/// Where in the kept bytes an event lies.
#[derive(Clone, Debug)]
struct Found {
    name: Range<usize>,
    data: Range<usize>,
}

/// What a [poll](Decoder::poll) came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Step {
    /// An event is whole: take it by [`Decoder::event`].
    Event,
    /// Read more into [`RxBuf::spare_mut`]. At the end of the stream: what is held is an event that was cut off,
    /// which the standard discards; [`Decoder::restart`] does.
    NeedInput,
    /// The buffer is full, and the event not whole: go on in a larger one, or give up.
    NeedSpace,
}

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SseEvent<'b> {
    /// Its type; `message` when the stream gave none.
    pub name: &'b [u8],
    /// The values of its `data` lines, joined by LF.
    pub data: &'b [u8],
    /// The id of this event, or else of the last one before it that had an id; what
    /// [`Decoder::last_event_id`] says.
    pub id: &'b [u8],
}

impl<'b> SseEvent<'b> {
    /// The data as text.
    ///
    /// # Errors
    /// When it is not UTF-8; see [`Decoder`] for what the standard does then.
    pub fn data_str(&self) -> Result<&'b str, core::str::Utf8Error> {
        core::str::from_utf8(self.data)
    }
}

impl<const ID: usize> Default for Decoder<ID> {
    fn default() -> Self {
        Self::new(DEFAULT_MAX_EVENT)
    }
}

impl<const ID: usize> Decoder<ID> {
    /// At the beginning of a stream. `max_event` limits what one event may make a reader hold, in bytes: the values
    /// of its `data`, `event` and `id` lines, and two bytes for each of these lines.
    pub const fn new(max_event: usize) -> Self {
        Self { max_event, at: At::Start, after_cr: false, found: None, retry: None, id: heapless::Vec::new() }
    }

    /// Reads on, up to the next event or the end of what is unread.
    ///
    /// The work is linear in the bytes received, however they are cut.
    ///
    /// # Errors
    /// After an error every poll gives the same error, until [`restart`](Self::restart). Events before it were
    /// handed out, and [`last_event_id`](Self::last_event_id) is theirs.
    pub fn poll(&mut self, rx: &mut RxBuf<'_>) -> Result<Step, SseError> {
        if self.found.take().is_some() {
            rx.release(rx.kept().len());
        }
        let step = self.advance(rx);
        if let Err(error) = step {
            self.at = At::Failed(error);
        }
        step
    }

    /// The event that the last poll found. It borrows the decoder for the id, and the buffer for the rest; to look
    /// at it for a moment, lend [`RxBuf::reborrow`].
    ///
    /// Without such an event, or with another buffer, it is an event without data.
    pub fn event<'b>(&'b self, rx: RxBuf<'b>) -> SseEvent<'b> {
        let (kept, _) = rx.into_parts();
        let part = |of: fn(&Found) -> &Range<usize>| {
            self.found.as_ref().and_then(|found| kept.get(of(found).clone())).unwrap_or_default()
        };
        let (name, data) = (part(|found| &found.name), part(|found| &found.data));
        SseEvent { name: if name.is_empty() { b"message" } else { name }, data, id: &self.id }
    }

    /// The id to resume from, as `Last-Event-ID`; empty when there is none. It changes only with a whole event.
    pub fn last_event_id(&self) -> &[u8] {
        &self.id
    }

    /// Sets the id to resume from, for a reader that knows it from before.
    ///
    /// # Errors
    /// [`SseError::IdTooLong`]; the id is unchanged then.
    pub fn set_last_event_id(&mut self, id: &[u8]) -> Result<(), SseError> {
        self.id = heapless::Vec::from_slice(id).map_err(|_| SseError::IdTooLong)?;
        Ok(())
    }

    /// How long the server wants its readers to wait before they reconnect, if it said so, even in a stream before
    /// this one. At most `u32::MAX` milliseconds (49 days): more counts as that. A value with anything but ASCII
    /// digits, or with none, was ignored.
    pub fn retry(&self) -> Option<Duration> {
        self.retry.map(|millis| Duration::from_millis(millis.into()))
    }

    /// At the end of a stream, makes ready for the next: discards what `rx` holds, so also an event that was cut
    /// off, and keeps the last event id and the retry time, as browsers do.
    pub fn restart(&mut self, rx: &mut RxBuf<'_>) {
        rx.release(rx.kept().len());
        rx.skip(rx.unread().len());
        (self.at, self.after_cr, self.found) = (At::Start, false, None);
    }

    fn advance(&mut self, rx: &mut RxBuf<'_>) -> Result<Step, SseError> {
        loop {
            let step = match self.at {
                At::Start => self.start(rx),
                At::Line => self.line(rx)?,
                At::Value(field) => self.value(field, rx)?,
                At::Failed(error) => return Err(error),
            };
            if let Some(step) = step {
                return Ok(step);
            }
        }
    }

    /// "If the stream begins with a byte order mark, ignore it": one only, the next would belong to a field name.
    fn start(&mut self, rx: &mut RxBuf<'_>) -> Option<Step> {
        const MARK: &[u8] = b"\xEF\xBB\xBF";
        if rx.unread().starts_with(MARK) {
            rx.skip(MARK.len());
        } else if MARK.starts_with(rx.unread()) {
            return Some(need(rx));
        }
        self.at = At::Line;
        None
    }

    /// The beginning of a line, up to its value; or an empty line.
    fn line(&mut self, rx: &mut RxBuf<'_>) -> Result<Option<Step>, SseError> {
        let Some(&first) = rx.unread().first() else { return Ok(Some(need(rx))) };
        if core::mem::take(&mut self.after_cr) && first == LF {
            rx.skip(1);
            return Ok(None);
        }
        if matches!(first, CR | LF) {
            // The LF of a CRLF here is one more empty line, which says nothing.
            rx.skip(1);
            return self.dispatch(rx);
        }
        let Some((field, len)) = field(rx.unread()) else { return Ok(Some(need(rx))) };
        if let Some(tag) = field.tag() {
            // The tag takes the place of the last byte before the value: its space, its colon, or the `a` of `data`.
            self.charge(rx, 1)?;
            rx.skip(len.saturating_sub(1));
            if let Some(byte) = rx.unread_mut().first_mut() {
                *byte = tag;
            }
            rx.keep(1);
        } else {
            rx.skip(len);
        }
        self.at = At::Value(field);
        Ok(None)
    }

    /// A value, as far as it came; and the end of its line.
    fn value(&mut self, field: Field, rx: &mut RxBuf<'_>) -> Result<Option<Step>, SseError> {
        let end = line_end(rx.unread());
        let len = end.unwrap_or(rx.unread().len());
        match field {
            Field::Data | Field::Name | Field::Id => {
                self.charge(rx, len)?;
                rx.keep(len);
            }
            Field::Retry(millis) => {
                self.at = At::Value(retry(millis, rx.unread().get(..len).unwrap_or_default()));
                rx.skip(len);
            }
            Field::Ignored => rx.skip(len),
        }
        if end.is_none() {
            return Ok(Some(need(rx)));
        }
        self.after_cr = rx.unread().first() == Some(&CR);
        if field.tag().is_some() {
            self.charge(rx, 1)?;
            if let Some(end) = rx.unread_mut().first_mut() {
                *end = LF;
            }
            rx.keep(1);
        } else {
            rx.skip(1);
        }
        // "Set the event stream's reconnection time": at once, even if no event follows.
        if let At::Value(Field::Retry(Some(millis))) = self.at {
            self.retry = Some(millis);
        }
        self.at = At::Line;
        Ok(None)
    }

    /// "If the line is empty, dispatch the event."
    fn dispatch(&mut self, rx: &mut RxBuf<'_>) -> Result<Option<Step>, SseError> {
        let block = Block::read(rx.kept());
        if let Some(id) = block.id.and_then(|id| rx.kept().get(id)) {
            self.set_last_event_id(id)?;
        }
        if block.lines == 0 {
            rx.release(rx.kept().len());
            return Ok(None);
        }
        let found = Found { name: block.name, data: block.data };
        self.found = Some(if block.lines > 1 { join(rx.kept_mut(), found) } else { found });
        Ok(Some(Step::Event))
    }

    /// Whether `more` bytes may be kept.
    fn charge(&self, rx: &RxBuf<'_>, more: usize) -> Result<(), SseError> {
        let held = rx.kept().len().saturating_add(more);
        if held > self.max_event { Err(SseError::EventTooLarge) } else { Ok(()) }
    }
}

/// What has to happen before we can go on.
fn need(rx: &RxBuf<'_>) -> Step {
    if rx.is_full() { Step::NeedSpace } else { Step::NeedInput }
}

/// The field that a line begins with, and the bytes before its value. `None` when more has to come to tell.
fn field(line: &[u8]) -> Option<(Field, usize)> {
    /// Up to and including the colon of the longest field name that is known.
    const LONGEST: usize = 6;
    let Some(len) = line.iter().take(LONGEST).position(|byte| matches!(*byte, b':' | CR | LF)) else {
        return (line.len() >= LONGEST).then_some((Field::Ignored, 0));
    };
    let field = match line.get(..len)? {
        b"data" => Field::Data,
        b"event" => Field::Name,
        b"id" => Field::Id,
        b"retry" => Field::Retry(None),
        _ => return Some((Field::Ignored, len)),
    };
    if line.get(len) != Some(&b':') {
        // "The string is not empty but does not contain a colon": all of it is the name, the value is empty.
        return Some((field, len));
    }
    // "If value starts with a U+0020 SPACE character, remove it": one only.
    let space = *line.get(len + 1)? == b' ';
    Some((field, len + 1 + usize::from(space)))
}

/// "If the field value consists of only ASCII digits, then interpret it as an integer in base ten."
fn retry(millis: Option<u32>, digits: &[u8]) -> Field {
    digits.iter().fold(Field::Retry(millis), |field, digit| match field {
        Field::Retry(millis) if digit.is_ascii_digit() => {
            let millis = millis.unwrap_or(0).saturating_mul(10).saturating_add(u32::from(digit - b'0'));
            Field::Retry(Some(millis))
        }
        _ => Field::Ignored,
    })
}

/// What the kept records of a whole event are.
#[derive(Default)]
struct Block {
    /// The last id without a NUL: "if the field value does not contain U+0000 NULL".
    id: Option<Range<usize>>,
    /// The last name.
    name: Range<usize>,
    /// The first data line.
    data: Range<usize>,
    /// How many data lines there are.
    lines: usize,
}

impl Block {
    fn read(kept: &[u8]) -> Self {
        let (mut block, mut at) = (Self::default(), 0);
        while let Some((tag, value)) = record(kept, at) {
            at = value.end + 1;
            match tag {
                b'd' => {
                    if block.lines == 0 {
                        block.data = value;
                    }
                    block.lines += 1;
                }
                b'e' => block.name = value,
                _ if kept.get(value.clone()).is_some_and(|id| !id.contains(&0)) => block.id = Some(value),
                _ => {}
            }
        }
        block
    }
}

/// The record that begins at `at`: its tag, and where its value is.
fn record(kept: &[u8], at: usize) -> Option<(u8, Range<usize>)> {
    let (&tag, rest) = kept.get(at..)?.split_first()?;
    let len = line_end(rest)?;
    Some((tag, at + 1..at + 1 + len))
}

/// Brings several data lines together, from where the first one is:
///
/// ```text
///     e add LF d 73857293 LF i 7 LF d 2 LF    becomes    e add LF d 73857293 LF 2 ...
/// ```
///
/// A name that comes after the first data line is brought to the front before, out of the way.
fn join(kept: &mut [u8], found: Found) -> Found {
    let Found { mut name, data: Range { mut start, .. } } = found;
    if name.start > start {
        let len = name.len();
        if let Some(head) = kept.get_mut(..name.end)
            && len <= head.len()
        {
            head.rotate_right(len);
        }
        // Its record is still in its place, with no value.
        name = 0..len;
        start += len;
    }
    let (mut at, mut end) = (start.saturating_sub(1), start);
    while let Some((tag, value)) = record(kept, at) {
        at = value.end + 1;
        if tag == b'd' {
            slide(kept, value.start..at, end);
            end += at - value.start;
        }
    }
    // "If the data buffer's last character is a U+000A LINE FEED, remove it."
    Found { name, data: start..end.saturating_sub(1) }
}

/// Why a stream cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum SseError {
    /// An event is larger than `max_event`.
    EventTooLarge,
    /// The id of an event is longer than the decoder has room for.
    IdTooLong,
}

impl fmt::Display for SseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EventTooLarge => "the event stream has an event larger than max_event",
            Self::IdTooLong => "the event stream has an id longer than this reader keeps",
        })
    }
}

impl core::error::Error for SseError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buf::RxCursor;
    use crate::work;
    use std::string::ToString;

    /// Bytes that were looked at for a line's end, or moved, while `wire` came in pieces and became one event.
    fn work_of(wire: &[u8], piece: usize) -> usize {
        let (mut bytes, mut cursor) = (std::vec![0; wire.len()], RxCursor::default());
        let (mut rx, mut decoder) = (RxBuf::new(&mut bytes, &mut cursor), Decoder::<8>::new(usize::MAX));
        let mut events = 0;
        work::take();
        for piece in wire.chunks(piece) {
            assert_eq!(rx.fill(piece), piece.len());
            while decoder.poll(&mut rx) == Ok(Step::Event) {
                events += 1;
            }
        }
        assert_eq!(events, 1);
        work::take()
    }

    #[test]
    fn an_event_costs_linear_work_however_it_is_cut() {
        let one = ["data: ", &"x".repeat(20_000), "\n\n"].concat();
        let many = ["data: 1\n".repeat(4_000), "event: e\nid: i\n\n".into()].concat();
        let last = [&one[..one.len() - 1], "event: last\n\n"].concat();
        for piece in [1, 7, 1000, usize::MAX] {
            // Each byte when it comes, and when the event is whole; several lines once more, and they are moved.
            for (wire, most) in [(&one, 2), (&last, 2), (&many, 4)] {
                let work = work_of(wire.as_bytes(), piece);
                assert!(work <= most * wire.len(), "{work} for {} bytes, in pieces of {piece}", wire.len());
            }
        }
    }

    #[test]
    fn an_error_says_which_limit_it_was() {
        assert!(SseError::EventTooLarge.to_string().contains("larger than max_event"));
        assert!(SseError::IdTooLong.to_string().contains("an id longer"));
    }
}
