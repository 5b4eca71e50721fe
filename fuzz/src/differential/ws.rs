//! Two WebSocket endpoints of one role, given the same frames, one by one.

use super::Known;
use crate::common::{AnyClient, End, Endpoint, Heard as Event, frames, limits};
use longwire_core::ws::{CloseCode, MIN_RX, MIN_TX, ProtocolError, Server};

/// The head of an input: `flags | limit`, a byte each. Behind it frames are described, see [`wire`].
///
/// The flags: 1 the endpoints are clients, 2 they have sent a Close before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setup {
    pub(super) client: bool,
    pub(super) closing: bool,
    /// Most bytes of a message. A control frame fits always, since peers measure these, too.
    pub(super) limit: usize,
}

impl Setup {
    /// The setup, and the frames.
    pub(super) fn read(data: &[u8]) -> Option<(Self, Vec<Frame>)> {
        let (&[flags, limit], recipe) = data.split_first_chunk()?;
        let client = flags & 1 != 0;
        let setup = Self { client, closing: flags & 2 != 0, limit: 125 + 8 * usize::from(limit) };
        Some((setup, split(&wire(recipe, !client))))
    }
}

/// Frames by recipe: `b0 | form | n | payload` each, a byte, a byte, a byte and n bytes. The form:
///
/// | bits | what |
/// |---|---|
/// | 0x03 | the length has 1 no more bytes than it needs, 2 two, 3 eight, 0 eight and the highest bit set if n is 255 |
/// | 0x04 | it is masked if it should not be, and the other way round |
/// | 0x08 | the payload sixteen times over |
/// | 0x10 | the payload alone, as it stands: a frame or several, and what no frame is |
///
/// At the end of the input there may be less than n bytes: then the last frame is cut off.
fn wire(mut recipe: &[u8], masked: bool) -> Vec<u8> {
    let mut wire = Vec::new();
    while let Some((&[b0, form, n], rest)) = recipe.split_first_chunk() {
        let (payload, rest) = rest.split_at(usize::from(n).min(rest.len()));
        recipe = rest;
        if form & 0x10 != 0 {
            wire.extend_from_slice(payload);
            continue;
        }
        let times = if form & 8 == 0 { 1 } else { 16 };
        let len = u16::from(n) * times;
        let bit = if masked == (form & 4 == 0) { 0x80 } else { 0 };
        match (form & 3, u8::try_from(len)) {
            (0 | 1, Ok(short @ ..126)) if form & 3 == 1 || n != 255 => wire.extend([b0, bit | short]),
            (0, _) if n == 255 => {
                wire.extend([b0, bit | 127, 0x80]);
                wire.extend([0; 5]);
                wire.extend(len.to_be_bytes());
            }
            (3, _) => {
                wire.extend([b0, bit | 127]);
                wire.extend(u64::from(len).to_be_bytes());
            }
            _ => {
                wire.extend([b0, bit | 126]);
                wire.extend(len.to_be_bytes());
            }
        }
        let key = if bit == 0 { [0; 4] } else { [0x37, 0xfa, b0, n] };
        if bit != 0 {
            wire.extend(key);
        }
        let payload = payload.repeat(times.into());
        wire.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    }
    wire
}

/// The frames of a wire. The last one may be cut off.
fn split(mut wire: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    while !wire.is_empty() {
        let size = usize::try_from(Frame::size(wire)).unwrap_or(usize::MAX).min(wire.len());
        let (frame, rest) = wire.split_at(size);
        frames.push(Frame(frame.into()));
        wire = rest;
    }
    frames
}

/// A frame as it stands on the wire, read without the code that is tested. What is cut off counts as zero.
#[derive(Clone, Debug)]
pub(super) struct Frame(pub(super) Vec<u8>);

impl Frame {
    fn byte(bytes: &[u8], at: usize) -> u8 {
        bytes.get(at).copied().unwrap_or_default()
    }

    /// How many bytes the length has behind the second byte of the frame.
    fn length_bytes(bytes: &[u8]) -> usize {
        match Self::byte(bytes, 1) & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        }
    }

    fn length(bytes: &[u8]) -> u64 {
        match Self::length_bytes(bytes) {
            0 => u64::from(Self::byte(bytes, 1) & 0x7f),
            n => (2..2 + n).fold(0, |len, at| len << 8 | u64::from(Self::byte(bytes, at))),
        }
    }

    fn header_size(bytes: &[u8]) -> usize {
        2 + Self::length_bytes(bytes) + if Self::byte(bytes, 1) & 0x80 == 0 { 0 } else { 4 }
    }

    /// Bytes of the frame that `bytes` begin with.
    fn size(bytes: &[u8]) -> u64 {
        Self::length(bytes).saturating_add(Self::header_size(bytes) as u64)
    }

    pub(super) fn opcode(&self) -> u8 {
        Self::byte(&self.0, 0) & 0x0f
    }

    pub(super) fn is_final(&self) -> bool {
        Self::byte(&self.0, 0) & 0x80 != 0
    }

    pub(super) fn is_control(&self) -> bool {
        self.opcode() >= 8
    }

    pub(super) fn is_masked(&self) -> bool {
        Self::byte(&self.0, 1) & 0x80 != 0
    }

    /// Bytes in front of the payload.
    pub(super) fn header(&self) -> usize {
        Self::header_size(&self.0)
    }

    pub(super) fn len(&self) -> u64 {
        Self::length(&self.0)
    }

    pub(super) fn is_whole(&self) -> bool {
        self.0.len() as u64 >= Self::size(&self.0)
    }

    /// Whether the length has no more bytes than it needs. One that is cut off may have.
    fn is_minimal(&self) -> bool {
        match Self::length_bytes(&self.0) {
            n if self.0.len() < 2 + n => true,
            0 => true,
            2 => self.len() > 125,
            _ => self.len() > 0xffff,
        }
    }

    /// As much as there is of it.
    pub(super) fn payload(&self) -> Vec<u8> {
        let header = self.header();
        let Some(payload) = self.0.get(header..) else { return Vec::new() };
        let key: &[u8] = if self.is_masked() { &self.0[header - 4..header] } else { &[0] };
        payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect()
    }

    /// The same frame with the shortest header, cut off where it was.
    fn minimal(&self) -> Self {
        let masked = if self.is_masked() { 0x80 } else { 0 };
        let mut bytes = vec![self.0[0]];
        match u16::try_from(self.len()) {
            Ok(len @ ..126) => bytes.push(masked | len.to_be_bytes()[1]),
            len => {
                bytes.push(masked | 126);
                bytes.extend(len.unwrap_or_default().to_be_bytes());
            }
        }
        bytes.extend_from_slice(self.0.get(2 + Self::length_bytes(&self.0)..).unwrap_or_default());
        Self(bytes)
    }

    /// The frame with its missing bytes, which are zero; of a payload that nobody takes none.
    fn completed(&self) -> Self {
        let mut bytes = self.0.clone();
        bytes.resize(bytes.len().max(Self::header_size(&bytes)), 0);
        let size = usize::try_from(Self::size(&bytes)).unwrap_or(usize::MAX);
        if size < 1 << 17 {
            bytes.resize(size, 0);
        }
        Self(bytes)
    }

    /// What can be said against it without knowing what came before.
    fn faults(&self, setup: &Setup) -> Vec<ProtocolError> {
        use ProtocolError as E;
        let (b0, len, payload) = (Self::byte(&self.0, 0), self.len(), self.payload());
        let close = self.opcode() == 8 && self.is_whole();
        let text = self.opcode() == 1 && self.is_final() && self.is_whole();
        let table = [
            (b0 & 0x70 != 0, E::ReservedBits),
            (matches!(self.opcode(), 3..=7 | 11..), E::ReservedOpcode),
            (self.is_control() && !self.is_final(), E::ControlFragmented),
            (self.is_control() && Self::length_bytes(&self.0) > 0, E::ControlTooLong),
            (self.is_masked() && setup.client, E::Masked),
            (!self.is_masked() && !setup.client, E::Unmasked),
            (!self.is_minimal(), E::LengthNotMinimal),
            (len >> 63 != 0, E::LengthTooLarge),
            (len > setup.limit as u64, E::MessageTooBig),
            (close && payload.len() == 1, E::CloseTooShort),
            (close && payload.len() > 1 && !may_be_sent(code(&payload)), E::BadCloseCode),
            (close && payload.len() > 1 && str::from_utf8(&payload[2..]).is_err(), E::NotUtf8),
            (text && str::from_utf8(&payload).is_err(), E::NotUtf8),
        ];
        table.into_iter().filter(|(is, _)| *is).map(|(_, fault)| fault).collect()
    }
}

/// The code in the payload of a Close.
pub(super) fn code(payload: &[u8]) -> u16 {
    payload.first_chunk().map(|code| u16::from_be_bytes(*code)).unwrap_or_default()
}

/// RFC 6455 section 7.4, and the codes that IANA has registered since.
pub(super) fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000 | 1001 | 1002 | 1003 | 1007..=1014 | 3000..=4999)
}

/// What an endpoint made of one frame, or of the end of the stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Made {
    pub(super) heard: Option<Heard>,
    /// First byte and payload of what was answered; of a Close the code alone, as peers may repeat the reason. The Close
    /// of an endpoint that fails is left out: with some it is the application that sends it.
    pub(super) sent: Vec<(u8, Vec<u8>)>,
    pub(super) end: Option<Ended>,
}

/// What was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, Vec<u8>),
}

/// Why nothing more is heard. After a Close nothing is given, because what comes is discarded (RFC 6455 section 1.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Failed(ProtocolError),
    EndOfStream,
}

impl Made {
    /// Puts down what was sent.
    pub(super) fn with_sent(mut self, wire: &[u8]) -> Self {
        let (sent, rest) = frames(wire);
        assert!(rest.is_empty(), "half a frame: {rest:x?}");
        for mut frame in sent {
            if frame.b0 == 0x88 {
                frame.payload.truncate(2);
            }
            self.sent.push((frame.b0, frame.payload));
        }
        if matches!(self.end, Some(Ended::Failed(_))) {
            self.sent.clear();
        }
        self
    }

    /// Why it failed, if it did.
    pub(super) fn failed(&self) -> Option<ProtocolError> {
        match self.end {
            Some(Ended::Failed(error)) => Some(error),
            _ => None,
        }
    }
}

/// An endpoint.
pub(super) trait Party {
    /// Takes a frame, or the end of the stream.
    fn take(&mut self, frame: Option<&Frame>) -> Made;
}

/// longwire's.
struct Longwire<R> {
    endpoint: Endpoint<R>,
    heard: usize,
    sent: usize,
}

impl<R: End> Longwire<R> {
    fn new(setup: &Setup) -> Self {
        let config = limits(setup.limit as u64, u32::MAX);
        let mut endpoint = Endpoint::<R>::with(config, MIN_RX, MIN_TX + 256);
        if setup.closing {
            let now = endpoint.now;
            endpoint.lend(|connection, io| connection.close(now, &mut io.tx, CloseCode::NORMAL, "")).unwrap();
            endpoint.write(usize::MAX);
        }
        let sent = endpoint.sent.len();
        Self { endpoint, heard: 0, sent }
    }
}

fn longwire(setup: &Setup) -> Box<dyn Party> {
    match setup.client {
        true => Box::new(Longwire::<AnyClient>::new(setup)),
        false => Box::new(Longwire::<Server>::new(setup)),
    }
}

impl<R: End> Party for Longwire<R> {
    fn take(&mut self, frame: Option<&Frame>) -> Made {
        match frame {
            Some(frame) => drop(self.endpoint.receive(&frame.0)),
            None => drop(self.endpoint.eof()),
        }
        let mut made = Made::default();
        for event in &self.endpoint.heard[self.heard..] {
            let heard = match event.clone() {
                Event::Text(text) => Heard::Text(text.into()),
                Event::Binary(data) => Heard::Binary(data),
                Event::Ping(payload) => Heard::Ping(payload),
                Event::Pong(payload) => Heard::Pong(payload),
                Event::Close(code, reason) => Heard::Close(code.map(CloseCode::get), reason.into()),
                Event::Failed(error) => {
                    made.end = Some(Ended::Failed(error));
                    break;
                }
            };
            assert!(made.heard.replace(heard).is_none(), "one frame, one event");
        }
        if frame.is_none() {
            made.end = Some(Ended::EndOfStream);
        }
        let made = made.with_sent(&self.endpoint.sent[self.sent..]);
        (self.heard, self.sent) = (self.endpoint.heard.len(), self.endpoint.sent.len());
        made
    }
}

/// What an endpoint is given.
#[derive(Clone, Debug)]
pub(super) enum Given {
    Frame(Frame),
    /// A frame that the peer makes something else of, for a known reason: longwire is not given it, and counts as if it
    /// had made the same.
    Decreed(Made),
}

/// A difference, to be explained.
pub(super) struct Case<'a> {
    pub(super) setup: &'a Setup,
    /// The frames for longwire, out of which the cause may be taken.
    pub(super) given: &'a mut [Given],
    /// The frame that they make different things of.
    pub(super) at: usize,
    pub(super) frame: &'a Frame,
    pub(super) ours: &'a Made,
    pub(super) theirs: &'a Made,
}

/// How a comparison goes on behind a known difference.
pub(super) enum Then {
    /// The cause was taken out of what longwire is given.
    Again,
    /// The frame that was cut off has to be completed for both.
    Complete,
    /// Nothing can be compared behind it.
    Over,
}

/// What explains a difference of one peer.
pub(super) type Explain = fn(&mut Case<'_>) -> Option<(&'static Known, Then)>;

/// Gives both the same, and tells which known differences it met.
pub(super) fn compare(
    setup: &Setup,
    frames: &[Frame],
    theirs: fn(&Setup) -> Box<dyn Party>,
    explain: Explain,
) -> Vec<&'static Known> {
    let mut met = Vec::new();
    let mut given: Vec<_> = frames.iter().cloned().map(Given::Frame).collect();
    let peer = run(&mut *theirs(setup), &given);
    loop {
        let made = run(&mut *longwire(setup), &given);
        must_fail(setup, &given, &made);
        let Some(at) = made.iter().zip(&peer).position(|(ours, theirs)| ours != theirs) else {
            assert_eq!(made.len(), peer.len());
            return met;
        };
        let difference = || format!("frame {at}: longwire {:?}, peer {:?}", made[at], peer[at]);
        let Some(frame) = frames.get(at) else { panic!("{}", difference()) };
        let mut case = Case { setup, given: &mut given, at, frame, ours: &made[at], theirs: &peer[at] };
        let found = shared(&mut case).or_else(|| explain(&mut case)).or_else(|| cut_off(&case));
        let Some((known, then)) = found else { panic!("{} of {frame:x?}", difference()) };
        met.push(known);
        assert!(met.len() <= 8 * frames.len(), "an explanation that explains nothing: {met:?}");
        match then {
            Then::Again => {}
            Then::Over => return met,
            Then::Complete => {
                let mut frames = frames.to_vec();
                frames[at] = frame.completed();
                met.extend(compare(setup, &frames, theirs, explain));
                return met;
            }
        }
    }
}

/// A peer may take what longwire has to refuse.
fn must_fail(setup: &Setup, given: &[Given], made: &[Made]) {
    for (given, made) in given.iter().zip(made) {
        if let Given::Frame(frame) = given
            && frame.is_whole()
        {
            let faults = frame.faults(setup);
            assert!(faults.is_empty() || made.failed().is_some(), "{faults:?}, and {made:?} of {frame:x?}");
        }
    }
}

/// What an endpoint makes of each frame, up to the one that ends it, or else of the end of the stream.
fn run(party: &mut dyn Party, given: &[Given]) -> Vec<Made> {
    let mut all = Vec::new();
    for given in given {
        let made = match given {
            Given::Frame(frame) => party.take(Some(frame)),
            Given::Decreed(made) => made.clone(),
        };
        let ended = made.end.is_some() || matches!(made.heard, Some(Heard::Close(..)));
        all.push(made);
        if ended {
            return all;
        }
    }
    all.push(party.take(None));
    all
}

pub(super) const LENGTH_NOT_MINIMAL: Known = Known {
    input: "a length in more bytes than it needs",
    longwire: "fails with 1002",
    peer: "takes the frame",
    standard: "RFC 6455 5.2: the minimal number of bytes MUST be used",
};

pub(super) const ONE_OF_SEVERAL_FAULTS: Known = Known {
    input: "a frame that breaks several rules",
    longwire: "names one of them",
    peer: "names another",
    standard: "RFC 6455 has no order of rules; both fail the connection (7.1.7)",
};

pub(super) const CUT_OFF: Known = Known {
    input: "the stream ends in a frame that breaks a rule",
    longwire: "has failed as soon as the fault was there",
    peer: "waits for the whole frame, and sees the end of the stream",
    standard: "RFC 6455 7.1.7: nothing says how early; once the frame is completed, both fail",
};

pub(super) const HEADER_CUT_OFF: Known = Known {
    input: "the stream ends in the header of a frame that breaks a rule",
    longwire: "waits for the whole header, and sees the end of the stream",
    peer: "has failed as soon as the fault was there",
    standard: "RFC 6455 7.1.7: nothing says how early; once the frame is completed, both fail",
};

pub(super) const CODE_1014: Known = Known {
    input: "a Close with code 1014",
    longwire: "takes it",
    peer: "takes it for a code that must not be sent",
    standard: "RFC 6455 7.4.2, 11.7: IANA has registered it (bad gateway)",
};

/// What explains differences of any peer.
fn shared(case: &mut Case<'_>) -> Option<(&'static Known, Then)> {
    use ProtocolError as E;
    let failed = case.ours.failed()?;
    if matches!(failed, E::LengthNotMinimal | E::ControlTooLong)
        && !case.frame.is_minimal()
        && let Given::Frame(frame) = &mut case.given[case.at]
        && !frame.is_minimal()
    {
        *frame = frame.minimal();
        return Some((&LENGTH_NOT_MINIMAL, Then::Again));
    }
    let other = case.theirs.failed()?;
    // What depends on the frames before cannot be seen in this one; the other fault has to be.
    let faults = case.frame.faults(case.setup);
    let by_history = |fault| {
        matches!(fault, E::UnexpectedContinuation | E::ExpectedContinuation | E::MessageTooBig | E::NotUtf8)
    };
    let (one, two) = (faults.contains(&failed), faults.contains(&other));
    let both = (one || by_history(failed)) && (two || by_history(other)) && (one || two);
    both.then_some((&ONE_OF_SEVERAL_FAULTS, Then::Over))
}

/// The last explanation: the fault is there, but not the whole frame.
fn cut_off(case: &Case<'_>) -> Option<(&'static Known, Then)> {
    let waits = Made::default();
    let known = match (case.ours.failed(), case.theirs.failed()) {
        (Some(_), None) if *case.theirs == waits => &CUT_OFF,
        (None, Some(_)) if *case.ours == waits => &HEADER_CUT_OFF,
        _ => return None,
    };
    (!case.frame.is_whole()).then_some((known, Then::Complete))
}
