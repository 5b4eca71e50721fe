//! HTTP, as far as the lower rungs of the ladder need it: requests, and answers of any framing.

use core::time::Duration;

use heapless::{String, Vec};
use longwire_core::digits::push_decimal;
use longwire_core::http::body::{BodyReader, BodyStep, Framing};
use longwire_core::http::view::Response;
use longwire_core::http::write::{self, Field, WriteError};
#[cfg(feature = "ladder")]
use longwire_core::log::Cursor;
use longwire_core::session::ladder::Ending;
use longwire_core::session::{Refusal, json};

use super::{Gateway, Lost};
use crate::buffered::{Buffered, Input};
use crate::error::{Error, HandshakeError};
use crate::link::Link;

/// Bytes of the longest path and query.
pub(super) const MAX_URL: usize = 512;

/// A path and query.
pub(super) type Url = String<MAX_URL>;

/// What is of interest in the head of an answer.
pub(super) struct Head {
    pub(super) status: u16,
    pub(super) retry_after: Option<u64>,
    pub(super) framing: Framing,
    pub(super) keeps_alive: bool,
    pub(super) is_event_stream: bool,
    /// `Longwire-Repeated`: what was posted had been published before.
    pub(super) repeated: bool,
    /// `Longwire-Next`.
    #[cfg(feature = "ladder")]
    pub(super) next: Option<Cursor>,
}

impl Head {
    #[cfg_attr(target_os = "none", inline(never))]
    fn of(response: &Response<'_>, method: &str) -> Self {
        let headers = response.headers();
        // Parameters come behind a semicolon.
        let media = headers.get("content-type").and_then(|kind| kind.split(|byte| *byte == b';').next());
        Self {
            status: response.status(),
            retry_after: response.retry_after(),
            framing: Framing::of_response(response, method),
            keeps_alive: response.keeps_alive(),
            is_event_stream: media
                .is_some_and(|media| media.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")),
            repeated: headers.get("longwire-repeated") == Some(b"true"),
            #[cfg(feature = "ladder")]
            next: headers.get_str("longwire-next").and_then(|next| Cursor::parse(next).ok()),
        }
    }
}

/// Queues a request, whole or not at all, where nothing else is queued.
pub(super) fn queue<L: Link>(
    stream: &mut Buffered<'_, L>,
    (method, url): (&str, &str),
    gateway: &Gateway<'_>,
    authorization: Option<&str>,
    more: &[Field<'_>],
    body: Option<&[u8]>,
) -> Result<(), WriteError> {
    // It is borrowed by the other.
    let mut length = String::<20>::new();
    let mut fields = Vec::<Field<'_>, 6>::new();
    push_decimal(&mut length, body.unwrap_or_default().len() as u64);
    let _ = fields.push(("Host", gateway.host));
    if let Some(value) = authorization {
        let _ = fields.push(("Authorization", value));
    }
    fields.extend_from_slice(more).map_err(|_| WriteError::Full)?;
    if body.is_some() {
        fields.push(("Content-Length", &length)).map_err(|_| WriteError::Full)?;
    }
    let mut tx = stream.tx();
    write::request(&mut tx, method, url, &fields)?;
    if tx.put(&[body.unwrap_or_default()]) {
        return Ok(());
    }
    // A head without its body: takes it back.
    stream.clear_tx();
    Err(WriteError::Full)
}

/// Sends what is queued, and reads the head of the answer.
pub(super) async fn answer<L: Link>(stream: &mut Buffered<'_, L>, method: &str) -> Result<Head, Lost> {
    let head = async {
        stream.flush().await?;
        stream.head().await
    };
    let head = head.await.map_err(|error| Lost::Handshake(error.without_link()))?;
    let what = Head::of(&head.view(stream.rx()), method);
    head.release(&mut stream.rx());
    Ok(what)
}

/// What to do about a body that does not fit the receive buffer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum TooLarge {
    /// Fail at once: the connection cannot be used any more.
    Fail,
    /// Read on to its end.
    #[cfg(feature = "ladder")]
    PassOver,
}

/// Reads a body whole: then it is what the receive buffer [keeps](longwire_core::buf::RxBuf::kept), until that is released. False
/// when it was passed over.
pub(super) async fn body<L: Link>(
    stream: &mut Buffered<'_, L>,
    framing: Framing,
    too_large: TooLarge,
) -> Result<bool, Lost> {
    let broken = Lost::Handshake(HandshakeError::Ended);
    let mut reader = BodyReader::new(framing, u64::MAX).map_err(|_| broken)?;
    let mut fits = true;
    loop {
        match reader.poll(&mut stream.rx()).map_err(|_| broken)? {
            BodyStep::Data if fits => reader.keep(&mut stream.rx()),
            BodyStep::Data => {}
            BodyStep::End => return Ok(fits),
            BodyStep::NeedSpace if too_large == TooLarge::Fail => {
                return Err(Lost::Broken(Error::MessageTooBig));
            }
            BodyStep::NeedSpace => {
                fits = false;
                release(stream);
            }
            BodyStep::NeedInput => match stream.read(None).await {
                Ok(Input::End) => return reader.handle_eof().map(|()| fits).map_err(|_| broken),
                Ok(Input::Bytes | Input::Deadline) => {}
                Err(error) => return Err(Lost::Broken(error.without_link())),
            },
        }
    }
}

/// Forgets the body that was read.
pub(super) fn release<L: Link>(stream: &mut Buffered<'_, L>) {
    let mut rx = stream.rx();
    let kept = rx.kept().len();
    rx.release(kept);
}

/// Why an answer other than the one that was hoped for was given: reads its body.
pub(super) async fn refused<L: Link>(stream: &mut Buffered<'_, L>, head: &Head) -> Lost {
    lost(head, said(stream, head.framing, head.retry_after).await)
}

/// What a gateway's own refusal says about coming back; `None` when the body is none.
pub(crate) async fn said<L: Link>(
    stream: &mut Buffered<'_, L>,
    framing: Framing,
    retry_after: Option<u64>,
) -> Option<Ending> {
    // What is too long to be read is no gateway's.
    body(stream, framing, TooLarge::Fail).await.ok()?;
    refusal(stream.rx().kept(), retry_after).map(|refusal| Ending::from_refusal(&refusal, None))
}

/// A gateway's refusal. Where its body does not say when to come back, the head may.
pub(super) fn refusal(body: &[u8], retry_after: Option<u64>) -> Option<Refusal<'_>> {
    let mut refusal = json::decode_refusal(body).ok()?;
    if refusal.retry_after.is_none() {
        refusal.retry_after = retry_after.map(Duration::from_secs);
    }
    Some(refusal)
}

/// The end by an answer, with what a gateway's refusal says in it; `None` when it is not a gateway's.
pub(super) fn lost(head: &Head, said: Option<Ending>) -> Lost {
    let Head { status, retry_after, .. } = *head;
    let retry_after = retry_after.map(|seconds| u32::try_from(seconds).unwrap_or(u32::MAX));
    Lost::Handshake(HandshakeError::Refused { status, retry_after, said })
}

/// Appends a text in a path or a query: what is not unreserved is percent-encoded (RFC 3986 section 2.1), but for slashes.
/// `None` when there is no room.
pub(super) fn push_encoded(url: &mut Url, text: &str) -> Option<()> {
    let digit = |nibble: u8| char::from(if nibble < 10 { b'0' + nibble } else { b'A' + (nibble - 10) });
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            url.push(byte.into()).ok()?;
        } else {
            url.push('%').ok()?;
            url.push(digit(byte >> 4)).ok()?;
            url.push(digit(byte & 0xf)).ok()?;
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_3986_section_2_1_what_is_not_unreserved_is_encoded() {
        for (text, encoded) in
            [("fleet/7/cpu", "fleet/7/cpu"), ("a b", "a%20b"), ("**", "%2A%2A"), ("ü?&#", "%C3%BC%3F%26%23")]
        {
            let mut url = Url::new();
            push_encoded(&mut url, text).unwrap();
            assert_eq!(url, encoded);
        }
        assert_eq!(push_encoded(&mut Url::new(), &"*".repeat(MAX_URL / 3 + 1)), None);
    }
}
