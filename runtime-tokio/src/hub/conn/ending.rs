//! How a connection ends: the reasons that are the server's, the last words, and the wait for the peer's end.

use super::{Conn, Phase, Turn};
use crate::hub::count;
use crate::hub::session::close_code;
use crate::hub::shard::{READ_SIZE, Shard};
use longwire_core::session::{Code, Refusal, ServerMessage};
use longwire_core::ws::CloseCode;
use std::task::Poll;
use std::time::Duration;

/// How long our last words may take to go out, and the peer to end the stream after them. What it sends meanwhile is
/// thrown away: a socket that is closed with input unread takes our last words with it (RFC 9112 section 9.6).
pub(super) const LINGER: Duration = Duration::from_secs(1);

impl Conn {
    /// Step 0 of a turn: true when the connection is over.
    pub(super) fn end_with_grant(&mut self, shard: &Shard) -> bool {
        if self.session.access.holds(shard) {
            return false;
        }
        let refusal = self.session.access.ended(shard);
        if self.is_in_the_middle() {
            // The rest of an event must not leave, and without it nothing else can: it is thrown away.
            return true;
        }
        if self.phase == Phase::Open {
            self.bye(shard, refusal, None);
        }
        false
    }

    /// Whether a part of an event waits to go out. (What is encrypted already shows not what it is.)
    pub(super) fn is_in_the_middle(&self) -> bool {
        !self.stream.is_flushed() || (!self.rest.is_empty() && !self.greeting)
    }

    pub(super) fn say_goodbye(&mut self, shard: &Shard, retry_after: Duration, window: Duration) {
        if self.phase == Phase::Open {
            let refusal =
                Refusal::new(Code::Draining, "the gateway is about to stop").retry_after(retry_after);
            self.bye(shard, refusal, Some(window));
        }
    }

    /// The reader is too far behind, and its policy is to be disconnected. If its socket is full, what is half-sent and
    /// the `bye` have [`LINGER`] to go out.
    pub(super) fn cast_off(&mut self, shard: &Shard) {
        count(&shard.shared.counters.too_slow, 1);
        self.bye(shard, Refusal::new(Code::TooSlow, "this reader was too far behind"), None);
    }

    /// Tells the peer to go.
    pub(super) fn bye(&mut self, shard: &Shard, refusal: Refusal<'_>, window: Option<Duration>) {
        self.session.leave(shard);
        let code = refusal.code().map_or(CloseCode::INTERNAL, close_code);
        self.say(&ServerMessage::Bye { refusal, window });
        if let Some(ws) = &mut self.ws {
            // Closing already: then the peer knows.
            let _ = ws.connection.close(shard.clock.now(), &mut self.words.tx(), code, "");
        }
        self.phase = Phase::Ending(shard.clock.now().after(LINGER));
    }

    /// What is pending goes out, then our direction ends, then the peer's end is waited for a little.
    pub(super) fn finish(&mut self, shard: &Shard) -> Turn {
        if self.phase == Phase::Cut {
            return Turn::Over;
        }
        if let Phase::Ending(until) = self.phase {
            match self.flush(shard) {
                Ok(Poll::Ready(())) => {}
                Ok(Poll::Pending) => return Turn::Waiting,
                Err(_) => return Turn::Over,
            }
            match self.stream.poll_shutdown() {
                Poll::Ready(Ok(())) => {}
                Poll::Pending => return Turn::Waiting,
                Poll::Ready(Err(_)) => return Turn::Over,
            }
            self.phase = Phase::Lingering(until);
        }
        let mut ignored = [0; 4096];
        for _ in 0..READ_SIZE / ignored.len() {
            match self.stream.poll_read(&mut ignored) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0) | Err(_)) => return Turn::Over,
                Poll::Pending => return Turn::Waiting,
            }
        }
        // It goes on sending; a round with others in between, until LINGER is over.
        Turn::More
    }
}
