//! fastwebsockets, as a [`Party`].

use super::Known;
use super::ws::{
    CODE_1014, CUT_OFF, Case, Ended, Frame, Given, HEADER_CUT_OFF, Heard, LENGTH_NOT_MINIMAL, Made,
    ONE_OF_SEVERAL_FAULTS, Party, Setup, Then, code,
};
use fastwebsockets::{FragmentCollector, OpCode, Role, WebSocket, WebSocketError};
use longwire_core::ws::ProtocolError;
use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub(super) const KNOWN: &[&Known] = &[
    &LENGTH_NOT_MINIMAL,
    &ONE_OF_SEVERAL_FAULTS,
    &CUT_OFF,
    &HEADER_CUT_OFF,
    &CODE_1014,
    &MASK_NOT_CHECKED,
    &LONG_CONTROL_FRAME,
    &MESSAGE_IN_MESSAGE,
    &HALF_A_CHARACTER,
    &LIMIT_OF_A_FRAME,
];

const MASK_NOT_CHECKED: Known = Known {
    input: "a client's frame without a mask, a server's frame with one",
    longwire: "fails with 1002",
    peer: "takes the payload as it stands",
    standard: "RFC 6455 5.1: the connection MUST be closed",
};

const LONG_CONTROL_FRAME: Known = Known {
    input: "a Pong or Close above 125 bytes",
    longwire: "fails with 1002",
    peer: "takes it",
    standard: "RFC 6455 5.5: MUST have a payload length of 125 bytes or less",
};

const MESSAGE_IN_MESSAGE: Known = Known {
    input: "the first of several fragments inside a message that has not ended",
    longwire: "fails with 1002",
    peer: "begins the new message",
    standard: "RFC 6455 5.4: fragments of one message MUST NOT be interleaved with those of another",
};

const HALF_A_CHARACTER: Known = Known {
    input: "a fragmented text that ends inside a character",
    longwire: "fails with 1007",
    peer: "hands the text out without it",
    standard: "RFC 6455 8.1: text that is not UTF-8 MUST fail the connection",
};

const LIMIT_OF_A_FRAME: Known = Known {
    input: "small fragments of a message that is together above the limit",
    longwire: "fails with 1009",
    peer: "goes on: its limit is that of a frame",
    standard: "RFC 6455 10.4: limits for both are the endpoint's choice",
};

pub(super) fn compare(data: &[u8]) -> Vec<&'static Known> {
    let Some((setup, frames)) = Setup::read(data) else { return Vec::new() };
    // It shows nothing but a Close after one of its own.
    let setup = Setup { closing: false, ..setup };
    super::ws::compare(&setup, &frames, |setup| Box::new(Fastwebsockets::new(setup)), explain)
}

fn explain(case: &mut Case<'_>) -> Option<(&'static Known, Then)> {
    use ProtocolError as E;
    let (frame, theirs) = (case.frame, case.theirs);
    let payload = frame.payload();
    // Whatever was said of it, the payload has to be the peer's first.
    if case.ours.failed().is_some()
        && let Given::Frame(given) = &mut case.given[case.at]
        && given.is_masked() == case.setup.client
    {
        *given = remasked(given)?;
        return Some((&MASK_NOT_CHECKED, Then::Again));
    }
    match case.ours.failed() {
        None => {
            let refused = theirs.failed() == Some(E::BadCloseCode);
            (frame.opcode() == 8 && code(&payload) == 1014 && refused).then_some((&CODE_1014, Then::Over))
        }
        Some(E::ControlTooLong) if frame.opcode() == 10 => {
            let made = Made { heard: Some(Heard::Pong(given_payload(case)?)), ..Made::default() };
            case.given[case.at] = Given::Decreed(made);
            Some((&LONG_CONTROL_FRAME, Then::Again))
        }
        Some(E::ControlTooLong) if frame.opcode() == 8 => {
            let payload = given_payload(case)?;
            let heard = Heard::Close(Some(code(&payload)), payload[2..].to_vec());
            let as_any_other = theirs.heard == Some(heard) || theirs.failed() == Some(E::BadCloseCode);
            as_any_other.then_some((&LONG_CONTROL_FRAME, Then::Over))
        }
        Some(E::ExpectedContinuation) if !frame.is_final() => {
            for at in message_before(case) {
                case.given[at] = Given::Decreed(Made::default());
            }
            Some((&MESSAGE_IN_MESSAGE, Then::Again))
        }
        Some(E::NotUtf8) => {
            let text = message_text(case)?;
            let error = str::from_utf8(&text).err()?;
            let whole = &text[..error.valid_up_to()];
            let ends = frame.is_whole() && frame.is_final() && frame.opcode() == 0;
            let without = theirs.heard == Some(Heard::Text(whole.into()));
            if !(ends && error.error_len().is_none() && without) {
                return None;
            }
            for at in message_before(case) {
                case.given[at] = Given::Decreed(Made::default());
            }
            case.given[case.at] = Given::Decreed(theirs.clone());
            Some((&HALF_A_CHARACTER, Then::Again))
        }
        Some(E::MessageTooBig) => {
            let small = frame.len() <= case.setup.limit as u64 && frame.opcode() == 0;
            (small && theirs.failed() != Some(E::MessageTooBig)).then_some((&LIMIT_OF_A_FRAME, Then::Over))
        }
        _ => None,
    }
}

/// The frame with a mask if it has none, and the other way round; its payload is what stands on the wire.
fn remasked(frame: &Frame) -> Option<Frame> {
    let Frame(bytes) = frame;
    let at = if frame.is_masked() { frame.header() - 4 } else { frame.header() };
    let mut changed = bytes.get(..at)?.to_vec();
    changed[1] ^= 0x80;
    if !frame.is_masked() {
        changed.extend([0; 4]);
    }
    changed.extend_from_slice(bytes.get(frame.header()..)?);
    Some(Frame(changed))
}

/// The payload of the frame in question, as the peer reads it.
fn given_payload(case: &Case<'_>) -> Option<Vec<u8>> {
    match &case.given[case.at] {
        Given::Frame(frame) if frame.is_whole() => Some(frame.payload()),
        _ => None,
    }
}

/// The fragments of the message that was not ended before the frame in question.
fn message_before(case: &Case<'_>) -> Vec<usize> {
    let mut fragments = Vec::new();
    for at in (0..case.at).rev() {
        match &case.given[at] {
            Given::Frame(frame) if frame.is_control() => {}
            Given::Frame(frame) if !frame.is_final() => {
                fragments.push(at);
                if frame.opcode() != 0 {
                    break;
                }
            }
            Given::Frame(_) => break,
            Given::Decreed(_) => {}
        }
    }
    fragments
}

/// The payloads of a message up to the frame in question.
fn message_text(case: &Case<'_>) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    for at in message_before(case).into_iter().rev() {
        let Given::Frame(frame) = &case.given[at] else { return None };
        text.extend(frame.payload());
    }
    text.extend(given_payload(case)?);
    Some(text)
}

struct Fastwebsockets {
    wire: Rc<RefCell<Wire>>,
    /// One future for all that is read: dropped in the middle of a frame it would lose what it has read of it.
    reads: Pin<Box<dyn Future<Output = WebSocketError>>>,
    /// Bytes that were looked at.
    sent: usize,
}

/// What lies between: bytes that have come, bytes that were sent, and what was heard.
#[derive(Default)]
struct Wire {
    input: Vec<u8>,
    output: Vec<u8>,
    ended: bool,
    heard: Vec<Heard>,
}

impl Fastwebsockets {
    fn new(setup: &Setup) -> Self {
        let wire = Rc::new(RefCell::new(Wire::default()));
        let role = if setup.client { Role::Client } else { Role::Server };
        let mut socket = WebSocket::after_handshake(Stream(wire.clone()), role);
        // It refuses what is as large as its limit.
        socket.set_max_message_size(setup.limit + 1);
        let mut socket = FragmentCollector::new(socket);
        let heard = wire.clone();
        let reads = async move {
            loop {
                match socket.read_frame().await {
                    Ok(frame) => heard.borrow_mut().heard.push(shown(frame.opcode, &frame.payload)),
                    Err(error) => return error,
                }
            }
        };
        Self { wire, reads: Box::pin(reads), sent: 0 }
    }
}

impl Party for Fastwebsockets {
    fn take(&mut self, frame: Option<&Frame>) -> Made {
        match frame {
            Some(frame) => self.wire.borrow_mut().input.extend_from_slice(&frame.0),
            None => self.wire.borrow_mut().ended = true,
        }
        let polled = self.reads.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        let mut made = Made::default();
        if let Poll::Ready(error) = polled {
            made.end = Some(ended(&error));
        }
        let mut wire = self.wire.borrow_mut();
        let mut made = made.with_sent(&wire.output[self.sent..]);
        self.sent = wire.output.len();
        let mut heard = wire.heard.drain(..);
        made.heard = heard.next();
        assert!(heard.next().is_none(), "one frame, one event");
        // A Ping is answered, but not shown.
        if let (None, [(0x8a, payload)]) = (&made.heard, &made.sent[..]) {
            made.heard = Some(Heard::Ping(payload.clone()));
        }
        made
    }
}

fn shown(opcode: OpCode, payload: &[u8]) -> Heard {
    match opcode {
        OpCode::Text => Heard::Text(payload.into()),
        OpCode::Binary => Heard::Binary(payload.into()),
        OpCode::Ping => Heard::Ping(payload.into()),
        OpCode::Pong => Heard::Pong(payload.into()),
        OpCode::Close if payload.is_empty() => Heard::Close(None, Vec::new()),
        OpCode::Close => Heard::Close(Some(code(payload)), payload[2..].into()),
        OpCode::Continuation => panic!("a fragment that was not collected"),
    }
}

/// Their words in ours.
fn ended(error: &WebSocketError) -> Ended {
    use ProtocolError as E;
    Ended::Failed(match error {
        WebSocketError::UnexpectedEOF => return Ended::EndOfStream,
        WebSocketError::ReservedBitsNotZero => E::ReservedBits,
        WebSocketError::InvalidValue => E::ReservedOpcode,
        WebSocketError::ControlFrameFragmented => E::ControlFragmented,
        WebSocketError::PingFrameTooLarge => E::ControlTooLong,
        WebSocketError::InvalidContinuationFrame => E::UnexpectedContinuation,
        WebSocketError::InvalidFragment => E::ExpectedContinuation,
        WebSocketError::InvalidCloseFrame => E::CloseTooShort,
        WebSocketError::InvalidCloseCode => E::BadCloseCode,
        WebSocketError::FrameTooLarge => E::MessageTooBig,
        WebSocketError::InvalidUTF8 => E::NotUtf8,
        error => panic!("an error that no frame should cause: {error}"),
    })
}

struct Stream(Rc<RefCell<Wire>>);

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut wire = self.0.borrow_mut();
        if wire.input.is_empty() && !wire.ended {
            return Poll::Pending;
        }
        let n = to.remaining().min(wire.input.len());
        to.put_slice(&wire.input[..n]);
        wire.input.drain(..n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().output.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
