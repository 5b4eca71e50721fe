//! A request's head, as the core sees it, wherever the request came from.

use http::request::Parts;
use http::{Version, header};
use longwire_core::buf::{RxBuf, RxCursor};
use longwire_core::http::head::{HeadError, HeadReader, Limits, RequestHead, Step};
use longwire_core::http::view::Request;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes of the buffer that a head is read into at first; it doubles as needed.
const FIRST_READ: usize = 1024;

/// A whole, well-formed head, and what was read behind it.
#[derive(Debug)]
pub(super) struct Head {
    bytes: Vec<u8>,
    at: RxCursor,
    head: RequestHead,
}

impl Head {
    /// Reads a head; `None` when the stream ends before it.
    pub(super) async fn read(
        stream: &mut (impl AsyncRead + Unpin),
        limits: &Limits,
    ) -> io::Result<Option<Result<Self, HeadError>>> {
        let (mut bytes, mut at) = (vec![0; FIRST_READ.min(limits.max_head)], RxCursor::default());
        let mut reader = HeadReader::default();
        loop {
            let mut rx = RxBuf::new(&mut bytes, &mut at);
            match reader.poll_request(&mut rx, limits) {
                Ok(Step::Head(head)) => return Ok(Some(Ok(Self { bytes, at, head }))),
                Ok(Step::NeedSpace(len)) => bytes.resize(len, 0),
                Ok(Step::NeedInput) => match stream.read(rx.spare_mut()).await? {
                    0 => return Ok(None),
                    n => rx.commit(n),
                },
                Err(error) => return Ok(Some(Err(error))),
            }
        }
    }

    /// The head of a request that another server has read: written down, and judged as one that came in here.
    pub(super) fn of(parts: &Parts, limits: &Limits) -> Result<Self, HeadError> {
        let mut bytes = Vec::with_capacity(FIRST_READ);
        let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
        let version: &[u8] = if parts.version == Version::HTTP_10 { b"1.0" } else { b"1.1" };
        for part in [parts.method.as_str().as_bytes(), b" ", target.as_bytes(), b" HTTP/", version, b"\r\n"] {
            bytes.extend_from_slice(part);
        }
        // HTTP/2 says the host in the target.
        let host = parts.uri.authority().filter(|_| !parts.headers.contains_key(header::HOST));
        let host = host.map(|authority| (header::HOST.as_str(), authority.as_str().as_bytes()));
        let fields = parts.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        for (name, value) in host.into_iter().chain(fields) {
            for part in [name.as_bytes(), b": ", value, b"\r\n"] {
                bytes.extend_from_slice(part);
            }
        }
        bytes.extend_from_slice(b"\r\n");
        let mut at = RxCursor::default();
        let mut rx = RxBuf::new(&mut bytes, &mut at);
        // What is in the buffer is what was received.
        rx.commit(rx.capacity());
        match HeadReader::default().poll_request(&mut rx, limits)? {
            Step::Head(head) => Ok(Self { bytes, at, head }),
            Step::NeedInput | Step::NeedSpace(_) => Err(HeadError::RequestLine),
        }
    }

    /// What it says.
    pub(super) fn view(&mut self) -> Request<'_> {
        self.head.view(RxBuf::new(&mut self.bytes, &mut self.at))
    }

    /// What was read behind it.
    pub(super) fn early(mut self) -> Vec<u8> {
        let mut rx = RxBuf::new(&mut self.bytes, &mut self.at);
        self.head.release(&mut rx);
        rx.unread().to_vec()
    }

    /// All that was read, the head included.
    pub(super) fn into_bytes(mut self) -> Vec<u8> {
        let len = RxBuf::new(&mut self.bytes, &mut self.at).compact().len();
        self.bytes.truncate(len);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(wire: &[u8]) -> Head {
        Head::read(&mut &wire[..], &Limits::DEFAULT).await.unwrap().unwrap().unwrap()
    }

    #[tokio::test]
    async fn what_is_behind_the_head_is_kept() {
        let wire = b"GET /a?b HTTP/1.1\r\nHost: c\r\n\r\nbehind it";
        let mut head = read(wire).await;
        let view = head.view();
        assert_eq!((view.path(), view.query()), ("/a", Some("b")));
        assert_eq!(head.early(), b"behind it");
        assert_eq!(read(wire).await.into_bytes(), wire);
    }

    #[tokio::test]
    async fn a_head_larger_than_the_first_buffer_is_read_up_to_its_limit() {
        let wire = |len: usize| format!("GET / HTTP/1.1\r\nHost: c\r\nX: {}\r\n\r\n", "x".repeat(len - 32));
        let limits = Limits { max_value: 8192, ..Limits::DEFAULT };
        let whole = wire(8192);
        assert_eq!(whole.len(), 8192);
        let head = Head::read(&mut whole.as_bytes(), &limits).await.unwrap().unwrap().unwrap();
        assert_eq!(head.into_bytes(), whole.as_bytes());
        let read = Head::read(&mut wire(8193).as_bytes(), &limits).await.unwrap().unwrap();
        assert_eq!(read.unwrap_err(), HeadError::TooLong);
        assert!(Head::read(&mut &whole.as_bytes()[..8191], &limits).await.unwrap().is_none());
    }

    #[test]
    fn a_request_of_another_server_reads_the_same() {
        let (parts, ()) = http::Request::get("http://h:1/a?b=c")
            .version(Version::HTTP_2)
            .header("x", "y")
            .body(())
            .unwrap()
            .into_parts();
        let mut head = Head::of(&parts, &Limits::DEFAULT).unwrap();
        let view = head.view();
        assert_eq!((view.method(), view.path(), view.query()), ("GET", "/a", Some("b=c")));
        assert_eq!((view.authority(), view.header("x")), ("h:1", Some(&b"y"[..])));
    }
}
