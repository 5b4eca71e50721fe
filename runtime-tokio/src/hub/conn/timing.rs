//! What is due on a connection, and when: heartbeat, tick, renewal of the grant, and giving up a peer that is gone.

use super::ending::LINGER;
use super::{Conn, Phase};
use crate::hub::count;
use crate::hub::shard::Shard;
use longwire_core::buf::{Io, RxBuf, RxCursor};
use longwire_core::session::{Code, Refusal};
use longwire_core::time::Instant;
use longwire_core::ws::{CloseCause, Step};
use std::time::Duration;

/// How often a reader that is to be disconnected when it is too far behind is looked at while nothing else happens to
/// it. Nothing is lost in between but time: it holds no memory of the log.
const LAG_CHECK: Duration = Duration::from_millis(250);

impl Conn {
    /// Whether the peer can be asked for a Pong, and heard. Where something has to go out first a Ping would only wait
    /// behind it, and where nothing is read, its answer.
    pub(super) fn is_listening(&self) -> bool {
        !self.deaf && self.has_sent()
    }

    /// When `due` has something to do.
    pub(super) fn deadline(&self, shard: &Shard) -> Instant {
        let access = &self.session.access;
        if let Phase::Ending(until) | Phase::Lingering(until) = self.phase {
            let end = access.end().filter(|_| self.is_in_the_middle());
            return end.map_or(until, |end| end.min(until));
        }
        let config = &shard.shared.config;
        let tick = self.told.after(config.heartbeat);
        let stuck = self.sent.after(config.patience());
        // While something waits to go out there is nothing to tick for, only somebody to give up.
        let own = if self.is_busy() { stuck } else { tick };
        let life = match &self.ws {
            Some(ws) if self.is_listening() => ws.connection.poll_timeout(),
            _ => self.pulse.deadline(config.patience()),
        };
        let held = self.ws.as_ref().and_then(|ws| ws.held.as_ref()).filter(|_| self.is_listening());
        let whole = held.map(|held| held.since.after(config.message_timeout));
        let lag = self.session.watches_its_lag().then(|| shard.clock.now().after(LAG_CHECK));
        access.deadline().into_iter().chain(life).chain(lag).chain(whole).chain([own]).min().unwrap_or(own)
    }

    /// Step 4 of a turn; true when the connection is over.
    pub(super) fn due(&mut self, shard: &Shard) -> bool {
        let now = shard.clock.now();
        let config = &shard.shared.config;
        if let Phase::Ending(until) | Phase::Lingering(until) = self.phase {
            return now >= until;
        }
        let busy = self.is_busy();
        let listening = self.is_listening();
        // Nothing could be written for as long as a silent client would be given; or it acknowledges nothing.
        let stuck = busy && now >= self.sent.after(config.patience());
        let asks = self.ws.is_some() && listening;
        if stuck || (!asks && !self.pulse.lives(&self.stream, now, config.patience())) {
            count(&shard.shared.counters.timeouts, 1);
            return true;
        }
        let held = self.ws.as_mut().and_then(|ws| ws.held.as_deref_mut());
        if let Some(held) = held
            && !listening
        {
            // Nothing is read meanwhile: the rest of it may be there.
            held.since = now;
        }
        let held = self.ws.as_ref().and_then(|ws| ws.held.as_deref());
        if held.is_some_and(|held| now >= held.since.after(config.message_timeout)) {
            count(&shard.shared.counters.timeouts, 1);
            let why = "a message did not come to its end in time (message_timeout)";
            self.bye(shard, Refusal::new(Code::RequestTimeout, why), None);
            return false;
        }
        if let Some(renew) = self.session.access.due(shard) {
            self.say(&renew);
        }
        if let Some(ws) = &mut self.ws
            && listening
        {
            let mut none = RxCursor::default();
            let mut io = Io::new(RxBuf::new(&mut [], &mut none), self.words.tx());
            let step = ws.connection.handle_timeout(now, &mut io);
            if let Step::Closed(cause) = step {
                let silent = cause == CloseCause::Timeout;
                count(&shard.shared.counters.timeouts, u64::from(silent));
                // Whoever is silent is told, if that can be done at once, and not waited for.
                self.phase = Phase::Ending(if silent { now } else { now.after(LINGER) });
                return false;
            }
        }
        if !busy && now >= self.told.after(config.heartbeat) {
            self.told = now;
            if self.ws.is_none()
                && let Some(state) = self.stream.tcp_state()
            {
                shard.shared.counters.sse_rtt.record(state.rtt);
            }
            if let Some(tick) = self.session.tick(shard) {
                self.say(&tick);
            }
        }
        false
    }
}
