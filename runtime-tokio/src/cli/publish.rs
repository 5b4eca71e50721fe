//! `longwire pub`

use super::output::notice;
use super::{Failure, Gateway};
use longwire::client::{Data, Error, Publisher, publish};
use std::collections::VecDeque;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, BufReader};

/// Publish to a topic of a gateway
///
/// Prints nothing when it worked. With `-` each line of standard input is published, over one WebSocket, and the
/// first one that is refused ends it.
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
        let publisher = Publisher::connect(&endpoint).await?;
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

async fn publish_lines<R>(args: &Args, mut publisher: Publisher, mut lines: Lines<R>) -> Result<(), Failure>
where
    R: AsyncBufRead + Unpin,
{
    // Which line a refusal is about: as many as can be unacknowledged.
    let mut sent = VecDeque::new();
    loop {
        // The connection is served while no line comes: what was published goes out, and Pings are answered.
        let line = tokio::select! {
            biased;
            line = lines.next() => line?,
            settled = publisher.settle() => {
                settled.map_err(|error| refused(error, &sent))?;
                continue;
            }
        };
        let Some(line) = line else { break };
        if line.trim().is_empty() && !args.text {
            continue;
        }
        let data = args.value(&line).map_err(|failure| Failure {
            message: format!("line {}: {}", lines.count, failure.message),
            ..failure
        })?;
        let published = publisher.publish(&args.topic, args.key.as_deref(), &data).await;
        let n = published.map_err(|error| refused(error, &sent))?;
        sent.push_back((n, lines.count));
        if sent.len() as u64 > Publisher::MAX_INFLIGHT {
            sent.pop_front();
        }
    }
    publisher.flush().await.map_err(|error| refused(error, &sent))?;
    let taken = publisher.taken();
    publisher.close().await?;
    if args.verbose {
        notice(&format!("published {taken}"));
    }
    Ok(())
}

/// An error, with the line of the publication that it is about.
fn refused(error: Error, sent: &VecDeque<(u64, u64)>) -> Failure {
    let line = match &error {
        Error::Refused(refusal) => sent.iter().find(|(n, _)| Some(*n) == refusal.n).map(|(_, line)| *line),
        _ => None,
    };
    let failure = Failure::from(error);
    match line {
        Some(line) => Failure { message: format!("line {line}: {}", failure.message), ..failure },
        None => failure,
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
