//! HTTP/1.1 (RFC 9112) as far as a test needs it: one request, one response, a body that may go on for ever.

use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};

use rustix::net::{AddressFamily, SocketType};

use serde_json::Value;

use crate::PATIENCE;

/// The head of a response, and its body if it was read.
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Names in lower case, values as they came.
    pub headers: Vec<(String, String)>,
    /// The body, decoded.
    pub body: Vec<u8>,
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = String::from_utf8_lossy(self.body.get(..2_000).unwrap_or(&self.body));
        write!(f, "{} {:?} {start}", self.status, self.headers)
    }
}

impl Response {
    /// The first header of this name (in lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }
}

/// A connection whose reads fail after [`PATIENCE`].
pub fn connect(address: SocketAddr) -> TcpStream {
    patient(TcpStream::connect_timeout(&address, PATIENCE).expect("it accepts connections"))
}

/// The same from an address of one's own choice, such as 127.0.0.2.
pub fn connect_from(source: Ipv4Addr, address: SocketAddr) -> TcpStream {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    rustix::net::bind(&socket, &SocketAddrV4::new(source, 0)).expect("an address of this machine");
    rustix::net::connect(&socket, &address).expect("it accepts connections");
    patient(socket.into())
}

fn patient(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream.set_write_timeout(Some(PATIENCE)).expect("a socket");
    stream.set_nodelay(true).expect("a socket");
    stream
}

/// The text of a request's head; `Content-Length` and `Host` are added.
pub fn head(
    address: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    length: usize,
) -> String {
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: {address}\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    if length > 0 || method == "POST" {
        head += &format!("Content-Length: {length}\r\n");
    }
    head + "\r\n"
}

/// One request on a connection of its own, with its whole response.
pub fn request(
    address: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Response {
    exchange(BufReader::new(connect(address)), address, method, target, headers, body)
}

/// The same over a stream that is there, and ends with it.
pub fn exchange<S: Read + Write>(
    mut stream: BufReader<S>,
    address: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Response {
    let headers = [headers, &[("Connection", "close")]].concat();
    let to = stream.get_mut();
    // A server may answer and close before it has read a body that is too large: its answer counts.
    let _ = to.write_all(head(address, method, target, &headers, body.len()).as_bytes());
    let _ = to.write_all(body);
    let mut response = read_head(&mut stream).expect("a response");
    if method != "HEAD" {
        response.body = read_body(stream, &response).expect("a whole body");
    }
    response
}

/// Reads a response's head. `None` when the stream ended before it.
pub fn read_head(stream: &mut impl BufRead) -> Option<Response> {
    let status_line = read_line(stream)?;
    let status = status_line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let mut headers = Vec::new();
    loop {
        let line = read_line(stream)?;
        if line.is_empty() {
            return Some(Response { status, headers, body: Vec::new() });
        }
        let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("{line:?} is no header"));
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}

/// Reads the rest of a response, as its head says it is framed. `None` when the stream ended too early.
pub fn read_body<R: BufRead>(stream: R, response: &Response) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    Body::new(stream, response).read_to_end(&mut body).ok()?;
    Some(body)
}

fn read_line(stream: &mut impl BufRead) -> Option<String> {
    let mut line = Vec::new();
    stream.read_until(b'\n', &mut line).ok()?;
    let line = line.strip_suffix(b"\r\n")?;
    Some(String::from_utf8_lossy(line).into_owned())
}

/// A response's body without its framing (RFC 9112 section 6.3).
pub struct Body<R> {
    stream: R,
    framing: Framing,
}

enum Framing {
    Length(u64),
    /// Bytes left of this chunk; 0 before the next chunk's size.
    Chunked(u64),
    UntilClose,
    Ended,
}

impl<R: BufRead> Body<R> {
    /// The body that follows this head.
    pub fn new(stream: R, head: &Response) -> Self {
        let framing = match (head.header("transfer-encoding"), head.header("content-length")) {
            _ if head.status == 204 || head.status == 304 || head.status < 200 => Framing::Ended,
            (Some(coding), _) if coding.eq_ignore_ascii_case("chunked") => Framing::Chunked(0),
            (_, Some(length)) => Framing::Length(length.parse().expect("a length")),
            _ => Framing::UntilClose,
        };
        Self { stream, framing }
    }

    /// Reads the size of the next chunk, and the end after the last one.
    fn next_chunk(&mut self) -> std::io::Result<u64> {
        let cut = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        let line = read_line(&mut self.stream).ok_or_else(cut)?;
        let size =
            line.split(';').next().and_then(|size| u64::from_str_radix(size, 16).ok()).ok_or_else(cut)?;
        while size == 0 && !read_line(&mut self.stream).ok_or_else(cut)?.is_empty() {}
        Ok(size)
    }
}

impl<R: BufRead> Read for Body<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if let Framing::Chunked(0) = self.framing {
            self.framing = match self.next_chunk()? {
                0 => Framing::Ended,
                size => Framing::Chunked(size),
            };
        }
        let left = match &mut self.framing {
            Framing::Ended | Framing::Length(0) => return Ok(0),
            Framing::UntilClose => return self.stream.read(buffer),
            Framing::Length(left) | Framing::Chunked(left) => left,
        };
        let wanted = usize::try_from(*left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let read = self.stream.read(&mut buffer[..wanted])?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        *left -= read as u64;
        if let Framing::Chunked(0) = self.framing {
            read_line(&mut self.stream);
        }
        Ok(read)
    }
}

/// A stream of Server-Sent Events: pairs of event name and data (WHATWG HTML section 9.2.6, as far as a test reads).
pub struct Events<R>(BufReader<Body<R>>);

/// One dispatched SSE event.
#[derive(Debug, Default)]
pub struct SseEvent {
    /// The event's name; empty for `message`.
    pub name: String,
    /// The last event id, if this event set one.
    pub id: Option<String>,
    /// The data, without the last line feed.
    pub data: String,
}

impl Events<BufReader<TcpStream>> {
    /// Opens a stream.
    ///
    /// # Errors
    /// The response, if its status is not 200.
    pub fn open(address: SocketAddr, target: &str, headers: &[(&str, &str)]) -> Result<Self, Response> {
        let mut stream = connect(address);
        let headers = [&[("Accept", "text/event-stream")], headers].concat();
        stream.write_all(head(address, "GET", target, &headers, 0).as_bytes()).expect("it reads");
        let mut stream = BufReader::new(stream);
        let mut head = read_head(&mut stream).expect("a response");
        if head.status != 200 {
            head.body = read_body(stream, &head).expect("a whole body");
            return Err(head);
        }
        assert_eq!(
            head.header("content-type").map(|t| t.starts_with("text/event-stream")),
            Some(true),
            "{head:?}"
        );
        Ok(Self(BufReader::new(Body::new(stream, &head))))
    }
}

impl<R: BufRead> Iterator for Events<R> {
    type Item = SseEvent;

    /// The next event with data; `None` at the end of the stream.
    fn next(&mut self) -> Option<SseEvent> {
        let mut event = SseEvent::default();
        let mut data: Vec<String> = Vec::new();
        loop {
            let mut line = String::new();
            match self.0.read_line(&mut line) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    panic!("silence for {PATIENCE:?}")
                }
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
            let line = line.trim_end_matches(['\r', '\n']);
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
            match field {
                "" if line.is_empty() && !data.is_empty() => {
                    event.data = data.join("\n");
                    return Some(event);
                }
                "" if line.is_empty() => event.name.clear(),
                "event" => event.name = value,
                "id" => event.id = Some(value),
                "data" => data.push(value),
                _ => {}
            }
        }
    }
}
