//! Bodies: how long one is ([`Framing`], RFC 9112 section 6.3), and its bytes as they arrive ([`BodyReader`]).

use super::grammar::{is_field_byte, is_ows, is_tchar};
use super::view::{Request, Response};
use crate::buf::RxBuf;

/// Bytes of extensions that one chunk may carry. They are ignored (RFC 9112 section 7.1.1).
pub const MAX_CHUNK_EXTENSION: u16 = 256;

/// Bytes of trailers that a chunked body may end with. They are checked and ignored (RFC 9112 section 7.1.2).
pub const MAX_TRAILERS: u16 = 4096;

/// What says where a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Framing {
    /// There is no body.
    None,
    /// So many bytes.
    Length(u64),
    /// The chunked transfer coding (RFC 9112 section 7.1).
    Chunked,
    /// The end of the connection. Only a response can have it.
    UntilClose,
}

impl Framing {
    /// How long a request's body is: without a length it has none.
    pub fn of_request(request: &Request<'_>) -> Self {
        let headers = request.headers();
        match headers.content_length() {
            _ if headers.is_chunked() => Self::Chunked,
            Some(length) => Self::Length(length),
            None => Self::None,
        }
    }

    /// How long the body of the response to a request of this method is.
    pub fn of_response(response: &Response<'_>, method: &str) -> Self {
        let headers = response.headers();
        let bodiless = match response.status() {
            100..200 | 204 | 304 => true,
            200..300 if method == "CONNECT" => true,
            _ => method == "HEAD",
        };
        match headers.content_length() {
            _ if bodiless => Self::None,
            _ if headers.is_chunked() => Self::Chunked,
            Some(length) => Self::Length(length),
            None => Self::UntilClose,
        }
    }
}

/// How a reader of a body goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum BodyStep {
    /// Read more into the buffer.
    NeedInput,
    /// The buffer is full of what was [kept](BodyReader::keep): lend a larger one, or give up.
    NeedSpace,
    /// Bytes of the body are there: [`BodyReader::piece`].
    Data,
    /// The body has ended. What is unread comes behind it.
    End,
}

/// Reads a body, piece by piece, in place in a lent buffer. Holds 32 bytes.
///
/// Call [`poll`](Self::poll) until it says [`BodyStep::End`]. Each piece is there until the next poll, which
/// passes over it; [`keep`](Self::keep) adds it to what is kept in the buffer instead, where the body comes
/// together behind the head. When the connection ends before that, [`handle_eof`](Self::handle_eof) says
/// whether the body was whole.
///
/// A poll that returned an error returns it again.
///
/// ```
/// use longwire_core::buf::{RxBuf, RxCursor};
/// use longwire_core::http::body::{BodyReader, BodyStep, Framing};
///
/// let (mut bytes, mut cursor) = ([0; 32], RxCursor::default());
/// let mut rx = RxBuf::new(&mut bytes, &mut cursor);
/// let mut body = BodyReader::new(Framing::Chunked, 1000)?;
/// rx.fill(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\nnext");
/// while body.poll(&mut rx)? == BodyStep::Data {
///     body.keep(&mut rx);
/// }
/// assert_eq!((rx.kept(), rx.unread()), (&b"abcde"[..], &b"next"[..]));
/// # Ok::<(), longwire_core::http::body::BodyError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct BodyReader {
    state: State,
    /// Bytes of the piece that the last poll found.
    piece: u32,
    /// Bytes that are to come: of the body, or of the current chunk.
    left: u64,
    /// Bytes that further chunks may bring.
    budget: u64,
}

const _: () = assert!(size_of::<BodyReader>() <= 24);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Length,
    UntilClose,
    Chunk(Chunk),
    Ended,
}

/// The place in a chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chunk {
    /// Behind so many digits of the size.
    Size(u8),
    /// In the space before an extension, or in an extension, so many bytes long.
    Space(u16),
    Extension(u16),
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// In the trailers, so many bytes long: at the start of a line, in a name, in a value, before LF.
    Trailer(u16),
    TrailerName(u16),
    TrailerValue(u16),
    TrailerLf(u16),
    LastLf,
}

impl BodyReader {
    /// Reads a body of at most `max_body` bytes. A stream without an end needs `u64::MAX`.
    ///
    /// # Errors
    /// [`BodyError::TooLong`], when the length is announced and over the limit.
    pub const fn new(framing: Framing, max_body: u64) -> Result<Self, BodyError> {
        let (state, left) = match framing {
            Framing::None => (State::Ended, 0),
            Framing::Length(length) if length > max_body => return Err(BodyError::TooLong),
            Framing::Length(length) => (State::Length, length),
            Framing::UntilClose => (State::UntilClose, max_body),
            Framing::Chunked => (State::Chunk(Chunk::Size(0)), 0),
        };
        Ok(Self { state, piece: 0, left, budget: max_body })
    }

    /// Finds the next piece.
    ///
    /// # Errors
    /// [`BodyError`]. Where the message ends is unknown then, and the connection has to be closed.
    pub fn poll(&mut self, rx: &mut RxBuf<'_>) -> Result<BodyStep, BodyError> {
        rx.skip(self.piece as usize);
        self.piece = 0;
        loop {
            let unread = rx.unread();
            match (self.state, unread.first()) {
                (State::Ended, _) => return Ok(BodyStep::End),
                (State::Length, _) if self.left == 0 => self.state = State::Ended,
                (State::Chunk(Chunk::Data), _) if self.left == 0 => self.state = State::Chunk(Chunk::DataCr),
                (_, None) if rx.is_full() => return Ok(BodyStep::NeedSpace),
                (_, None) => return Ok(BodyStep::NeedInput),
                (State::UntilClose, Some(_)) if self.left == 0 => return Err(BodyError::TooLong),
                (State::Length | State::UntilClose | State::Chunk(Chunk::Data), Some(_)) => {
                    let available = u32::try_from(unread.len()).unwrap_or(u32::MAX);
                    self.piece = u32::try_from(self.left).unwrap_or(u32::MAX).min(available);
                    self.left -= u64::from(self.piece);
                    return Ok(BodyStep::Data);
                }
                (State::Chunk(at), Some(&byte)) => {
                    self.state = self.advance(at, byte)?;
                    rx.skip(1);
                }
            }
        }
    }

    /// The piece that the last poll found, for as long as the buffer is lent. Empty after any step but
    /// [`BodyStep::Data`].
    pub fn piece<'b>(&self, rx: RxBuf<'b>) -> &'b [u8] {
        let (_, unread) = rx.into_parts();
        unread.get(..self.piece as usize).unwrap_or_default()
    }

    /// Adds the piece to what is kept in the buffer.
    pub fn keep(&mut self, rx: &mut RxBuf<'_>) {
        rx.keep(self.piece as usize);
        self.piece = 0;
    }

    /// Says that the connection has ended, after everything that came in was polled.
    ///
    /// # Errors
    /// [`BodyError::Truncated`], when the body is not whole.
    pub fn handle_eof(&mut self) -> Result<(), BodyError> {
        match self.state {
            State::UntilClose => self.state = State::Ended,
            State::Length if self.left == 0 => self.state = State::Ended,
            State::Ended => {}
            _ => return Err(BodyError::Truncated),
        }
        Ok(())
    }

    /// Takes one byte of a chunked body that is not data. Lines end in CRLF and in nothing else: what one
    /// reader takes for the end of a line and another does not, smuggles.
    fn advance(&mut self, at: Chunk, byte: u8) -> Result<State, BodyError> {
        let next = match (at, byte) {
            (Chunk::Size(digits), _) if byte.is_ascii_hexdigit() => self.size_digit(digits, byte)?,
            (Chunk::Size(0), _) => return Err(BodyError::ChunkSize),
            (Chunk::Size(_) | Chunk::Extension(_), b'\r') => Chunk::SizeLf,
            (Chunk::Size(_), b';') => Chunk::Extension(1),
            (Chunk::Size(_), _) if is_ows(byte) => Chunk::Space(1),
            (Chunk::Size(_), _) => return Err(BodyError::ChunkSize),
            (Chunk::Space(len) | Chunk::Extension(len), _) if len >= MAX_CHUNK_EXTENSION => {
                return Err(BodyError::ExtensionTooLong);
            }
            (Chunk::Space(len), b';') => Chunk::Extension(len + 1),
            (Chunk::Space(len), _) if is_ows(byte) => Chunk::Space(len + 1),
            (Chunk::Extension(len), _) if is_field_byte(byte) => Chunk::Extension(len + 1),
            (Chunk::Space(_) | Chunk::Extension(_), _) => return Err(BodyError::ChunkExtension),
            (Chunk::SizeLf, b'\n') if self.left == 0 => Chunk::Trailer(0),
            (Chunk::SizeLf, b'\n') => {
                // What this chunk brings is within the budget, by the check of its last digit.
                self.budget = self.budget.saturating_sub(self.left);
                Chunk::Data
            }
            (Chunk::DataCr, b'\r') => Chunk::DataLf,
            (Chunk::DataLf, b'\n') => Chunk::Size(0),
            (Chunk::LastLf, b'\n') => return Ok(State::Ended),
            (Chunk::SizeLf | Chunk::Data | Chunk::DataCr | Chunk::DataLf | Chunk::LastLf, _) => {
                return Err(BodyError::ChunkEnd);
            }
            (
                Chunk::Trailer(len)
                | Chunk::TrailerName(len)
                | Chunk::TrailerValue(len)
                | Chunk::TrailerLf(len),
                _,
            ) => trailer(at, len, byte)?,
        };
        Ok(State::Chunk(next))
    }

    fn size_digit(&mut self, digits: u8, byte: u8) -> Result<Chunk, BodyError> {
        // Sixteen digits are 64 bits, so the size cannot overflow; nor can zeros go on for ever.
        if digits >= 16 {
            return Err(BodyError::ChunkSize);
        }
        let digit = (byte as char).to_digit(16).unwrap_or_default();
        let size = if digits == 0 { 0 } else { self.left << 4 } | u64::from(digit);
        if size > self.budget {
            return Err(BodyError::TooLong);
        }
        self.left = size;
        Ok(Chunk::Size(digits + 1))
    }
}

/// One byte of the trailers, by the same rules as the fields of a head.
fn trailer(at: Chunk, len: u16, byte: u8) -> Result<Chunk, BodyError> {
    // The empty line that ends them is not counted.
    if let (Chunk::Trailer(_), b'\r') = (at, byte) {
        return Ok(Chunk::LastLf);
    }
    if len >= MAX_TRAILERS {
        return Err(BodyError::TrailersTooLong);
    }
    match (at, byte) {
        (Chunk::Trailer(_) | Chunk::TrailerName(_), _) if is_tchar(byte) => Ok(Chunk::TrailerName(len + 1)),
        (Chunk::TrailerName(_), b':') => Ok(Chunk::TrailerValue(len + 1)),
        (Chunk::TrailerValue(_), b'\r') => Ok(Chunk::TrailerLf(len + 1)),
        (Chunk::TrailerValue(_), _) if is_field_byte(byte) => Ok(Chunk::TrailerValue(len + 1)),
        (Chunk::TrailerLf(_), b'\n') => Ok(Chunk::Trailer(len + 1)),
        _ => Err(BodyError::Trailers),
    }
}

/// Why a body cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum BodyError {
    /// The body is longer than `max_body`.
    TooLong,
    /// The connection ended before the body did.
    Truncated,
    /// A chunk's size is not one to sixteen hexadecimal digits.
    ChunkSize,
    /// A chunk's extension holds a control byte, or there is something else behind the size.
    ChunkExtension,
    /// A chunk's extensions are longer than [`MAX_CHUNK_EXTENSION`].
    ExtensionTooLong,
    /// No CRLF where a chunk's size line or data ends.
    ChunkEnd,
    /// Malformed trailers.
    Trailers,
    /// The trailers are longer than [`MAX_TRAILERS`].
    TrailersTooLong,
}

impl BodyError {
    /// The status that a server answers with.
    pub const fn status(self) -> u16 {
        match self {
            Self::TooLong => 413,
            Self::TrailersTooLong => 431,
            _ => 400,
        }
    }

    /// The rule or limit, in one line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooLong => "body longer than max_body",
            Self::Truncated => "connection ended within a body",
            Self::ChunkSize => "malformed chunk size",
            Self::ChunkExtension => "malformed chunk extension",
            Self::ExtensionTooLong => "chunk extension too long",
            Self::ChunkEnd => "chunk without CRLF",
            Self::Trailers => "malformed trailers",
            Self::TrailersTooLong => "trailers too long",
        }
    }
}

impl core::fmt::Display for BodyError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl core::error::Error for BodyError {}
