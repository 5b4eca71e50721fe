//! What the gateway sends down: a bounded queue between the uplink and whoever acts on it.

use core::cell::RefCell;
use core::fmt;

use embassy_sync::blocking_mutex::Mutex;
use embassy_sync::blocking_mutex::raw::RawMutex;
use embassy_sync::signal::Signal;
use heapless::Vec;
use longwire_core::log::{Cursor, MAX_KEY, MAX_TOPIC};
use longwire_core::session::{Data, Event, Gap, GapReason, Position, Sink, Text};
use minicbor::Decode;

/// What happens when a command arrives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Overflow {
    /// In a full queue the oldest makes room.
    #[default]
    DropOldest,
    /// The command that waits for the same topic and key is replaced, also when there would be room for both: what is to be
    /// done is what was said last. In a full queue the oldest makes room.
    Conflate,
}

/// An event of a topic that the device [subscribes](crate::Uplink::with_commands) to, with at most `BYTES` bytes of topic,
/// key and data.
#[derive(Clone, PartialEq, Eq)]
pub struct Command<const BYTES: usize> {
    bytes: Vec<u8, BYTES>,
    topic: u8,
    key: Option<u8>,
    opaque: bool,
    past: bool,
}

impl<const BYTES: usize> Command<BYTES> {
    /// `None` when it does not fit.
    fn new(event: &Event<'_>) -> Option<Self> {
        let mut bytes = Vec::new();
        let mut text = |text: Text<'_>, most: usize| {
            let len = text.len();
            let fits = len <= most && len <= BYTES.saturating_sub(bytes.len());
            (fits && text.write_to(&mut Utf8(&mut bytes)).is_ok()).then(|| u8::try_from(len).ok())?
        };
        let topic = text(event.topic, MAX_TOPIC)?;
        let key = match event.key {
            Some(key) => Some(text(key, MAX_KEY)?),
            None => None,
        };
        let opaque = matches!(event.data, Data::Bytes { .. });
        match event.data {
            Data::Cbor(cbor) => bytes.put(cbor).ok()?,
            // One form for the application, whatever the transport speaks.
            #[cfg(any(feature = "json", feature = "sse"))]
            Data::Json(json) => {
                // Dynamic: the encoder of messages has the same one.
                let sink: &mut dyn Sink = &mut bytes;
                longwire_core::session::transcode::json_to_cbor(json, sink).ok()?;
            }
            #[cfg(not(any(feature = "json", feature = "sse")))]
            Data::Json(_) => return None,
            Data::Bytes { bytes: opaque, .. } => opaque.write_to(&mut bytes).ok()?,
        }
        Some(Self { bytes, topic, key, opaque, past: matches!(event.position, Position::Past(_)) })
    }

    fn split(&self) -> (&[u8], &[u8], &[u8]) {
        let (topic, rest) = self.bytes.split_at_checked(self.topic.into()).unwrap_or_default();
        let (key, data) = rest.split_at_checked(self.key.unwrap_or(0).into()).unwrap_or_default();
        (topic, key, data)
    }

    /// What it is about.
    pub fn topic(&self) -> &str {
        core::str::from_utf8(self.split().0).unwrap_or_default()
    }

    /// What distinguishes it within the topic.
    pub fn key(&self) -> Option<&str> {
        self.key.and_then(|_| core::str::from_utf8(self.split().1).ok())
    }

    /// Its value: one CBOR item, whatever form it was published in, or opaque bytes ([`is_opaque`](Self::is_opaque)).
    pub fn data(&self) -> &[u8] {
        self.split().2
    }

    /// Its value, decoded.
    ///
    /// # Errors
    /// When it is something else, or opaque.
    pub fn decode<'b, T: Decode<'b, ()>>(&'b self) -> Result<T, minicbor::decode::Error> {
        if self.opaque {
            return Err(minicbor::decode::Error::message("opaque bytes"));
        }
        minicbor::decode(self.data())
    }

    /// Whether [`data`](Self::data) is opaque bytes.
    pub const fn is_opaque(&self) -> bool {
        self.opaque
    }

    /// Whether it is part of the state that comes first with `since=latest`: it may be old.
    pub const fn is_past(&self) -> bool {
        self.past
    }

    fn is_about(&self, other: &Self) -> bool {
        let ((topic, key, _), (other_topic, other_key, _)) = (self.split(), other.split());
        topic == other_topic && key == other_key && self.key.is_some() == other.key.is_some()
    }
}

impl<const BYTES: usize> fmt::Debug for Command<BYTES> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Command")
            .field("topic", &self.topic())
            .field("key", &self.key())
            .field("data", &self.data())
            .finish_non_exhaustive()
    }
}

/// Text into bytes.
struct Utf8<'a, const BYTES: usize>(&'a mut Vec<u8, BYTES>);

impl<const BYTES: usize> fmt::Write for Utf8<'_, BYTES> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes()).map_err(|_| fmt::Error)
    }
}

/// What [`Commands`] hands out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrival<const BYTES: usize> {
    /// A command.
    Command(Command<BYTES>),
    /// Commands between these positions may be missing: the gateway no longer had them, or there was no room for one of them in the
    /// receive buffer ([`TooLarge`](longwire_core::session::GapReason::TooLarge)). Of several gaps in a row the first says where it
    /// begins, and the last where it ends and why; but with [`Reset`](longwire_core::session::GapReason::Reset), which stands where it
    /// came, whatever comes after it: what was known is void, and the state follows.
    Gap(Gap),
}

/// What became of the commands so far: `received = taken + conflated + dropped_oldest + too_large + waiting`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct CommandCounts {
    /// Came from the gateway.
    pub received: u32,
    /// Handed out.
    pub taken: u32,
    /// Replaced by a newer one of the same topic and key ([`Overflow::Conflate`]).
    pub conflated: u32,
    /// Dropped to make room for newer ones.
    pub dropped_oldest: u32,
    /// Larger than a place in the queue.
    pub too_large: u32,
    /// In the queue.
    pub waiting: u32,
}

/// Commands on their way to the application: at most `N` of them, each with at most `BYTES` bytes of topic, key and data.
///
/// When one arrives, in a full queue or in place of another, `N * BYTES` bytes are moved at most, within the critical section of
/// `M`; under [`Overflow::Conflate`] as many are compared.
///
/// The uplink never waits for the application. A command counts as had when it is in the queue: after a connection was cut
/// the gateway goes on behind it, and says so when it no longer has what came meanwhile ([`Arrival::Gap`]). That memory
/// is the uplink's; after a reset commands begin where the [subscription](crate::Uplink::with_commands) says.
///
/// ```
/// use embassy_sync::blocking_mutex::raw::CriticalSectionRawMutex;
/// use longwire_embassy::{Arrival, Commands, Overflow};
///
/// static COMMANDS: Commands<CriticalSectionRawMutex, 8, 64> = Commands::new(Overflow::Conflate);
///
/// async fn obey(mut blink: impl FnMut(bool)) {
///     loop {
///         match COMMANDS.next().await {
///             Arrival::Command(command) if command.topic().ends_with("/led") => {
///                 if let Ok(on) = command.decode() {
///                     blink(on);
///                 }
///             }
///             _ => {}
///         }
///     }
/// }
/// ```
pub struct Commands<M: RawMutex, const N: usize, const BYTES: usize> {
    queue: Mutex<M, RefCell<Queue<N, BYTES>>>,
    overflow: Overflow,
    arrived: Signal<M, ()>,
}

struct Queue<const N: usize, const BYTES: usize> {
    commands: Vec<Command<BYTES>, N>,
    /// How many of the commands come before the gap; `None`: there is no gap, whatever lies in its place.
    before_gap: Option<usize>,
    gap: Gap,
    counts: CommandCounts,
}

impl<M: RawMutex, const N: usize, const BYTES: usize> Commands<M, N, BYTES> {
    /// An empty queue. With [`Overflow::DropOldest`] it is all zeros, so a `static` takes none of flash to begin from.
    pub const fn new(overflow: Overflow) -> Self {
        const { assert!(N > 0, "a queue has a place") }
        let counts = CommandCounts {
            received: 0,
            taken: 0,
            conflated: 0,
            dropped_oldest: 0,
            too_large: 0,
            waiting: 0,
        };
        let zero = Cursor { epoch: 0, seq: 0 };
        let gap = Gap { from: zero, to: zero, reason: GapReason::Evicted, skipped: None };
        let queue = Queue { commands: Vec::new(), before_gap: None, gap, counts };
        Self { queue: Mutex::new(RefCell::new(queue)), overflow, arrived: Signal::new() }
    }

    /// Waits for the next one. Cancel-safe: what is handed out was waited for by nobody else. One task waits at a time.
    pub async fn next(&self) -> Arrival<BYTES> {
        loop {
            if let Some(arrival) = self.try_next() {
                return arrival;
            }
            self.arrived.wait().await;
        }
    }

    /// The next one, if there is one. `N * BYTES` bytes are moved at most, within the critical section of `M`.
    pub fn try_next(&self) -> Option<Arrival<BYTES>> {
        self.queue.lock(|queue| {
            // Nobody else has it: no code of others runs while it is held.
            let queue = &mut *queue.try_borrow_mut().ok()?;
            if queue.before_gap == Some(0) {
                queue.before_gap = None;
                return Some(Arrival::Gap(queue.gap));
            }
            let command = queue.take(0)?;
            queue.counts.taken = queue.counts.taken.wrapping_add(1);
            Some(Arrival::Command(command))
        })
    }

    fn with(&self, work: impl FnOnce(&mut Queue<N, BYTES>)) {
        self.queue.lock(|queue| {
            if let Ok(mut queue) = queue.try_borrow_mut() {
                work(&mut queue);
            }
        });
    }

    /// What became of the commands so far.
    pub fn counts(&self) -> CommandCounts {
        self.queue.lock(|queue| queue.try_borrow().map(|queue| queue.counts).unwrap_or_default())
    }
}

impl<const N: usize, const BYTES: usize> Queue<N, BYTES> {
    fn take(&mut self, at: usize) -> Option<Command<BYTES>> {
        if at >= self.commands.len() {
            return None;
        }
        if let Some(before) = &mut self.before_gap
            && *before > at
        {
            *before -= 1;
        }
        self.counts.waiting = self.counts.waiting.saturating_sub(1);
        Some(self.commands.remove(at))
    }

    /// `None` is a command that did not fit.
    fn put(&mut self, command: Option<Command<BYTES>>, overflow: Overflow) {
        self.counts.received = self.counts.received.wrapping_add(1);
        let Some(command) = command else {
            self.counts.too_large = self.counts.too_large.wrapping_add(1);
            return;
        };
        let same = match overflow {
            Overflow::Conflate => self.commands.iter().position(|other| other.is_about(&command)),
            Overflow::DropOldest => None,
        };
        if same.and_then(|at| self.take(at)).is_some() {
            self.counts.conflated = self.counts.conflated.wrapping_add(1);
        }
        if self.commands.is_full() && self.take(0).is_some() {
            self.counts.dropped_oldest = self.counts.dropped_oldest.wrapping_add(1);
        }
        if self.commands.push(command).is_ok() {
            self.counts.waiting = self.counts.waiting.saturating_add(1);
        }
    }

    fn put_gap(&mut self, gap: Gap) {
        let waiting = self.commands.len();
        let Some(before) = &mut self.before_gap else {
            (self.gap, self.before_gap) = (gap, Some(waiting));
            return;
        };
        let (first, second) = (self.gap.skipped, gap.skipped);
        let skipped = first.zip(second).map(|(first, second)| first.saturating_add(second));
        // Told at the place of the first: rather too early than too late. But what came before a reset is void, gaps and all.
        let reason = match (self.gap.reason, gap.reason) {
            (_, GapReason::Reset) => {
                *before = waiting;
                GapReason::Reset
            }
            (GapReason::Reset, _) => GapReason::Reset,
            (_, last) => last,
        };
        self.gap = Gap { from: self.gap.from, reason, skipped, ..gap };
    }
}

/// What an uplink needs of such a queue, whatever its size.
pub(crate) trait Inbox {
    /// An event came.
    fn put(&self, event: &Event<'_>);
    /// A gap was told.
    fn put_gap(&self, gap: Gap);
    /// How many events it holds.
    #[cfg(feature = "ladder")]
    fn places(&self) -> usize;
}

impl<M: RawMutex, const N: usize, const BYTES: usize> Inbox for Commands<M, N, BYTES> {
    fn put(&self, event: &Event<'_>) {
        // Before the critical section: JSON becomes CBOR here.
        let command = Command::new(event);
        self.with(|queue| queue.put(command, self.overflow));
        self.arrived.signal(());
    }

    fn put_gap(&self, gap: Gap) {
        self.with(|queue| queue.put_gap(gap));
        self.arrived.signal(());
    }

    #[cfg(feature = "ladder")]
    fn places(&self) -> usize {
        N
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use embassy_sync::blocking_mutex::raw::NoopRawMutex;
    use longwire_core::log::Cursor;
    use longwire_core::session::GapReason;
    use std::string::{String, ToString};
    use std::vec::Vec;

    type Small = Commands<NoopRawMutex, 3, 16>;

    fn at(seq: u64) -> Position {
        Position::At(Cursor { epoch: 1, seq })
    }

    fn put(commands: &Small, topic: &str, key: Option<&str>, data: &[u8]) {
        let (key, data) = (key.map(Into::into), Data::Cbor(data));
        commands.put(&Event { topic: topic.into(), position: at(1), key, data });
    }

    fn gap(from: u64, to: u64, skipped: Option<u64>) -> Gap {
        let [from, to] = [from, to].map(|seq| Cursor { epoch: 1, seq });
        Gap { from, to, reason: GapReason::Evicted, skipped }
    }

    fn drain(commands: &Small) -> Vec<String> {
        let next = || {
            Some(match commands.try_next()? {
                Arrival::Command(command) => {
                    std::format!("{}={}", command.topic(), command.decode::<u8>().unwrap())
                }
                Arrival::Gap(gap) => std::format!("gap {}-{}", gap.from.seq, gap.to.seq),
            })
        };
        core::iter::from_fn(next).collect()
    }

    fn add_up(counts: CommandCounts) -> bool {
        let CommandCounts { received, taken, conflated, dropped_oldest, too_large, waiting } = counts;
        received == taken + conflated + dropped_oldest + too_large + waiting
    }

    #[test]
    fn a_full_queue_drops_its_oldest_and_counts() {
        let commands = Small::new(Overflow::DropOldest);
        (1..=5).for_each(|value| put(&commands, "a", None, &[value]));
        assert_eq!(drain(&commands), ["a=3", "a=4", "a=5"]);
        let counts = CommandCounts { received: 5, taken: 3, dropped_oldest: 2, ..CommandCounts::default() };
        assert_eq!(commands.counts(), counts);
    }

    #[test]
    fn conflation_keeps_the_newest_of_each_topic_and_key_in_the_order_of_arrival() {
        let commands = Small::new(Overflow::Conflate);
        put(&commands, "a", None, &[1]);
        put(&commands, "b", None, &[2]);
        put(&commands, "a", Some(""), &[3]);
        put(&commands, "a", None, &[4]);
        assert_eq!(drain(&commands), ["b=2", "a=3", "a=4"]);
        put(&commands, "a", Some("k"), &[1]);
        put(&commands, "a", Some("l"), &[2]);
        put(&commands, "a", Some("m"), &[3]);
        put(&commands, "a", Some("n"), &[4]);
        assert_eq!(drain(&commands), ["a=2", "a=3", "a=4"]);
        let counts = CommandCounts {
            received: 8,
            taken: 6,
            conflated: 1,
            dropped_oldest: 1,
            ..CommandCounts::default()
        };
        assert_eq!(commands.counts(), counts);
        assert!(add_up(counts));
    }

    #[test]
    fn a_command_larger_than_its_place_is_counted_and_the_others_go_on() {
        let commands = Small::new(Overflow::DropOldest);
        put(&commands, "a/topic/of/17/byt", None, &[1]);
        put(&commands, "a/topic/of/16/by", None, &[1]);
        put(&commands, "a/topic/of/15/b", None, &[1]);
        let bytes = Data::Bytes { content_type: None, bytes: (&b"xyz"[..]).into() };
        let position = Position::Past(Cursor { epoch: 1, seq: 1 });
        commands.put(&Event { topic: "o".into(), position, key: Some("k".into()), data: bytes });
        assert_eq!(commands.counts().too_large, 2);
        let Some(Arrival::Command(first)) = commands.try_next() else { panic!() };
        assert_eq!((first.topic(), first.key(), first.is_past()), ("a/topic/of/15/b", None, false));
        let Some(Arrival::Command(command)) = commands.try_next() else { panic!() };
        assert_eq!((command.key(), command.data(), command.is_past()), (Some("k"), &b"xyz"[..], true));
        assert!(command.is_opaque() && command.decode::<u8>().is_err());
        assert!(std::format!("{command:?}").contains("\"o\""));
        assert!(!first.decode::<bool>().unwrap_err().to_string().is_empty());
    }

    #[test]
    fn a_gap_stands_in_line_and_gaps_become_one() {
        let commands = Small::new(Overflow::DropOldest);
        put(&commands, "a", None, &[1]);
        commands.put_gap(gap(5, 7, Some(2)));
        put(&commands, "a", None, &[2]);
        commands.put_gap(gap(8, 9, Some(1)));
        put(&commands, "a", None, &[3]);
        let queued = commands.queue.lock(|queue| (queue.borrow().before_gap, queue.borrow().gap));
        assert_eq!(queued, (Some(1), gap(5, 9, Some(3))));
        assert_eq!(drain(&commands), ["a=1", "gap 5-9", "a=2", "a=3"]);
        // Behind commands that are dropped it comes first.
        put(&commands, "a", None, &[1]);
        commands.put_gap(gap(1, 2, None));
        (2..=4).for_each(|value| put(&commands, "a", None, &[value]));
        assert_eq!(drain(&commands), ["gap 1-2", "a=2", "a=3", "a=4"]);
    }

    #[test]
    fn a_reset_is_told_whichever_gaps_it_becomes_one_with() {
        let commands = Small::new(Overflow::DropOldest);
        let because = |reason, gap| Gap { reason, ..gap };
        commands.put_gap(gap(1, 2, Some(1)));
        put(&commands, "of what is void", None, &[1]);
        commands.put_gap(because(GapReason::Reset, gap(3, 5, None)));
        put(&commands, "a", None, &[2]);
        commands.put_gap(because(GapReason::TooLarge, gap(6, 7, Some(1))));
        put(&commands, "a", None, &[3]);
        commands.put_gap(gap(8, 9, Some(1)));
        assert!(matches!(commands.try_next(), Some(Arrival::Command(command)) if command.data() == [1]));
        let whole = because(GapReason::Reset, gap(1, 9, None));
        assert_eq!(commands.try_next(), Some(Arrival::Gap(whole)));
        assert_eq!(drain(&commands), ["a=2", "a=3"]);
        // And each by itself.
        commands.put_gap(because(GapReason::TooLarge, gap(10, 11, None)));
        assert!(matches!(commands.try_next(), Some(Arrival::Gap(gap)) if gap.reason == GapReason::TooLarge));
    }

    #[cfg(any(feature = "json", feature = "sse"))]
    #[test]
    fn json_becomes_cbor() {
        let commands = Small::new(Overflow::DropOldest);
        let data = Data::Json(br#"{"on":true}"#);
        commands.put(&Event { topic: "a".into(), position: at(1), key: None, data });
        let Some(Arrival::Command(command)) = commands.try_next() else { panic!() };
        assert_eq!(command.data(), b"\xbf\x62on\xf5\xff");
    }
}
