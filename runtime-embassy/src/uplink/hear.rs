//! What the gateway says, whatever it says it over.

use core::time::Duration;

use longwire_core::log::Cursor;
use longwire_core::session::ladder::Ending;
use longwire_core::session::subscriber::Mark;
use longwire_core::session::{Code, DecodeError, Limits, Position, ServerMessage};

use super::{Desk, Lost};
use crate::outbox::Source;

/// The `id` of the one `sub`.
pub(super) const SUBSCRIPTION: u32 = 1;

/// What is left to be done about it.
pub(super) enum Heard {
    Nothing,
    Hello(Hello),
    /// Publish nothing for as long.
    Wait(Duration),
    /// The grant ends: another credential is wanted within this time.
    Renew(Duration),
}

/// What `hello` says.
#[derive(Clone, Copy)]
pub(super) struct Hello {
    pub(super) limits: Limits,
    pub(super) heartbeat: Duration,
    pub(super) lease: Option<Duration>,
    /// Over which time clients come back when the gateway goes away without a word.
    pub(super) window: Option<Duration>,
}

impl<O: Source> Desk<'_, '_, O> {
    /// Takes in a message.
    pub(super) fn hear(&mut self, message: Result<ServerMessage<'_>, DecodeError>) -> Result<Heard, Lost> {
        match message {
            Ok(ServerMessage::Hello { limits, heartbeat, lease, window, .. }) => {
                return Ok(Heard::Hello(Hello { limits, heartbeat, lease, window }));
            }
            Ok(ServerMessage::Ack { n, pressure, .. }) => {
                self.outbox.acknowledge(n);
                return Ok(pressure.map_or(Heard::Nothing, Heard::Wait));
            }
            Ok(ServerMessage::Nack { n: Some(n), refusal }) => {
                // Where the gateway does not say when it might be taken, the others do not wait for it.
                let again = refusal.retry_after.filter(|_| !refusal.permanent);
                self.outbox.refuse(n, again.is_none());
                return Ok(again.map_or(Heard::Nothing, Heard::Wait));
            }
            Ok(ServerMessage::Event(event)) => {
                let mark = Mark::Event(event.position);
                if let Position::At(at) = event.position {
                    // It is not missing itself.
                    self.tell_skipped(Cursor { seq: at.seq.saturating_sub(1), ..at });
                }
                if self.pilot.reader.is_new(mark)
                    && let Some(subscription) = &self.subscription
                {
                    subscription.inbox.put(&event);
                }
                self.pilot.reader.passed(mark);
            }
            Ok(ServerMessage::CaughtUp { at, .. } | ServerMessage::Tick { at }) => self.passed(at),
            Ok(ServerMessage::Gap(gap)) => {
                self.tell_skipped(gap.to);
                if self.pilot.reader.is_new(Mark::Gap(gap))
                    && let Some(subscription) = &self.subscription
                {
                    subscription.inbox.put_gap(gap);
                }
                self.pilot.reader.passed(Mark::Gap(gap));
            }
            Ok(ServerMessage::Renew { within }) => return Ok(Heard::Renew(within)),
            Ok(ServerMessage::Bye { refusal, window }) => return Err(Lost::bye(&refusal, window)),
            Ok(ServerMessage::Error { refusal, id: Some(SUBSCRIPTION) }) => {
                return Err(Lost::Subscription(refusal.code(), Ending::from_refusal(&refusal, None)));
            }
            // Of no interest here; or of a type that a later version added.
            Ok(_) => {}
            Err(error) if error.code == Code::UnknownType => {}
            Err(_) => return Err(Lost::BadMessage),
        }
        Ok(Heard::Nothing)
    }

    /// Everything up to here was heard. Whoever subscribes to nothing has no use for it.
    pub(super) fn passed(&mut self, at: Cursor) {
        if self.subscription.is_some() {
            self.tell_skipped(at);
            self.pilot.reader.passed(Mark::At(at));
        }
    }

    /// Commands that could not be had are missing up to here.
    fn tell_skipped(&mut self, to: Cursor) {
        if let Some(subscription) = &self.subscription
            && let Some(gap) = self.pilot.skipped_up_to(to)
        {
            subscription.inbox.put_gap(gap);
        }
    }
}
