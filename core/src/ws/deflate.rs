//! permessage-deflate (RFC 7692): what two ends agree on, and the codecs that a caller lends.
//!
//! The rules are here and in the [`Connection`](super::Connection): who may set RSV1 and where, when a message
//! ends, how large it may become. What turns bytes into fewer bytes is lent: an [`Inflate`] through
//! [`Io::with_inflate`](crate::buf::Io::with_inflate), a [`Deflate`] to
//! [`Connection::send_deflated`](super::Connection::send_deflated).
//!
//! ```
//! use longwire_core::http::extension;
//! use longwire_core::ws::deflate::{Config, Window};
//!
//! // A server that keeps no window between messages.
//! let offers = extension::parse(b"permessage-deflate; client_max_window_bits");
//! let (agreed, answer) = Config::new().accept(offers.flatten()).unwrap();
//! assert_eq!(answer, "permessage-deflate; server_no_context_takeover; client_no_context_takeover");
//! assert_eq!(agreed.server, Window { bits: 15, takeover: false });
//! ```

use crate::digits::push_decimal;
use crate::http::extension::{Extension, Value};

/// The extension's name.
pub const NAME: &str = "permessage-deflate";

/// The bytes that a sender leaves out at the end of each message, and a receiver puts back (RFC 7692 sections
/// 7.2.1 and 7.2.2): the length of an empty stored block.
pub const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// The largest window: 2^15 bytes.
pub const MAX_BITS: u8 = 15;

/// An offer or an answer as it stands in `Sec-WebSocket-Extensions`.
pub type ExtensionText = heapless::String<128>;

/// How the messages of one direction are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Window {
    /// How far back a message may refer, as the logarithm of bytes: 8 (256 bytes) to 15 (32 KiB).
    pub bits: u8,
    /// Whether a message may refer to the messages before it ("context takeover"). Then both ends keep the
    /// window while the connection is idle.
    pub takeover: bool,
}

/// What both ends agreed on, for the life of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Agreed {
    /// What the server sends.
    pub server: Window,
    /// What the client sends.
    pub client: Window,
}

/// What an end wants of compression. The default wants the largest windows, and none to be kept between messages:
/// an idle connection holds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// At most this for what this end sends. Default: 15 bits, no takeover.
    pub send: Window,
    /// At most this for what this end has to inflate. Default: 15 bits, no takeover. A client that wants fewer
    /// bits than a server grants fails the handshake; a server then declines, so the connection opens without
    /// compression.
    pub receive: Window,
}

impl Config {
    /// The defaults, as a constant.
    pub const fn new() -> Self {
        let window = Window { bits: MAX_BITS, takeover: false };
        Self { send: window, receive: window }
    }

    /// What a client offers (RFC 7692 section 7.1), for
    /// [`Offer::extensions`](crate::http::upgrade::Offer::extensions). Bits out of range count as the nearest
    /// that the RFC allows.
    pub fn offer(&self) -> ExtensionText {
        let params = Params {
            server_no_context_takeover: !self.receive.takeover,
            client_no_context_takeover: !self.send.takeover,
            server_max_window_bits: Some(self.receive.bits()).filter(|bits| *bits < MAX_BITS),
            // Without a value: the server may choose one.
            client_max_window_bits: Some(Some(self.send.bits()).filter(|bits| *bits < MAX_BITS)),
        };
        params.write()
    }

    /// What a server takes of a client's offers (RFC 7692 section 5.1): the first one that it can, and what it
    /// answers. `None`: go on without compression. An offer with a parameter that is unknown, repeated or
    /// malformed is passed over, as section 7.1 demands.
    pub fn accept<'o>(
        &self,
        offers: impl IntoIterator<Item = Extension<'o>>,
    ) -> Option<(Agreed, ExtensionText)> {
        let mut offers = offers.into_iter().filter(|offer| offer.name() == NAME);
        offers.find_map(|offer| self.accept_one(Params::parse(&offer)?))
    }

    fn accept_one(&self, offer: Params) -> Option<(Agreed, ExtensionText)> {
        // RFC 7692 7.1.2.2: without `client_max_window_bits` in the offer, the answer must not have it.
        let client_bits = match offer.client_max_window_bits {
            Some(most) => most.unwrap_or(MAX_BITS).min(self.receive.bits()),
            None if self.receive.bits() < MAX_BITS => return None,
            None => MAX_BITS,
        };
        let agreed = Agreed {
            server: Window {
                bits: offer.server_max_window_bits.unwrap_or(MAX_BITS).min(self.send.bits()),
                takeover: self.send.takeover && !offer.server_no_context_takeover,
            },
            client: Window {
                bits: client_bits,
                // The client says that it will not; holding it to that frees the window.
                takeover: self.receive.takeover && !offer.client_no_context_takeover,
            },
        };
        let answer = Params {
            server_no_context_takeover: !agreed.server.takeover,
            client_no_context_takeover: !agreed.client.takeover,
            // 7.1.2.1: a limit that was offered is accepted by repeating it or a smaller one.
            server_max_window_bits: Some(agreed.server.bits)
                .filter(|bits| *bits < MAX_BITS || offer.server_max_window_bits.is_some()),
            client_max_window_bits: Some(agreed.client.bits).filter(|bits| *bits < MAX_BITS).map(Some),
        };
        Some((agreed, answer.write()))
    }

    /// What a client makes of the server's answer to [`offer`](Self::offer), after
    /// [`ClientUpgrade::check`](crate::http::upgrade::ClientUpgrade::check). `Ok(None)`: go on without
    /// compression.
    ///
    /// # Errors
    /// [`BadAnswer`]: the connection must be failed (RFC 7692 section 7.1).
    pub fn check<'o>(
        &self,
        answer: impl IntoIterator<Item = Extension<'o>>,
    ) -> Result<Option<Agreed>, BadAnswer> {
        let mut answers = answer.into_iter().filter(|extension| extension.name() == NAME);
        let Some(answer) = answers.next() else { return Ok(None) };
        if answers.next().is_some() {
            return Err(BadAnswer);
        }
        let answer = Params::parse(&answer).ok_or(BadAnswer)?;
        let client_bits = match answer.client_max_window_bits {
            // 7.1.2.2: more than was offered is no fault, this end sends with no larger window all the same.
            Some(Some(bits)) => bits.min(self.send.bits()),
            // And in an answer it has a value.
            Some(None) => return Err(BadAnswer),
            None => self.send.bits(),
        };
        let agreed = Agreed {
            server: Window {
                bits: answer.server_max_window_bits.unwrap_or(MAX_BITS),
                takeover: !answer.server_no_context_takeover,
            },
            client: Window {
                bits: client_bits,
                takeover: self.send.takeover && !answer.client_no_context_takeover,
            },
        };
        // What was offered as a limit is one: this end has no memory for more.
        let within =
            agreed.server.bits <= self.receive.bits() && (self.receive.takeover || !agreed.server.takeover);
        if within { Ok(Some(agreed)) } else { Err(BadAnswer) }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::new()
    }
}

impl Window {
    fn bits(self) -> u8 {
        self.bits.clamp(8, MAX_BITS)
    }
}

/// The server's answer is not one that a client may take (RFC 7692 section 7.1): a parameter that is unknown,
/// repeated or malformed, or that goes beyond what was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct BadAnswer;

impl core::fmt::Display for BadAnswer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("server answered permessage-deflate with parameters that were not offered")
    }
}

impl core::error::Error for BadAnswer {}

/// The four parameters of RFC 7692 section 7.1.
#[derive(Clone, Copy, Debug, Default)]
struct Params {
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    server_max_window_bits: Option<u8>,
    /// In an offer it may come without a value.
    client_max_window_bits: Option<Option<u8>>,
}

impl Params {
    fn parse(extension: &Extension<'_>) -> Option<Self> {
        let mut params = Self::default();
        for (name, value) in extension.params() {
            let flag = |seen: &mut bool| (value.is_none() && !core::mem::replace(seen, true)).then_some(());
            match name {
                "server_no_context_takeover" => flag(&mut params.server_no_context_takeover)?,
                "client_no_context_takeover" => flag(&mut params.client_no_context_takeover)?,
                "server_max_window_bits" if params.server_max_window_bits.is_none() => {
                    params.server_max_window_bits = Some(window_bits(value?)?);
                }
                "client_max_window_bits" if params.client_max_window_bits.is_none() => {
                    params.client_max_window_bits = Some(match value {
                        Some(value) => Some(window_bits(value)?),
                        None => None,
                    });
                }
                _ => return None,
            }
        }
        Some(params)
    }

    /// All of them together are 128 bytes, so they always fit.
    fn write(&self) -> ExtensionText {
        let mut text = ExtensionText::new();
        let _ = text.push_str(NAME);
        if self.server_no_context_takeover {
            let _ = text.push_str("; server_no_context_takeover");
        }
        if self.client_no_context_takeover {
            let _ = text.push_str("; client_no_context_takeover");
        }
        if let Some(bits) = self.server_max_window_bits {
            let _ = text.push_str("; server_max_window_bits=");
            push_decimal(&mut text, bits.into());
        }
        match self.client_max_window_bits {
            Some(Some(bits)) => {
                let _ = text.push_str("; client_max_window_bits=");
                push_decimal(&mut text, bits.into());
            }
            Some(None) => _ = text.push_str("; client_max_window_bits"),
            None => {}
        }
        text
    }
}

/// RFC 7692 7.1.2: "a decimal integer value without leading zeroes between 8 to 15, inclusive".
fn window_bits(value: Value<'_>) -> Option<u8> {
    let bits = u8::try_from(value.number()?).ok()?;
    (8..=MAX_BITS).contains(&bits).then_some(bits)
}

/// A decompressor of raw DEFLATE (RFC 1951), lent to a [`Connection`](super::Connection) for a call. It belongs to
/// one connection while a message is being received, and, with context takeover, between messages.
pub trait Inflate {
    /// Inflates from `input` into `output`: until all of `input` is consumed and all that came of it is written,
    /// or until `output` is full. With an empty `input` it goes on with what it still holds.
    ///
    /// After a block with BFINAL further blocks may follow (RFC 7692 section 7.2.3.4), which refer to nothing
    /// before them. Work must be linear in the bytes consumed and written.
    ///
    /// # Errors
    /// [`Corrupt`]: the connection fails with 1007.
    fn inflate(&mut self, input: &[u8], output: &mut [u8]) -> Result<Inflated, Corrupt>;

    /// The message is complete. What comes next begins another one, which refers to this one if the `window` is
    /// taken over; otherwise everything can be given back.
    fn end_message(&mut self, window: Window);
}

/// How far a call of [`Inflate::inflate`] came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inflated {
    /// Bytes of the input that were consumed.
    pub read: usize,
    /// Bytes of the output that were written.
    pub written: usize,
}

/// Compressed data that is not DEFLATE, or refers to what is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Corrupt;

impl core::fmt::Display for Corrupt {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("compressed data is malformed")
    }
}

impl core::error::Error for Corrupt {}

/// A compressor of raw DEFLATE (RFC 1951), lent to [`Connection::send_deflated`](super::Connection::send_deflated).
/// With context takeover it belongs to one connection.
pub trait Deflate {
    /// Compresses a whole message into `output`, and says how many bytes it takes there, without the
    /// [`TAIL`] (RFC 7692 section 7.2.1). It refers back no further than `window` allows, and to earlier
    /// messages only if that is taken over.
    ///
    /// `None`: it does not fit, or this compressor cannot keep to such a window. Then the message goes out as it
    /// is, and the compressor must not refer to it or to anything before it later on.
    fn deflate_message(&mut self, window: Window, input: &[u8], output: &mut [u8]) -> Option<usize>;
}
