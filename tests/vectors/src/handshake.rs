//! Runs opening handshakes: of clients through a server, and the answers of servers through a client.

use crate::run::{is_named, same, wrong};
use crate::{Bytes, Case, Line, Setup, Space, Vector, Wrong};
use longwire_core::buf::{RxBuf, RxCursor, TxBuf, TxCursor};
use longwire_core::http::head::{HeadError, HeadReader, Limits, RequestHead, ResponseHead, Step};
use longwire_core::http::upgrade::{ClientUpgrade, Offer, Upgrade, accept};
use longwire_core::ws::deflate::{self, Agreed, Window};

/// The nonce of RFC 6455 section 1.3, of which the key is made there.
const NONCE: [u8; 16] = *b"the sample nonce";

/// More subprotocols than the core takes.
const MAX_OFFERED: usize = 40;

const LIMITS: [&str; 5] = ["max_head", "max_headers", "max_name", "max_value", "max_target"];

pub(crate) fn run_request(case: &Case, setup: &Setup, space: &mut Space<'_>) -> Result<(), Wrong> {
    let vector = case.vector;
    let [a, b, c, d, e] = LIMITS;
    vector.knows(&[a, b, c, d, e, "choose", "deflate", "send", "rest", "end"], &[])?;
    let mut answer = (&mut *space.tx, TxCursor::new());
    let judge = |head: Result<RequestHead, HeadError>, rx: &mut RxBuf<'_>| {
        let end = end_of(&vector)?;
        let head = match head {
            Ok(head) => head,
            Err(error) => return refused(end, Some(error.status()), &error),
        };
        let mut tx = TxBuf::new(answer.0, &mut answer.1);
        match accept(&head.view(rx.reborrow())) {
            Ok(upgrade) => accepted(&vector, end, &upgrade, &mut tx)?,
            Err(error) => {
                refused(end, Some(error.status()), &error)?;
                if error.write(&mut tx).is_err() || !is_status(tx.pending(), error.status()) {
                    return wrong!(end, "another answer: {:?}", core::str::from_utf8(tx.pending()));
                }
            }
        }
        head.release(rx);
        Ok(())
    };
    read(case, setup, space.rx, HeadReader::poll_request, judge)
}

pub(crate) fn run_response(case: &Case, setup: &Setup, space: &mut Space<'_>) -> Result<(), Wrong> {
    let vector = case.vector;
    let [a, b, c, d, e] = LIMITS;
    vector.knows(&[a, b, c, d, e, "subprotocols", "extensions", "deflate", "windows", "rest", "end"], &[])?;
    let mut names = heapless::Vec::<&str, MAX_OFFERED>::new();
    for name in vector.line("subprotocols").map_or("", |line| line.rest).split_ascii_whitespace() {
        if names.push(name).is_err() {
            return wrong!(vector.head, "more than {MAX_OFFERED} subprotocols");
        }
    }
    let deflate = deflate_of(&vector)?;
    let compression = deflate.map(|config| config.offer());
    let extensions = vector.line("extensions").map(|line| line.rest).or(compression.as_deref());
    let offer = Offer { subprotocols: &names, extensions, ..Offer::new("example.org", "/") };
    let upgrade = ClientUpgrade::with_nonce(NONCE);
    let judge = |head: Result<ResponseHead, HeadError>, rx: &mut RxBuf<'_>| {
        let end = end_of(&vector)?;
        let head = match head {
            Ok(head) => head,
            Err(error) => return refused(end, None, &error),
        };
        match upgrade.check(&offer, &head.view(rx.reborrow())) {
            Err(error) => refused(end, None, &error)?,
            Ok(agreed) => match deflate.map_or(Ok(None), |config| config.check(agreed.extensions())) {
                Err(error) => refused(end, None, &error)?,
                Ok(windows) => {
                    let (how, subprotocol) = end.rest.split_once(' ').unwrap_or((end.rest, ""));
                    if how != "agreed" || subprotocol != agreed.subprotocol().unwrap_or_default() {
                        return wrong!(end, "agreed: {agreed:?}");
                    }
                    are_windows(&vector, windows)?;
                }
            },
        }
        head.release(rx);
        Ok(())
    };
    read(case, setup, space.rx, HeadReader::poll_response, judge)
}

/// Answers, and compares the answer.
fn accepted(vector: &Vector, end: Line, upgrade: &Upgrade<'_>, tx: &mut TxBuf<'_>) -> Result<(), Wrong> {
    let chosen = vector.line("choose").map(|line| line.rest);
    let windows = deflate_of(vector)?.and_then(|config| config.accept(upgrade.extensions()));
    let extensions = windows.as_ref().map(|(_, answer)| answer.as_str());
    if let Err(error) = upgrade.write_response(tx, chosen, extensions, &[]) {
        return wrong!(end, "no answer can be written: {error:?}");
    }
    if end.rest != "accepted" || !same(tx.pending(), bytes_of(vector, "send")?) {
        return wrong!(end, "accepted; sent {:?}", core::str::from_utf8(tx.pending()));
    }
    Ok(())
}

/// Whether a response begins with this status.
fn is_status(response: &[u8], status: u16) -> bool {
    let digits = response.strip_prefix(b"HTTP/1.1 ").and_then(|rest| rest.get(..3));
    digits.and_then(|digits| core::str::from_utf8(digits).ok()).is_some_and(|n| n.parse() == Ok(status))
}

/// What an end wants of compression.
fn deflate_of(vector: &Vector) -> Result<Option<deflate::Config>, Wrong> {
    let window = Window { bits: deflate::MAX_BITS, takeover: true };
    match vector.line("deflate").map(|line| line.rest) {
        None => Ok(None),
        Some("default") => Ok(Some(deflate::Config::new())),
        Some("takeover") => Ok(Some(deflate::Config { send: window, receive: window })),
        Some("small") => Ok(Some(deflate::Config { receive: Window { bits: 9, ..window }, send: window })),
        Some(other) => wrong!(vector.head, "deflate is not {other}"),
    }
}

/// Whether these are the windows that are written down: bits of the server's and of the client's, with a `t` behind
/// those that are taken over.
fn are_windows(vector: &Vector, agreed: Option<Agreed>) -> Result<(), Wrong> {
    let line = vector.line("windows");
    let mut words = line.map_or("", |line| line.rest).split_ascii_whitespace();
    let windows = agreed.map(|agreed| [agreed.server, agreed.client]);
    for Window { bits, takeover } in windows.into_iter().flatten() {
        let word = words.next().unwrap_or_default();
        if word.strip_suffix('t').unwrap_or(word).parse() != Ok(bits) || word.ends_with('t') != takeover {
            return wrong!(line.unwrap_or(vector.head), "other windows: {agreed:?}");
        }
    }
    if words.next().is_some() { wrong!(line.unwrap_or(vector.head), "no windows") } else { Ok(()) }
}

/// Whether that is the end which is written down.
fn refused(end: Line, status: Option<u16>, error: &dyn core::fmt::Debug) -> Result<(), Wrong> {
    let name = end.rest.strip_prefix("refused ").and_then(|rest| match status {
        Some(status) => rest.split_once(' ').filter(|(n, _)| n.parse() == Ok(status)).map(|(_, name)| name),
        None => Some(rest),
    });
    match name {
        Some(name) if is_named(error, name) => Ok(()),
        _ => wrong!(end, "refused: {status:?} {error:?}"),
    }
}

fn end_of(vector: &Vector) -> Result<Line, Wrong> {
    vector.line("end").map_or_else(|| wrong!(vector.head, "no end"), Ok)
}

fn bytes_of(vector: &Vector, word: &str) -> Result<impl Iterator<Item = u8> + use<>, Wrong> {
    let bytes: Option<Bytes<'static>> = vector.line(word).map(|line| line.bytes()).transpose()?;
    Ok(bytes.into_iter().flatten())
}

fn limits(vector: &Vector) -> Result<Limits, Wrong> {
    let [max_head, max_headers, max_name, max_value, max_target] =
        LIMITS.map(|word| vector.line(word).map(|line| line.parse()).transpose());
    let default = Limits::DEFAULT;
    Ok(Limits {
        max_head: max_head?.unwrap_or(default.max_head),
        max_headers: max_headers?.unwrap_or(default.max_headers),
        max_name: max_name?.unwrap_or(default.max_name),
        max_value: max_value?.unwrap_or(default.max_value),
        max_target: max_target?.unwrap_or(default.max_target),
    })
}

/// A poll of a reader of heads, for either direction.
type Poll<H> = fn(&mut HeadReader, &mut RxBuf<'_>, &Limits) -> Result<Step<H>, HeadError>;

/// Reads a head, hands it to `judge`, who gives its room back, and compares what comes behind it.
fn read<H>(
    case: &Case,
    setup: &Setup,
    space: &mut [u8],
    poll: Poll<H>,
    judge: impl FnMut(Result<H, HeadError>, &mut RxBuf<'_>) -> Result<(), Wrong>,
) -> Result<(), Wrong> {
    let vector = case.vector;
    let mut endpoint = Endpoint {
        vector,
        limits: limits(&vector)?,
        poll,
        judge,
        reader: HeadReader::default(),
        phase: Phase::Head,
        rest: bytes_of(&vector, "rest")?,
        rx: space,
        rx_len: setup.rx,
        rx_at: RxCursor::new(),
    };
    let mut arrived = 0;
    for byte in case.wire()? {
        arrived += 1;
        while endpoint.lend()?.fill(&[byte]) == 0 {
            endpoint.turn()?;
        }
        if setup.cut.is_at(arrived) {
            endpoint.turn()?;
        }
    }
    endpoint.turn()?;
    let end = end_of(&vector)?;
    if endpoint.phase == Phase::Head && end.rest != "cut" {
        return wrong!(end, "the head is not whole");
    }
    if endpoint.rest.next().is_some() {
        return wrong!(end, "more is expected behind the head");
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// In the head.
    Head,
    /// Behind it.
    Rest,
    /// Behind an error.
    Refused,
}

struct Endpoint<'a, H, J, B> {
    vector: Vector,
    limits: Limits,
    poll: Poll<H>,
    judge: J,
    reader: HeadReader,
    phase: Phase,
    /// What is still expected behind the head.
    rest: B,
    rx: &'a mut [u8],
    /// So much of it is lent.
    rx_len: usize,
    rx_at: RxCursor,
}

impl<H, J, B> Endpoint<'_, H, J, B>
where
    J: FnMut(Result<H, HeadError>, &mut RxBuf<'_>) -> Result<(), Wrong>,
    B: Iterator<Item = u8>,
{
    /// Works off what was received.
    fn turn(&mut self) -> Result<(), Wrong> {
        loop {
            let Some(rx) = self.rx.get_mut(..self.rx_len) else {
                return wrong!(self.vector.head, "asks for {} bytes", self.rx_len);
            };
            let mut rx = RxBuf::new(rx, &mut self.rx_at);
            if self.phase != Phase::Head {
                if self.phase == Phase::Rest
                    && !rx.unread().iter().all(|byte| self.rest.next() == Some(*byte))
                {
                    return wrong!(self.vector.head, "other bytes behind the head: {:x?}", rx.unread());
                }
                rx.skip(usize::MAX);
                return Ok(());
            }
            match (self.poll)(&mut self.reader, &mut rx, &self.limits) {
                Ok(Step::Head(head)) => {
                    (self.judge)(Ok(head), &mut rx)?;
                    self.phase = Phase::Rest;
                }
                Ok(Step::NeedInput) if rx.spare_mut().is_empty() => {
                    return wrong!(self.vector.head, "there is no room for what it needs");
                }
                Ok(Step::NeedInput) => return Ok(()),
                Ok(Step::NeedSpace(wanted)) => {
                    if wanted <= self.rx_len || wanted > self.limits.max_head.max(2) {
                        return wrong!(self.vector.head, "asks for {wanted} bytes");
                    }
                    self.rx_len = wanted;
                }
                Err(error) => {
                    (self.judge)(Err(error), &mut rx)?;
                    self.phase = Phase::Refused;
                }
            }
        }
    }

    fn lend(&mut self) -> Result<RxBuf<'_>, Wrong> {
        match self.rx.get_mut(..self.rx_len) {
            Some(rx) => Ok(RxBuf::new(rx, &mut self.rx_at)),
            None => wrong!(self.vector.head, "asks for {} bytes", self.rx_len),
        }
    }
}
