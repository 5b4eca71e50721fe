//! What an operator sees: `GET /metrics`, in OpenMetrics text, which Prometheus reads.

use super::auth::tickets::Tickets;
use crate::hub::{Counters, Hub, LogStats, RoundTrips};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;

/// The media type of [`Metrics::text`].
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The gateway's own counters, and how all of them are told.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    /// Connections that the listener took.
    pub(super) accepted: Counter,
    /// Connections that got no further than the front door.
    pub(super) refused: Family<Reason, Counter>,
    /// Requests answered.
    pub(super) requests: Family<Answer, Counter>,
    /// Credentials that were refused, by the words in which it was said.
    unauthorized: Family<Reason, Counter>,
    /// Tickets that were given out.
    pub(super) tickets: Counter,
    /// Requests and long polls whose client has vanished.
    pub(super) vanished: Counter,
}

/// Why a connection was refused: a code of `PROTOCOL.md` section 9, `flood`, `tls` or `no_tls`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Reason {
    pub(super) reason: &'static str,
}

/// A request's answer. Both have few values, whatever is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Answer {
    pub(super) route: &'static str,
    pub(super) status: u16,
}

impl Metrics {
    pub(super) fn new(
        hub: Arc<Hub>,
        permits: Arc<Semaphore>,
        max_connections: u32,
        given: Arc<Tickets>,
    ) -> Self {
        let mut registry = Registry::with_prefix("longwire");
        let (accepted, tickets, vanished) = (Counter::default(), Counter::default(), Counter::default());
        let (refused, requests, unauthorized) = (Family::default(), Family::default(), Family::default());
        registry.register("connections_accepted", "Connections that the listener took", accepted.clone());
        registry.register("connections_refused", "Connections refused at the front door", refused.clone());
        registry.register("requests", "Requests answered, by route and status", requests.clone());
        registry.register("unauthorized", "Credentials of requests refused, by reason", unauthorized.clone());
        registry.register("tickets", "Tickets given out", tickets.clone());
        registry.register("vanished", "Requests and long polls whose client has vanished", vanished.clone());
        registry.register_collector(Box::new(Live { hub, permits, max_connections, tickets: given }));
        Self { registry, accepted, refused, requests, unauthorized, tickets, vanished }
    }

    /// Counts an answer.
    pub(super) fn answered(&self, route: &'static str, status: u16) {
        self.requests.get_or_create(&Answer { route, status }).inc();
    }

    /// Counts a credential that was refused. The words are constants of the program: there are few.
    pub(super) fn unauthorized(&self, reason: &'static str) {
        self.unauthorized.get_or_create(&Reason { reason }).inc();
    }

    /// Counts a connection that got no further.
    pub(super) fn turned_away(&self, reason: &'static str) {
        self.refused.get_or_create(&Reason { reason }).inc();
    }

    /// All of them, as text.
    pub(super) fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::with_capacity(8 << 10);
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// What is read from the hub when it is asked for.
struct Live {
    hub: Arc<Hub>,
    permits: Arc<Semaphore>,
    max_connections: u32,
    tickets: Arc<Tickets>,
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Live")
    }
}

/// Name, help, and how to read it: a value for each log, in the label `log`.
type Row<T> = (&'static str, &'static str, fn(&T) -> u64);

/// A log's name, what happened in it, and what it holds.
type Snapshot<'h> = (&'h str, &'h Counters, LogStats);

const COUNTERS: &[Row<Counters>] = &[
    ("published", "Events appended to the log.", |c| get(&c.published)),
    ("publications_refused", "Publications refused.", |c| get(&c.refused)),
    ("publications_repeated", "Publications that had been stored before.", |c| get(&c.repeated)),
    ("publications_out_of_window", "Publications refused: out_of_window.", |c| get(&c.out_of_window)),
    ("over_rate", "Publications refused: over max_rate.", |c| get(&c.over_rate)),
    ("over_byte_rate", "Publications refused: over max_byte_rate.", |c| get(&c.over_byte_rate)),
    ("over_topic_rate", "Publications refused: over max_topic_rate.", |c| get(&c.over_topic_rate)),
    ("over_topic_byte_rate", "Publications refused: over max_topic_byte_rate.", |c| {
        get(&c.over_topic_byte_rate)
    }),
    ("publishers_forgotten", "Publishers forgotten for others that came.", |c| get(&c.publishers_forgotten)),
    ("delivered", "Events written to readers.", |c| get(&c.delivered)),
    ("sent_bytes", "Bytes written to streams.", |c| get(&c.sent_bytes)),
    ("writes", "Writes to streams.", |c| get(&c.writes)),
    ("received_bytes", "Bytes read from streams.", |c| get(&c.received_bytes)),
    ("gaps", "Gaps told to readers.", |c| get(&c.gaps)),
    ("gaps_uncounted", "Gaps that did not say how many events are missing.", |c| get(&c.gaps_uncounted)),
    ("skipped_evicted", "Events told to be missing: the log no longer held them.", |c| {
        get(&c.skipped_evicted)
    }),
    ("skipped_slow", "Events told to be missing: the reader was too slow.", |c| get(&c.skipped_slow)),
    ("skipped_conflated", "Events told to be missing: a slow reader got a newer one.", |c| {
        get(&c.skipped_conflated)
    }),
    ("pressures", "Times that a reader was told that it is behind.", |c| get(&c.pressures)),
    (
        "too_slow",
        "Streams closed because they were too far behind, or pinned too much.",
        |c| get(&c.too_slow),
    ),
    ("blocked", "Times that a reader fell behind because its socket was full.", |c| get(&c.blocked)),
    ("renewals", "Grants that replaced another on an open stream.", |c| get(&c.renewals)),
    (
        "grants_expired",
        "Streams that ended because their grant did, or that did not say who they are.",
        |c| get(&c.expired),
    ),
    ("grants_revoked", "Streams that ended because their grant was revoked.", |c| get(&c.revoked)),
    ("auth_refused", "Credentials refused on open streams.", |c| get(&c.denied)),
    ("credential_files_bad", "Times that a changed file of credentials could not be used.", |c| {
        get(&c.bad_files)
    }),
    ("timeouts", "Streams that were given up because the client was silent.", |c| get(&c.timeouts)),
    ("protocol_errors", "Streams that broke the protocol.", |c| get(&c.protocol_errors)),
];

const GAUGES: &[Row<Counters>] = &[
    ("publishers", "Publishers whose numbers are remembered.", |c| get(&c.publishers)),
    ("idempotency_keys", "Values of Idempotency-Key that are remembered.", |c| get(&c.idempotency_keys)),
    ("websockets", "WebSocket connections.", |c| get(&c.websockets)),
    ("sse", "SSE connections.", |c| get(&c.sse)),
    ("lagging", "Streams that are not at the head of the log.", |c| get(&c.lagging)),
    ("waiting", "Long polls that wait.", |c| get(&c.waiting)),
    ("subscriptions", "Patterns that readers have subscribed to, on connections and long polls.", |c| {
        get(&c.subscriptions)
    }),
];

const SIZES: &[Row<LogStats>] = &[
    ("log_head", "The last position of the log.", |s| s.head),
    ("log_topics", "Topics that were published to.", |s| s.topics as u64),
    ("log_keys", "Topics and keys with a latest event.", |s| s.keys as u64),
    ("log_tail_events", "Events in the tail.", |s| s.tail_events as u64),
    ("log_tail_bytes", "Bytes in the tail.", |s| s.tail_bytes as u64),
    ("log_history_events", "Events in the histories.", |s| s.history_events as u64),
    ("log_history_bytes", "Bytes in the histories.", |s| s.history_bytes as u64),
    ("log_latest_bytes", "Bytes of the latest events.", |s| s.latest_bytes as u64),
    ("log_form_bytes", "Bytes of encoded forms.", |s| s.form_bytes as u64),
];

const LOSSES: &[Row<LogStats>] = &[
    ("log_evicted", "Events that left a history.", |s| s.evicted),
    ("log_forgotten", "Topics that were forgotten.", |s| s.forgotten),
    ("log_latest_dropped", "Latest events that left the state without a newer one.", |s| s.latest_dropped),
];

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl Collector for Live {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        // Only logs that there are: no name comes from a request.
        let logs: Vec<Snapshot<'_>> =
            self.hub.logs().map(|log| (log.name(), log.counters(), log.stats())).collect();
        for (name, help, value) in COUNTERS {
            let values = logs.iter().map(|(log, counters, _)| (*log, ConstCounter::new(value(counters))));
            each(&mut encoder, name, help, values)?;
        }
        for (name, help, value) in GAUGES {
            each(&mut encoder, name, help, logs.iter().map(|(log, c, _)| (*log, measured(value(c)))))?;
        }
        round_trips(&mut encoder, &logs)?;
        for (name, help, value) in SIZES {
            each(&mut encoder, name, help, logs.iter().map(|(log, _, s)| (*log, measured(value(s)))))?;
        }
        for (name, help, value) in LOSSES {
            each(
                &mut encoder,
                name,
                help,
                logs.iter().map(|(log, _, s)| (*log, ConstCounter::new(value(s)))),
            )?;
        }
        let open = (self.max_connections as usize).saturating_sub(self.permits.available_permits());
        gauge(&mut encoder, "connections", "Connections that are open.", open as u64)?;
        let pinned = self.hub.logs().map(|log| (log.name(), measured(log.pinned_bytes() as u64)));
        each(&mut encoder, "pinned_bytes", "Bytes of events that are half-sent.", pinned)?;
        let unused = self.tickets.len() as u64;
        gauge(&mut encoder, "tickets_unused", "Tickets that were given out and can be used.", unused)?;
        let max = u64::from(self.max_connections);
        gauge(&mut encoder, "connections_max", "Connections that may be open (max_connections).", max)
    }
}

/// The round-trip times, by log and transport.
fn round_trips(encoder: &mut DescriptorEncoder<'_>, logs: &[Snapshot<'_>]) -> fmt::Result {
    let help = "Round-trip times: of Pings (websocket), and as the system smooths them, at each tick (sse).";
    let mut metric = encoder.encode_descriptor("rtt", help, Some(&Unit::Seconds), MetricType::Histogram)?;
    let bounds = RoundTrips::BOUNDS.map(|millis| Duration::from_millis(millis).as_secs_f64());
    for (log, counters, _) in logs {
        for (transport, rtt) in [("websocket", &counters.websocket_rtt), ("sse", &counters.sse_rtt)] {
            let counts = rtt.buckets();
            let buckets: Vec<_> = bounds.into_iter().chain([f64::MAX]).zip(counts).collect();
            let (sum, count) = (rtt.sum().as_secs_f64(), counts.iter().sum());
            let labels = [("log", *log), ("transport", transport)];
            metric.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
    }
    Ok(())
}

/// A metric with a value for each log.
fn each<'l, M: EncodeMetric>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: impl Iterator<Item = (&'l str, M)>,
) -> fmt::Result {
    let mut values = values.peekable();
    let Some((_, first)) = values.peek() else { return Ok(()) };
    let mut encoder = encoder.encode_descriptor(name, help, None, first.metric_type())?;
    for (log, metric) in values {
        metric.encode(encoder.encode_family(&[("log", log)])?)?;
    }
    Ok(())
}

fn measured(value: u64) -> ConstGauge {
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX))
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let metric = measured(value);
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}
