//! The limits of a gateway, as options. The defaults are the library's.

use longwire::gateway::GatewayConfig;
use longwire::gateway::limits::{Bytes, Time};
use longwire::hub::{HubConfig, LogConfig, TopicsFull};
use longwire_core::log::{QuotaConfig, Rate};
use longwire_core::session::publisher::WINDOW;
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
    /// Time for a request's head, and between two requests
    #[arg(long, value_name = "TIME", default_value_t = Time(gateway().handshake_timeout), value_parser = some_time)]
    handshake_timeout: Time,
    /// Time for a request's body, and for a client to take some of its answer
    #[arg(long, value_name = "TIME", default_value_t = Time(gateway().request_timeout), value_parser = some_time)]
    request_timeout: Time,
    /// Threads that own the connections; 0: one a core, up to four
    #[arg(long, value_name = "N", default_value_t = 0)]
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
    /// Silence before a `tick`, and before a client is asked whether it lives
    #[arg(long, value_name = "TIME", default_value_t = Time(hub().heartbeat), value_parser = some_time)]
    heartbeat: Time,
    /// Time for a client to answer
    #[arg(long, value_name = "TIME", default_value_t = Time(hub().heartbeat_timeout), value_parser = some_time)]
    heartbeat_timeout: Time,
    /// Events of the log, matching or not, that a stream may be behind before its policy acts
    #[arg(long, value_name = "N", default_value_t = hub().max_lag_events, value_parser = at_least_one::<u64>)]
    max_lag_events: u64,
    /// Bytes of those
    #[arg(long, value_name = "BYTES", default_value_t = Bytes(hub().max_lag_bytes), value_parser = some_bytes)]
    max_lag_bytes: Bytes,
    /// Age of the oldest of those
    #[arg(long, value_name = "TIME", default_value_t = Time(hub().max_lag_age), value_parser = some_time)]
    max_lag_age: Time,
    /// Bytes of events that are half-sent, all streams together
    #[arg(long, value_name = "BYTES", default_value_t = Bytes(hub().max_pinned_bytes), value_parser = some_bytes)]
    max_pinned_bytes: Bytes,
    /// Bytes that the kernel holds unsent for a stream
    #[arg(long, value_name = "BYTES", default_value_t = Bytes(hub().unsent as usize), value_parser = some_32_bit_bytes)]
    max_unsent: Bytes,
    /// Bytes that the kernel holds for a stream, sent or not; 0 leaves it to the system
    #[arg(long, value_name = "BYTES", default_value_t = Bytes(hub().send_buffer), value_parser = a_send_buffer)]
    send_buffer: Bytes,
    /// Time over which clients come back when all are cut off together
    #[arg(long, value_name = "TIME", default_value_t = Time(hub().reconnect_window))]
    reconnect_window: Time,
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
            handshake_timeout: self.handshake_timeout.0,
            request_timeout: self.request_timeout.0,
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
            max_lag_events: self.max_lag_events,
            max_lag_bytes: self.max_lag_bytes.0,
            max_lag_age: self.max_lag_age.0,
            max_pinned_bytes: self.max_pinned_bytes.0,
            unsent: u32::try_from(self.max_unsent.0).unwrap_or(u32::MAX),
            send_buffer: self.send_buffer.0,
            reconnect_window: self.reconnect_window.0,
            log: LogConfig {
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
            },
            ..hub()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Args as _, FromArgMatches as _};
    use longwire::gateway::limits;

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
        let command = || Limits::augment_args(clap::Command::new("longwire"));
        let parse = |arguments: &[String]| {
            let arguments = std::iter::once("longwire".to_owned()).chain(arguments.iter().cloned());
            let limits = Limits::from_arg_matches(&command().get_matches_from(arguments)).unwrap();
            format!("{:?} {:?}", limits.gateway(), limits.hub())
        };
        let untouched = parse(&[]);
        assert_eq!(untouched, format!("{:?} {:?}", gateway(), hub()));
        for row in limits::all() {
            let value = if row.flag == "topics-full" { "forget" } else { "777" };
            let changed = parse(&[format!("--{}", row.flag), value.to_owned()]);
            assert_ne!(changed, untouched, "{}", row.flag);
        }
    }
}
