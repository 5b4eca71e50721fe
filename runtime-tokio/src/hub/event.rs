//! An event, and the forms in which it leaves.

use super::Data;
use bytes::Bytes;
use longwire_core::log::{Cursor, TopicName};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use tokio::time::Instant;

/// One event of a log. The body is stored once, as it was published.
#[derive(Debug)]
pub struct Event {
    /// Its position.
    pub seq: u64,
    /// Its topic; the text is shared with all events of the topic.
    pub topic: TopicName<Arc<str>>,
    /// Its key, if it has one.
    pub key: Option<Box<str>>,
    /// Its value.
    pub data: Data,
    /// The topic's place in the log.
    pub(super) topic_id: usize,
    /// When it was appended, for the bound on age.
    pub(super) born: Instant,
    /// What all events up to this one cost, for distances.
    pub(super) total: u64,
}

/// What an event is charged beside its body: the structures around it, so that a flood of empty events is bounded
/// by bytes as well.
const OVERHEAD: usize = 192;

impl Event {
    /// Bytes that it counts for in every budget: its body, key and content type, and the structures around them.
    pub fn cost(&self) -> usize {
        Self::cost_of(&self.data, self.key.as_deref())
    }

    pub(super) fn cost_of(data: &Data, key: Option<&str>) -> usize {
        let content_type = match data {
            Data::Bytes { content_type, .. } => content_type.len(),
            _ => 0,
        };
        OVERHEAD + data.len() + key.map_or(0, str::len) + content_type
    }
}

/// How an event is written to a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A WebSocket text frame with a JSON envelope.
    WsJson,
    /// A WebSocket binary frame with a CBOR envelope.
    WsCbor,
    /// As `WsJson`, compressed if it is long enough.
    WsJsonDeflated,
    /// As `WsCbor`, compressed if it is long enough.
    WsCborDeflated,
    /// An SSE event with a JSON envelope.
    Sse,
}

impl Form {
    /// How the envelope is encoded.
    pub(super) fn is_cbor(self) -> bool {
        matches!(self, Self::WsCbor | Self::WsCborDeflated)
    }

    /// The same, without compression: what is made for one reader alone is not worth it.
    pub(super) fn plain(self) -> Self {
        match self {
            Self::WsJsonDeflated => Self::WsJson,
            Self::WsCborDeflated => Self::WsCbor,
            plain => plain,
        }
    }

    /// Whether long frames are compressed.
    pub(super) fn is_deflated(self) -> bool {
        matches!(self, Self::WsJsonDeflated | Self::WsCborDeflated)
    }
}

/// How an event names its position (`PROTOCOL.md` section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// `at`: the reader may resume from it.
    At,
    /// `past`: part of a state, or of the past of a topic that was added later.
    Past,
}

/// The encoded forms of an event in the tail, made when the first reader needs them and shared by all.
#[derive(Debug)]
pub(super) struct Forms {
    encoded: [OnceLock<Bytes>; 5],
    budget: Arc<Budget>,
}

/// Bytes that all encoded forms of a log may take together. Beyond it forms are made anew for each reader: slower,
/// and nothing else.
#[derive(Debug)]
pub(super) struct Budget {
    used: AtomicUsize,
    max: usize,
}

impl Budget {
    pub(super) fn new(max: usize) -> Self {
        Self { used: AtomicUsize::new(0), max }
    }

    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

impl Forms {
    pub(super) fn new(budget: Arc<Budget>) -> Self {
        Self { encoded: Default::default(), budget }
    }

    fn get(&self, form: Form, encode: impl Fn(Form) -> Bytes) -> Bytes {
        let slot = match form {
            Form::WsJson => &self.encoded[0],
            Form::WsCbor => &self.encoded[1],
            Form::Sse => &self.encoded[2],
            Form::WsJsonDeflated => &self.encoded[3],
            Form::WsCborDeflated => &self.encoded[4],
        };
        if let Some(bytes) = slot.get() {
            return bytes.clone();
        }
        if self.budget.used() >= self.budget.max {
            return encode(form.plain());
        }
        slot.get_or_init(|| {
            let bytes = encode(form);
            self.budget.used.fetch_add(bytes.len(), Ordering::Relaxed);
            bytes
        })
        .clone()
    }
}

impl Drop for Forms {
    fn drop(&mut self) {
        let used: usize = self.encoded.iter().filter_map(OnceLock::get).map(Bytes::len).sum();
        self.budget.used.fetch_sub(used, Ordering::Relaxed);
    }
}

/// An event as it is read from a log: with its forms while it is in the tail.
#[derive(Clone, Debug)]
pub struct Record {
    pub(super) event: Arc<Event>,
    pub(super) forms: Option<Arc<Forms>>,
}

impl Record {
    /// The event.
    pub fn event(&self) -> &Event {
        &self.event
    }

    /// What is written for it to a live reader of that form.
    pub(super) fn live(&self, epoch: u64, form: Form) -> Bytes {
        let encode = |form| super::encode::event(&self.event, epoch, form, Position::At);
        match &self.forms {
            Some(forms) => forms.get(form, encode),
            None => encode(form.plain()),
        }
    }
}

impl Event {
    /// Its cursor in the log of that epoch.
    pub fn cursor(&self, epoch: u64) -> Cursor {
        Cursor { epoch, seq: self.seq }
    }
}
