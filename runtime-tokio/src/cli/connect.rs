//! `longwire connect`

use super::output::{Output, Style, printable};
use super::{Failure, Trust};
use longwire::client::{EventStream, EventStreamOptions};
use longwire::websocket::{self, CloseCause, CloseCode, ConnectOptions, Event, Message, WebSocket};
use std::fmt::Write as _;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::time::Instant;

/// Talk to any WebSocket (ws, wss) or SSE (http, https) server
///
/// Shows each frame with its time since the start and since the one before: `<` received, `>` sent, `*` about the
/// connection. To a WebSocket, lines of standard input are sent as texts; its end closes the connection.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// A ws, wss, http or https URL
    url: String,

    /// WebSocket: offer this subprotocol; may be repeated, the preferred one first
    #[arg(long, value_name = "NAME")]
    subprotocol: Vec<String>,

    /// Send this header; may be repeated
    #[arg(long, short = 'H', value_name = "NAME: VALUE", value_parser = header)]
    header: Vec<(String, String)>,

    /// Do not read standard input: only listen
    #[arg(long)]
    no_input: bool,

    #[command(flatten)]
    trust: Trust,
}

const EXAMPLES: &str = "\
Commands, as lines of standard input:
  /ping [TEXT]             send a ping
  /close [CODE] [REASON]   close the connection; code 1000 if not given
  /binary HEX              send bytes
  //TEXT                   send /TEXT

Examples:
  longwire connect ws://127.0.0.1:8080/v1/stream?topic=** --subprotocol longwire.v1.json
  longwire connect wss://example.org/ws -H 'Authorization: Bearer abc'
  longwire connect wss://10.0.0.5:8443/v1/stream?topic=** --ca authority.pem
  longwire connect http://127.0.0.1:8080/v1/stream?topic=**
  printf 'hello\\n/close 1000 done\\n' | longwire connect ws://127.0.0.1:9001/";

/// Most of a frame that is shown.
const MAX_SHOWN: usize = 4096;

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("give it as `Name: value`")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let mut log = Log::new();
    match args.url.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase()).as_deref() {
        Some("http" | "https") => events(&args, &mut log).await,
        Some("ws" | "wss") => talk(&args, &mut log).await,
        _ => Err(Failure::usage(format_args!(
            "`{}` is no URL that can be connected to: it begins with ws://, wss://, http:// or https://",
            args.url
        ))),
    }
}

/// An event stream, until it ends.
async fn events(args: &Args, log: &mut Log) -> Result<(), Failure> {
    if !args.subprotocol.is_empty() {
        return Err(Failure::usage(
            "`--subprotocol` is for WebSockets: an http URL is read as an event stream",
        ));
    }
    let mut options = EventStreamOptions::default();
    options.headers.clone_from(&args.header);
    options.tls = args.trust.config()?;
    let mut stream = EventStream::connect(&args.url, &options).await?;
    log.about(&format!("connected to {}", args.url))?;
    loop {
        let event = tokio::select! {
            event = stream.next() => event?,
            _ = tokio::signal::ctrl_c() => return Ok(log.about("closed by this end")?),
        };
        let Some(event) = event else {
            log.about("ended by the server")?;
            return Ok(());
        };
        let mut kind = String::from_utf8_lossy(event.name).into_owned();
        if !event.id.is_empty() {
            // A String takes everything.
            let _ = write!(kind, " id={}", String::from_utf8_lossy(event.id));
        }
        log.frame('<', &kind, event.data.len(), &show_text(event.data))?;
    }
}

/// What is to be sent.
#[derive(Debug, PartialEq, Eq)]
enum Input {
    Message(Message),
    Ping(String),
    Close(CloseCode, String),
}

impl Input {
    fn parse(line: &str) -> Result<Self, String> {
        let (command, rest) = line.split_once(' ').unwrap_or((line, ""));
        match command {
            "/ping" if rest.len() <= 125 => Ok(Self::Ping(rest.to_owned())),
            "/ping" => Err("a ping has at most 125 bytes".to_owned()),
            "/binary" => hex(rest).map(Message::binary).map(Self::Message),
            "/close" => {
                let (code, reason) = rest.split_once(' ').unwrap_or((rest, ""));
                let code = if code.is_empty() {
                    Some(CloseCode::NORMAL)
                } else {
                    code.parse().ok().and_then(CloseCode::new)
                };
                let code = code.ok_or("a close code is 1000 to 1003, 1007 to 1014, or 3000 to 4999")?;
                Ok(Self::Close(code, reason.to_owned()))
            }
            _ if command.starts_with("//") => {
                Ok(Self::Message(Message::text(line.get(1..).unwrap_or_default())))
            }
            _ if command.starts_with('/') => Err(format!(
                "`{command}` is no command: /ping, /close, /binary; `//` begins a text with a slash"
            )),
            _ => Ok(Self::Message(Message::text(line))),
        }
    }
}

fn hex(text: &str) -> Result<Vec<u8>, String> {
    let digits: Option<Vec<u32>> =
        text.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_digit(16)).collect();
    let digits = digits
        .filter(|digits| digits.len() % 2 == 0)
        .ok_or("give bytes as pairs of hex digits: /binary 00ff")?;
    let byte = |pair: &[u32]| pair.iter().fold(0, |byte, digit| byte << 4 | digit);
    Ok(digits.chunks(2).map(|pair| u8::try_from(byte(pair)).unwrap_or_default()).collect())
}

/// A WebSocket, until it ends.
async fn talk(args: &Args, log: &mut Log) -> Result<(), Failure> {
    let mut options = ConnectOptions::default();
    options.headers.clone_from(&args.header);
    options.subprotocols.clone_from(&args.subprotocol);
    if let Some(trusted) = args.trust.config()? {
        options = options.tls(trusted);
    }
    let mut socket = websocket::connect(&args.url, &options).await.map_err(failure)?;
    match socket.subprotocol() {
        Some(subprotocol) => log.about(&format!("connected to {}, subprotocol {subprotocol}", args.url))?,
        None => log.about(&format!("connected to {}", args.url))?,
    }
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut reading = !args.no_input;
    // Who sent the first Close.
    let mut closed_by = None;
    loop {
        let input = tokio::select! {
            event = socket.recv() => match event {
                None => break,
                Some(Err(error)) => return Err(failure(error)),
                Some(Ok(event)) => {
                    if matches!(event, Event::Close(_)) {
                        closed_by.get_or_insert("the server");
                        reading = false;
                    }
                    log.event(&event)?;
                    continue;
                }
            },
            line = lines.next_line(), if reading => match line {
                Ok(Some(line)) => Input::parse(&line),
                // The end of the input, or an input that cannot be read.
                Ok(None) | Err(_) => Ok(Input::Close(CloseCode::NORMAL, String::new())),
            },
            _ = tokio::signal::ctrl_c(), if closed_by.is_none() => {
                Ok(Input::Close(CloseCode::NORMAL, String::new()))
            }
        };
        match input {
            Ok(Input::Close(code, reason)) => {
                log.frame('>', &format!("close {code}"), reason.len(), &reason)?;
                socket.start_close(code, &reason);
                closed_by.get_or_insert("this end");
                reading = false;
            }
            Ok(input) => send(&mut socket, log, input).await?,
            Err(message) => log.about(&message)?,
        }
    }
    let clean = socket.close_cause() == Some(CloseCause::Clean);
    log.about(&format!("closed by {}", closed_by.unwrap_or("the server")))?;
    if clean { Ok(()) } else { Err(Failure::runtime("the connection did not end by a closing handshake")) }
}

async fn send<S>(socket: &mut WebSocket<S>, log: &mut Log, input: Input) -> Result<(), Failure>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let sent = match input {
        Input::Message(message) => {
            log.message('>', &message)?;
            socket.send(message).await
        }
        Input::Ping(payload) => {
            log.frame('>', "ping", payload.len(), &payload)?;
            socket.ping(payload.as_bytes()).await
        }
        Input::Close(..) => Ok(()),
    };
    match sent {
        // The server was faster: what it said comes next.
        Ok(()) | Err(websocket::Error::Closing | websocket::Error::Closed(_) | websocket::Error::Io(_)) => {
            Ok(())
        }
        Err(error) => Err(failure(error)),
    }
}

fn failure(error: websocket::Error) -> Failure {
    use websocket::{Error, HandshakeError};
    match error {
        Error::Url(_) | Error::Handshake(HandshakeError::Write(_)) => Failure::usage(error),
        error => Failure::runtime(error),
    }
}

/// Lines with times.
struct Log {
    out: Output,
    start: Instant,
    last: Duration,
}

impl Log {
    fn new() -> Self {
        Self { out: Output::new(), start: Instant::now(), last: Duration::ZERO }
    }

    fn event(&mut self, event: &Event<'_>) -> io::Result<()> {
        match event {
            Event::Text(text) => self.frame('<', "text", text.as_bytes().len(), &show_text(text.as_bytes())),
            Event::Binary(data) => self.frame('<', "binary", data.len(), &show_hex(data)),
            Event::Ping(data) => self.frame('<', "ping", data.len(), &show_control(data)),
            Event::Pong(data) => self.frame('<', "pong", data.len(), &show_control(data)),
            Event::Close(close) => {
                let kind =
                    close.code.map_or("close without a code".to_owned(), |code| format!("close {code}"));
                let reason = close.reason.as_str();
                self.frame('<', &kind, reason.len(), reason)
            }
            Event::Chunk(chunk) => self.frame('<', "chunk", chunk.payload.len(), ""),
        }
    }

    fn message(&mut self, direction: char, message: &Message) -> io::Result<()> {
        let bytes = message.as_bytes();
        match message {
            Message::Text(_) => self.frame(direction, "text", bytes.len(), &show_text(bytes)),
            Message::Binary(_) => self.frame(direction, "binary", bytes.len(), &show_hex(bytes)),
        }
    }

    fn frame(&mut self, direction: char, kind: &str, len: usize, content: &str) -> io::Result<()> {
        self.times(direction)?;
        self.out.put(Style::Topic, &format!("{kind:<8}"))?;
        self.out.put(Style::Dim, &format!(" {len:>6}  "))?;
        self.out.put(Style::Plain, content)?;
        self.out.end_line()?;
        self.out.flush()
    }

    fn about(&mut self, text: &str) -> io::Result<()> {
        self.times('*')?;
        self.out.put(Style::Notice, text)?;
        self.out.end_line()?;
        self.out.flush()
    }

    fn times(&mut self, direction: char) -> io::Result<()> {
        let now = self.start.elapsed();
        let between = now.saturating_sub(self.last);
        self.last = now;
        let times = format!("{:>9.3} {:>+9.3} ", now.as_secs_f64(), between.as_secs_f64());
        self.out.put(Style::Dim, &times)?;
        self.out.put(Style::Plain, &format!("{direction} "))
    }
}

/// As much of a text as is shown, in one line: line ends and tabs as in a string literal.
fn show_text(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes.get(..MAX_SHOWN).unwrap_or(bytes));
    let line = text.replace('\n', "\\n").replace('\r', "\\r").replace('\t', "\\t");
    let cut = if bytes.len() > MAX_SHOWN { " ..." } else { "" };
    format!("{}{cut}", printable(&line))
}

fn show_hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes.iter().take(MAX_SHOWN / 4) {
        // A String takes everything.
        let _ = write!(text, "{byte:02x}");
    }
    if bytes.len() > MAX_SHOWN / 4 {
        text.push_str(" ...");
    }
    text
}

/// The payload of a ping is whatever somebody found useful.
fn show_control(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains(char::is_control) => text.to_owned(),
        _ => show_hex(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_input() {
        let text = |text: &str| Ok(Input::Message(Message::text(text)));
        assert_eq!(Input::parse("hello /close"), text("hello /close"));
        assert_eq!(Input::parse(""), text(""));
        assert_eq!(Input::parse("//close"), text("/close"));
        assert_eq!(Input::parse("/ping a b"), Ok(Input::Ping("a b".to_owned())));
        assert_eq!(Input::parse("/binary 00 fF1"), Input::parse("/binary x"));
        assert_eq!(Input::parse("/binary 00 fF"), Ok(Input::Message(Message::binary(vec![0, 255]))));
        assert_eq!(Input::parse("/close"), Ok(Input::Close(CloseCode::NORMAL, String::new())));
        let code = CloseCode::new(4001).unwrap();
        assert_eq!(Input::parse("/close 4001 a b"), Ok(Input::Close(code, "a b".to_owned())));
        for bad in ["/close 1006", "/close x", "/clsoe", &format!("/ping {}", "x".repeat(126))] {
            assert!(Input::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_shown_is_one_bounded_line() {
        assert_eq!(show_text("a\nb\u{1b}".as_bytes()), "a\\nb\u{fffd}");
        assert_eq!(show_text(&[b'x'; 5000]).len(), MAX_SHOWN + 4);
        assert_eq!(show_hex(&[0, 0xab]), "00ab");
        assert_eq!((show_control(b"ok"), show_control(b"\0")), ("ok".to_owned(), "00".to_owned()));
    }
}
