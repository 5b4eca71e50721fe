//! `longwire sub`

use super::output::{Output, Style, notice};
use super::{Failure, Gateway};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use longwire::client::{
    Data, Event, Gap, Item, Policy, Position, Pressure, Since, State, Subscriber, Subscription, Transport,
};
use longwire::gateway::limits::Time;
use longwire_core::session::json;
use std::io;

/// Watch the events of a gateway's topics
///
/// Reconnects by itself, and goes on where it was; what was missed is told. Notices go to standard error.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Topics: levels between `/`, `*` for any one level, `**` at the end for all that remain
    #[arg(required = true, value_name = "PATTERN")]
    patterns: Vec<String>,

    #[command(flatten)]
    gateway: Gateway,

    /// ws, sse, longpoll, poll, or auto: the best that works
    #[arg(long, default_value_t)]
    transport: Transport,

    /// Time between two polls, with --transport poll or where nothing better works; at least 100ms
    #[arg(long, value_name = "TIME", default_value_t = Time(Subscription::new(None::<String>).poll_interval))]
    poll_interval: Time,

    /// Where to begin: now, latest (the latest event of each topic and key, then what follows), or a cursor
    #[arg(long, default_value = "latest", value_name = "CURSOR", value_parser = since)]
    since: Since,

    /// What the gateway does when this reader is too slow: drop_oldest (tell the gap), conflate (only the latest of each
    /// topic and key), disconnect (to come back)
    #[arg(long, value_name = "POLICY", value_parser = policy)]
    policy: Option<Policy>,

    /// End after so many events
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// Write one JSON object a line
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  longwire sub 'fleet/**'                           everything under fleet/, beginning with the state
  longwire sub 'fleet/*/cpu' --since now --count 3  the next three events
  longwire sub '**' --json | jq .data               for programs
  longwire sub '**' --transport sse --since 9f86d081884c7d65-1042

With --json a line is {\"topic\":..,\"at\":..,\"key\":..,\"data\":..}, or {\"gap\":{\"from\":..,\"to\":..,\"reason\":..}},
or {\"pressure\":{\"lag\":..,\"limit\":..,\"skipped\":..}}.
Opaque values have content_type and bytes (base64) instead of data.";

fn policy(text: &str) -> Result<Policy, String> {
    let known = text.parse().ok().filter(|policy| Policy::OF_READERS.contains(policy));
    known.ok_or_else(|| "one of drop_oldest, conflate, disconnect".to_owned())
}

fn since(text: &str) -> Result<Since, String> {
    Since::parse(text)
        .map_err(|error| format!("{error}: give now, latest, or a cursor such as 9f86d081884c7d65-1042"))
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let mut subscription = Subscription::new(args.patterns).since(args.since).transport(args.transport);
    subscription.policy = args.policy;
    subscription.poll_interval = args.poll_interval.0;
    let mut subscriber = Subscriber::new(args.gateway.endpoint()?, subscription)?;
    let mut printer = Printer { out: Output::new(), json: args.json, width: 0 };
    let mut left = args.count;
    let mut notices = Notices::default();
    while left != Some(0) {
        let item = tokio::select! {
            biased;
            item = next(&mut subscriber, &mut printer.out) => item?,
            _ = tokio::signal::ctrl_c() => break,
        };
        match item {
            None => break,
            Some(Item::Event(event)) => {
                printer.event(&event)?;
                left = left.map(|left| left - 1);
            }
            Some(Item::Gap(gap)) => printer.gap(&gap)?,
            Some(Item::Pressure(pressure)) => printer.pressure(&pressure)?,
            Some(Item::State(state)) => notices.tell(&state)?,
            Some(_) => {}
        }
    }
    printer.out.flush()?;
    subscriber.close().await;
    Ok(())
}

/// The next item. What was written is flushed only when there is none at once.
async fn next(subscriber: &mut Subscriber, out: &mut Output) -> Result<Option<Item>, Failure> {
    let mut next = std::pin::pin!(subscriber.next());
    let item = match std::future::poll_fn(|cx| std::task::Poll::Ready(next.as_mut().poll(cx))).await {
        std::task::Poll::Ready(item) => item,
        std::task::Poll::Pending => {
            out.flush()?;
            next.await
        }
    };
    Ok(item.transpose()?)
}

/// What to say about the connection: nothing as long as it is as expected.
#[derive(Default)]
pub(super) struct Notices {
    was_connected: bool,
    troubled: bool,
}

impl Notices {
    pub(super) fn tell(&mut self, state: &State) -> Result<(), Failure> {
        match state {
            State::Connected(transport) => {
                if self.troubled {
                    notice(&format!("connected ({transport})"));
                }
                (self.was_connected, self.troubled) = (true, false);
            }
            // A gateway that was never there is more likely to be a mistake than an outage.
            State::Waiting { why, .. } if !self.was_connected => {
                return Err(Failure::runtime(format_args!(
                    "{why} (is `--url` right, and the gateway running?)"
                )));
            }
            State::Waiting { wait, why } => {
                self.troubled = true;
                notice(&format!("{why}; trying again in {:.1} s", wait.as_secs_f32()));
            }
            State::Fallback { from, why } => {
                self.troubled = true;
                notice(&format!("{from} does not work here: {why}"));
            }
            _ => {}
        }
        Ok(())
    }
}

struct Printer {
    out: Output,
    json: bool,
    /// The widest topic so far, up to a limit: data stands in a column.
    width: usize,
}

impl Printer {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        if self.json {
            return self.json_event(event);
        }
        let name = match &event.key {
            Some(key) => format!("{} [{key}]", event.topic),
            None => event.topic.clone(),
        };
        let len = name.chars().count();
        self.width = self.width.max(len.min(48));
        self.out.put(Style::Topic, &name)?;
        self.out.put(Style::Plain, &" ".repeat(self.width.saturating_sub(len) + 2))?;
        match &event.data {
            Data::Json(json) => self.out.put(Style::Plain, &one_line(json))?,
            Data::Cbor(cbor) => {
                self.out.put(Style::Dim, &format!("({} bytes, application/cbor)", cbor.len()))?;
            }
            Data::Bytes { content_type, bytes } => {
                let kind = content_type.as_deref().unwrap_or("application/octet-stream");
                self.out.put(Style::Dim, &format!("({} bytes, {kind})", bytes.len()))?;
            }
        }
        self.out.end_line()
    }

    fn gap(&mut self, gap: &Gap) -> io::Result<()> {
        let reason = gap.reason.as_str();
        if self.json {
            let (from, to) = (gap.from, gap.to);
            let skipped = gap.skipped.map(|n| format!(r#","skipped":{n}"#)).unwrap_or_default();
            let line = format!(r#"{{"gap":{{"from":"{from}","to":"{to}","reason":"{reason}"{skipped}}}}}"#);
            self.out.raw(line.as_bytes())?;
        } else {
            let missing = match gap.skipped {
                Some(1) => "1 event is".to_owned(),
                Some(n) => format!("{n} events are"),
                None => "events may be".to_owned(),
            };
            let text = format!("-- {missing} missing from {} to {} ({reason})", gap.from, gap.to);
            self.out.put(Style::Notice, &text)?;
        }
        self.out.end_line()
    }

    fn pressure(&mut self, Pressure { lag, limit, skipped }: &Pressure) -> io::Result<()> {
        if self.json {
            let line = format!(r#"{{"pressure":{{"lag":{lag},"limit":{limit},"skipped":{skipped}}}}}"#);
            self.out.raw(line.as_bytes())?;
        } else {
            let text = format!("-- {lag} events behind, of {limit} at most; {skipped} skipped so far");
            self.out.put(Style::Notice, &text)?;
        }
        self.out.end_line()
    }

    fn json_event(&mut self, event: &Event) -> io::Result<()> {
        let (Position::At(at) | Position::Past(at)) = event.position;
        let mut line = Vec::with_capacity(128);
        line.extend_from_slice(b"{\"topic\":");
        string(&mut line, &event.topic);
        line.extend_from_slice(format!(",\"at\":\"{at}\"").as_bytes());
        if let Some(key) = &event.key {
            line.extend_from_slice(b",\"key\":");
            string(&mut line, key);
        }
        match &event.data {
            Data::Json(json) => {
                line.extend_from_slice(b",\"data\":");
                line.extend_from_slice(one_line(json).as_bytes());
            }
            Data::Cbor(cbor) => {
                let bytes = BASE64.encode(cbor);
                line.extend_from_slice(
                    format!(",\"content_type\":\"application/cbor\",\"bytes\":\"{bytes}\"").as_bytes(),
                );
            }
            Data::Bytes { content_type, bytes } => {
                if let Some(kind) = content_type {
                    line.extend_from_slice(b",\"content_type\":");
                    string(&mut line, kind);
                }
                let bytes = BASE64.encode(bytes);
                line.extend_from_slice(format!(",\"bytes\":\"{bytes}\"").as_bytes());
            }
        }
        line.extend_from_slice(b"}\n");
        self.out.raw(&line)
    }
}

/// Collects what an encoder of the core writes.
fn collect(to: &mut Vec<u8>) -> impl FnMut(&[u8]) -> Result<(), longwire_core::session::Full> + '_ {
    |piece| {
        to.extend_from_slice(piece);
        Ok(())
    }
}

fn string(to: &mut Vec<u8>, text: &str) {
    // The sink takes everything.
    let _ = json::write_string(text, &mut collect(to));
}

/// The value in one line: a publisher may have sent it in several.
fn one_line(json: &[u8]) -> String {
    let mut line = Vec::with_capacity(json.len());
    if json.contains(&b'\n') || json.contains(&b'\r') {
        // Checked when it was received.
        let _ = json::compact(json, &mut collect(&mut line));
    } else {
        line.extend_from_slice(json);
    }
    String::from_utf8(line).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_one_line() {
        assert_eq!(one_line(b"{\"a\": 1}"), "{\"a\": 1}");
        assert_eq!(one_line(b"{\r\n  \"a\": \"x y\"\n}"), "{\"a\":\"x y\"}");
    }
}
