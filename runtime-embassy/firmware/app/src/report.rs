//! What the firmware reports.

use embassy_futures::select::{Either, select};
use embassy_sync::blocking_mutex::raw::RawMutex;
use embassy_time::{Duration, Instant, Timer};
use longwire_embassy::{Outbox, ReportError};
use minicbor::encode::{Encode, Encoder, Error, Write};

use crate::{Gauges, Settings, Shared, topic};

/// Reports on and on, or as many numbers as the settings ask for.
pub(crate) async fn run<M: RawMutex, const BYTES: usize>(
    settings: &Settings<'_>,
    shared: &Shared,
    outbox: &Outbox<M, BYTES>,
    gauges: &Gauges,
) {
    let reporter = Reporter { settings, shared, outbox, gauges };
    match (settings.readings, settings.idle) {
        (Some(last), _) => reporter.count_to(last).await,
        (None, Some(time)) => reporter.idle(time).await,
        (None, None) => reporter.sample().await,
    }
}

struct Reporter<'a, M: RawMutex, const BYTES: usize> {
    settings: &'a Settings<'a>,
    shared: &'a Shared,
    outbox: &'a Outbox<M, BYTES>,
    gauges: &'a Gauges,
}

impl<M: RawMutex, const BYTES: usize> Reporter<'_, M, BYTES> {
    /// How the device fares, for ever.
    async fn sample(&self) {
        let mut due = Instant::now();
        loop {
            self.report("uptime", &Instant::now().as_millis());
            self.report_stack();
            let [_, traffic @ ..] = self.cost();
            self.report("network", &Fields(&traffic));
            if let Some(wakeups) = self.gauges.wakeups {
                self.report("wakeups", &wakeups());
            }
            self.report("outbox", &self.outbox.counts());
            due = self.wait_from(due).await;
        }
    }

    /// The numbers up to `last`, and what became of them: for tests. They take turns on as many topics as the settings
    /// say, each with another policy.
    async fn count_to(&self, last: u32) {
        const TOPICS: [&str; 3] = ["number", "first", "latest"];
        let mut due = Instant::now();
        for (number, topic) in
            (self.settings.from..=last).zip(TOPICS.iter().take(self.settings.topics.into()).cycle())
        {
            self.waiting_below(self.settings.waiting).await;
            self.report(topic, &number);
            due = self.wait_from(due).await;
        }
        self.waiting_below(1).await;
        self.report("outbox", &self.outbox.counts());
        self.report_stack();
        self.waiting_below(1).await;
    }

    /// Says nothing for so long, and then what that took: for tests.
    async fn idle(&self, time: core::time::Duration) {
        /// What belongs to the beginning is over by then.
        const SETTLED: Duration = Duration::from_secs(3);
        self.report("uptime", &Instant::now().as_millis());
        self.waiting_below(1).await;
        Timer::after(SETTLED).await;
        let before = self.cost();
        Timer::after(Duration::from_millis(time.as_millis() as u64)).await;
        let after = self.cost();
        let mut spent = [("", 0); 5];
        for ((to, (name, after)), (_, before)) in spent.iter_mut().zip(after).zip(before) {
            *to = (name, after.wrapping_sub(before));
        }
        self.report("idle", &Fields(&spent));
        self.waiting_below(1).await;
    }

    fn cost(&self) -> [(&'static str, u32); 5] {
        let traffic = self.gauges.traffic;
        [
            ("wakeups", self.gauges.wakeups.map_or(0, |wakeups| wakeups())),
            ("frames_in", traffic.frames_in.get()),
            ("frames_out", traffic.frames_out.get()),
            ("bytes_in", traffic.bytes_in.get()),
            ("bytes_out", traffic.bytes_out.get()),
        ]
    }

    /// Waits for the next report after the one that was due then, and says when that is. Another interval counts at once.
    async fn wait_from(&self, due: Instant) -> Instant {
        loop {
            let interval = Duration::from_millis(self.shared.interval.get().into());
            // What was missed is not made up for.
            let next = (due + interval).max(Instant::now());
            match select(Timer::at(next), self.shared.changed.wait()).await {
                Either::First(()) => return next,
                Either::Second(()) => {}
            }
        }
    }

    /// Looks now and then whether fewer readings wait.
    async fn waiting_below(&self, limit: u32) {
        while self.outbox.counts().waiting >= limit {
            Timer::after_millis(10).await;
        }
    }

    fn report_stack(&self) {
        let stack = self.gauges.stack;
        let free = stack.free();
        self.report("stack", &Fields(&[("free", free), ("peak", stack.size().saturating_sub(free))]));
    }

    /// Reports a value on `device/ID/WHAT`.
    fn report(&self, what: &str, value: &impl Encode<()>) {
        let reported = self.outbox.reporter().try_report(&topic(self.settings.id, what), None, value);
        // A full outbox counts what it does not take.
        debug_assert!(matches!(reported, Ok(()) | Err(ReportError::Full)), "the id is a topic's level");
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
