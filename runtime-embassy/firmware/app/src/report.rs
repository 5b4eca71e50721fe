//! What the firmware reports.

use core::fmt::Write as _;

use embassy_sync::blocking_mutex::raw::RawMutex;
use embassy_time::{Duration, Instant, Ticker};
use heapless::String;
use longwire_embassy::{Outbox, ReportError};
use minicbor::encode::{Encode, Encoder, Error, Write};

use crate::{Board, Settings};

/// Reports on and on, or as many numbers as the settings ask for.
pub(crate) async fn run<M: RawMutex, const BYTES: usize>(
    settings: &Settings<'_>,
    outbox: &Outbox<M, BYTES>,
    board: impl Board,
) {
    let reporter = Reporter { settings, outbox };
    match settings.readings {
        None => reporter.sample(board).await,
        Some(last) => reporter.count_to(last).await,
    }
}

struct Reporter<'a, M: RawMutex, const BYTES: usize> {
    settings: &'a Settings<'a>,
    outbox: &'a Outbox<M, BYTES>,
}

impl<M: RawMutex, const BYTES: usize> Reporter<'_, M, BYTES> {
    fn ticker(&self) -> Ticker {
        Ticker::every(Duration::from_millis(self.settings.interval.into()))
    }

    /// How the device fares, for ever.
    async fn sample(&self, board: impl Board) {
        let mut every = self.ticker();
        loop {
            let traffic = board.traffic();
            self.report("uptime", &Instant::now().as_millis());
            self.report("stack", &Fields(&[("free", board.free_stack())]));
            self.report(
                "network",
                &Fields(&[
                    ("frames_in", traffic.frames_in.get()),
                    ("frames_out", traffic.frames_out.get()),
                    ("bytes_in", traffic.bytes_in.get()),
                    ("bytes_out", traffic.bytes_out.get()),
                ]),
            );
            if let Some(wakeups) = board.wakeups() {
                self.report("wakeups", &wakeups);
            }
            self.report_counts();
            every.next().await;
        }
    }

    /// The numbers from 1 to `last`, and what became of them: for tests.
    async fn count_to(&self, last: u32) {
        let mut every = self.ticker();
        for number in 1..=last {
            self.waiting_below(self.settings.waiting, &mut every).await;
            self.report("number", &number);
            every.next().await;
        }
        self.waiting_below(1, &mut every).await;
        self.report_counts();
        self.waiting_below(1, &mut every).await;
    }

    /// Looks now and then whether fewer readings wait.
    async fn waiting_below(&self, limit: u32, every: &mut Ticker) {
        while self.outbox.counts().waiting >= limit {
            every.next().await;
        }
    }

    /// What became of the readings so far.
    fn report_counts(&self) {
        self.report("outbox", &self.outbox.counts());
    }

    /// Reports a value on `device/ID/WHAT`.
    fn report(&self, what: &str, value: &impl Encode<()>) {
        let mut topic: String<64> = String::new();
        let reported = match write!(topic, "device/{}/{what}", self.settings.id) {
            Ok(()) => self.outbox.reporter().try_report(&topic, None, value),
            Err(_) => Err(ReportError::BadTopic),
        };
        debug_assert_eq!(reported, Ok(()), "the id is a topic's level, and the outbox drops its oldest");
    }
}

/// A map of numbers.
struct Fields<'a>(&'a [(&'a str, u32)]);

impl<C> Encode<C> for Fields<'_> {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), Error<W::Error>> {
        e.map(self.0.len() as u64)?;
        for (name, number) in self.0 {
            e.str(name)?.u32(*number)?;
        }
        Ok(())
    }
}
