//! `longwire pub`

use super::output::notice;
use super::sub::Notices;
use super::{Failure, Gateway};
use futures_util::FutureExt as _;
use longwire::client::{
    Data, Error, Outcome, PublishError, Publisher, PublisherConfig, Receipt, State, publish,
};
use std::collections::VecDeque;
use std::future::pending;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, BufReader};
use tokio::sync::watch;

/// Publish to a topic of a gateway
///
/// Prints nothing when it worked. With `-` each line of standard input is published: once, also over a connection that
/// ends and comes back (notices go to standard error), and the first one that is refused ends it.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Where to: levels between `/`
    topic: String,

    /// One JSON value, or `-` for a value a line from standard input
    #[arg(allow_hyphen_values = true)]
    data: String,

    #[command(flatten)]
    gateway: Gateway,

    /// Distinguishes several latest events within one topic (one per device, one per symbol)
    #[arg(long)]
    key: Option<String>,

    /// The data is a text, sent as a JSON string
    #[arg(long)]
    text: bool,

    /// Say on standard error where the event stands in the log, or how many were taken
    #[arg(long, short)]
    verbose: bool,
}

const EXAMPLES: &str = "\
Examples:
  longwire pub fleet/7/cpu 0.25
  longwire pub orders '{\"id\":17,\"state\":\"paid\"}' --key 17
  longwire pub notes 'it works' --text
  vmstat 1 | longwire pub host/vmstat - --text";

/// Bytes of one line of standard input.
const MAX_LINE: usize = 4 << 20;

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let endpoint = args.gateway.endpoint()?;
    if args.data == "-" {
        let publisher = Publisher::new(endpoint, PublisherConfig::default());
        let stdin = BufReader::new(tokio::io::stdin());
        return publish_lines(&args, publisher, Lines::new(stdin)).await;
    }
    let data = args.value(&args.data)?;
    let at = publish(&endpoint, &args.topic, args.key.as_deref(), &data).await?;
    if args.verbose {
        notice(&format!("published at {at}"));
    }
    Ok(())
}

impl Args {
    fn value(&self, text: &str) -> Result<Data, Failure> {
        if self.text {
            return Ok(Data::text(text));
        }
        Data::json(text.to_owned()).map_err(|error| {
            Failure::usage(format_args!("{error}; to send a text use `--text`, or quote it: '\"like this\"'"))
        })
    }
}

async fn publish_lines<R>(args: &Args, publisher: Publisher, mut lines: Lines<R>) -> Result<(), Failure>
where
    R: AsyncBufRead + Unpin,
{
    let mut watch =
        Watch { states: publisher.states(), notices: Notices::default(), receipts: VecDeque::new() };
    loop {
        let line = tokio::select! {
            biased;
            failure = watch.failure() => return Err(ended(&publisher, failure).await),
            line = lines.next() => line?,
        };
        let Some(line) = line else { break };
        if line.trim().is_empty() && !args.text {
            continue;
        }
        let number = lines.count;
        let data = args.value(&line).map_err(|failure| failure.at_line(number))?;
        let published = tokio::select! {
            biased;
            failure = watch.failure() => return Err(ended(&publisher, failure).await),
            published = publisher.publish(&args.topic, args.key.as_deref(), data) => published,
        };
        match published {
            Ok(receipt) => watch.receipts.push_back((receipt, number)),
            Err(PublishError::Invalid(error)) => return Err(Failure::from(error).at_line(number)),
            Err(_) => return Err(ended(&publisher, None).await),
        }
    }
    tokio::select! {
        failure = watch.failure() => return Err(ended(&publisher, failure).await),
        flushed = publisher.flush() => flushed?,
    }
    if let Some(failure) = watch.settled() {
        return Err(failure);
    }
    let taken = publisher.counts().taken;
    publisher.close().await?;
    if args.verbose {
        notice(&format!("published {taken}"));
    }
    Ok(())
}

/// What to say when it is over: what has failed, or else why the publisher has ended.
async fn ended(publisher: &Publisher, failure: Option<Failure>) -> Failure {
    match failure {
        Some(failure) => failure,
        // It has ended, so this does not wait.
        None => match publisher.flush().await {
            Err(error) => error.into(),
            Ok(()) => Failure::runtime("the connection has ended"),
        },
    }
}

/// What becomes of the lines, and of the connection.
struct Watch {
    states: watch::Receiver<State>,
    notices: Notices,
    /// Of the lines that are not settled: at most as many as the outbox takes, and what was settled since the last look.
    receipts: VecDeque<(Receipt, u64)>,
}

impl Watch {
    /// Ready when something has failed; `None`: the publisher has ended. Tells how the connection is.
    async fn failure(&mut self) -> Option<Failure> {
        loop {
            if let Some(failure) = self.settled() {
                return Some(failure);
            }
            let Self { states, receipts, .. } = self;
            tokio::select! {
                biased;
                changed = states.changed() => {
                    if changed.is_err() {
                        return None;
                    }
                    let state = states.borrow_and_update().clone();
                    if let Err(failure) = self.notices.tell(&state) {
                        return Some(failure);
                    }
                }
                (outcome, line) = first(receipts) => {
                    receipts.pop_front();
                    if let Some(failure) = refused(outcome, line) {
                        return Some(failure);
                    }
                }
            }
        }
    }

    /// Takes what is settled out of the way; the first that was not taken.
    fn settled(&mut self) -> Option<Failure> {
        while let Some((receipt, line)) = self.receipts.front_mut() {
            let outcome = receipt.now_or_never()?;
            let failure = refused(outcome, *line);
            self.receipts.pop_front();
            if failure.is_some() {
                return failure;
            }
        }
        None
    }
}

/// The outcome of the first that is not settled.
async fn first(receipts: &mut VecDeque<(Receipt, u64)>) -> (Outcome, u64) {
    match receipts.front_mut() {
        Some((receipt, line)) => (receipt.await, *line),
        None => pending().await,
    }
}

fn refused(outcome: Outcome, line: u64) -> Option<Failure> {
    match outcome {
        Outcome::Refused(refusal) => Some(Failure::from(Error::Refused(refusal)).at_line(line)),
        // The publisher says why it has ended.
        _ => None,
    }
}

/// Lines of bounded length. Cancel-safe: what was read of a line is kept.
struct Lines<R> {
    from: R,
    partial: Vec<u8>,
    count: u64,
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    fn new(from: R) -> Self {
        Self { from, partial: Vec::new(), count: 0 }
    }

    async fn next(&mut self) -> Result<Option<String>, Failure> {
        loop {
            let bytes = self.from.fill_buf().await;
            let bytes = bytes
                .map_err(|error| Failure::runtime(format_args!("cannot read standard input: {error}")))?;
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let ended = bytes.is_empty() || end.is_some();
            if bytes.is_empty() && self.partial.is_empty() {
                return Ok(None);
            }
            let line = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default();
            self.partial.extend_from_slice(line);
            let used = line.len() + usize::from(end.is_some());
            self.from.consume(used);
            if self.partial.len() > MAX_LINE {
                let n = self.count + 1;
                return Err(Failure::usage(format_args!("line {n} is above {MAX_LINE} bytes")));
            }
            if ended {
                self.count += 1;
                let mut line = std::mem::take(&mut self.partial);
                line.pop_if(|byte| *byte == b'\r');
                let bad = |_| Failure::usage(format_args!("line {} is not UTF-8", self.count));
                return String::from_utf8(line).map(Some).map_err(bad);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_end_by_lf_or_crlf_or_the_end() {
        let mut lines = Lines::new(&b"one\n\r\ntwo\r\nthree"[..]);
        for line in ["one", "", "two", "three"] {
            assert_eq!(lines.next().await.ok().flatten().as_deref(), Some(line));
        }
        assert!(matches!(lines.next().await, Ok(None)));
        assert_eq!(lines.count, 4);
        let long = vec![b'x'; MAX_LINE + 1];
        assert!(Lines::new(&long[..]).next().await.is_err());
        assert!(Lines::new(&b"\xff\n"[..]).next().await.is_err());
    }
}
