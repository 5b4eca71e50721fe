//! Messages on their way out.

use super::Output;
use crate::log::Cursor;
use crate::session::{
    ClientMessage, Data, Field, Gap, Position, Pressure, Refusal, ServerMessage, Text, WriteError,
};
use core::time::Duration;

/// Writes what a client sends.
pub(in crate::session) fn encode_client(
    message: &ClientMessage<'_>,
    out: &mut impl Output,
) -> Result<(), WriteError> {
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
pub(in crate::session) fn encode_server(
    message: &ServerMessage<'_>,
    out: &mut impl Output,
) -> Result<(), WriteError> {
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
