//! Server-Sent Events, both directions (WHATWG HTML section 9.2).
//!
//! [`Decoder`] reads an event stream in a lent buffer; [`Fields`] is what one writes into such a stream.
//!
//! A runtime polls, and reads from its socket when there is nothing to be found in what it has:
//!
//! ```
//! use longwire_core::buf::{RxBuf, RxCursor};
//! use longwire_core::sse::{Decoder, SseError, SseEvent, Step};
//!
//! struct Client<S> {
//!     stream: S,
//!     decoder: Decoder,
//!     bytes: [u8; 256],
//!     cursor: RxCursor,
//! }
//!
//! impl<S: std::io::Read> Client<S> {
//!     /// The next event; `None` at the end of the stream.
//!     fn recv(&mut self) -> Result<Option<SseEvent<'_>>, Box<dyn std::error::Error>> {
//!         loop {
//!             let mut rx = RxBuf::new(&mut self.bytes, &mut self.cursor);
//!             match self.decoder.poll(&mut rx)? {
//!                 Step::Event => break,
//!                 Step::NeedInput => match self.stream.read(rx.spare_mut())? {
//!                     0 => return Ok(None),
//!                     n => rx.commit(n),
//!                 },
//!                 Step::NeedSpace => return Err("an event is larger than the buffer".into()),
//!             }
//!         }
//!         Ok(Some(self.decoder.event(RxBuf::new(&mut self.bytes, &mut self.cursor))))
//!     }
//! }
//!
//! let stream = &b": hello\n\nid: 7\nevent: add\ndata: 73857293\ndata: 2\n\ndata: cut off"[..];
//! let mut client =
//!     Client { stream, decoder: Decoder::default(), bytes: [0; 256], cursor: RxCursor::default() };
//! let event = client.recv()?.unwrap();
//! assert_eq!((event.name, event.data, event.id), (&b"add"[..], &b"73857293\n2"[..], &b"7"[..]));
//! assert!(client.recv()?.is_none());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod decoder;
mod encoder;

use crate::work;

pub use decoder::{DEFAULT_MAX_EVENT, Decoder, SseError, SseEvent, Step};
pub use encoder::{EncodeError, Fields};

const LF: u8 = b'\n';
const CR: u8 = b'\r';

/// Where the first line ends: at a CR or an LF.
fn line_end(bytes: &[u8]) -> Option<usize> {
    let mut rest = bytes;
    // Whole blocks without an end first.
    while let Some((block, next)) = rest.split_first_chunk::<32>()
        && !has_end(block)
    {
        rest = next;
    }
    let end = rest.iter().position(is_end).map(|at| bytes.len() - rest.len() + at);
    work::count(end.unwrap_or(bytes.len()));
    end
}

fn is_end(byte: &u8) -> bool {
    matches!(*byte, CR | LF)
}

/// The compiler makes vector instructions of a fold that has no early way out; and as it is not inlined, whatever the
/// code around it is.
#[inline(never)]
fn has_end(block: &[u8; 32]) -> bool {
    block.iter().fold(false, |hit, byte| hit | is_end(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_ends_at_the_first_cr_or_lf_wherever_it_lies() {
        for len in 0..100 {
            let mut bytes = std::vec![b'x'; len];
            assert_eq!(line_end(&bytes), None);
            for at in (0..len).rev() {
                bytes[at] = if at % 2 == 0 { CR } else { LF };
                assert_eq!(line_end(&bytes), Some(at));
            }
        }
    }
}
