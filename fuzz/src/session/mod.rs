//! Messages of the session protocol and their values, in both forms (`core/PROTOCOL.md` sections 4 and 5).

mod build;
mod value;

use crate::choices::Choices;
use longwire_core::session::{
    ClientMessage, Data, DecodeError, Event, Full, Length, ServerMessage, Sink, SliceSink, WriteError, cbor,
    json, transcode,
};
use std::{fmt::Debug, mem};

/// `kind | ...`: 0 what a client sent, 1 what a server sent, 2 a value, 3 a message as choices.
///
/// # Panics
/// When a message is not the same once it was written and read again, in this form or by way of the other; when a value is
/// judged otherwise than by another parser, or changes its meaning; when a refusal cannot be sent.
pub fn session_json(data: &[u8]) {
    session(Form::Json, data);
}

/// As [`session_json`], in CBOR.
///
/// # Panics
/// As [`session_json`].
pub fn session_cbor(data: &[u8]) {
    session(Form::Cbor, data);
}

fn session(form: Form, data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    match (kind % 4, form) {
        (0, _) => read::<Client>(form, rest),
        (1, _) => read::<Server>(form, rest),
        (2, Form::Json) => value::json(rest),
        (2, Form::Cbor) => value::cbor(rest),
        _ => build::message(form, Choices::new(rest)),
    }
}

/// The forms of section 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Json,
    Cbor,
}

impl Form {
    fn other(self) -> Self {
        match self {
            Self::Json => Self::Cbor,
            Self::Cbor => Self::Json,
        }
    }
}

/// A side, and what it sends.
trait Side {
    type Message<'b>: Copy + Debug;
    fn decode(form: Form, wire: &[u8]) -> Result<Self::Message<'_>, DecodeError>;
    fn encode(form: Form, message: &Self::Message<'_>, sink: &mut dyn Sink) -> Result<(), WriteError>;
    fn assert_same(one: &Self::Message<'_>, other: &Self::Message<'_>);
    /// Puts another value into a message that publishes one, and says which it was.
    fn replace<'b>(message: &mut Self::Message<'b>, value: Data<'b>) -> Option<Data<'b>>;
}

struct Client;
struct Server;

impl Side for Client {
    type Message<'b> = ClientMessage<'b>;

    fn decode(form: Form, wire: &[u8]) -> Result<ClientMessage<'_>, DecodeError> {
        match form {
            Form::Json => json::decode_client(wire),
            Form::Cbor => cbor::decode_client(wire),
        }
    }

    fn encode(form: Form, message: &ClientMessage<'_>, sink: &mut dyn Sink) -> Result<(), WriteError> {
        match form {
            Form::Json => json::encode_client(message, sink),
            Form::Cbor => cbor::encode_client(message, sink),
        }
    }

    fn assert_same(one: &ClientMessage<'_>, other: &ClientMessage<'_>) {
        assert_eq!(one, other);
    }

    fn replace<'b>(message: &mut ClientMessage<'b>, value: Data<'b>) -> Option<Data<'b>> {
        if let ClientMessage::Pub { data, .. } = message { Some(mem::replace(data, value)) } else { None }
    }
}

impl Side for Server {
    type Message<'b> = ServerMessage<'b>;

    fn decode(form: Form, wire: &[u8]) -> Result<ServerMessage<'_>, DecodeError> {
        match form {
            Form::Json => json::decode_server(wire),
            Form::Cbor => cbor::decode_server(wire),
        }
    }

    fn encode(form: Form, message: &ServerMessage<'_>, sink: &mut dyn Sink) -> Result<(), WriteError> {
        match form {
            Form::Json => json::encode_server(message, sink),
            Form::Cbor => cbor::encode_server(message, sink),
        }
    }

    fn assert_same(one: &ServerMessage<'_>, other: &ServerMessage<'_>) {
        assert_eq!(one, other);
    }

    fn replace<'b>(message: &mut ServerMessage<'b>, value: Data<'b>) -> Option<Data<'b>> {
        if let ServerMessage::Event(Event { data, .. }) = message {
            Some(mem::replace(data, value))
        } else {
            None
        }
    }
}

/// Any bytes, as a message.
fn read<S: Side>(form: Form, wire: &[u8]) {
    match S::decode(form, wire) {
        Ok(message) => keeps::<S>(form, &message),
        Err(error) => {
            assert!(error.malformed.at <= wire.len(), "an offset outside of the message");
            // What is wrong can be said, in this form.
            let answer = error.answer();
            let wire = written(|sink| Server::encode(form, &answer, sink)).unwrap();
            assert_eq!(Server::decode(form, &wire), Ok(answer));
        }
    }
}

/// A message is the same once it was written and read again, also by way of the other form.
fn keeps<S: Side>(form: Form, original: &S::Message<'_>) {
    let wire = again::<S>(form, original);
    for cut in [0, wire.len() / 3, wire.len() / 2, wire.len() - 1] {
        assert!(S::decode(form, &wire[..cut]).is_err(), "a message that is cut is none");
    }
    let mut message = *original;
    let opaque = Data::Bytes { content_type: None, bytes: b"value"[..].into() };
    if let Some(value) = S::replace(&mut message, opaque) {
        match value {
            Data::Bytes { .. } => message = *original,
            value => translates::<S>(form, original, value),
        }
    }
    // But for its value nothing changes in the other form.
    let there = written(|sink| S::encode(form.other(), &message, sink)).unwrap();
    let there = S::decode(form.other(), &there).unwrap();
    S::assert_same(&there, &message);
    again::<S>(form.other(), &there);
    let back = written(|sink| S::encode(form, &there, sink)).unwrap();
    S::assert_same(&S::decode(form, &back).unwrap(), &message);
}

/// Writes a message, which is read as the same, and then written as before.
fn again<S: Side>(form: Form, message: &S::Message<'_>) -> Vec<u8> {
    let wire = written(|sink| S::encode(form, message, sink)).unwrap();
    let found = S::decode(form, &wire).unwrap();
    S::assert_same(&found, message);
    assert_eq!(written(|sink| S::encode(form, &found, sink)).as_deref(), Ok(&wire[..]));
    wire
}

/// The value of a message means the same in the other form, or is refused there as it is by itself.
fn translates<S: Side>(form: Form, message: &S::Message<'_>, value: Data<'_>) {
    let theirs = written(|sink| S::encode(form.other(), message, sink));
    let value = match value {
        Data::Json(value) => {
            value::json(value);
            written(|sink| transcode::json_to_cbor(value, sink))
        }
        Data::Cbor(value) => {
            value::cbor(value);
            written(|sink| transcode::cbor_to_json(value, sink))
        }
        Data::Bytes { .. } => panic!("bytes are not translated"),
    };
    match (theirs, value) {
        (Ok(theirs), Ok(value)) => {
            let mut found = S::decode(form.other(), &theirs).unwrap();
            let expected = if form == Form::Json { Data::Cbor(&value) } else { Data::Json(&value) };
            assert_eq!(S::replace(&mut found, Data::Json(b"")), Some(expected));
        }
        (theirs, value) => assert_eq!(theirs.err(), value.err()),
    }
}

/// What is written: the same into every sink, and into none of the wrong size.
fn written(write: impl Fn(&mut dyn Sink) -> Result<(), WriteError>) -> Result<Vec<u8>, WriteError> {
    let (mut wire, mut length) = (Vec::new(), Length::default());
    let mut sink = |piece: &[u8]| -> Result<(), Full> {
        wire.extend_from_slice(piece);
        Ok(())
    };
    let result = write(&mut sink);
    assert_eq!(write(&mut length), result);
    result?;
    assert_eq!(length.0, wire.len() as u64);
    let mut space = vec![0; wire.len() - 1];
    assert_eq!(write(&mut SliceSink::new(&mut space)), Err(WriteError::Full));
    Ok(wire)
}
