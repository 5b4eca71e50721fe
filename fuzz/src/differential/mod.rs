//! longwire and another implementation are given the same bytes, and have to make the same of them.
//!
//! | peer | module | what is compared |
//! |---|---|---|
//! | tungstenite, fastwebsockets | [`ws`] | what each frame is heard as, what is answered, how it ends |
//! | httparse | [`httparse`] | what is a head, and what it says |
//! | eventsource-stream | [`eventsource_stream`] | the events of a stream |
//! | flate2 | [`flate2`] | messages of permessage-deflate |
//!
//! The two differ where a standard leaves something open, and where one of them deviates from it. Each such difference
//! is [`Known`], by its cause: a target that meets one takes the cause out of the input (a length that is not minimal
//! is written as it should be), and then demands the same outcome again. So what comes behind it is still compared,
//! and whatever has another cause stops the run. A difference that no input of the corpus shows is no longer known:
//! the replay fails.

mod eventsource_stream;
mod fastwebsockets;
mod flate2;
mod httparse;
mod tungstenite;
mod ws;

/// A difference that was looked into, and decided by the text of the standard.
#[derive(Debug, PartialEq, Eq)]
pub struct Known {
    /// The input that shows it.
    pub input: &'static str,
    /// What longwire does.
    pub longwire: &'static str,
    /// What the peer does.
    pub peer: &'static str,
    /// What the standard says.
    pub standard: &'static str,
}

/// A comparison with a peer.
pub struct Differential {
    /// Its name, as a target.
    pub name: &'static str,
    /// Compares, and tells which differences it met. It panics at one that is not known.
    pub compare: fn(&[u8]) -> Vec<&'static Known>,
    /// All that is known.
    pub known: &'static [&'static Known],
}

/// Every comparison.
pub const DIFFERENTIALS: [Differential; 5] = [
    Differential {
        name: "differential_tungstenite",
        compare: tungstenite::compare,
        known: tungstenite::KNOWN,
    },
    Differential {
        name: "differential_fastwebsockets",
        compare: fastwebsockets::compare,
        known: fastwebsockets::KNOWN,
    },
    Differential { name: "differential_httparse", compare: httparse::compare, known: httparse::KNOWN },
    Differential {
        name: "differential_eventsource_stream",
        compare: eventsource_stream::compare,
        known: eventsource_stream::KNOWN,
    },
    Differential { name: "differential_flate2", compare: flate2::compare, known: flate2::KNOWN },
];

/// Frames, of both roles, against tungstenite: `flags | limit`, a byte each, and frames by recipe, as
/// `src/differential/ws.rs` describes them.
///
/// # Panics
/// At a difference that is not known.
pub fn differential_tungstenite(data: &[u8]) {
    tungstenite::compare(data);
}

/// Frames, of both roles, against the fragment collector of fastwebsockets. The input is that for
/// tungstenite.
///
/// # Panics
/// At a difference that is not known.
pub fn differential_fastwebsockets(data: &[u8]) {
    fastwebsockets::compare(data);
}

/// Heads of requests and responses against httparse: `flags | text`. The flags: 1 responses. In the text, bytes from 0x80 on
/// stand for a word each, and 0xff for the byte behind it.
///
/// # Panics
/// At a difference that is not known.
pub fn differential_httparse(data: &[u8]) {
    httparse::compare(data);
}

/// Event streams against eventsource-stream: a text as for httparse.
///
/// # Panics
/// At a difference that is not known.
pub fn differential_eventsource_stream(data: &[u8]) {
    eventsource_stream::compare(data);
}

/// Messages of permessage-deflate against flate2: payloads that are inflated, and messages that are compressed, as
/// `src/differential/flate2.rs` describes them.
///
/// # Panics
/// At a difference that is not known, or when a message is not found again.
pub fn differential_flate2(data: &[u8]) {
    flate2::compare(data);
}

/// A text of which the bytes from 0x80 on stand for a word each, as many as there are, so that a fuzzer finds them.
/// 0xff stands for the byte behind it, as it is; so real texts of ASCII are what they are.
fn words(text: &[u8], table: &[&[u8]]) -> Vec<u8> {
    let (mut out, mut bytes) = (Vec::new(), text.iter());
    while let Some(&byte) = bytes.next() {
        let word = byte.checked_sub(0x80).and_then(|at| table.get(usize::from(at)));
        match (byte, word) {
            (0xff, _) => out.extend(bytes.next()),
            (_, Some(word)) => out.extend_from_slice(word),
            (_, None) => out.push(byte),
        }
    }
    out
}
