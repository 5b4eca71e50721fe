//! How a case is run, and what is said when it goes wrong.

use crate::{Case, handshake, sse, ws};
use longwire_core::ws::deflate::Inflate;
use longwire_core::ws::{Delivery, MIN_RX, MIN_TX};

/// How the bytes of a wire arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// As many at a time as the buffer holds.
    Whole,
    /// In two pieces, of which the first has this many bytes.
    At(usize),
    /// In pieces of this many bytes.
    Every(usize),
}

/// How a case is run. The outcome has to be the same for all of them.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// How the bytes arrive.
    pub cut: Cut,
    /// How a connection hands out messages. A vector may ask for one of the two.
    pub delivery: Delivery,
    /// Bytes of the receive buffer at first. It grows as far as it is asked to.
    pub rx: usize,
    /// Bytes of the send buffer of a connection, at least [`MIN_TX`].
    pub tx: usize,
}

impl Setup {
    /// Everything at once, with room to spare.
    pub const fn whole() -> Self {
        Self { cut: Cut::Whole, delivery: Delivery::Whole, rx: 4096, tx: 1024 }
    }
}

/// What every case is run with everywhere, large and small.
pub const SETUPS: [Setup; 6] = {
    let (whole, small) = (Setup::whole(), Setup { tx: MIN_TX, ..Setup::whole() });
    [
        whole,
        Setup { delivery: Delivery::Chunks, ..whole },
        Setup { cut: Cut::Every(1), ..whole },
        Setup { cut: Cut::Every(1), rx: 0, ..small },
        Setup { cut: Cut::Every(1), delivery: Delivery::Chunks, rx: MIN_RX, ..small },
        Setup { cut: Cut::Every(7), delivery: Delivery::Chunks, rx: MIN_RX + 1, ..small },
    ]
};

/// What a case is lent, from one to the next.
pub struct Space<'a> {
    /// For what comes in: room for the largest message of the file, twice.
    pub rx: &'a mut [u8],
    /// For what goes out.
    pub tx: &'a mut [u8],
    /// For compressed messages, with the largest window.
    pub inflate: &'a mut dyn Inflate,
}

impl Case {
    /// Runs it, and compares what comes of it with what has to.
    ///
    /// # Errors
    /// Something else came of it; or the vector is malformed, or wants more space.
    pub fn run(&self, setup: &Setup, space: &mut Space<'_>) -> Result<(), Wrong> {
        match self.kind() {
            "ws" => ws::run(self, setup, space),
            "request" => handshake::run_request(self, setup, space),
            "response" => handshake::run_response(self, setup, space),
            "sse" => sse::run(self, setup, space),
            other => wrong!(self.vector.head, "no kind of vector: {other}"),
        }
    }
}

impl Cut {
    /// Whether a piece ends behind the first `n` bytes.
    pub(crate) fn is_at(self, n: usize) -> bool {
        match self {
            Self::Whole => false,
            Self::At(at) => n == at,
            Self::Every(every) => n.is_multiple_of(every),
        }
    }
}

/// What went wrong, and at which line of the file.
#[derive(Clone, Debug)]
pub struct Wrong {
    /// The line, counted from 1.
    pub line: u32,
    /// In words; cut short if they are long.
    pub what: heapless::String<104>,
}

impl core::fmt::Display for Wrong {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "vectors.txt:{}: {}", self.line, self.what)
    }
}

impl core::error::Error for Wrong {}

/// `Err(Wrong)` at a line, in words.
macro_rules! wrong {
    ($line:expr, $($words:tt)*) => {{
        let mut wrong = $crate::Wrong { line: $line.number, what: Default::default() };
        // Words that have no room are left out.
        let _ = core::fmt::Write::write_fmt(&mut wrong.what, format_args!($($words)*));
        Err(wrong)
    }};
}
pub(crate) use wrong;

/// Whether something shows itself as this: how errors stand in the file.
pub(crate) fn is_named(thing: &dyn core::fmt::Debug, name: &str) -> bool {
    struct Rest<'a>(Option<&'a str>);
    impl core::fmt::Write for Rest<'_> {
        fn write_str(&mut self, part: &str) -> core::fmt::Result {
            self.0 = self.0.and_then(|rest| rest.strip_prefix(part));
            Ok(())
        }
    }
    let mut rest = Rest(Some(name));
    let _ = core::fmt::Write::write_fmt(&mut rest, format_args!("{thing:?}"));
    rest.0 == Some("")
}

/// Whether these are those bytes.
pub(crate) fn same(got: &[u8], expected: impl Iterator<Item = u8>) -> bool {
    got.iter().copied().eq(expected)
}
