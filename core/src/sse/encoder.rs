//! What is written into an event stream.

use core::{fmt, iter, time::Duration};

use super::line_end;
use crate::buf::TxBuf;
use crate::time::millis;

/// What one writes into an event stream in one go: any of a comment, a retry time, and an event.
///
/// [`parts`](Self::parts) gives the encoded bytes, for whatever the sink is; [`encode`](Self::encode) writes them
/// into a [`TxBuf`]. Both refuse text that would break out of its field.
///
/// ```
/// use longwire_core::sse::Fields;
///
/// let event = Fields { id: Some("7"), ..Fields::event(b"73857293\n2") };
/// let mut body = Vec::new();
/// event.parts()?.for_each(|part| body.extend_from_slice(part));
/// assert_eq!(body, b"id: 7\ndata: 73857293\ndata: 2\n\n");
/// # Ok::<(), longwire_core::sse::EncodeError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fields<'a> {
    /// A comment: readers ignore it, so it serves as a heartbeat that keeps proxies from closing the connection.
    pub comment: Option<&'a str>,
    /// How long readers should wait before they reconnect, in whole milliseconds, at most `u32::MAX` of them.
    pub retry: Option<Duration>,
    /// What a reader resumes from once it has this event. Without data it is taken, too, but no event arrives.
    pub id: Option<&'a str>,
    /// The event's type. `None` and an empty one arrive as `message`.
    pub name: Option<&'a str>,
    /// The event's data. An event without data (which is not the same as empty data) does not arrive.
    ///
    /// It should be UTF-8; readers replace what is not. The stream can carry lines, but not how they ended: CR and
    /// CRLF arrive as LF.
    pub data: Option<&'a [u8]>,
}

impl<'a> Fields<'a> {
    /// Only a comment.
    pub fn comment(text: &'a str) -> Self {
        Self { comment: Some(text), ..Self::default() }
    }

    /// Only a time to wait before reconnecting.
    pub fn retry(wait: Duration) -> Self {
        Self { retry: Some(wait), ..Self::default() }
    }

    /// An event of type `message` without an id.
    pub fn event(data: &'a [u8]) -> Self {
        Self { data: Some(data), ..Self::default() }
    }

    /// The encoded bytes, piece by piece, without a copy of the data.
    ///
    /// # Errors
    /// [`EncodeError::Comment`], [`EncodeError::Id`] or [`EncodeError::Name`], before the first part.
    pub fn parts(&self) -> Result<impl Iterator<Item = &'a [u8]> + Clone + use<'a>, EncodeError> {
        let comment = one_line(self.comment, EncodeError::Comment)?;
        let id = one_line(self.id, EncodeError::Id)?;
        let name = one_line(self.name, EncodeError::Name)?;
        let event = id.is_some() || name.is_some() || self.data.is_some();

        let line = |field: &'a [u8], value: Option<&'a [u8]>| {
            value.into_iter().flat_map(move |value| [field, value, b"\n"])
        };
        let retry = self.retry.into_iter().flat_map(|wait| {
            let wait = u32::try_from(millis(wait)).unwrap_or(u32::MAX);
            iter::once(&b"retry: "[..]).chain(decimal(wait)).chain(iter::once(&b"\n"[..]))
        });
        let data = self.data.into_iter().flat_map(lines).flat_map(|text| [&b"data: "[..], text, b"\n"]);
        let end = event.then_some(&b"\n"[..]);
        Ok(line(b": ", comment)
            .chain(retry)
            .chain(line(b"id: ", id))
            .chain(line(b"event: ", name))
            .chain(data)
            .chain(end))
    }

    /// Appends all of it to what has to be sent, or nothing.
    ///
    /// # Errors
    /// As [`parts`](Self::parts), or [`EncodeError::Full`].
    pub fn encode(&self, tx: &mut TxBuf<'_>) -> Result<(), EncodeError> {
        let parts = self.parts()?;
        let len = parts.clone().fold(0usize, |len, part| len.saturating_add(part.len()));
        let mut space = tx.append(len).ok_or(EncodeError::Full)?;
        for part in parts {
            let Some((to, rest)) = space.split_at_mut_checked(part.len()) else { break };
            to.copy_from_slice(part);
            space = rest;
        }
        Ok(())
    }
}

/// A value that may stand in one line. NUL is refused as well: readers ignore an id that contains one.
fn one_line(value: Option<&str>, error: EncodeError) -> Result<Option<&[u8]>, EncodeError> {
    match value.map(str::as_bytes) {
        Some(value) if value.iter().any(|byte| matches!(*byte, b'\r' | b'\n' | 0)) => Err(error),
        value => Ok(value),
    }
}

/// The lines of a text, at least one, without their CR, LF or CRLF.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    let mut rest = Some(text);
    iter::from_fn(move || {
        let text = rest?;
        let Some((line, end)) = line_end(text).and_then(|at| text.split_at_checked(at)) else {
            return rest.take();
        };
        rest = end.strip_prefix(b"\r\n").or_else(|| end.get(1..));
        Some(line)
    })
}

/// A number in decimal, digit by digit.
fn decimal<'a>(number: u32) -> impl Iterator<Item = &'a [u8]> + Clone {
    let powers = iter::successors(Some(1_000_000_000u32), |power| Some(power / 10).filter(|next| *next > 0));
    powers.skip_while(move |power| *power > number && *power > 1).filter_map(move |power| {
        let digit = usize::try_from(number.checked_div(power)? % 10).ok()?;
        b"0123456789".get(digit..digit + 1)
    })
}

/// Why something cannot be written into an event stream. Nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum EncodeError {
    /// There is not room for all of it: send what is pending first.
    Full,
    /// The comment contains CR, LF or NUL.
    Comment,
    /// The id contains CR, LF or NUL.
    Id,
    /// The name contains CR, LF or NUL.
    Name,
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "no room in the send buffer",
            Self::Comment => "a comment must not contain CR, LF or NUL",
            Self::Id => "an event id must not contain CR, LF or NUL",
            Self::Name => "an event name must not contain CR, LF or NUL",
        })
    }
}

impl core::error::Error for EncodeError {}
