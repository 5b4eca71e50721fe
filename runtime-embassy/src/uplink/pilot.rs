//! The core's machine, with this device's clock and dice.

use core::convert::Infallible;

use embassy_time::{Instant, Timer, with_deadline};
use longwire_core::log::{Cursor, Since};
use longwire_core::rand_core::{Rng, TryRng};
use longwire_core::session::connector::{Action, ConnectorConfig, Event};
use longwire_core::session::ladder::Memory;
use longwire_core::session::subscriber::Subscriber;
use longwire_core::session::{Gap, GapReason};

use super::{End, Lost};
use crate::buffered::now;
use crate::link::Connect;

/// Says when to connect and over what, and keeps the cursor of what comes down.
pub(super) struct Pilot {
    pub(super) reader: Subscriber,
    jitter: Jitter,
    /// A connection has opened since that was last asked.
    opened: bool,
    pub(super) skipped: Option<Skipped>,
}

/// Commands are skipped from here on, up to the next position that is heard of.
#[derive(Clone, Copy)]
pub(super) struct Skipped(Option<Cursor>);

impl Pilot {
    pub(super) fn new(
        config: ConnectorConfig,
        since: Since,
        memory: Option<Memory>,
        rng: &mut impl Rng,
    ) -> Self {
        let jitter = Jitter(rng.next_u64());
        Self { reader: Subscriber::new(config, since, memory), jitter, opened: false, skipped: None }
    }

    pub(super) fn start(&mut self) -> Action {
        self.reader.start(now())
    }

    pub(super) fn handle(&mut self, event: Event) -> Action {
        self.opened |= matches!(event, Event::Opened { .. });
        self.reader.handle(event, now(), &mut self.jitter)
    }

    pub(super) fn handle_timeout(&mut self) -> Action {
        self.reader.handle_timeout(now(), &mut self.jitter)
    }

    pub(super) fn deadline(&self) -> Instant {
        self.reader.poll_timeout().map_or(Instant::MAX, |at| Instant::from_millis(at.as_millis()))
    }

    /// A link, in time. It stays in `place`: it may be large (TLS has its keys in it), and each future on its way would move it
    /// over the stack.
    pub(super) async fn reach<'p, 'l, C: Connect>(
        &mut self,
        connect: &'l mut C,
        place: &'p mut Option<C::Link<'l>>,
    ) -> Result<&'p mut C::Link<'l>, End> {
        let connecting = async { Ok::<_, C::Error>(place.insert(connect.connect().await?)) };
        match with_deadline(self.deadline(), connecting).await {
            Ok(Ok(link)) => {
                self.handle(Event::Reached);
                Ok(link)
            }
            Ok(Err(_)) => Err(End::new(Lost::NoLink)),
            Err(_) => Err(self.timed_out(Lost::NoLink)),
        }
    }

    /// Whether there was somebody at the other end of the connection that has ended now: it was open, or this is an answer.
    pub(super) fn was_answered(&mut self, lost: Option<Lost>) -> bool {
        core::mem::take(&mut self.opened) || lost.is_some_and(|lost| lost.is_answer())
    }

    /// The deadline came.
    pub(super) fn timed_out(&mut self, lost: Lost) -> End {
        match self.handle_timeout() {
            Action::Continue => End::new(lost),
            action @ Action::LookUp(_) => End { action: Some(action), ..End::new(Lost::LookUp) },
            action => End { action: Some(action), ..End::new(lost) },
        }
    }

    /// Leaves the open connection for another one over the same rung, at once.
    #[cfg(any(feature = "sse", feature = "storage"))]
    pub(super) fn reopen(&mut self) -> Action {
        self.reader.reopen(now())
    }

    /// What is due now ends the connection, or does not.
    #[cfg(feature = "sse")]
    pub(super) fn overdue(&mut self, open: bool) -> Option<End> {
        match self.handle_timeout() {
            // There is no Ping but on WebSocket.
            Action::Continue | Action::Ping => None,
            action => Some(End::due(action, open)),
        }
    }

    /// Something is asked: silence is counted from here.
    #[cfg(feature = "sse")]
    pub(super) fn asks(&mut self) {
        self.handle(Event::Heard);
    }

    /// Nothing is waited for, so nothing is silent; but something better may be due.
    #[cfg(feature = "sse")]
    pub(super) fn idle(&mut self) -> Option<End> {
        self.handle(Event::Heard);
        self.overdue(true)
    }

    /// Something cannot be had from where the cursor is: commands go on with what is to come.
    pub(super) fn skip(&mut self) {
        self.skipped.get_or_insert(Skipped(self.reader.cursor()));
        self.reader.go_to(Since::Now);
    }

    /// What was skipped, now that it is known how far: up to this position.
    pub(super) fn skipped_up_to(&mut self, to: Cursor) -> Option<Gap> {
        let Skipped(from) = self.skipped.take()?;
        // A log that has lost its past meanwhile, or whose state was too large, may lack anything.
        let start = Cursor { epoch: to.epoch, seq: 0 };
        let from = from.filter(|from| from.epoch == to.epoch).unwrap_or(start);
        Some(Gap { from, to, reason: GapReason::TooLarge, skipped: None })
    }

    /// Waits until something is to be done, and says what.
    pub(super) async fn wait(&mut self) -> Action {
        loop {
            Timer::at(self.deadline()).await;
            match self.handle_timeout() {
                Action::Continue => {}
                action => return action,
            }
        }
    }
}

/// Spreads attempts over time (SplitMix64). Nobody gains from predicting it, so the generator of the masks, which the
/// connection holds, need not be asked again.
struct Jitter(u64);

impl TryRng for Jitter {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        // The upper half: what is left of the lower one goes.
        self.try_next_u64().map(|wide| u32::try_from(wide >> 32).unwrap_or_default())
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Ok(z ^ (z >> 31))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for byte in bytes {
            *byte = self.try_next_u64()?.to_le_bytes()[7];
        }
        Ok(())
    }
}
