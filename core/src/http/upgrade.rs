//! The opening handshake of WebSocket (RFC 6455 section 4), for both roles.
//!
//! A server reads a head, [`accept`]s it, and answers with [`Upgrade::write_response`], or refuses it with
//! [`HandshakeError::write`]. A client writes a request with [`ClientUpgrade::write_request`], reads a head,
//! and [checks](ClientUpgrade::check) it. Frames that came in the same read as the head stay unread in the
//! buffer.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rand_core::CryptoRng;

use super::extension::{self, Extension};
use super::grammar::{ascii, is_host, is_token};
use super::view::{Headers, Request, Response, Version};
use super::write::{self, Field, WriteError, encode, refuse_reserved};
use crate::buf::TxBuf;

/// Subprotocols that a request may offer. One more is refused with status 400: each has to be compared with
/// each.
pub const MAX_SUBPROTOCOLS: usize = 32;

/// What `Sec-WebSocket-Accept` has to be for this `Sec-WebSocket-Key` (RFC 6455 section 4.2.2, step 5.4).
///
/// ```
/// use longwire_core::http::upgrade::accept_key;
///
/// assert_eq!(&accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
/// ```
pub fn accept_key(key: &[u8; 24]) -> [u8; 28] {
    const GUID: &[u8; 36] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let mut message = [0; 60];
    if let Some((front, back)) = message.split_first_chunk_mut()
        && let Some(back) = back.first_chunk_mut()
    {
        (*front, *back) = (*key, *GUID);
    }
    base64(&sha1(&message))
}

/// Not inlined, of an array, and by one `update` (`Sha1::from` hides from the optimiser how much was hashed):
/// so it sees that the library cannot panic.
#[inline(never)]
fn sha1(message: &[u8; 60]) -> [u8; 20] {
    let mut sha1 = sha1_smol::Sha1::new();
    sha1.update(message);
    sha1.digest().bytes()
}

/// The only call of its library, for the same reason: with a second length it would be compiled for slices.
#[inline(never)]
fn base64(bytes: &[u8; 20]) -> [u8; 28] {
    let mut text = [0; 28];
    // 20 bytes are 28 characters, so there is no error to handle.
    let _ = STANDARD.encode_slice(bytes, &mut text);
    text
}

/// Why a request is no opening handshake that a server can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum HandshakeError {
    /// The method is not `GET`.
    Method,
    /// HTTP/1.0, which has no upgrade.
    HttpVersion,
    /// The request has a body, whose bytes would be taken for frames.
    Body,
    /// `Upgrade` does not name `websocket`.
    Upgrade,
    /// `Connection` does not name `upgrade`.
    Connection,
    /// `Sec-WebSocket-Version` is missing, or there are several.
    VersionCount,
    /// A version other than 13.
    Version,
    /// `Sec-WebSocket-Key` is missing, or there are several.
    KeyCount,
    /// The key is not the base64 of 16 bytes.
    Key,
    /// A subprotocol is not a token or was offered twice, or there are more than [`MAX_SUBPROTOCOLS`].
    Subprotocols,
    /// `Sec-WebSocket-Extensions` is malformed.
    Extensions,
}

impl HandshakeError {
    /// The status that says so.
    pub const fn status(self) -> u16 {
        match self {
            Self::Method => 405,
            Self::Version => 426,
            _ => 400,
        }
    }

    /// The header fields that belong to the status: RFC 9110 section 15.5.6 for 405, RFC 6455 section 4.4 for
    /// 426.
    pub const fn fields(self) -> &'static [Field<'static>] {
        match self {
            Self::Method => &[("Allow", "GET")],
            Self::Version => &[(UPGRADE, "websocket"), (VERSION, "13")],
            Self::VersionCount => &[(VERSION, "13")],
            _ => &[],
        }
    }

    /// The rule, in one line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Method => "WebSocket handshake with a method other than GET",
            Self::HttpVersion => "WebSocket handshake in HTTP/1.0",
            Self::Body => "WebSocket handshake with a body",
            Self::Upgrade => "Upgrade does not name websocket",
            Self::Connection => "Connection does not name upgrade",
            Self::VersionCount => "Sec-WebSocket-Version is not there exactly once",
            Self::Version => "Sec-WebSocket-Version is not 13",
            Self::KeyCount => "Sec-WebSocket-Key is not there exactly once",
            Self::Key => "Sec-WebSocket-Key is not the base64 of 16 bytes",
            Self::Subprotocols => "malformed Sec-WebSocket-Protocol",
            Self::Extensions => "malformed Sec-WebSocket-Extensions",
        }
    }

    /// Writes the refusal. The connection has to be closed once it is sent.
    ///
    /// # Errors
    /// [`WriteError::Full`].
    pub fn write(self, tx: &mut TxBuf<'_>) -> Result<(), WriteError> {
        write::refusal(tx, self.status(), self.fields(), self.as_str())
    }
}

impl core::fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl core::error::Error for HandshakeError {}

/// Checks a client's opening handshake (RFC 6455 section 4.2.1).
///
/// Who may connect (`Origin`, credentials, the path) is for the caller to say, who has the request.
///
/// ```
/// use longwire_core::buf::{RxBuf, RxCursor, TxBuf, TxCursor};
/// use longwire_core::http::{head::{HeadReader, Limits, Step}, upgrade};
///
/// let (mut bytes, mut rx, mut out, mut tx) = ([0; 256], RxCursor::default(), [0; 256], TxCursor::default());
/// let (mut rx, mut tx) = (RxBuf::new(&mut bytes, &mut rx), TxBuf::new(&mut out, &mut tx));
/// rx.fill(b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
///     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
///     Sec-WebSocket-Protocol: chat, superchat\r\n\r\n");
/// let Step::Head(head) = HeadReader::default().poll_request(&mut rx, &Limits::DEFAULT)? else { panic!() };
/// match upgrade::accept(&head.view(rx.reborrow())) {
///     Ok(upgrade) => {
///         let chosen = upgrade.subprotocols().find(|name| *name == "superchat");
///         upgrade.write_response(&mut tx, chosen, None, &[])?;
///     }
///     Err(error) => error.write(&mut tx)?,
/// }
/// head.release(&mut rx); // what is unread now are frames
/// assert!(tx.pending().starts_with(b"HTTP/1.1 101 Switching Protocols\r\n"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`HandshakeError`] says which rule was broken, and what to answer.
pub fn accept<'b>(request: &Request<'b>) -> Result<Upgrade<'b>, HandshakeError> {
    use HandshakeError as E;
    let headers = request.headers();
    let require = |held: bool, error: E| if held { Ok(()) } else { Err(error) };
    require(request.method() == "GET", E::Method)?;
    // RFC 9110 section 7.8: an Upgrade in HTTP/1.0 must be ignored.
    require(request.version() == Version::Http11, E::HttpVersion)?;
    require(!headers.is_chunked() && headers.content_length().unwrap_or(0) == 0, E::Body)?;
    require(headers.has_token(UPGRADE, "websocket"), E::Upgrade)?;
    require(headers.has_token(CONNECTION, UPGRADE), E::Connection)?;
    // The version comes before the key, so that a client of another version hears of the version.
    let version = only(headers, VERSION).ok_or(E::VersionCount)?;
    require(version == b"13", E::Version)?;
    let key = only(headers, KEY).ok_or(E::KeyCount)?;
    let key = nonce(key).ok_or(E::Key)?;
    let upgrade = Upgrade { request: *request, key };
    require(headers.get(PROTOCOL).is_none() || is_offer(upgrade.subprotocols()), E::Subprotocols)?;
    require(headers.get_all(EXTENSIONS).all(is_extension_list), E::Extensions)?;
    Ok(upgrade)
}

// One text for what is written and what is looked for: a device holds each once.
const ACCEPT: &str = "Sec-WebSocket-Accept";
const CONNECTION: &str = "Connection";
const EXTENSIONS: &str = "Sec-WebSocket-Extensions";
const KEY: &str = "Sec-WebSocket-Key";
const PROTOCOL: &str = "Sec-WebSocket-Protocol";
const UPGRADE: &str = "Upgrade";
const VERSION: &str = "Sec-WebSocket-Version";

/// The fields of a request that its writer sets itself.
const OWN_OF_CLIENT: &[&str] = &[
    "Host",
    "Origin",
    CONNECTION,
    UPGRADE,
    "Content-Length",
    "Transfer-Encoding",
    ACCEPT,
    KEY,
    VERSION,
    PROTOCOL,
    EXTENSIONS,
];

/// The same of an answer: all but the first two.
const OWN: &[&str] = OWN_OF_CLIENT.split_at(2).1;

/// An opening handshake that a server can take.
#[derive(Clone, Copy, Debug)]
pub struct Upgrade<'b> {
    request: Request<'b>,
    key: [u8; 24],
}

impl<'b> Upgrade<'b> {
    /// The request, with its path, `Origin` and credentials.
    pub fn request(&self) -> &Request<'b> {
        &self.request
    }

    /// The key, for [`accept_key`].
    pub fn key(&self) -> &[u8; 24] {
        &self.key
    }

    /// The subprotocols that the client offers, in the order of its preference: tokens, none of them twice,
    /// at most [`MAX_SUBPROTOCOLS`].
    pub fn subprotocols(&self) -> impl Iterator<Item = &'b str> + Clone + use<'b> {
        self.request.headers().list(PROTOCOL).map(ascii)
    }

    /// The extensions that the client offers, in the order of its preference.
    pub fn extensions(&self) -> impl Iterator<Item = Extension<'b>> + Clone + use<'b> {
        extensions(self.request.headers())
    }

    /// Writes the answer that opens the connection (status 101), with further header fields.
    ///
    /// # Errors
    /// [`WriteError`], and nothing was written: also when the subprotocol or an extension was not offered,
    /// which would make the client fail the connection.
    pub fn write_response(
        &self,
        tx: &mut TxBuf<'_>,
        subprotocol: Option<&str>,
        extensions: Option<&str>,
        fields: &[Field<'_>],
    ) -> Result<(), WriteError> {
        refuse_reserved(fields, OWN)?;
        if subprotocol.is_some_and(|chosen| !self.subprotocols().any(|offered| offered == chosen)) {
            return Err(WriteError::Subprotocol);
        }
        if extensions.is_some_and(|agreed| !is_agreed(agreed.as_bytes(), self.extensions())) {
            return Err(WriteError::Extension);
        }
        let accept = accept_key(&self.key);
        encode(tx, |out| {
            out.status_line(101)?;
            out.field(UPGRADE, "websocket")?;
            out.field(CONNECTION, UPGRADE)?;
            out.field_of_bytes(ACCEPT, &accept)?;
            if let Some(subprotocol) = subprotocol {
                out.field(PROTOCOL, subprotocol)?;
            }
            if let Some(extensions) = extensions {
                out.field(EXTENSIONS, extensions)?;
            }
            out.fields(fields)?;
            out.end();
            Ok(())
        })
    }
}

/// What a client asks for.
#[derive(Clone, Copy, Debug)]
pub struct Offer<'a> {
    /// The host, with its port unless that is the scheme's own: `example.org:8080`.
    pub host: &'a str,
    /// Path and query: `/v1/stream?topic=a`.
    pub target: &'a str,
    /// The origin, which browsers send and others need not.
    pub origin: Option<&'a str>,
    /// Subprotocols, in the order of preference: tokens, none of them twice.
    pub subprotocols: &'a [&'a str],
    /// Extensions, as they stand in the header. Without the feature `deflate` none can be offered: that is
    /// [`WriteError::Extension`].
    pub extensions: Option<&'a str>,
    /// Further header fields, such as `Authorization`.
    pub fields: &'a [Field<'a>],
}

impl<'a> Offer<'a> {
    /// Asks for nothing but a connection.
    pub const fn new(host: &'a str, target: &'a str) -> Self {
        Self { host, target, origin: None, subprotocols: &[], extensions: None, fields: &[] }
    }
}

/// A client's opening handshake (RFC 6455 section 4.1). It holds the key, 24 bytes.
///
/// ```
/// use longwire_core::buf::{TxBuf, TxCursor};
/// use longwire_core::http::upgrade::{ClientUpgrade, Offer};
///
/// let upgrade = ClientUpgrade::with_nonce(*b"the sample nonce"); // otherwise: ClientUpgrade::new(&mut rng)
/// let offer = Offer { subprotocols: &["chat"], ..Offer::new("example.org", "/") };
/// let (mut bytes, mut cursor) = ([0; 256], TxCursor::default());
/// let mut tx = TxBuf::new(&mut bytes, &mut cursor);
/// upgrade.write_request(&mut tx, &offer)?;
/// assert!(tx.pending().starts_with(b"GET / HTTP/1.1\r\nHost: example.org\r\n"));
/// // Send it, read a head with `HeadReader::poll_response`, and then: upgrade.check(&offer, &head.view(rx))?
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct ClientUpgrade {
    key: [u8; 24],
}

const _: () = assert!(size_of::<ClientUpgrade>() <= 24);

impl ClientUpgrade {
    /// Draws a key.
    pub fn new(rng: &mut impl CryptoRng) -> Self {
        let mut nonce = [0; 16];
        rng.fill_bytes(&mut nonce);
        Self::with_nonce(nonce)
    }

    /// Makes the key of these bytes, which must be random and never used before.
    pub fn with_nonce(nonce: [u8; 16]) -> Self {
        // Zeros behind the 16 bytes leave their 22 characters as they are.
        let mut padded = [0; 20];
        if let Some(front) = padded.first_chunk_mut() {
            *front = nonce;
        }
        let [mut key @ .., _, _, _, _] = base64(&padded);
        let [.., a, b] = &mut key;
        (*a, *b) = (b'=', b'=');
        Self { key }
    }

    /// Writes the request.
    ///
    /// # Errors
    /// [`WriteError`], and nothing was written.
    pub fn write_request(&self, tx: &mut TxBuf<'_>, offer: &Offer<'_>) -> Result<(), WriteError> {
        refuse_reserved(offer.fields, OWN_OF_CLIENT)?;
        if offer.host.is_empty() || !is_host(offer.host.as_bytes()) {
            return Err(WriteError::Value);
        }
        if !offer.target.starts_with('/') {
            return Err(WriteError::Target);
        }
        let subprotocols = offer.subprotocols.iter();
        if !offer.subprotocols.is_empty() && !is_offer(subprotocols.clone().copied()) {
            return Err(WriteError::Subprotocol);
        }
        if offer.extensions.is_some_and(|offered| !is_offer_of_extensions(offered.as_bytes())) {
            return Err(WriteError::Extension);
        }
        encode(tx, |out| {
            out.request_line("GET", offer.target)?;
            out.field("Host", offer.host)?;
            out.field(UPGRADE, "websocket")?;
            out.field(CONNECTION, UPGRADE)?;
            out.field_of_bytes(KEY, &self.key)?;
            out.field(VERSION, "13")?;
            if let Some(origin) = offer.origin {
                out.field("Origin", origin)?;
            }
            // In one field: several are allowed, but some servers read only the first.
            for (n, name) in subprotocols.clone().enumerate() {
                if n == 0 {
                    out.push(PROTOCOL.as_bytes());
                }
                out.push(if n == 0 { b": " } else { b", " });
                out.push(name.as_bytes());
            }
            if !offer.subprotocols.is_empty() {
                out.push(b"\r\n");
            }
            if let Some(extensions) = offer.extensions {
                out.field(EXTENSIONS, extensions)?;
            }
            out.fields(offer.fields)?;
            out.end();
            Ok(())
        })
    }

    /// Checks the server's answer against what was offered (RFC 6455 section 4.1, the last six steps).
    ///
    /// # Errors
    /// [`ResponseError::Status`] when the server refuses: then the response has more to say
    /// ([`Response::retry_after`], its body by [`Framing::of_response`](super::body::Framing::of_response)).
    /// Any other error means that the connection must be closed.
    pub fn check<'b>(&self, offer: &Offer<'b>, response: &Response<'b>) -> Result<Agreed<'b>, ResponseError> {
        use ResponseError as E;
        let headers = response.headers();
        let require = |held: bool, error: E| if held { Ok(()) } else { Err(error) };
        require(response.status() == 101, E::Status(response.status()))?;
        require(response.version() == Version::Http11, E::HttpVersion)?;
        let upgrade = only(headers, UPGRADE).unwrap_or_default();
        require(upgrade.eq_ignore_ascii_case(b"websocket"), E::Upgrade)?;
        require(headers.has_token(CONNECTION, UPGRADE), E::Connection)?;
        let accept = only(headers, ACCEPT).unwrap_or_default();
        require(accept == accept_key(&self.key), E::Accept)?;

        let offered =
            |chosen: &[u8]| offer.subprotocols.iter().copied().find(|name| name.as_bytes() == chosen);
        let subprotocol = match headers.get_only(PROTOCOL).map_err(|_| E::Subprotocol)? {
            Some(chosen) => Some(offered(chosen).ok_or(E::Subprotocol)?),
            None => None,
        };
        // RFC 6455 section 11.3.2: at most once in a response.
        let agreed = headers.get_only(EXTENSIONS).map_err(|_| E::Extensions)?;
        let offered = offer.extensions.unwrap_or_default().as_bytes();
        require(agreed.is_none_or(|agreed| is_agreed_of(agreed, offered)), E::Extensions)?;
        Ok(Agreed { subprotocol, headers })
    }
}

/// What client and server agreed on.
#[derive(Clone, Copy, Debug)]
pub struct Agreed<'b> {
    subprotocol: Option<&'b str>,
    headers: Headers<'b>,
}

impl<'b> Agreed<'b> {
    /// The subprotocol that the server chose, one of those offered.
    pub fn subprotocol(&self) -> Option<&'b str> {
        self.subprotocol
    }

    /// The extensions that the server takes. Each was offered; whether its parameters are acceptable is for
    /// the extension to say.
    pub fn extensions(&self) -> impl Iterator<Item = Extension<'b>> + Clone + use<'b> {
        extensions(self.headers)
    }
}

/// Why a server's answer does not open the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum ResponseError {
    /// The server refused, with this status.
    Status(u16),
    /// The answer is not HTTP/1.1.
    HttpVersion,
    /// `Upgrade` is not `websocket`.
    Upgrade,
    /// `Connection` does not name `upgrade`.
    Connection,
    /// `Sec-WebSocket-Accept` is missing, repeated, or does not fit the key.
    Accept,
    /// A subprotocol that was not offered, or several.
    Subprotocol,
    /// An extension that was not offered, or a malformed or repeated header.
    Extensions,
}

impl ResponseError {
    /// The rule, in one line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Status(_) => "server refused the WebSocket handshake",
            Self::HttpVersion => "WebSocket handshake in HTTP/1.0",
            Self::Upgrade => "Upgrade is not websocket",
            Self::Connection => "Connection does not name upgrade",
            Self::Accept => "Sec-WebSocket-Accept does not fit the key",
            Self::Subprotocol => "server chose a subprotocol that was not offered",
            Self::Extensions => "server chose an extension that was not offered",
        }
    }
}

impl core::fmt::Display for ResponseError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Status(status) => write!(f, "{} with status {status}", self.as_str()),
            _ => f.write_str(self.as_str()),
        }
    }
}

impl core::error::Error for ResponseError {}

/// The value of a field that has to be there once.
fn only<'b>(headers: Headers<'b>, name: &str) -> Option<&'b [u8]> {
    headers.get_only(name).ok().flatten()
}

/// The base64 of 16 bytes, in its one canonical form: 22 characters, of which the last carries two bits, and
/// `==`.
fn nonce(key: &[u8]) -> Option<[u8; 24]> {
    let key: [u8; 24] = key.try_into().ok()?;
    let [digits @ .., last, b'=', b'='] = &key else { return None };
    let canonical = digits.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'));
    (canonical && matches!(last, b'A' | b'Q' | b'g' | b'w')).then_some(key)
}

/// RFC 6455 section 4.1, step 10: one or more tokens, all different.
fn is_offer<'n>(names: impl Iterator<Item = &'n str> + Clone) -> bool {
    let mut rest = names.clone();
    let mut count = 0;
    while let Some(name) = rest.next() {
        count += 1;
        if count > MAX_SUBPROTOCOLS
            || !is_token(name.as_bytes())
            || rest.clone().take(MAX_SUBPROTOCOLS).any(|n| n == name)
        {
            return false;
        }
    }
    count > 0
}

/// Whether a client can offer this: nothing, without the feature `deflate`, and so it has no parser for the list.
fn is_offer_of_extensions(offered: &[u8]) -> bool {
    cfg!(feature = "deflate") && is_extension_list(offered)
}

/// Whether what a client is answered was offered, as it stands in the two headers. Nothing was, without the feature.
fn is_agreed_of(agreed: &[u8], offered: &[u8]) -> bool {
    cfg!(feature = "deflate") && is_agreed(agreed, extension::parse(offered).flatten())
}

/// Whether a header's value holds extensions, at least one, by the grammar.
fn is_extension_list(value: &[u8]) -> bool {
    let mut found = extension::parse(value);
    found.next().is_some_and(|first| first.is_ok()) && found.all(|extension| extension.is_ok())
}

/// Whether the agreed extensions are well formed and each was offered.
fn is_agreed<'o>(agreed: &[u8], offered: impl Iterator<Item = Extension<'o>> + Clone) -> bool {
    is_extension_list(agreed)
        && extension::parse(agreed).flatten().all(|agreed| offered.clone().any(|o| o.name() == agreed.name()))
}

/// Extensions from all the fields, which were found to be well formed.
fn extensions<'b>(headers: Headers<'b>) -> impl Iterator<Item = Extension<'b>> + Clone + use<'b> {
    headers.get_all(EXTENSIONS).flat_map(extension::parse).flatten()
}
