//! The limits of a gateway, as options. The defaults are the library's.

use clap::builder::Resettable;
use clap::{Args as _, FromArgMatches as _};
use longwire::gateway::GatewayConfig;
use longwire::gateway::limits::{Bytes, Time};
use longwire::hub::{HubConfig, LogConfig, TopicsFull};
use longwire_core::log::{LogName, QuotaConfig, Rate};
use longwire_core::session::publisher::WINDOW;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

/// All limits: `longwire::gateway::limits` says what happens beyond them.
#[derive(clap::Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct Limits {
    /// Connections at a time
    #[arg(long, value_name = "N", default_value_t = gateway().max_connections, value_parser = at_least_one::<u32>)]
    max_connections: u32,
    /// Connections of one address whose first request has not come
    #[arg(long, value_name = "N", default_value_t = gateway().max_handshakes, value_parser = at_least_one::<u32>)]
    max_handshakes: u32,
    /// Bytes of a request's head; half of it for the target
    #[arg(long, value_name = "BYTES", default_value_t = Bytes(gateway().max_head), value_parser = a_head)]
    max_head: Bytes,
    /// Fields of a request's head
    #[arg(long, value_name = "N", default_value_t = gateway().max_headers, value_parser = some_headers)]
    max_headers: usize,
    /// Time for a request's head, the first with the TLS handshake before it, and between two requests
    #[arg(long, value_name = "TIME", default_value_t = Time(gateway().handshake_timeout), value_parser = some_time)]
    handshake_timeout: Time,
    /// Time for a request's body, and for a client to take some of its answer
    #[arg(long, value_name = "TIME", default_value_t = Time(gateway().request_timeout), value_parser = some_time)]
    request_timeout: Time,
    /// Time for a WebSocket that was opened with `auth=later` to say who it is
    #[arg(long, value_name = "TIME", default_value_t = Time(gateway().auth_timeout), value_parser = some_time)]
    auth_timeout: Time,
    /// Time in which a ticket can be used
    #[arg(long, value_name = "TIME", default_value_t = Time(gateway().ticket_lifetime), value_parser = some_time)]
    ticket_lifetime: Time,
    /// Tickets given out within that time
    #[arg(long, value_name = "N", default_value_t = gateway().max_tickets)]
    max_tickets: u32,
    /// Threads that own the connections; 0: one a core, up to four
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = some_threads)]
    shards: usize,
    /// Bytes of a message or body
    #[arg(long, value_name = "BYTES", default_value_t = Bytes(usize::try_from(hub().max_message).unwrap_or(usize::MAX)), value_parser = some_bytes)]
    max_message: Bytes,
    /// Patterns on one connection
    #[arg(long, value_name = "N", default_value_t = hub().max_topics, value_parser = at_least_one::<usize>)]
    max_topics: usize,
    /// Publications of one connection that are not acknowledged
    #[arg(long, value_name = "N", default_value_t = hub().max_inflight, value_parser = clap::value_parser!(u64).range(1..=WINDOW))]
    max_inflight: u64,
    /// Silence before a `tick`, and before a client is asked whether it lives
    #[arg(long, value_name = "TIME", default_value_t = Time(hub().heartbeat), value_parser = some_time)]
    heartbeat: Time,
    /// Time for a client to answer
    #[arg(long, value_name = "TIME", default_value_t = Time(hub().heartbeat_timeout), value_parser = some_time)]
    heartbeat_timeout: Time,
    /// Time for a message to come to its end on a WebSocket
    #[arg(long, value_name = "TIME", default_value_t = Time(hub().message_timeout), value_parser = some_time)]
    message_timeout: Time,
    /// Time over which clients come back when all are cut off together
    #[arg(long, value_name = "TIME", default_value_t = Time(hub().reconnect_window))]
    reconnect_window: Time,
    /// Time before the end of a grant at which its renewal is asked for; at most a third of its time
    #[arg(long, value_name = "TIME", default_value_t = Time(hub().renew_before))]
    renew_before: Time,
    /// Publications of one connection in a second
    #[arg(long, value_name = "N", default_value_t = rate(hub().quota.messages), value_parser = at_least_one::<u64>)]
    max_rate: u64,
    /// Bytes that one connection publishes in a second: data, topics and keys
    #[arg(long, value_name = "BYTES", default_value_t = byte_rate(hub().quota.bytes), value_parser = some_bytes)]
    max_byte_rate: Bytes,
    /// Publications to one topic in a second
    #[arg(long, value_name = "N", default_value_t = rate(hub().topic_quota.messages), value_parser = at_least_one::<u64>)]
    max_topic_rate: u64,
    /// Bytes that are published to one topic in a second
    #[arg(long, value_name = "BYTES", default_value_t = byte_rate(hub().topic_quota.bytes), value_parser = some_bytes)]
    max_topic_byte_rate: Bytes,
    /// Silence for which these four may be made up at once
    #[arg(long, value_name = "TIME", default_value_t = Time(BURST), value_parser = some_time)]
    burst: Time,
    /// Publishers whose numbers a log remembers
    #[arg(long, value_name = "N", default_value_t = hub().max_publishers, value_parser = at_least_one::<usize>)]
    max_publishers: usize,
    /// Values of `Idempotency-Key` that a log remembers
    #[arg(long, value_name = "N", default_value_t = hub().max_idempotency_keys, value_parser = at_least_one::<usize>)]
    max_idempotency_keys: usize,
    /// Time for which it remembers one
    #[arg(long, value_name = "TIME", default_value_t = Time(hub().idempotency_age), value_parser = some_time)]
    idempotency_age: Time,
    /// Events of the log, matching or not, that a stream may be behind before its policy acts
    #[arg(long, value_name = "N", default_value_t = hub().max_lag_events, value_parser = at_least_one::<u64>)]
    max_lag_events: u64,
    /// Bytes of those
    #[arg(long, value_name = "BYTES", default_value_t = Bytes(hub().max_lag_bytes), value_parser = some_bytes)]
    max_lag_bytes: Bytes,
    /// Age of the oldest of those
    #[arg(long, value_name = "TIME", default_value_t = Time(hub().max_lag_age), value_parser = some_time)]
    max_lag_age: Time,
    /// Bytes of events that are half-sent, and over TLS of records, all streams together
    #[arg(long, value_name = "BYTES", default_value_t = Bytes(hub().max_pinned_bytes), value_parser = some_bytes)]
    max_pinned_bytes: Bytes,
    /// Bytes that the kernel holds unsent for a stream
    #[arg(long, value_name = "BYTES", default_value_t = Bytes(hub().unsent as usize), value_parser = some_32_bit_bytes)]
    max_unsent: Bytes,
    /// Bytes that the kernel holds for a stream, sent or not; 0 leaves it to the system
    #[arg(long, value_name = "BYTES", default_value_t = Bytes(hub().send_buffer), value_parser = a_send_buffer)]
    send_buffer: Bytes,
    #[command(flatten)]
    log: LogLimits,
}

/// The limits of a log: as options those of the default log, and in `--log` those of another.
#[derive(Clone, clap::Args)]
#[command(next_help_heading = "Limits")]
struct LogLimits {
    /// Topics
    #[arg(long, value_name = "N", default_value_t = log().max_topics, value_parser = at_least_one::<usize>)]
    max_topic_table: usize,
    /// Topics and keys
    #[arg(long, value_name = "N", default_value_t = log().max_keys, value_parser = at_least_one::<usize>)]
    max_keys: usize,
    /// Bytes of the latest events of all topics and keys
    #[arg(long, value_name = "BYTES", default_value_t = Bytes(log().latest_bytes), value_parser = some_bytes)]
    latest_bytes: Bytes,
    /// Time that the latest event of a topic and key stays
    #[arg(long, value_name = "TIME", default_value_t = Time(log().latest_age), value_parser = some_time)]
    latest_age: Time,
    /// What gives way when the tables of topics and keys are full: what is new (refuse), or what is oldest (forget)
    #[arg(long, value_name = "WHAT", default_value_t = log().topics_full)]
    topics_full: TopicsFull,
    /// Newest events, which live readers are served from
    #[arg(long, value_name = "N", default_value_t = log().tail_events, value_parser = at_least_one::<usize>)]
    tail_events: usize,
    /// Bytes of those, and of their encoded forms
    #[arg(long, value_name = "BYTES", default_value_t = Bytes(log().tail_bytes))]
    tail_bytes: Bytes,
    /// Time that those stay
    #[arg(long, value_name = "TIME", default_value_t = Time(log().tail_age))]
    tail_age: Time,
    /// Events in the history of one topic
    #[arg(long, value_name = "N", default_value_t = log().history_events)]
    history_events: usize,
    /// Bytes of all histories
    #[arg(long, value_name = "BYTES", default_value_t = Bytes(log().history_bytes))]
    history_bytes: Bytes,
    /// Time that an event stays in a history
    #[arg(long, value_name = "TIME", default_value_t = Time(log().history_age))]
    history_age: Time,
}

fn gateway() -> GatewayConfig {
    GatewayConfig::default()
}

fn hub() -> HubConfig {
    HubConfig::default()
}

fn log() -> LogConfig {
    LogConfig::default()
}

fn at_least_one<N: FromStr + Default + PartialOrd>(text: &str) -> Result<N, &'static str> {
    text.parse().ok().filter(|n| *n > N::default()).ok_or("a whole number, at least 1")
}

/// Each is a thread: more than any machine has of use would not start.
fn some_threads(text: &str) -> Result<usize, &'static str> {
    text.parse().ok().filter(|n| *n <= 1024).ok_or("a number of threads, at most 1024")
}

fn some_bytes(text: &str) -> Result<Bytes, &'static str> {
    let bytes = Bytes::from_str(text)?;
    if bytes.0 == 0 { Err("at least one byte, or nothing is taken") } else { Ok(bytes) }
}

fn some_32_bit_bytes(text: &str) -> Result<Bytes, &'static str> {
    some_bytes(text).and_then(below_2_gib)
}

fn a_send_buffer(text: &str) -> Result<Bytes, &'static str> {
    Bytes::from_str(text).and_then(below_2_gib)
}

/// The kernel has a C int for it.
fn below_2_gib(bytes: Bytes) -> Result<Bytes, &'static str> {
    if i32::try_from(bytes.0).is_ok() { Ok(bytes) } else { Err("less than 2GiB") }
}

/// A request that any browser or library sends has to fit.
fn a_head(text: &str) -> Result<Bytes, &'static str> {
    let bytes = Bytes::from_str(text)?;
    if bytes.0 < 512 { Err("at least 512 bytes, or no request is taken") } else { Ok(bytes) }
}

/// A WebSocket's request has about as many; and each that is allowed takes room in every request.
fn some_headers(text: &str) -> Result<usize, &'static str> {
    text.parse().ok().filter(|n| (8..=1024).contains(n)).ok_or("from 8, or no WebSocket is opened, to 1024")
}

/// A timeout of nothing would end everything at once, and a heartbeat of nothing never rests.
fn some_time(text: &str) -> Result<Time, &'static str> {
    let time = Time::from_str(text)?;
    if time.0.is_zero() { Err("a time above zero, such as 10s or 500ms") } else { Ok(time) }
}

/// As the library has it: the two seconds' worth of the rates in [`HubConfig`].
const BURST: Duration = Duration::from_secs(2);

fn rate(rate: Option<Rate>) -> u64 {
    rate.map_or(u64::MAX, Rate::per_second)
}

fn byte_rate(of: Option<Rate>) -> Bytes {
    Bytes(usize::try_from(rate(of)).unwrap_or(usize::MAX))
}

impl Limits {
    fn quota(&self, messages: u64, bytes: Bytes) -> QuotaConfig {
        // At least one, or nothing could ever be published.
        let burst = |per_second: u64| {
            let millis = u64::try_from(self.burst.0.as_millis()).unwrap_or(u64::MAX);
            (per_second.saturating_mul(millis) / 1000).max(1)
        };
        let rate = |per_second: u64| Rate::new(per_second, burst(per_second));
        QuotaConfig { messages: rate(messages), bytes: rate(bytes.0 as u64) }
    }

    pub(crate) fn gateway(&self) -> GatewayConfig {
        GatewayConfig {
            max_connections: self.max_connections,
            max_handshakes: self.max_handshakes,
            max_head: self.max_head.0,
            max_headers: self.max_headers,
            handshake_timeout: self.handshake_timeout.0,
            request_timeout: self.request_timeout.0,
            auth_timeout: self.auth_timeout.0,
            ticket_lifetime: self.ticket_lifetime.0,
            max_tickets: self.max_tickets,
            ..gateway()
        }
    }

    pub(crate) fn hub(&self) -> HubConfig {
        HubConfig {
            shards: if self.shards == 0 { hub().shards } else { self.shards },
            max_message: self.max_message.0 as u64,
            max_topics: self.max_topics,
            max_inflight: self.max_inflight,
            quota: self.quota(self.max_rate, self.max_byte_rate),
            topic_quota: self.quota(self.max_topic_rate, self.max_topic_byte_rate),
            max_publishers: self.max_publishers,
            max_idempotency_keys: self.max_idempotency_keys,
            idempotency_age: self.idempotency_age.0,
            heartbeat: self.heartbeat.0,
            heartbeat_timeout: self.heartbeat_timeout.0,
            message_timeout: self.message_timeout.0,
            max_lag_events: self.max_lag_events,
            max_lag_bytes: self.max_lag_bytes.0,
            max_lag_age: self.max_lag_age.0,
            max_pinned_bytes: self.max_pinned_bytes.0,
            unsent: u32::try_from(self.max_unsent.0).unwrap_or(u32::MAX),
            send_buffer: self.send_buffer.0,
            reconnect_window: self.reconnect_window.0,
            renew_before: self.renew_before.0,
            log: self.log.config(),
            ..hub()
        }
    }
}

impl LogLimits {
    fn config(&self) -> LogConfig {
        LogConfig {
            max_topics: self.max_topic_table,
            max_keys: self.max_keys,
            latest_bytes: self.latest_bytes.0,
            latest_age: self.latest_age.0,
            topics_full: self.topics_full,
            tail_events: self.tail_events,
            tail_bytes: self.tail_bytes.0,
            tail_age: self.tail_age.0,
            history_events: self.history_events,
            history_bytes: self.history_bytes.0,
            history_age: self.history_age.0,
        }
    }
}

impl Limits {
    /// The logs of `--log`: each `NAME` or `NAME,LIMIT=VALUE,...`. What is not said is the default log's.
    ///
    /// # Errors
    /// In one line: what is wrong with the first that is.
    pub(crate) fn logs(&self, texts: &[String]) -> Result<BTreeMap<String, LogConfig>, String> {
        let mut logs = BTreeMap::new();
        for text in texts {
            let mut parts = text.split(',');
            let name = parts.next().unwrap_or_default();
            let wrong = |what: &dyn Display| format!("--log {}: {what}", name.escape_debug());
            let name = LogName::parse(name).map_err(|error| wrong(&error))?;
            if name == LogName::DEFAULT {
                return Err(wrong(&"the limits of the default log are options of their own"));
            }
            let own = self.log.with(parts).map_err(|error| wrong(&error))?;
            if logs.insert(name.as_str().to_owned(), own.config()).is_some() {
                return Err(wrong(&"a log has one --log"));
            }
        }
        Ok(logs)
    }
}

impl LogLimits {
    /// The same, but for those that are set: each `LIMIT=VALUE`.
    fn with<'t>(&self, set: impl Iterator<Item = &'t str>) -> Result<Self, String> {
        let options = clap::Command::new("log").no_binary_name(true).disable_help_flag(true);
        let options = Self::augment_args(options).mut_args(|option| option.default_value(Resettable::Reset));
        let known = || options.get_arguments().filter_map(clap::Arg::get_long);
        let mut arguments = Vec::new();
        for limit in set {
            let Some((key, value)) = limit.split_once('=') else {
                return Err(format!("{} is not LIMIT=VALUE", limit.escape_debug()));
            };
            if !known().any(|name| name == key) {
                let known = known().collect::<Vec<_>>().join(", ");
                return Err(format!("{} is no limit of a log; these are: {known}", key.escape_debug()));
            }
            arguments.push(format!("--{key}={value}"));
        }
        // The first line says what is wrong, the others what there is.
        let first = |error: clap::Error| {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default();
            line.strip_prefix("error: ").unwrap_or(line).to_owned()
        };
        let mut own = self.clone();
        let matches = options.try_get_matches_from(arguments).map_err(first)?;
        own.update_from_arg_matches(&matches).map_err(first)?;
        Ok(own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use longwire::gateway::limits;

    fn parse(arguments: &[&str]) -> Limits {
        let arguments = ["longwire"].into_iter().chain(arguments.iter().copied());
        let command = Limits::augment_args(clap::Command::new("longwire"));
        Limits::from_arg_matches(&command.get_matches_from(arguments)).unwrap()
    }

    fn logs(limits: &Limits, texts: &[&str]) -> Result<BTreeMap<String, LogConfig>, String> {
        limits.logs(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn the_options_are_those_of_the_table_with_its_defaults() {
        let command = Limits::augment_args(clap::Command::new("longwire"));
        let options: Vec<(String, String)> = command
            .get_arguments()
            .map(|arg| {
                let default: Vec<_> = arg.get_default_values().iter().map(|v| v.to_string_lossy()).collect();
                (arg.get_long().unwrap().to_owned(), default.concat())
            })
            .collect();
        let table: Vec<_> = limits::all().into_iter().map(|row| (row.flag.to_owned(), row.default)).collect();
        assert_eq!(options, table);
    }

    #[test]
    fn every_option_reaches_its_place() {
        let parse = |arguments: &[&str]| {
            let limits = parse(arguments);
            format!("{:?} {:?}", limits.gateway(), limits.hub())
        };
        let untouched = parse(&[]);
        assert_eq!(untouched, format!("{:?} {:?}", gateway(), hub()));
        for row in limits::all() {
            let value = if row.flag == "topics-full" { "forget" } else { "777" };
            let changed = parse(&[&format!("--{}", row.flag), value]);
            assert_ne!(changed, untouched, "{}", row.flag);
        }
    }

    #[test]
    fn a_log_has_limits_of_its_own_and_otherwise_those_of_the_default_log() {
        let limits = parse(&["--tail-events", "5", "--history-age", "1m"]);
        let default = limits.hub().log;
        assert_eq!(logs(&limits, &[]), Ok(BTreeMap::new()));
        assert_eq!(
            logs(&limits, &["telemetry,history-bytes=16MiB,tail-events=4096", "b"]),
            Ok([
                ("b".to_owned(), default.clone()),
                (
                    "telemetry".to_owned(),
                    LogConfig { history_bytes: 16 << 20, tail_events: 4096, ..default.clone() }
                ),
            ]
            .into())
        );
        for row in limits::of_log(&default) {
            let value = if row.flag == "topics-full" { "forget" } else { "777" };
            let own = logs(&limits, &[&format!("a,{}={value}", row.flag)]).unwrap();
            assert_ne!(own.get("a"), Some(&default), "{}", row.flag);
        }
    }

    #[test]
    fn what_is_wrong_with_a_log_is_said_in_one_line() {
        let limits = parse(&[]);
        for (texts, says) in [
            (&[""][..], "--log : the name of a log is"),
            (&["A"], "--log A: the name of a log is"),
            (&["a b"], "--log a b: the name of a log is"),
            (&["default"], "--log default: the limits of the default log are options"),
            (&["default,tail-events=1"], "--log default: the limits of the default log are options"),
            (&["a", "b", "a"], "--log a: a log has one --log"),
            (&["a,"], "--log a:  is not LIMIT=VALUE"),
            (&["a,tail-events"], "--log a: tail-events is not LIMIT=VALUE"),
            (&["a,tail-event=1"], "--log a: tail-event is no limit of a log; these are: max-topic-table, "),
            (&["a,max-connections=1"], "--log a: max-connections is no limit of a log"),
            (&["a,help=1"], "--log a: help is no limit of a log"),
            (&["a,tail-events=0"], "--log a: invalid value '0' for '--tail-events <N>': a whole number"),
            (&["a,tail-bytes="], "--log a: "),
            (&["a,history-age=1y"], "for '--history-age <TIME>': a time, such as"),
            (&["a,tail-events=1,tail-events=2"], "cannot be used multiple times"),
        ] {
            let error = logs(&limits, texts).unwrap_err();
            assert!(error.contains(says) && !error.contains('\n'), "{texts:?} said {error:?}");
        }
    }
}
