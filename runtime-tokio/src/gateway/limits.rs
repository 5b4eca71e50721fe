//! All limits of a gateway in one table, as `longwire serve --help` and the README have it.
#![doc = ""]
#![doc = include_str!("limits.md")]

use super::GatewayConfig;
use crate::hub::{HubConfig, LogConfig};
use longwire_core::log::Rate;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A limit: how it is called, what it is by default, and what happens at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The option of the command line, without its dashes.
    pub flag: &'static str,
    /// The default, as the option takes it.
    pub default: String,
    /// What is counted.
    pub counts: &'static str,
    /// What happens beyond it.
    pub beyond: &'static str,
    /// The metric that shows it.
    pub metric: &'static str,
}

/// All limits, with their defaults.
pub fn all() -> Vec<Limit> {
    of(&GatewayConfig::default(), &HubConfig::default())
}

/// All limits, with what they are in these configurations in the place of their defaults; those of a log are the default
/// log's.
pub fn of(gateway: &GatewayConfig, hub: &HubConfig) -> Vec<Limit> {
    let of_hub = [session_limits(hub), publishing_limits(hub), reading_limits(hub)].concat();
    [gateway_limits(gateway), of_hub, of_log(&hub.log)].concat()
}

fn limit<const N: usize>(
    rows: [(&'static str, String, &'static str, &'static str, &'static str); N],
) -> Vec<Limit> {
    let row = |(flag, default, counts, beyond, metric)| Limit { flag, default, counts, beyond, metric };
    rows.into_iter().map(row).collect()
}

fn gateway_limits(config: &GatewayConfig) -> Vec<Limit> {
    limit([
        (
            "max-connections",
            config.max_connections.to_string(),
            "connections at a time",
            "503 `too_many_connections` with `Retry-After`; in a flood closed without a word",
            "connections, connections_refused",
        ),
        (
            "max-handshakes",
            config.max_handshakes.to_string(),
            "connections of one address (or IPv6 /64) whose first request has not come",
            "503 `too_many_connections`, as above",
            "connections_refused",
        ),
        (
            "max-head",
            Bytes(config.max_head).to_string(),
            "bytes of a request's head; half of it for the target",
            "431 `head_too_large`, 414 `uri_too_long`",
            "connections_refused",
        ),
        (
            "max-headers",
            config.max_headers.to_string(),
            "fields of a request's head",
            "431 `head_too_large`",
            "connections_refused",
        ),
        (
            "handshake-timeout",
            Time(config.handshake_timeout).to_string(),
            "time for a request's head, the first with the TLS handshake before it, and between two requests",
            "408 `request_timeout`",
            "connections_refused",
        ),
        (
            "request-timeout",
            Time(config.request_timeout).to_string(),
            "time for a request's body, and for a client to take some of its answer",
            "408 `request_timeout`; connection closed",
            "requests",
        ),
        (
            "auth-timeout",
            Time(config.auth_timeout).to_string(),
            "time for a WebSocket that was opened with `auth=later` to say who it is; meanwhile one of max-handshakes",
            "`bye` `unauthorized`, closed with 3000",
            "grants_expired",
        ),
        (
            "ticket-lifetime",
            Time(config.ticket_lifetime).to_string(),
            "time in which a ticket can be used",
            "401 `unauthorized`",
            "unauthorized",
        ),
        (
            "max-tickets",
            config.max_tickets.to_string(),
            "tickets given out within that time",
            "503 `unavailable` with `Retry-After`",
            "tickets, tickets_unused",
        ),
    ])
}

fn session_limits(config: &HubConfig) -> Vec<Limit> {
    // What the default is depends on the machine.
    let shards = if config.shards == HubConfig::default().shards { 0 } else { config.shards };
    limit([
        (
            "shards",
            shards.to_string(),
            "threads that own the connections; 0: one a core, up to four",
            "connections are divided among them",
            "",
        ),
        (
            "max-message",
            Bytes(usize::try_from(config.max_message).unwrap_or(usize::MAX)).to_string(),
            "bytes of a message or body",
            "413 `message_too_big`; WebSocket closed with 1009",
            "requests, protocol_errors",
        ),
        (
            "max-topics",
            config.max_topics.to_string(),
            "patterns on one connection",
            "400 or `error` `too_many_topics`",
            "requests",
        ),
        (
            "max-inflight",
            config.max_inflight.to_string(),
            "publications of one connection that are not acknowledged; at most 1024",
            "the connection is not read until they are",
            "",
        ),
        (
            "heartbeat",
            Time(config.heartbeat).to_string(),
            "silence before a `tick`, and before a client is asked whether it lives",
            "`tick`, Ping",
            "rtt_seconds",
        ),
        (
            "heartbeat-timeout",
            Time(config.heartbeat_timeout).to_string(),
            "time for a client to answer",
            "connection closed",
            "timeouts, vanished",
        ),
        (
            "message-timeout",
            Time(config.message_timeout).to_string(),
            "time for a message to come to its end on a WebSocket",
            "`bye` `request_timeout`, closed with 1013",
            "timeouts",
        ),
        (
            "reconnect-window",
            Time(config.reconnect_window).to_string(),
            "time over which clients come back when all are cut off together",
            "told in `hello` and `bye`; refused clients come after it",
            "connections_accepted, connections_refused",
        ),
        (
            "renew-before",
            Time(config.renew_before).to_string(),
            "time before the end of a grant, or a third of its time if that is less",
            "`renew`; at the end `bye` `unauthorized`, closed with 3000",
            "renewals, grants_expired",
        ),
    ])
}

fn publishing_limits(config: &HubConfig) -> Vec<Limit> {
    const OVER: &str = "429 or `nack` `over_quota`; from half of the burst on `pressure`";
    limit([
        (
            "max-rate",
            per_second(config.quota.messages).to_string(),
            "publications of one connection in a second",
            OVER,
            "over_rate",
        ),
        (
            "max-byte-rate",
            Bytes(bytes_per_second(config.quota.bytes)).to_string(),
            "bytes that one connection publishes in a second: data, topics and keys",
            OVER,
            "over_byte_rate",
        ),
        (
            "max-topic-rate",
            per_second(config.topic_quota.messages).to_string(),
            "publications to one topic in a second",
            OVER,
            "over_topic_rate",
        ),
        (
            "max-topic-byte-rate",
            Bytes(bytes_per_second(config.topic_quota.bytes)).to_string(),
            "bytes that are published to one topic in a second",
            OVER,
            "over_topic_byte_rate",
        ),
        (
            "burst",
            Time(burst(config.quota.messages)).to_string(),
            "silence for which these four may be made up at once",
            "as above",
            "",
        ),
        (
            "max-publishers",
            config.max_publishers.to_string(),
            "publishers whose numbers a log remembers",
            "of the subject with most of them the one that was silent longest is forgotten: what it sends again may be stored twice",
            "publishers, publishers_forgotten",
        ),
        (
            "max-idempotency-keys",
            config.max_idempotency_keys.to_string(),
            "values of `Idempotency-Key` that a log remembers",
            "the oldest is forgotten, as above",
            "idempotency_keys",
        ),
        (
            "idempotency-age",
            Time(config.idempotency_age).to_string(),
            "time for which it remembers one",
            "as above",
            "idempotency_keys",
        ),
    ])
}

fn reading_limits(config: &HubConfig) -> Vec<Limit> {
    limit([
        (
            "max-lag-events",
            config.max_lag_events.to_string(),
            "events of the log, matching or not, that a stream may be behind",
            "its policy acts: `gap` `slow` or `conflated`, or `bye` `too_slow` and 1013",
            "lagging, pressures, skipped_slow, skipped_conflated, too_slow",
        ),
        ("max-lag-bytes", Bytes(config.max_lag_bytes).to_string(), "bytes of those", "as above", "as above"),
        (
            "max-lag-age",
            Time(config.max_lag_age).to_string(),
            "age of the oldest of those",
            "as above",
            "as above",
        ),
        (
            "max-pinned-bytes",
            Bytes(config.max_pinned_bytes).to_string(),
            "bytes of events that are half-sent, and over TLS of records, all streams of a log together",
            "an event takes at most an eighth of what is left; the stream that needs more is cut off",
            "pinned_bytes, too_slow",
        ),
        (
            "max-unsent",
            Bytes(config.unsent as usize).to_string(),
            "bytes that the kernel holds unsent for a stream (`TCP_NOTSENT_LOWAT`)",
            "the reader waits in the log",
            "blocked, lagging",
        ),
        (
            "send-buffer",
            Bytes(config.send_buffer).to_string(),
            "bytes that the kernel holds for a stream, sent or not (`SO_SNDBUF`); 0 leaves it to the system",
            "as above",
            "blocked, lagging",
        ),
    ])
}

/// The limits of a log, as [`of`] has those of the default log.
pub fn of_log(log: &LogConfig) -> Vec<Limit> {
    const FULL: &str = "as `--topics-full` says";
    limit([
        ("max-topic-table", log.max_topics.to_string(), "topics", FULL, "log_topics, publications_refused"),
        ("max-keys", log.max_keys.to_string(), "topics and keys", FULL, "log_keys, publications_refused"),
        (
            "latest-bytes",
            Bytes(log.latest_bytes).to_string(),
            "bytes of the latest events of all topics and keys",
            FULL,
            "log_latest_bytes, publications_refused",
        ),
        (
            "latest-age",
            Time(log.latest_age).to_string(),
            "time that the latest event of a topic and key stays",
            "it leaves the state; a topic of which nothing else is held is forgotten",
            "log_latest_dropped, log_forgotten",
        ),
        (
            "topics-full",
            log.topics_full.to_string(),
            "what gives way of topics, keys and latest events when they are full: what is new, or with `forget` what is oldest",
            "publication refused: `topics_full`; or topic forgotten, and whoever may have missed some of it told a `gap`",
            "publications_refused, log_forgotten",
        ),
        (
            "tail-events",
            log.tail_events.to_string(),
            "newest events, which live readers are served from",
            "the oldest leaves; a reader further behind goes on from the history",
            "log_tail_events, blocked",
        ),
        (
            "tail-bytes",
            Bytes(log.tail_bytes).to_string(),
            "bytes of those, and of their encoded forms",
            "as above",
            "log_tail_bytes, log_form_bytes",
        ),
        (
            "tail-age",
            Time(log.tail_age).to_string(),
            "time that an event stays among those",
            "as above; the newest stays",
            "log_tail_events",
        ),
        (
            "history-events",
            log.history_events.to_string(),
            "events in the history of one topic",
            "its oldest leaves; who resumes from before it is told a `gap`",
            "log_evicted, gaps",
        ),
        (
            "history-bytes",
            Bytes(log.history_bytes).to_string(),
            "bytes of all histories",
            "a topic with more than its share loses its oldest, otherwise the largest does",
            "log_history_bytes, log_evicted",
        ),
        (
            "history-age",
            Time(log.history_age).to_string(),
            "time that an event stays in a history",
            "it leaves; who resumes from before it is told a `gap`",
            "log_evicted",
        ),
    ])
}

fn per_second(rate: Option<Rate>) -> u64 {
    rate.map_or(u64::MAX, Rate::per_second)
}

fn bytes_per_second(rate: Option<Rate>) -> usize {
    usize::try_from(per_second(rate)).unwrap_or(usize::MAX)
}

/// How long a rate takes for its burst.
fn burst(rate: Option<Rate>) -> Duration {
    let millis = rate.map_or(0, |rate| u128::from(rate.burst()) * 1000 / u128::from(rate.per_second()));
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}

/// The table, in Markdown.
pub fn markdown() -> String {
    let mut table =
        "| option | default | what | beyond it | metrics (`longwire_...`) |\n|---|---|---|---|---|\n"
            .to_owned();
    for Limit { flag, default, counts, beyond, metric } in all() {
        table.push_str(&format!("| `--{flag}` | {default} | {counts} | {beyond} | {metric} |\n"));
    }
    table
}

/// A number of bytes, as the command line has it: `65536`, `64KiB`, `1MiB`, `1GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub usize);

const BYTE_UNITS: [(&str, usize); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match BYTE_UNITS.into_iter().find(|(_, size)| self.0 >= *size && self.0.is_multiple_of(*size)) {
            Some((unit, size)) => write!(f, "{}{unit}", self.0 / size),
            None => write!(f, "{}", self.0),
        }
    }
}

impl FromStr for Bytes {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "a number of bytes, such as 65536, 64KiB, 1MiB or 1GiB";
        let unit = BYTE_UNITS.into_iter().find_map(|(unit, size)| Some((text.strip_suffix(unit)?, size)));
        let (number, size) = unit.unwrap_or((text, 1));
        let number: usize = number.parse().map_err(|_| WRONG)?;
        number.checked_mul(size).map(Self).ok_or(WRONG)
    }
}

/// A time, as the command line has it: `10` (seconds), `10s`, `500ms`, `5m`, `1h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time(pub Duration);

const TIME_UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        match TIME_UNITS.into_iter().find(|(_, size)| millis >= *size && millis.is_multiple_of(*size)) {
            Some((unit, size)) => write!(f, "{}{unit}", millis / size),
            None => f.write_str("0s"),
        }
    }
}

impl FromStr for Time {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "a time, such as 10s, 500ms, 5m or 1h";
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at_checked(digits).ok_or(WRONG)?;
        let number: u64 = number.parse().map_err(|_| WRONG)?;
        let unit = if unit.is_empty() { "s" } else { unit };
        let (_, size) = TIME_UNITS.into_iter().find(|(name, _)| *name == unit).ok_or(WRONG)?;
        number.checked_mul(size).map(|millis| Self(Duration::from_millis(millis))).ok_or(WRONG)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_in_the_documentation_and_in_the_readme_are_the_one_in_the_code() {
        let table = markdown();
        assert_eq!(include_str!("limits.md"), table, "limits.md should be:\n{table}");
        let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
        assert!(readme.contains(&format!("\n\n{table}\n")), "README.md should have:\n{table}");
    }

    #[test]
    fn bytes_and_times_are_read_as_they_are_written() {
        for (text, bytes) in [
            ("0", 0),
            ("1", 1),
            ("1023", 1023),
            ("1KiB", 1024),
            ("1025", 1025),
            ("1MiB", 1 << 20),
            ("3GiB", 3 << 30),
        ] {
            assert_eq!((text.parse(), Bytes(bytes).to_string()), (Ok(Bytes(bytes)), text.to_owned()));
        }
        for (text, millis) in [
            ("0s", 0),
            ("1ms", 1),
            ("1s", 1000),
            ("1500ms", 1500),
            ("1m", 60_000),
            ("61s", 61_000),
            ("2h", 7_200_000),
        ] {
            let time = Duration::from_millis(millis);
            assert_eq!((text.parse(), Time(time).to_string()), (Ok(Time(time)), text.to_owned()));
        }
        assert_eq!("3600".parse(), Ok(Time(Duration::from_secs(3600))));
        for text in ["", "-1", "1.5", "1 MiB", "1MB", "x", "KiB", "99999999999999999999", "99999999999999GiB"]
        {
            assert!(text.parse::<Bytes>().is_err(), "{text}");
        }
        for text in ["", "-1s", "1.5s", "1 s", "1d", "s", "99999999999999999999s", "18446744073709551615s"] {
            assert!(text.parse::<Time>().is_err(), "{text}");
        }
    }
}
