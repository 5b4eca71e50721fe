//! A reader that stays: its cursor, over whichever connection (`PROTOCOL.md` sections 2 and 11).

use super::connector::{Action, Connector, ConnectorConfig, Event};
use super::ladder::{LadderConfig, Memory};
use super::{Gap, GapReason, Position};
use crate::log::{Cursor, Since};
use crate::rand_core::Rng;
use crate::time::Instant;

/// What came from the server, as far as it moves a cursor (the table of section 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Mark {
    /// An event.
    Event(Position),
    /// `caught_up`, `tick`, and the `next` of a poll.
    At(Cursor),
    /// A gap.
    Gap(Gap),
}

/// A [`Connector`] with a cursor.
///
/// For each message: if it [is new](Self::is_new), hand it to the application; then say that it was [passed](Self::passed). When the
/// machine says to open a connection, ask for [`since`](Self::since). So a connection may end at any byte, and another one over any
/// transport goes on with the next event: none is lost, and none that has a position of its own comes twice.
///
/// (The state, which comes first with `since=latest` and after a reset, is told again from its beginning when the connection ends before it is
/// whole.)
///
/// ```
/// use longwire_core::log::{Cursor, Since};
/// use longwire_core::session::Position;
/// use longwire_core::session::connector::ConnectorConfig;
/// use longwire_core::session::subscriber::{Mark, Subscriber};
///
/// let mut reader = Subscriber::new(ConnectorConfig::new(), Since::Now, None);
/// let event = Mark::Event(Position::At(Cursor { epoch: 7, seq: 3 }));
/// assert!(reader.is_new(event));
/// reader.passed(event);
/// assert_eq!(reader.cursor(), Some(Cursor { epoch: 7, seq: 3 }));
/// assert!(!reader.is_new(event));
/// ```
#[derive(Clone, Debug)]
pub struct Subscriber {
    connector: Connector,
    since: Since,
    /// The end of the last gap that was passed since the cursor moved.
    gap: Option<Cursor>,
}

impl Subscriber {
    /// A reader that begins at `since`.
    pub fn new(config: ConnectorConfig, since: Since, memory: Option<Memory>) -> Self {
        let mut subscriber = Self { connector: Connector::new(config, memory), since, gap: None };
        subscriber.go_on_from(since);
        subscriber
    }

    /// What to ask for on the next connection.
    pub const fn since(&self) -> Since {
        self.since
    }

    /// The position up to which everything was passed; `None` before it is known.
    pub const fn cursor(&self) -> Option<Cursor> {
        match self.since {
            Since::Cursor(at) => Some(at),
            Since::Now | Since::Latest => None,
        }
    }

    /// Whether the application has not seen it: an event at or before the cursor was passed before, on another connection, and so was
    /// the gap behind the cursor, when it ends where it did.
    pub fn is_new(&self, mark: Mark) -> bool {
        match mark {
            Mark::Event(Position::At(at)) | Mark::At(at) => self.is_ahead(at),
            Mark::Event(Position::Past(_)) => true,
            Mark::Gap(gap) => gap.reason == GapReason::Reset || self.gap != Some(gap.to),
        }
    }

    /// The application has it: moves the cursor, which never goes back.
    pub fn passed(&mut self, mark: Mark) {
        match mark {
            Mark::Event(Position::At(at)) | Mark::At(at) if self.is_ahead(at) => {
                self.go_on_from(Since::Cursor(at));
            }
            // What was known is void: a connection that ends before the state is whole begins with it again.
            Mark::Gap(Gap { reason: GapReason::Reset, .. }) => self.go_on_from(Since::Latest),
            Mark::Gap(gap) => self.gap = Some(gap.to),
            Mark::Event(_) | Mark::At(_) => {}
        }
    }

    /// Goes on from there, whatever was passed: for a reader that cannot have what comes next.
    pub fn go_to(&mut self, since: Since) {
        self.go_on_from(since);
    }

    const fn is_ahead(&self, at: Cursor) -> bool {
        match self.since {
            // Positions of two epochs do not lie on one line.
            Since::Cursor(cursor) => cursor.epoch != at.epoch || cursor.seq < at.seq,
            Since::Now | Since::Latest => true,
        }
    }

    fn go_on_from(&mut self, since: Since) {
        (self.since, self.gap) = (since, None);
        // A change in the middle of the state would begin with it again.
        self.connector.allow_look_up(self.cursor().is_some());
    }

    /// As [`Connector::start`].
    pub fn start(&mut self, now: Instant) -> Action {
        self.connector.start(now)
    }

    /// As [`Connector::handle`].
    pub fn handle(&mut self, event: Event, now: Instant, rng: &mut impl Rng) -> Action {
        self.connector.handle(event, now, rng)
    }

    /// As [`Connector::poll_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.connector.poll_timeout()
    }

    /// As [`Connector::handle_timeout`].
    pub fn handle_timeout(&mut self, now: Instant, rng: &mut impl Rng) -> Action {
        self.connector.handle_timeout(now, rng)
    }

    /// As [`Connector::switch`].
    pub fn switch(&mut self, config: LadderConfig, now: Instant) -> Action {
        self.connector.switch(config, now)
    }

    /// As [`Connector::reopen`].
    pub fn reopen(&mut self, now: Instant) -> Action {
        self.connector.reopen(now)
    }

    /// The connection beneath, to be asked.
    pub const fn connector(&self) -> &Connector {
        &self.connector
    }
}
