//! From messages to the bytes that leave.

use super::event::{Event, Form, Position};
use crate::websocket::deflate;
use bytes::{BufMut, Bytes, BytesMut};
use longwire_core::log::Cursor;
use longwire_core::session::{self, Full, ServerMessage, WriteError, cbor, json};
use longwire_core::sse::Fields;
use longwire_core::ws::deflate::Window;
use longwire_core::ws::{FrameHeader, Kind, OpCode};

/// How events are compressed: once for all readers, so that each message stands alone. Who wants a smaller window gets
/// them as they are.
pub(super) const SHARED_WINDOW: Window = Window { bits: 15, takeover: false };

/// An event, ready to be written to a reader of that form.
pub(super) fn event(event: &Event, epoch: u64, form: Form, position: Position) -> Bytes {
    let cursor = event.cursor(epoch);
    let message = ServerMessage::Event(session::Event {
        topic: (&*event.topic).into(),
        position: match position {
            Position::At => session::Position::At(cursor),
            Position::Past => session::Position::Past(cursor),
        },
        key: event.key.as_deref().map(Into::into),
        data: event.data.borrowed(),
    });
    let mut out = BytesMut::new();
    write(&message, form, &mut out);
    out.freeze()
}

/// Appends a message in the form of the reader: a whole frame, or a whole SSE event.
///
/// What was appended to the log can be written in every form (that is checked when it is published), and `out` grows;
/// so nothing is left that could fail.
pub(super) fn write(message: &ServerMessage<'_>, form: Form, out: &mut BytesMut) {
    let payload = payload(message, form);
    if form == Form::Sse {
        return sse(message, &payload, out);
    }
    match form.is_deflated().then(|| deflate::message(SHARED_WINDOW, &payload)).flatten() {
        Some(compressed) => frame(form, true, &compressed, out),
        None => frame(form, false, &payload, out),
    }
}

/// The envelope of a message, in the form of the reader.
pub(super) fn payload(message: &ServerMessage<'_>, form: Form) -> Vec<u8> {
    let mut payload = Vec::with_capacity(256);
    let mut sink = |piece: &[u8]| -> Result<(), Full> {
        payload.extend_from_slice(piece);
        Ok(())
    };
    let result: Result<(), WriteError> = match form {
        _ if form.is_cbor() => cbor::encode_server(message, &mut sink),
        _ => json::encode_server(message, &mut sink),
    };
    debug_assert_eq!(result, Ok(()), "{message:?}");
    payload
}

/// Which frames carry this form.
pub(super) fn kind(form: Form) -> Kind {
    if form.is_cbor() { Kind::Binary } else { Kind::Text }
}

fn frame(form: Form, rsv1: bool, payload: &[u8], out: &mut BytesMut) {
    let opcode = if form.is_cbor() { OpCode::Binary } else { OpCode::Text };
    let header = FrameHeader { fin: true, rsv1, opcode, mask: None, len: payload.len() as u64 }.encode();
    out.reserve(header.as_ref().len() + payload.len());
    out.put_slice(header.as_ref());
    out.put_slice(payload);
}

/// `PROTOCOL.md` section 7: events have no `event:` line, and what carries `at` has it as `id:`.
fn sse(message: &ServerMessage<'_>, payload: &[u8], out: &mut BytesMut) {
    let at = position(message).map(|at| at.to_text());
    let name = match message {
        ServerMessage::Event(_) => None,
        other => Some(other.kind().name()),
    };
    let fields = Fields { id: at.as_deref(), name, ..Fields::event(payload) };
    // Refuses line breaks in names and ids only, and neither has any.
    if let Ok(parts) = fields.parts() {
        parts.for_each(|part| out.put_slice(part));
    }
}

/// The position that a message lets its reader resume from.
fn position(message: &ServerMessage<'_>) -> Option<Cursor> {
    match message {
        ServerMessage::Event(session::Event { position: session::Position::At(at), .. })
        | ServerMessage::CaughtUp { at, .. }
        | ServerMessage::Tick { at } => Some(*at),
        _ => None,
    }
}
