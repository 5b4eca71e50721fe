//! What both forms have in common: which fields a message has, in which order, and which of them it needs.
//!
//! A form reads through [`Input`] and writes through [`Output`]; everything else about messages stands here, once.

mod encode;

#[cfg(feature = "json")]
use super::json::Published;
use super::{
    Bytes, ClientMessage, Code, Data, DecodeError, Event, Field, Gap, GapReason, Kind, Level, Limits,
    Malformed, Position, Pressure, Reason, Refusal, ServerMessage, Text, Topics, WriteError,
};
use crate::log::{Cursor, CursorError, MAX_CURSOR, Policy, Since};
use crate::time::duration;
use core::time::Duration;
pub(super) use encode::{encode_client, encode_server};

/// A message being read, in one of the forms.
pub(super) trait Input<'b> {
    /// Enters the map of the message.
    fn begin(&mut self) -> Result<(), Malformed>;
    /// The next key: `Some(None)` for a field that this version does not know, `None` at the end of the message.
    fn field(&mut self) -> Result<Option<Option<Field>>, Malformed>;
    /// The value of `type`, if this version knows it.
    fn kind(&mut self) -> Result<Option<Kind>, Malformed>;
    /// Checks any value and drops it.
    fn skip(&mut self) -> Result<(), Malformed>;
    fn text(&mut self, field: Field) -> Result<Text<'b>, Malformed>;
    fn uint(&mut self, field: Field) -> Result<u64, Malformed>;
    /// An integer or null.
    fn uint_or_null(&mut self, field: Field) -> Result<Option<u64>, Malformed>;
    fn boolean(&mut self, field: Field) -> Result<bool, Malformed>;
    fn data(&mut self) -> Result<Data<'b>, Malformed>;
    fn bytes(&mut self, field: Field) -> Result<Bytes<'b>, Malformed>;
    fn topics(&mut self, field: Field) -> Result<Topics<'b>, Malformed>;
    fn limits(&mut self, field: Field) -> Result<Limits, Malformed>;
    /// Offset of what was read last.
    fn at(&self) -> usize;
}

/// A message being written, in one of the forms.
pub(super) trait Output {
    fn begin(&mut self, kind: Kind) -> Result<(), WriteError>;
    fn text(&mut self, field: Field, text: Text<'_>) -> Result<(), WriteError>;
    fn uint(&mut self, field: Field, value: u64) -> Result<(), WriteError>;
    fn null(&mut self, field: Field) -> Result<(), WriteError>;
    fn boolean(&mut self, field: Field, value: bool) -> Result<(), WriteError>;
    fn json(&mut self, field: Field, json: &[u8]) -> Result<(), WriteError>;
    fn cbor(&mut self, field: Field, cbor: &[u8]) -> Result<(), WriteError>;
    fn bytes(&mut self, field: Field, bytes: Bytes<'_>) -> Result<(), WriteError>;
    fn topics(&mut self, field: Field, topics: Topics<'_>) -> Result<(), WriteError>;
    fn limits(&mut self, field: Field, limits: Limits) -> Result<(), WriteError>;
    fn end(&mut self) -> Result<(), WriteError>;
}

/// Reads what a client sent.
pub(super) fn decode_client<'b>(input: &mut impl Input<'b>) -> Result<ClientMessage<'b>, DecodeError> {
    let mut fields = Fields::default();
    let message = fields
        .fill(input, &CLIENT)
        .and_then(|kind| fields.client(kind).map_err(|reason| Malformed::new(reason, input.at())));
    message.map_err(|malformed| fields.error(malformed))
}

/// Reads what a server sent.
pub(super) fn decode_server<'b>(input: &mut impl Input<'b>) -> Result<ServerMessage<'b>, DecodeError> {
    let mut fields = Fields::default();
    let message = fields
        .fill(input, &SERVER)
        .and_then(|kind| fields.server(kind).map_err(|reason| Malformed::new(reason, input.at())));
    message.map_err(|malformed| fields.error(malformed))
}

/// Reads a map that is the whole of its input, and has the fields of a message of this kind without being one: there is no
/// `type`. `None`: any fields.
#[cfg(feature = "json")]
pub(super) fn decode_untyped<'b>(
    input: &mut impl Input<'b>,
    kind: Option<Kind>,
) -> Result<Fields<'b>, Malformed> {
    let mut fields = Fields::default();
    input.begin()?;
    fields.fill_others(input)?;
    match kind.map_or(Ok(()), |kind| fields.require(kind)) {
        Ok(()) => Ok(fields),
        Err(reason) => Err(Malformed::new(reason, input.at())),
    }
}

/// What clients send.
const CLIENT: [Kind; 4] = [Kind::Sub, Kind::Unsub, Kind::Pub, Kind::Auth];
/// What servers send.
const SERVER: [Kind; 11] = [
    Kind::Hello,
    Kind::Event,
    Kind::CaughtUp,
    Kind::Ack,
    Kind::Nack,
    Kind::Gap,
    Kind::Tick,
    Kind::Renew,
    Kind::Bye,
    Kind::Error,
    Kind::Pressure,
];

/// The fields of one message, whatever its kind.
///
/// Most are a text or a number, and lie where their [`Slot`] says: a device has one piece of code for each of these two, and
/// not one for each field.
#[derive(Default)]
pub(super) struct Fields<'b> {
    /// The field whose value is being read.
    reading: Option<Field>,
    /// One bit for each field that was read.
    seen: u64,
    kind: Option<Kind>,
    texts: [Option<Text<'b>>; TEXTS],
    numbers: [u64; NUMBERS],
    position: Option<Position>,
    data: Option<Data<'b>>,
    since: Option<Since>,
    topics: Option<Topics<'b>>,
    from: Option<Cursor>,
    to: Option<Cursor>,
    permanent: Option<bool>,
    /// `None`: null, where it came.
    lease: Option<u64>,
    limits: Option<Limits>,
    policy: Option<Policy>,
}

/// Where a field's value is kept.
enum Slot {
    Text(usize),
    Number(usize),
    Own,
}

const TEXTS: usize = 9;
const NUMBERS: usize = 11;

const fn slot(field: Field) -> Slot {
    match field {
        Field::Topic => Slot::Text(0),
        Field::Key => Slot::Text(1),
        Field::ContentType => Slot::Text(2),
        Field::Reason => Slot::Text(3),
        Field::Code => Slot::Text(4),
        Field::Message => Slot::Text(5),
        Field::Session => Slot::Text(6),
        Field::Level => Slot::Text(7),
        Field::Token => Slot::Text(8),
        Field::N => Slot::Number(0),
        Field::Id => Slot::Number(1),
        Field::RetryAfter => Slot::Number(2),
        Field::Window => Slot::Number(3),
        Field::Heartbeat => Slot::Number(4),
        Field::Within => Slot::Number(5),
        Field::PublisherN => Slot::Number(6),
        Field::Skipped => Slot::Number(7),
        Field::Lag => Slot::Number(8),
        Field::Limit => Slot::Number(9),
        Field::Pressure => Slot::Number(10),
        Field::Type
        | Field::At
        | Field::Past
        | Field::Data
        | Field::Bytes
        | Field::Since
        | Field::Topics
        | Field::From
        | Field::To
        | Field::Permanent
        | Field::Lease
        | Field::Limits
        | Field::Policy => Slot::Own,
    }
}

impl<'b> Fields<'b> {
    /// Reads the whole message, of one of these kinds.
    fn fill(&mut self, input: &mut impl Input<'b>, kinds: &[Kind]) -> Result<Kind, Malformed> {
        input.begin()?;
        if input.field()? != Some(Some(Field::Type)) {
            return Err(Malformed::new(Reason::TypeFirst, input.at()));
        }
        self.seen = bit(Field::Type);
        self.kind = input.kind()?;
        let unknown = Malformed::new(Reason::UnknownType, input.at());
        match self.kind.filter(|kind| kinds.contains(kind)) {
            Some(kind) => self.fill_others(input).map(|()| kind),
            None => {
                // Whatever else may be wrong with it: only `id` and `n` are of interest now.
                let _ = self.fill_others(input);
                self.reading = None;
                Err(unknown)
            }
        }
    }

    fn fill_others(&mut self, input: &mut impl Input<'b>) -> Result<(), Malformed> {
        while let Some(field) = input.field()? {
            self.reading = field;
            let Some(field) = field else {
                input.skip()?;
                continue;
            };
            if self.has(field) {
                return Err(Malformed::new(Reason::Twice(field), input.at()));
            }
            self.fill_one(field, input)?;
            self.seen |= bit(field);
            self.reading = None;
        }
        Ok(())
    }

    fn fill_one(&mut self, field: Field, input: &mut impl Input<'b>) -> Result<(), Malformed> {
        match slot(field) {
            Slot::Text(slot) => {
                let text = input.text(field)?;
                if let Some(to) = self.texts.get_mut(slot) {
                    *to = Some(text);
                }
            }
            Slot::Number(slot) => {
                let number = input.uint(field)?;
                if field == Field::Id && number > u32::MAX.into() {
                    return Err(Malformed::new(Reason::Invalid(field), input.at()));
                }
                if let Some(to) = self.numbers.get_mut(slot) {
                    *to = number;
                }
            }
            Slot::Own => self.fill_own(field, input)?,
        }
        Ok(())
    }

    fn fill_own(&mut self, field: Field, input: &mut impl Input<'b>) -> Result<(), Malformed> {
        match field {
            Field::At | Field::Past => {
                let cursor = cursor(input, field)?;
                let position = if field == Field::At { Position::At(cursor) } else { Position::Past(cursor) };
                self.place(field, position, input.at())?;
            }
            Field::Data => {
                let data = input.data()?;
                self.value(field, data, input.at())?;
            }
            Field::Bytes => {
                let bytes = input.bytes(field)?;
                self.value(field, Data::Bytes { content_type: None, bytes }, input.at())?;
            }
            Field::Since => self.since = Some(parsed(input, field, Since::parse)?),
            Field::Topics => self.topics = Some(input.topics(field)?),
            Field::From => self.from = Some(cursor(input, field)?),
            Field::To => self.to = Some(cursor(input, field)?),
            Field::Permanent => self.permanent = Some(input.boolean(field)?),
            Field::Lease => self.lease = input.uint_or_null(field)?,
            Field::Limits => self.limits = Some(input.limits(field)?),
            Field::Policy => self.policy = Some(policy(input, field)?),
            // What is no message has none.
            #[cfg(feature = "json")]
            Field::Type => input.skip()?,
            // In a message `type` has been seen, so it came twice and was refused before; the others have a slot.
            _ => {}
        }
        Ok(())
    }

    const fn has(&self, field: Field) -> bool {
        self.seen & bit(field) != 0
    }

    fn optional_text(&self, field: Field) -> Option<Text<'b>> {
        match slot(field) {
            Slot::Text(slot) => self.texts.get(slot).copied().flatten(),
            _ => None,
        }
    }

    /// A text that is there.
    fn text(&self, field: Field) -> Text<'b> {
        self.optional_text(field).unwrap_or(Text::from(""))
    }

    fn number(&self, field: Field) -> Option<u64> {
        match slot(field) {
            Slot::Number(slot) if self.has(field) => self.numbers.get(slot).copied(),
            _ => None,
        }
    }

    /// A number that is there.
    fn needed(&self, field: Field) -> u64 {
        self.number(field).unwrap_or_default()
    }

    fn time(&self, field: Field) -> Option<Duration> {
        self.number(field).map(duration)
    }

    fn id(&self) -> Option<u32> {
        self.number(Field::Id).and_then(|id| u32::try_from(id).ok())
    }

    /// `at` or `past`, not both.
    fn place(&mut self, field: Field, position: Position, at: usize) -> Result<(), Malformed> {
        match self.position.replace(position) {
            None => Ok(()),
            Some(_) => Err(Malformed::new(Reason::Exclusive(field), at)),
        }
    }

    /// `data` or `bytes`, not both.
    fn value(&mut self, field: Field, data: Data<'b>, at: usize) -> Result<(), Malformed> {
        match self.data.replace(data) {
            None => Ok(()),
            Some(_) => Err(Malformed::new(Reason::Exclusive(field), at)),
        }
    }

    fn client(&self, kind: Kind) -> Result<ClientMessage<'b>, Reason> {
        self.require(kind)?;
        let id = self.id();
        let topics = self.topics.unwrap_or(Topics::from(&[][..]));
        if matches!(kind, Kind::Sub | Kind::Unsub) && topics.is_empty() {
            return Err(Reason::Invalid(Field::Topics));
        }
        Ok(match kind {
            Kind::Sub => ClientMessage::Sub { id, since: self.since, policy: self.policy, topics },
            Kind::Unsub => ClientMessage::Unsub { id, topics },
            Kind::Pub => ClientMessage::Pub {
                n: self.number(Field::N),
                topic: self.text(Field::Topic),
                key: self.optional_text(Field::Key),
                data: self.whole_data(),
            },
            Kind::Auth => ClientMessage::Auth { token: self.text(Field::Token) },
            _ => return Err(Reason::UnknownType),
        })
    }

    fn server(&self, kind: Kind) -> Result<ServerMessage<'b>, Reason> {
        self.require(kind)?;
        let at = match self.position {
            Some(Position::At(at) | Position::Past(at)) => at,
            None => NOWHERE,
        };
        Ok(match kind {
            Kind::Hello => ServerMessage::Hello {
                session: self.text(Field::Session),
                heartbeat: duration(self.needed(Field::Heartbeat)),
                lease: self.lease.map(duration),
                limits: self.limits.unwrap_or(Limits { max_message: 0, max_topics: 0, max_inflight: 0 }),
                publisher_n: self.number(Field::PublisherN),
                window: self.time(Field::Window),
            },
            Kind::Event => ServerMessage::Event(Event {
                topic: self.text(Field::Topic),
                position: self.position.unwrap_or(Position::At(at)),
                key: self.optional_text(Field::Key),
                data: self.whole_data(),
            }),
            Kind::CaughtUp => ServerMessage::CaughtUp { at, id: self.id() },
            Kind::Ack => ServerMessage::Ack {
                n: self.needed(Field::N),
                level: Level::from_text(self.text(Field::Level)),
                pressure: self.time(Field::Pressure),
            },
            Kind::Nack => ServerMessage::Nack { n: self.number(Field::N), refusal: self.refusal() },
            Kind::Gap => ServerMessage::Gap(self.gap()),
            Kind::Pressure => ServerMessage::Pressure(self.pressure()),
            Kind::Tick => ServerMessage::Tick { at },
            Kind::Renew => ServerMessage::Renew { within: duration(self.needed(Field::Within)) },
            Kind::Bye => ServerMessage::Bye { refusal: self.refusal(), window: self.time(Field::Window) },
            Kind::Error => ServerMessage::Error {
                refusal: Refusal { retry_after: None, ..self.refusal() },
                id: self.id(),
            },
            _ => return Err(Reason::UnknownType),
        })
    }

    /// Refuses a message without the fields that its kind needs; behind this they are there.
    fn require(&self, kind: Kind) -> Result<(), Reason> {
        let mut seen = self.seen;
        if kind == Kind::Event && self.has(Field::Past) {
            seen |= bit(Field::At);
        }
        if self.has(Field::Bytes) {
            seen |= bit(Field::Data);
        }
        let missing = needed(kind) & !seen;
        match Field::from_number(missing.trailing_zeros().into()) {
            Some(field) => Err(Reason::Missing(field)),
            None => Ok(()),
        }
    }

    fn whole_data(&self) -> Data<'b> {
        match self.data {
            Some(Data::Bytes { bytes, .. }) => {
                Data::Bytes { content_type: self.optional_text(Field::ContentType), bytes }
            }
            Some(data) => data,
            None => Data::Cbor(&[]),
        }
    }

    /// What a `gap` says.
    pub(super) fn gap(&self) -> Gap {
        Gap {
            from: self.from.unwrap_or(NOWHERE),
            to: self.to.unwrap_or(NOWHERE),
            reason: GapReason::from_text(self.text(Field::Reason)),
            skipped: self.number(Field::Skipped),
        }
    }

    /// What `pressure` says.
    pub(super) fn pressure(&self) -> Pressure {
        Pressure {
            lag: self.needed(Field::Lag),
            limit: self.needed(Field::Limit),
            skipped: self.needed(Field::Skipped),
        }
    }

    /// What a `nack`, a `bye` or an `error` says.
    pub(super) fn refusal(&self) -> Refusal<'b> {
        Refusal {
            code: self.text(Field::Code),
            permanent: self.permanent.unwrap_or_default(),
            message: self.text(Field::Message),
            retry_after: self.time(Field::RetryAfter),
        }
    }

    /// What a publication over HTTP is answered with.
    #[cfg(feature = "json")]
    pub(super) fn published(&self) -> Published {
        let at = match self.position {
            Some(Position::At(at)) => Some(at),
            _ => None,
        };
        Published { at, pressure: self.time(Field::Pressure) }
    }

    fn error(&self, malformed: Malformed) -> DecodeError {
        let code = match malformed.reason {
            Reason::UnknownType => Code::UnknownType,
            Reason::Cursor(Field::Since) => Code::BadCursor,
            Reason::Twice(_) | Reason::Exclusive(_) => Code::BadMessage,
            _ if matches!(self.reading, Some(Field::Data | Field::Bytes)) => Code::BadData,
            _ => Code::BadMessage,
        };
        DecodeError { malformed, code, kind: self.kind, id: self.id(), n: self.number(Field::N) }
    }
}

/// In place of a cursor that is there: what a message needs was checked before.
const NOWHERE: Cursor = Cursor { epoch: 0, seq: 0 };

const fn bit(field: Field) -> u64 {
    1 << field.number()
}

/// The fields without which a message of this kind is none (`PROTOCOL.md` section 5). An event may have `past` in place of
/// `at`, and a value `bytes` in place of `data`.
const fn needed(kind: Kind) -> u64 {
    const REFUSAL: u64 = bit(Field::Code) | bit(Field::Permanent) | bit(Field::Message);
    match kind {
        Kind::Sub | Kind::Unsub => bit(Field::Topics),
        Kind::Pub => bit(Field::Topic) | bit(Field::Data),
        Kind::Auth => bit(Field::Token),
        Kind::Hello => bit(Field::Session) | bit(Field::Heartbeat) | bit(Field::Lease) | bit(Field::Limits),
        Kind::Event => bit(Field::Topic) | bit(Field::At) | bit(Field::Data),
        Kind::CaughtUp | Kind::Tick => bit(Field::At),
        Kind::Ack => bit(Field::N) | bit(Field::Level),
        Kind::Nack | Kind::Bye | Kind::Error => REFUSAL,
        Kind::Gap => bit(Field::From) | bit(Field::To) | bit(Field::Reason),
        Kind::Pressure => bit(Field::Lag) | bit(Field::Limit) | bit(Field::Skipped),
        Kind::Renew => bit(Field::Within),
    }
}

fn policy<'b>(input: &mut impl Input<'b>, field: Field) -> Result<Policy, Malformed> {
    let mut scratch = heapless::String::<16>::new();
    // What is too long for the scratch is too long for a policy.
    let policy = input.text(field)?.to_str(&mut scratch).ok().and_then(|text| text.parse().ok());
    policy.ok_or(Malformed::new(Reason::Invalid(field), input.at()))
}

pub(super) fn cursor<'b>(input: &mut impl Input<'b>, field: Field) -> Result<Cursor, Malformed> {
    parsed(input, field, Cursor::parse)
}

fn parsed<'b, T>(
    input: &mut impl Input<'b>,
    field: Field,
    parse: fn(&str) -> Result<T, CursorError>,
) -> Result<T, Malformed> {
    let text = input.text(field)?;
    let mut scratch = heapless::String::<MAX_CURSOR>::new();
    // What is too long for the scratch is too long for a cursor.
    let parsed = text.to_str(&mut scratch).ok().and_then(|text| parse(text).ok());
    parsed.ok_or(Malformed::new(Reason::Cursor(field), input.at()))
}

/// The text, when it can be compared with the names of fields and kinds: those have at most 16 bytes.
#[cfg(feature = "json")]
pub(super) fn short<'s>(text: Text<'s>, scratch: &'s mut heapless::String<16>) -> Option<&'s str> {
    text.to_str(scratch).ok()
}
