//! tungstenite, as a [`Party`].

use super::Known;
use super::ws::{
    CODE_1014, CUT_OFF, Case, Ended, Frame, Given, Heard, LENGTH_NOT_MINIMAL, Made, ONE_OF_SEVERAL_FAULTS,
    Party, Setup, Then, code, may_be_sent,
};
use longwire_core::ws::ProtocolError;
use std::io::{self, ErrorKind, Read, Write};
use tungstenite::error::ProtocolError as Theirs;
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Error, Message, WebSocket};

pub(super) const KNOWN: &[&Known] = &[
    &LENGTH_NOT_MINIMAL,
    &ONE_OF_SEVERAL_FAULTS,
    &CUT_OFF,
    &CODE_1014,
    &BAD_CLOSE_CODE,
    &PING_BEHIND_OUR_CLOSE,
];

const BAD_CLOSE_CODE: Known = Known {
    input: "a Close with a code that must not be sent",
    longwire: "fails with 1002",
    peer: "answers with 1002, and shows a Close with that code; after a Close of its own, the code as it came",
    standard: "RFC 6455 7.4.1, 7.4.2: such codes MUST NOT be set in a Close; both answer alike",
};

const PING_BEHIND_OUR_CLOSE: Known = Known {
    input: "a Ping after a Close of ours",
    longwire: "answers",
    peer: "does not answer",
    standard: "RFC 6455 5.5.2: a Pong MUST be sent, unless a Close was received",
};

pub(super) fn compare(data: &[u8]) -> Vec<&'static Known> {
    let Some((setup, frames)) = Setup::read(data) else { return Vec::new() };
    super::ws::compare(&setup, &frames, |setup| Box::new(Tungstenite::new(setup)), explain)
}

fn explain(case: &mut Case<'_>) -> Option<(&'static Known, Then)> {
    let payload = case.frame.payload();
    if case.frame.opcode() == 8 && payload.len() >= 2 && case.frame.is_whole() {
        let (sent, reason) = (code(&payload), payload[2..].to_vec());
        // After a Close of ours it is shown as it is.
        let shown = if case.setup.closing { Heard::Close(Some(sent), reason) } else { refused() };
        let known = match (sent, case.ours.failed()) {
            (1014, None) => &CODE_1014,
            (_, Some(ProtocolError::BadCloseCode)) if !may_be_sent(sent) => &BAD_CLOSE_CODE,
            _ => return None,
        };
        return (case.theirs.heard.as_ref() == Some(&shown)).then_some((known, Then::Over));
    }
    if let Some(Heard::Ping(ping)) = &case.ours.heard
        && case.setup.closing
        && case.ours.sent == [(0x8a, ping.clone())]
    {
        let made = Made { sent: Vec::new(), ..case.ours.clone() };
        case.given[case.at] = Given::Decreed(made);
        return Some((&PING_BEHIND_OUR_CLOSE, Then::Again));
    }
    None
}

/// What tungstenite shows instead of a Close that it refuses.
fn refused() -> Heard {
    Heard::Close(Some(1002), b"Protocol violation".to_vec())
}

struct Tungstenite {
    socket: WebSocket<Stream>,
    /// Bytes that were looked at.
    sent: usize,
}

/// What lies between: bytes that have come, and bytes that were sent.
#[derive(Default)]
struct Stream {
    input: Vec<u8>,
    output: Vec<u8>,
    ended: bool,
}

impl Tungstenite {
    fn new(setup: &Setup) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(512)
            .write_buffer_size(0)
            .max_frame_size(Some(setup.limit))
            .max_message_size(Some(setup.limit));
        let role = if setup.client { Role::Client } else { Role::Server };
        let mut socket = WebSocket::from_raw_socket(Stream::default(), role, Some(config));
        if setup.closing {
            socket.close(None).unwrap();
        }
        let sent = socket.get_ref().output.len();
        Self { socket, sent }
    }
}

impl Party for Tungstenite {
    fn take(&mut self, frame: Option<&Frame>) -> Made {
        match frame {
            Some(frame) => self.socket.get_mut().input.extend_from_slice(&frame.0),
            None => self.socket.get_mut().ended = true,
        }
        let mut made = Made::default();
        loop {
            match self.socket.read() {
                Ok(message) => {
                    assert!(made.heard.replace(heard(message)).is_none(), "one frame, one event");
                }
                Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => break,
                // The stream may end, both have sent a Close.
                Err(Error::ConnectionClosed) => break,
                Err(error) => {
                    made.end = Some(ended(&error));
                    break;
                }
            }
        }
        let output = &self.socket.get_ref().output;
        let made = made.with_sent(&output[self.sent..]);
        self.sent = output.len();
        made
    }
}

fn heard(message: Message) -> Heard {
    match message {
        Message::Text(text) => Heard::Text(text.as_bytes().into()),
        Message::Binary(data) => Heard::Binary(data.into()),
        Message::Ping(payload) => Heard::Ping(payload.into()),
        Message::Pong(payload) => Heard::Pong(payload.into()),
        Message::Close(None) => Heard::Close(None, Vec::new()),
        Message::Close(Some(close)) => Heard::Close(Some(close.code.into()), close.reason.as_bytes().into()),
        Message::Frame(_) => unreachable!("is never read"),
    }
}

/// Their words in ours.
fn ended(error: &Error) -> Ended {
    use ProtocolError as E;
    Ended::Failed(match error {
        Error::Protocol(Theirs::ResetWithoutClosingHandshake) => return Ended::EndOfStream,
        Error::Protocol(Theirs::NonZeroReservedBits) => E::ReservedBits,
        Error::Protocol(Theirs::InvalidOpcode(_)) => E::ReservedOpcode,
        Error::Protocol(Theirs::UnmaskedFrameFromClient) => E::Unmasked,
        Error::Protocol(Theirs::MaskedFrameFromServer) => E::Masked,
        Error::Protocol(Theirs::FragmentedControlFrame) => E::ControlFragmented,
        Error::Protocol(Theirs::ControlFrameTooBig) => E::ControlTooLong,
        Error::Protocol(Theirs::UnexpectedContinueFrame) => E::UnexpectedContinuation,
        Error::Protocol(Theirs::ExpectedFragment(_)) => E::ExpectedContinuation,
        Error::Protocol(Theirs::InvalidCloseSequence) => E::CloseTooShort,
        Error::Capacity(_) => E::MessageTooBig,
        Error::Utf8(_) => E::NotUtf8,
        error => panic!("an error that no frame should cause: {error}"),
    })
}

impl Read for Stream {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.input.is_empty() && !self.ended {
            return Err(ErrorKind::WouldBlock.into());
        }
        let n = to.len().min(self.input.len());
        to[..n].copy_from_slice(&self.input[..n]);
        self.input.drain(..n);
        Ok(n)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
