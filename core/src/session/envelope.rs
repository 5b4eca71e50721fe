//! What both forms have in common: which fields a message has, in which order, and which of them it needs.
//!
//! A form reads through [`Input`] and writes through [`Output`]; everything else about messages stands here, once.

use super::{
    Bytes, ClientMessage, Code, Data, DecodeError, Event, Field, Gap, GapReason, Kind, Level, Limits,
    Malformed, Position, Pressure, Reason, Refusal, ServerMessage, Text, Topics, WriteError,
};
use crate::log::{Cursor, CursorError, MAX_CURSOR, Policy, Since};
use core::time::Duration;

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
#[derive(Default)]
struct Fields<'b> {
    /// The field whose value is being read.
    reading: Option<Field>,
    /// One bit for each field that came.
    seen: u64,
    kind: Option<Kind>,
    topic: Option<Text<'b>>,
    position: Option<Position>,
    key: Option<Text<'b>>,
    data: Option<Data<'b>>,
    content_type: Option<Text<'b>>,
    n: Option<u64>,
    since: Option<Since>,
    topics: Option<Topics<'b>>,
    id: Option<u32>,
    from: Option<Cursor>,
    to: Option<Cursor>,
    reason: Option<GapReason>,
    code: Option<Text<'b>>,
    message: Option<Text<'b>>,
    permanent: Option<bool>,
    retry_after: Option<Duration>,
    window: Option<Duration>,
    session: Option<Text<'b>>,
    heartbeat: Option<Duration>,
    lease: Option<Option<Duration>>,
    limits: Option<Limits>,
    level: Option<Level>,
    token: Option<Text<'b>>,
    within: Option<Duration>,
    publisher_n: Option<u64>,
    policy: Option<Policy>,
    skipped: Option<u64>,
    lag: Option<u64>,
    limit: Option<u64>,
    pressure: Option<Duration>,
}

impl<'b> Fields<'b> {
    /// Reads the whole message, of one of these kinds.
    fn fill(&mut self, input: &mut impl Input<'b>, kinds: &[Kind]) -> Result<Kind, Malformed> {
        input.begin()?;
        if input.field()? != Some(Some(Field::Type)) {
            return Err(Malformed::new(Reason::TypeFirst, input.at()));
        }
        self.seen = 1 << Field::Type.number();
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
            let bit = 1u64 << field.number();
            if self.seen & bit != 0 {
                return Err(Malformed::new(Reason::Twice(field), input.at()));
            }
            self.seen |= bit;
            self.fill_one(field, input)?;
            self.reading = None;
        }
        Ok(())
    }

    fn fill_one(&mut self, field: Field, input: &mut impl Input<'b>) -> Result<(), Malformed> {
        match field {
            // `type` has been seen, so it came twice and was refused before.
            Field::Type => {}
            Field::Topic => self.topic = Some(input.text(field)?),
            Field::At => self.place(field, Position::At(cursor(input, field)?), input.at())?,
            Field::Past => self.place(field, Position::Past(cursor(input, field)?), input.at())?,
            Field::Key => self.key = Some(input.text(field)?),
            Field::Data => {
                let data = input.data()?;
                self.value(field, data, input.at())?;
            }
            Field::Bytes => {
                let bytes = input.bytes(field)?;
                self.value(field, Data::Bytes { content_type: None, bytes }, input.at())?;
            }
            Field::ContentType => self.content_type = Some(input.text(field)?),
            Field::N => self.n = Some(input.uint(field)?),
            Field::Since => self.since = Some(parsed(input, field, Since::parse)?),
            Field::Topics => self.topics = Some(input.topics(field)?),
            Field::Id => {
                let id = input.uint(field)?;
                let id = u32::try_from(id).map_err(|_| Malformed::new(Reason::Invalid(field), input.at()))?;
                self.id = Some(id);
            }
            Field::From => self.from = Some(cursor(input, field)?),
            Field::To => self.to = Some(cursor(input, field)?),
            Field::Reason => self.reason = Some(GapReason::from_text(input.text(field)?)),
            Field::Code => self.code = Some(input.text(field)?),
            Field::Message => self.message = Some(input.text(field)?),
            Field::Permanent => self.permanent = Some(input.boolean(field)?),
            Field::RetryAfter => self.retry_after = Some(millis(input, field)?),
            Field::Window => self.window = Some(millis(input, field)?),
            Field::Session => self.session = Some(input.text(field)?),
            Field::Heartbeat => self.heartbeat = Some(millis(input, field)?),
            Field::Lease => self.lease = Some(input.uint_or_null(field)?.map(Duration::from_millis)),
            Field::Limits => self.limits = Some(input.limits(field)?),
            Field::Level => self.level = Some(Level::from_text(input.text(field)?)),
            Field::Token => self.token = Some(input.text(field)?),
            Field::Within => self.within = Some(millis(input, field)?),
            Field::PublisherN => self.publisher_n = Some(input.uint(field)?),
            Field::Policy => self.policy = Some(policy(input, field)?),
            Field::Skipped => self.skipped = Some(input.uint(field)?),
            Field::Lag => self.lag = Some(input.uint(field)?),
            Field::Limit => self.limit = Some(input.uint(field)?),
            Field::Pressure => self.pressure = Some(millis(input, field)?),
        }
        Ok(())
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
        let id = self.id;
        Ok(match kind {
            Kind::Sub => {
                ClientMessage::Sub { id, since: self.since, policy: self.policy, topics: self.some_topics()? }
            }
            Kind::Unsub => ClientMessage::Unsub { id, topics: self.some_topics()? },
            Kind::Pub => ClientMessage::Pub {
                n: self.n,
                topic: need(self.topic, Field::Topic)?,
                key: self.key,
                data: self.whole_data()?,
            },
            Kind::Auth => ClientMessage::Auth { token: need(self.token, Field::Token)? },
            _ => return Err(Reason::UnknownType),
        })
    }

    fn server(&self, kind: Kind) -> Result<ServerMessage<'b>, Reason> {
        Ok(match kind {
            Kind::Hello => ServerMessage::Hello {
                session: need(self.session, Field::Session)?,
                heartbeat: need(self.heartbeat, Field::Heartbeat)?,
                lease: need(self.lease, Field::Lease)?,
                limits: need(self.limits, Field::Limits)?,
                publisher_n: self.publisher_n,
                window: self.window,
            },
            Kind::Event => ServerMessage::Event(Event {
                topic: need(self.topic, Field::Topic)?,
                position: need(self.position, Field::At)?,
                key: self.key,
                data: self.whole_data()?,
            }),
            Kind::CaughtUp => ServerMessage::CaughtUp { at: self.resumable()?, id: self.id },
            Kind::Ack => ServerMessage::Ack {
                n: need(self.n, Field::N)?,
                level: need(self.level, Field::Level)?,
                pressure: self.pressure,
            },
            Kind::Nack => ServerMessage::Nack { n: self.n, refusal: self.refusal()? },
            Kind::Gap => ServerMessage::Gap(Gap {
                from: need(self.from, Field::From)?,
                to: need(self.to, Field::To)?,
                reason: need(self.reason, Field::Reason)?,
                skipped: self.skipped,
            }),
            Kind::Pressure => ServerMessage::Pressure(Pressure {
                lag: need(self.lag, Field::Lag)?,
                limit: need(self.limit, Field::Limit)?,
                skipped: need(self.skipped, Field::Skipped)?,
            }),
            Kind::Tick => ServerMessage::Tick { at: self.resumable()? },
            Kind::Renew => ServerMessage::Renew { within: need(self.within, Field::Within)? },
            Kind::Bye => ServerMessage::Bye { refusal: self.refusal()?, window: self.window },
            Kind::Error => ServerMessage::Error {
                refusal: Refusal { retry_after: None, ..self.refusal()? },
                id: self.id,
            },
            _ => return Err(Reason::UnknownType),
        })
    }

    fn resumable(&self) -> Result<Cursor, Reason> {
        match self.position {
            Some(Position::At(at)) => Ok(at),
            _ => Err(Reason::Missing(Field::At)),
        }
    }

    /// A list of at least one.
    fn some_topics(&self) -> Result<Topics<'b>, Reason> {
        let topics = need(self.topics, Field::Topics)?;
        if topics.is_empty() { Err(Reason::Invalid(Field::Topics)) } else { Ok(topics) }
    }

    fn whole_data(&self) -> Result<Data<'b>, Reason> {
        Ok(match need(self.data, Field::Data)? {
            Data::Bytes { bytes, .. } => Data::Bytes { content_type: self.content_type, bytes },
            data => data,
        })
    }

    fn refusal(&self) -> Result<Refusal<'b>, Reason> {
        Ok(Refusal {
            code: need(self.code, Field::Code)?,
            permanent: need(self.permanent, Field::Permanent)?,
            message: need(self.message, Field::Message)?,
            retry_after: self.retry_after,
        })
    }

    fn error(&self, malformed: Malformed) -> DecodeError {
        let code = match malformed.reason {
            Reason::UnknownType => Code::UnknownType,
            Reason::Cursor(Field::Since) => Code::BadCursor,
            Reason::Twice(_) | Reason::Exclusive(_) => Code::BadMessage,
            _ if matches!(self.reading, Some(Field::Data | Field::Bytes)) => Code::BadData,
            _ => Code::BadMessage,
        };
        DecodeError { malformed, code, kind: self.kind, id: self.id, n: self.n }
    }
}

fn need<T>(value: Option<T>, field: Field) -> Result<T, Reason> {
    value.ok_or(Reason::Missing(field))
}

fn millis<'b>(input: &mut impl Input<'b>, field: Field) -> Result<Duration, Malformed> {
    input.uint(field).map(Duration::from_millis)
}

fn policy<'b>(input: &mut impl Input<'b>, field: Field) -> Result<Policy, Malformed> {
    let mut scratch = heapless::String::<16>::new();
    // What is too long for the scratch is too long for a policy.
    let policy = input.text(field)?.to_str(&mut scratch).ok().and_then(|text| text.parse().ok());
    policy.ok_or(Malformed::new(Reason::Invalid(field), input.at()))
}

fn cursor<'b>(input: &mut impl Input<'b>, field: Field) -> Result<Cursor, Malformed> {
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

/// Writes what a client sends.
pub(super) fn encode_client(message: &ClientMessage<'_>, out: &mut impl Output) -> Result<(), WriteError> {
    out.begin(message.kind())?;
    match *message {
        ClientMessage::Sub { id, since, policy, topics } => {
            optional_id(out, id)?;
            if let Some(since) = since {
                out.text(Field::Since, since.to_text().as_str().into())?;
            }
            if let Some(policy) = policy {
                out.text(Field::Policy, policy.as_str().into())?;
            }
            out.topics(Field::Topics, topics)?;
        }
        ClientMessage::Unsub { id, topics } => {
            optional_id(out, id)?;
            out.topics(Field::Topics, topics)?;
        }
        ClientMessage::Pub { n, topic, key, data } => {
            optional_uint(out, Field::N, n)?;
            out.text(Field::Topic, topic)?;
            put_data(out, key, data)?;
        }
        ClientMessage::Auth { token } => out.text(Field::Token, token)?,
    }
    out.end()
}

/// Writes what a server sends.
pub(super) fn encode_server(message: &ServerMessage<'_>, out: &mut impl Output) -> Result<(), WriteError> {
    out.begin(message.kind())?;
    match *message {
        ServerMessage::Hello { session, heartbeat, lease, limits, publisher_n, window } => {
            out.text(Field::Session, session)?;
            put_millis(out, Field::Heartbeat, heartbeat)?;
            match lease {
                Some(lease) => put_millis(out, Field::Lease, lease)?,
                None => out.null(Field::Lease)?,
            }
            out.limits(Field::Limits, limits)?;
            optional_uint(out, Field::PublisherN, publisher_n)?;
            optional_millis(out, Field::Window, window)?;
        }
        ServerMessage::Event(event) => {
            out.text(Field::Topic, event.topic)?;
            match event.position {
                Position::At(at) => put_cursor(out, Field::At, at)?,
                Position::Past(past) => put_cursor(out, Field::Past, past)?,
            }
            put_data(out, event.key, event.data)?;
        }
        ServerMessage::CaughtUp { at, id } => {
            put_cursor(out, Field::At, at)?;
            optional_id(out, id)?;
        }
        ServerMessage::Ack { n, level, pressure } => {
            out.uint(Field::N, n)?;
            out.text(Field::Level, level.as_str().into())?;
            optional_millis(out, Field::Pressure, pressure)?;
        }
        ServerMessage::Nack { n, refusal } => {
            optional_uint(out, Field::N, n)?;
            put_refusal(out, refusal)?;
        }
        ServerMessage::Gap(gap) => put_gap(out, gap)?,
        ServerMessage::Pressure(Pressure { lag, limit, skipped }) => {
            out.uint(Field::Lag, lag)?;
            out.uint(Field::Limit, limit)?;
            out.uint(Field::Skipped, skipped)?;
        }
        ServerMessage::Tick { at } => put_cursor(out, Field::At, at)?,
        ServerMessage::Renew { within } => put_millis(out, Field::Within, within)?,
        ServerMessage::Bye { refusal, window } => {
            put_refusal(out, refusal)?;
            optional_millis(out, Field::Window, window)?;
        }
        ServerMessage::Error { refusal, id } => {
            put_refusal(out, Refusal { retry_after: None, ..refusal })?;
            optional_id(out, id)?;
        }
    }
    out.end()
}

fn put_gap(out: &mut impl Output, gap: Gap) -> Result<(), WriteError> {
    put_cursor(out, Field::From, gap.from)?;
    put_cursor(out, Field::To, gap.to)?;
    out.text(Field::Reason, gap.reason.as_str().into())?;
    optional_uint(out, Field::Skipped, gap.skipped)
}

fn put_refusal(out: &mut impl Output, refusal: Refusal<'_>) -> Result<(), WriteError> {
    out.text(Field::Code, refusal.code)?;
    out.boolean(Field::Permanent, refusal.permanent)?;
    out.text(Field::Message, refusal.message)?;
    optional_millis(out, Field::RetryAfter, refusal.retry_after)
}

fn put_data(out: &mut impl Output, key: Option<Text<'_>>, data: Data<'_>) -> Result<(), WriteError> {
    if let Some(key) = key {
        out.text(Field::Key, key)?;
    }
    match data {
        Data::Json(json) => out.json(Field::Data, json),
        Data::Cbor(cbor) => out.cbor(Field::Data, cbor),
        Data::Bytes { content_type, bytes } => {
            if let Some(content_type) = content_type {
                out.text(Field::ContentType, content_type)?;
            }
            out.bytes(Field::Bytes, bytes)
        }
    }
}

fn optional_id(out: &mut impl Output, id: Option<u32>) -> Result<(), WriteError> {
    optional_uint(out, Field::Id, id.map(u64::from))
}

fn optional_uint(out: &mut impl Output, field: Field, value: Option<u64>) -> Result<(), WriteError> {
    match value {
        Some(value) => out.uint(field, value),
        None => Ok(()),
    }
}

fn optional_millis(out: &mut impl Output, field: Field, time: Option<Duration>) -> Result<(), WriteError> {
    optional_uint(out, field, time.map(crate::time::millis))
}

fn put_cursor(out: &mut impl Output, field: Field, cursor: Cursor) -> Result<(), WriteError> {
    out.text(field, cursor.to_text().as_str().into())
}

fn put_millis(out: &mut impl Output, field: Field, time: Duration) -> Result<(), WriteError> {
    out.uint(field, crate::time::millis(time))
}

/// The text, when it can be compared with the names of fields and kinds: those have at most 16 bytes.
#[cfg(feature = "json")]
pub(super) fn short<'s>(text: Text<'s>, scratch: &'s mut heapless::String<16>) -> Option<&'s str> {
    text.to_str(scratch).ok()
}
