//! When to try again (`PROTOCOL.md` section 11, step 5).

use core::time::Duration;

use crate::rand_core::Rng;
use crate::time::{Instant, duration};
use crate::ws::CloseCode;

/// How a [`Backoff`] waits. All times count in whole milliseconds, and at most `u32::MAX` of them (49 days).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct BackoffConfig {
    /// The longest wait before the first new attempt; each attempt that follows doubles it. Default: 500 ms.
    pub base: Duration,
    /// Where the doubling ends. Default: 30 s.
    pub cap: Duration,
    /// How long a connection must have lived for the attempts to count from zero again. Default: 30 s.
    pub stable: Duration,
    /// The longest wait that a server may ask for, its window included: more counts as that (and one draw of our
    /// own may come on top). A server that asks for years must not put a device out of action. Default: 1 h.
    pub max_told: Duration,
    /// The time over which to come back when a connection ends without a word, until the server has said one
    /// ([`Backoff::spread`]). At most `max_told` counts. Default: 0, which leaves it at `base`.
    pub spread: Duration,
}

impl BackoffConfig {
    /// The defaults, as a constant.
    pub const fn new() -> Self {
        Self {
            base: Duration::from_millis(500),
            cap: Duration::from_secs(30),
            stable: Duration::from_secs(30),
            max_told: Duration::from_secs(3600),
            spread: Duration::ZERO,
        }
    }
}

impl Default for BackoffConfig {
    fn default() -> Self {
        Self::new()
    }
}

/// Why there is no connection (any more).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Failure {
    /// It could not be opened, or it ended, and the server did not say when to come back.
    Lost,
    /// The server said when to come back: `bye`, an HTTP `Retry-After`, an SSE `retry`.
    Told {
        /// Not earlier than this.
        retry_after: Duration,
        /// At a random moment within this time after it.
        window: Duration,
    },
    /// The same would happen again: a refusal that is `permanent`, a close code that says "no".
    Permanent,
}

impl Failure {
    /// What a server's close code says about coming back (the table in section 6 of `PROTOCOL.md`): 1002, 1003, 1007
    /// to 1009 mean that the same would happen again, and 3000 that it would with the same credential.
    pub const fn from_close(code: CloseCode) -> Self {
        match code.get() {
            1002 | 1003 | 1007..=1009 | 3000 => Self::Permanent,
            _ => Self::Lost,
        }
    }

    /// What the status of an HTTP response other than success says about coming back, when there is no refusal in
    /// its body that says it better (section 9): of the client's errors (4xx) only 408, 421, 425 and 429 pass, the
    /// server's (5xx) all do.
    pub const fn from_status(status: u16, retry_after: Option<Duration>) -> Self {
        match (status, retry_after) {
            (408 | 421 | 425 | 429, None) => Self::Lost,
            (408 | 421 | 425 | 429 | 500.., Some(retry_after)) => {
                Self::Told { retry_after, window: Duration::ZERO }
            }
            (400..500, _) => Self::Permanent,
            _ => Self::Lost,
        }
    }
}

/// What to do about a [`Failure`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Verdict {
    /// Make one attempt after this time.
    Retry(Duration),
    /// Make none.
    Stop,
}

/// Exponential backoff with full jitter, spread over the time that the server wants its clients to take.
///
/// The wait is drawn evenly from `0..=own`, where `own` is `min(cap, base * 2^attempt)`. That spreads the attempts of one
/// client over time. It does not spread many clients that lose their connections in the same instant, because the
/// server died: all of them would try within `base`. So a server says in advance (`hello`) over which window its
/// clients come back, and that is their *spread*:
///
/// - a connection that has lived for as long ends: the wait is drawn from `0..=max(spread, own)`;
/// - an attempt fails, or a connection ends sooner: the next attempt comes no sooner than `spread` after that one (plus
///   a draw from `0..=own`).
///
/// Of n clients that are cut off together so n / spread try in each second, but for chance never more, however long the
/// server is away and whomever it refuses: the first attempts are that dense, and what is moved by at least `spread` lies
/// behind them, and is no denser. (A server that dies again when only some have been back for as long sees at most twice as many.)
///
/// It is for a caller that has one attempt in flight: report its end by [`connected`](Self::connected) or
/// [`failed`](Self::failed), and the end of a connection by `failed` as well.
///
/// ```
/// use core::time::Duration;
/// use longwire_core::rand_core::Rng;
/// use longwire_core::session::backoff::{Backoff, Failure, Verdict};
/// use longwire_core::time::Instant;
///
/// /// How long to wait before the next attempt; `None` when there should be none.
/// fn after(failure: Failure, backoff: &mut Backoff, now: Instant, rng: &mut impl Rng) -> Option<Duration> {
///     match backoff.failed(now, failure, rng) {
///         Verdict::Retry(wait) => Some(wait),
///         Verdict::Stop => None,
///     }
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Backoff {
    config: BackoffConfig,
    /// Failures since the last stable connection.
    attempt: u32,
    connected: Option<Instant>,
}

// Most of it is the configuration, of which a client has one.
const _: () = assert!(size_of::<Backoff>() <= 104);

impl Backoff {
    /// Before the first attempt, which is made at once.
    pub const fn new(config: BackoffConfig) -> Self {
        Self { config, attempt: 0, connected: None }
    }

    /// Failures since the last connection that was stable.
    pub const fn attempt(&self) -> u32 {
        self.attempt
    }

    /// An attempt led to a connection: one that is of use, after its handshake. It counts as stable only when it
    /// has lived for [`BackoffConfig::stable`]; so a server that accepts and then drops is not hurried.
    pub fn connected(&mut self, now: Instant) {
        self.connected = Some(now);
    }

    /// The server said over which time its clients come back when it goes away without a word (`window` of `hello`).
    pub const fn spread(&mut self, window: Duration) {
        self.config.spread = window;
    }

    /// An attempt failed, or a connection ended. One draw from `rng`; none when the answer is
    /// [`Verdict::Stop`].
    ///
    /// A window that the server told with the failure is used as it is, and is the spread from then on; except that it is
    /// no shorter than `own`: a server that asks everybody to come back at once does not mean the same millisecond, and
    /// one that asks for it again and again does not make a client spin.
    pub fn failed(&mut self, now: Instant, failure: Failure, rng: &mut impl Rng) -> Verdict {
        let lived = self.connected.take().map(|since| now.since(since));
        if lived.is_some_and(|lived| lived >= self.config.stable) {
            self.attempt = 0;
        }
        let (after, window) = match failure {
            Failure::Permanent => return Verdict::Stop,
            Failure::Lost => (Duration::ZERO, Duration::ZERO),
            Failure::Told { retry_after, window } => (retry_after, window),
        };
        let doubled = 1u32.checked_shl(self.attempt).unwrap_or(u32::MAX);
        let own = millis(self.config.base).saturating_mul(doubled).min(millis(self.config.cap));
        let max = millis(self.config.max_told);
        let (after, window) = (millis(after).min(max), millis(window).min(max));
        let (after, window) = if window > 0 {
            self.spread(duration(window.into()));
            (after, window.min(max.saturating_sub(after)).max(own))
        } else {
            let spread = millis(self.config.spread).min(max);
            // An attempt that led to nothing has not lived at all.
            match spread.saturating_sub(millis(lived.unwrap_or_default())) {
                0 => (after, spread.max(own)),
                too_soon => (after.max(too_soon), own),
            }
        };
        self.attempt = self.attempt.saturating_add(1);
        let wait = after.saturating_add(uniform(window, rng));
        Verdict::Retry(duration(wait.into()))
    }
}

/// One of `0..=max`, each as likely as the other within one part in 2^32 of `max`.
fn uniform(max: u32, rng: &mut impl Rng) -> u32 {
    let wide = u64::from(rng.next_u32()) * (u64::from(max) + 1);
    u32::try_from(wide >> 32).unwrap_or(max)
}

fn millis(time: Duration) -> u32 {
    u32::try_from(crate::time::millis(time)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rand_core::{Infallible, TryRng};
    use proptest::prelude::*;

    /// Draws this number again and again, and counts.
    struct Always(u32, u32);

    impl TryRng for Always {
        type Error = Infallible;

        fn try_next_u32(&mut self) -> Result<u32, Infallible> {
            self.1 += 1;
            Ok(self.0)
        }

        fn try_next_u64(&mut self) -> Result<u64, Infallible> {
            self.1 += 1;
            Ok(u64::from(self.0) << 32 | u64::from(self.0))
        }

        fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), Infallible> {
            self.1 += 1;
            to.fill(self.0.to_le_bytes()[0]);
            Ok(())
        }
    }

    const START: Instant = Instant::from_millis(1_000);

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn retry(millis: u64) -> Verdict {
        Verdict::Retry(ms(millis))
    }

    /// The shortest and the longest wait that this failure can lead to.
    fn bounds(backoff: &Backoff, now: Instant, failure: Failure) -> (Duration, Duration) {
        let bound = |draw| match backoff.clone().failed(now, failure, &mut Always(draw, 0)) {
            Verdict::Retry(wait) => wait,
            Verdict::Stop => panic!("stopped"),
        };
        (bound(0), bound(u32::MAX))
    }

    #[test]
    fn the_window_doubles_from_base_to_cap() {
        let mut backoff = Backoff::new(BackoffConfig::default());
        for (attempt, max) in (0..).zip([500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]) {
            assert_eq!(backoff.attempt(), attempt);
            assert_eq!(bounds(&backoff, START, Failure::Lost), (Duration::ZERO, ms(max)));
            backoff.failed(START, Failure::Lost, &mut Always(0, 0));
        }
        for attempt in [31, 32, 33, 64, u32::MAX - 1, u32::MAX] {
            backoff.attempt = attempt;
            assert_eq!(bounds(&backoff, START, Failure::Lost), (Duration::ZERO, ms(30_000)));
        }
        backoff.failed(START, Failure::Lost, &mut Always(0, 0));
        assert_eq!(backoff.attempt(), u32::MAX);
    }

    #[test]
    fn attempts_count_from_zero_only_after_a_stable_connection() {
        for (lived, attempt) in [(0, 3), (29_999, 3), (30_000, 1), (90_000, 1)] {
            let mut backoff = Backoff::new(BackoffConfig::default());
            backoff.failed(START, Failure::Lost, &mut Always(0, 0));
            backoff.failed(START, Failure::Lost, &mut Always(0, 0));
            backoff.connected(START);
            backoff.failed(START.after(ms(lived)), Failure::Lost, &mut Always(0, 0));
            assert_eq!(backoff.attempt(), attempt, "lived {lived} ms");
            // The attempts that follow are no connections, however late they fail.
            backoff.failed(START.after(ms(1_000_000)), Failure::Lost, &mut Always(0, 0));
            assert_eq!(backoff.attempt(), attempt + 1);
        }
    }

    #[test]
    fn what_the_server_told_takes_precedence_within_max_told() {
        let told = |retry_after, window| Failure::Told { retry_after: ms(retry_after), window: ms(window) };
        let mut backoff = Backoff::new(BackoffConfig::default());
        for (attempt, own) in [(0, 500), (5, 16_000), (40, 30_000)] {
            backoff.attempt = attempt;
            for (failure, shortest, longest) in [
                (told(2000, 60_000), 2000, 62_000),
                (told(0, 60_000), 0, 60_000),
                // No shorter than our own: nobody spins, and those who are told the same time do not come in step.
                (told(2000, 0), 2000, 2000 + own),
                (told(0, 0), 0, own),
                (told(100, 50), 100, 100 + own),
                // Neither is longer than an hour.
                (told(3_600_001, 0), 3_600_000, 3_600_000 + own),
                (told(u64::MAX, u64::MAX), 3_600_000, 3_600_000 + own),
                (told(3_560_000, 80_000), 3_560_000, 3_600_000),
            ] {
                let expected = (ms(shortest), ms(longest));
                assert_eq!(bounds(&backoff, START, failure), expected, "{failure:?}");
            }
        }
        // It counts as an attempt: when the server says nothing the next time, we go on from here.
        backoff.attempt = 0;
        assert_eq!(backoff.failed(START, told(2000, 0), &mut Always(0, 0)), retry(2000));
        assert_eq!(bounds(&backoff, START, Failure::Lost).1, ms(1000));
    }

    #[test]
    fn a_connection_that_dies_without_a_word_is_followed_by_attempts_spread_over_what_hello_said() {
        let mut backoff = Backoff::new(BackoffConfig::default());
        backoff.connected(START);
        backoff.spread(ms(5000));
        let dead = START.after(ms(60_000));
        assert_eq!(bounds(&backoff, dead, Failure::Lost), (ms(0), ms(5000)));
        backoff.failed(dead, Failure::Lost, &mut Always(0, 0));
        // While the server stays away nobody comes twice within the spread, and the own backoff grows beside it.
        for own in [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000] {
            assert_eq!(bounds(&backoff, dead, Failure::Lost), (ms(5000), ms(5000 + own)));
            // A full server that says less means no less, and one that says more is heard.
            let full = |retry_after| Failure::Told { retry_after: ms(retry_after), window: ms(0) };
            assert_eq!(bounds(&backoff, dead, full(1000)), (ms(5000), ms(5000 + own)));
            assert_eq!(bounds(&backoff, dead, full(9000)), (ms(9000), ms(9000 + own)));
            backoff.failed(dead, Failure::Lost, &mut Always(0, 0));
        }
        // It is back, and dies again, sooner than all can have come back.
        let mut again = backoff.clone();
        again.connected(dead);
        assert_eq!(bounds(&again, dead.after(ms(2000)), Failure::Lost), (ms(3000), ms(33_000)));
        assert_eq!(bounds(&again, dead.after(ms(5000)), Failure::Lost), (ms(0), ms(30_000)));
        again.connected(dead);
        assert_eq!(bounds(&again, dead.after(ms(30_000)), Failure::Lost), (ms(0), ms(5000)));
    }

    #[test]
    fn the_window_of_a_bye_is_the_spread_of_the_attempts_that_follow() {
        let mut backoff = Backoff::new(BackoffConfig { spread: ms(1000), ..BackoffConfig::default() });
        backoff.connected(START);
        assert_eq!(bounds(&backoff, START.after(ms(1000)), Failure::Lost), (ms(0), ms(1000)));
        let bye = Failure::Told { retry_after: ms(0), window: ms(20_000) };
        backoff.connected(START);
        assert_eq!(bounds(&backoff, START, bye), (ms(0), ms(20_000)));
        backoff.failed(START, bye, &mut Always(0, 0));
        assert_eq!(bounds(&backoff, START, Failure::Lost), (ms(20_000), ms(21_000)));
        backoff.spread(ms(0));
        assert_eq!(bounds(&backoff, START, Failure::Lost), (ms(0), ms(1000)));
    }

    #[test]
    fn a_permanent_failure_stops_without_a_draw() {
        let (mut backoff, mut rng) = (Backoff::new(BackoffConfig::default()), Always(7, 0));
        backoff.connected(START);
        assert_eq!(backoff.failed(START, Failure::Permanent, &mut rng), Verdict::Stop);
        assert_eq!((rng.1, backoff.attempt()), (0, 0));
    }

    #[test]
    fn the_wait_is_drawn_evenly() {
        // 2^16 draws, evenly spread, into a window of four milliseconds: each as often as the others.
        let config = BackoffConfig { base: ms(3), ..BackoffConfig::default() };
        let mut seen = [0; 4];
        for draw in 0..=u32::from(u16::MAX) {
            match Backoff::new(config).failed(START, Failure::Lost, &mut Always(draw << 16, 0)) {
                Verdict::Retry(wait) => seen[usize::try_from(wait.as_millis()).unwrap()] += 1,
                Verdict::Stop => panic!("stopped"),
            }
        }
        assert_eq!(seen, [1 << 14; 4]);
    }

    proptest! {
        #[test]
        fn no_configuration_and_no_server_leads_out_of_bounds(
            config in (any::<[u64; 4]>(), 0u64..100_000, 0u32..64),
            lived: Option<u64>,
            told: Option<(Duration, Duration)>,
            attempt: u32,
            draw: u32,
        ) {
            let (times, stable, shift) = config;
            let [base, cap, max_told, spread] = times.map(|time| ms(time >> shift));
            let mut backoff = Backoff::new(BackoffConfig { base, cap, stable: ms(stable), max_told, spread });
            backoff.attempt = attempt % 100;
            let now = START.after(ms(lived.unwrap_or_default()));
            if lived.is_some() {
                backoff.connected(START);
            }
            let failure =
                told.map_or(Failure::Lost, |(retry_after, window)| Failure::Told { retry_after, window });
            let max = max_told.saturating_add(cap);
            match backoff.failed(now, failure, &mut Always(draw, 0)) {
                Verdict::Retry(wait) => prop_assert!(wait <= max),
                Verdict::Stop => prop_assert!(false, "stopped"),
            }
        }
    }

    #[test]
    fn close_codes_and_statuses_that_end_it() {
        let close = |code| Failure::from_close(CloseCode::new(code).unwrap());
        for code in [1000, 1001, 1011, 1012, 1013, 3001, 4000, 4999] {
            assert_eq!(close(code), Failure::Lost, "{code}");
        }
        for code in [1002, 1003, 1007, 1008, 1009, 3000] {
            assert_eq!(close(code), Failure::Permanent, "{code}");
        }
        for status in [400, 401, 403, 404, 405, 413, 426, 431] {
            assert_eq!(Failure::from_status(status, Some(ms(1))), Failure::Permanent, "{status}");
        }
        for status in [301, 200, 408, 429, 500, 502, 503, 504, 599] {
            assert_eq!(Failure::from_status(status, None), Failure::Lost, "{status}");
        }
        let told = Failure::Told { retry_after: ms(7000), window: ms(0) };
        assert_eq!(Failure::from_status(503, Some(ms(7000))), told);
        assert_eq!(Failure::from_status(429, Some(ms(7000))), told);
    }
}
