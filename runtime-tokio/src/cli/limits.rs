//! The limits of a gateway, as options. The defaults are the library's.

use longwire::gateway::GatewayConfig;
use longwire::gateway::limits::{Bytes, Time};
use longwire::hub::{HubConfig, LogConfig};
use std::str::FromStr;

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
    /// Time over which clients are told to come back after a stop
    #[arg(long, value_name = "TIME", default_value_t = Time(gateway().drain))]
    drain: Time,
    /// Threads that own the connections; 0: one a core, up to four
    #[arg(long, value_name = "N", default_value_t = 0)]
    shards: usize,
    /// Bytes of a message or body
    #[arg(long, value_name = "BYTES", default_value_t = Bytes(usize::try_from(hub().max_message).unwrap_or(usize::MAX)), value_parser = some_bytes)]
    max_message: Bytes,
    /// Patterns on one connection
    #[arg(long, value_name = "N", default_value_t = hub().max_topics, value_parser = at_least_one::<usize>)]
    max_topics: usize,
    /// Silence before a `tick`, and before a client is asked whether it lives
    #[arg(long, value_name = "TIME", default_value_t = Time(hub().heartbeat), value_parser = some_time)]
    heartbeat: Time,
    /// Time for a client to answer
    #[arg(long, value_name = "TIME", default_value_t = Time(hub().heartbeat_timeout), value_parser = some_time)]
    heartbeat_timeout: Time,
    /// Topics
    #[arg(long, value_name = "N", default_value_t = log().max_topics, value_parser = at_least_one::<usize>)]
    max_topic_table: usize,
    /// Topics and keys
    #[arg(long, value_name = "N", default_value_t = log().max_keys, value_parser = at_least_one::<usize>)]
    max_keys: usize,
    /// Bytes of the latest events of all topics and keys
    #[arg(long, value_name = "BYTES", default_value_t = Bytes(log().latest_bytes), value_parser = some_bytes)]
    latest_bytes: Bytes,
    /// Newest events, which live readers are served from
    #[arg(long, value_name = "N", default_value_t = log().tail_events, value_parser = at_least_one::<usize>)]
    tail_events: usize,
    /// Bytes of those, and of their encoded forms
    #[arg(long, value_name = "BYTES", default_value_t = Bytes(log().tail_bytes))]
    tail_bytes: Bytes,
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

impl Limits {
    pub(crate) fn gateway(&self) -> GatewayConfig {
        GatewayConfig {
            max_connections: self.max_connections,
            max_handshakes: self.max_handshakes,
            max_head: self.max_head.0,
            handshake_timeout: self.handshake_timeout.0,
            request_timeout: self.request_timeout.0,
            drain: self.drain.0,
            ..gateway()
        }
    }

    pub(crate) fn hub(&self) -> HubConfig {
        HubConfig {
            shards: if self.shards == 0 { hub().shards } else { self.shards },
            max_message: self.max_message.0 as u64,
            max_topics: self.max_topics,
            heartbeat: self.heartbeat.0,
            heartbeat_timeout: self.heartbeat_timeout.0,
            log: LogConfig {
                max_topics: self.max_topic_table,
                max_keys: self.max_keys,
                latest_bytes: self.latest_bytes.0,
                tail_events: self.tail_events,
                tail_bytes: self.tail_bytes.0,
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
            let changed = parse(&[format!("--{}", row.flag), "777".to_owned()]);
            assert_ne!(changed, untouched, "{}", row.flag);
        }
    }
}
