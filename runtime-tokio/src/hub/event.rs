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

/// What an event is charged beside its body: what is allocated around it, in a history or as a latest event, so that a
/// flood of empty events is bounded by bytes as well. `benches/README.md` has what was measured.
const OVERHEAD: usize = 224;
/// What it is charged in the tail on top of that: the place of its encoded forms.
const IN_TAIL: usize = 72;

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
    /// Most events of a large tail are never read live: no places are kept for their forms.
    encoded: OnceLock<Box<[OnceLock<Bytes>; 5]>>,
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
        Self { encoded: OnceLock::new(), budget }
    }

    fn get(&self, form: Form, encode: impl Fn(Form) -> Bytes) -> Bytes {
        if let Some(bytes) = self.encoded.get().and_then(|places| place(places, form).get()) {
            return bytes.clone();
        }
        if self.budget.used() >= self.budget.max {
            return encode(form.plain());
        }
        let count = |bytes| self.budget.used.fetch_add(bytes, Ordering::Relaxed);
        let places = self.encoded.get_or_init(|| {
            count(size_of::<[OnceLock<Bytes>; 5]>());
            Box::default()
        });
        let fill = || {
            let bytes = encode(form);
            count(bytes.len());
            bytes
        };
        place(places, form).get_or_init(fill).clone()
    }
}

fn place(places: &[OnceLock<Bytes>; 5], form: Form) -> &OnceLock<Bytes> {
    let [ws_json, ws_cbor, sse, ws_json_deflated, ws_cbor_deflated] = places;
    match form {
        Form::WsJson => ws_json,
        Form::WsCbor => ws_cbor,
        Form::Sse => sse,
        Form::WsJsonDeflated => ws_json_deflated,
        Form::WsCborDeflated => ws_cbor_deflated,
    }
}

impl Drop for Forms {
    fn drop(&mut self) {
        if let Some(places) = self.encoded.get() {
            let encoded: usize = places.iter().filter_map(OnceLock::get).map(Bytes::len).sum();
            self.budget.used.fetch_sub(size_of_val(&**places) + encoded, Ordering::Relaxed);
        }
    }
}

/// An event as it is read from a log: with its forms while it is in the tail.
#[derive(Clone, Debug)]
pub struct Record {
    pub(super) event: Arc<Event>,
    pub(super) forms: Option<Arc<Forms>>,
}

impl Record {
    /// Bytes that it counts for in the tail.
    pub(super) fn cost(&self) -> usize {
        self.event.cost() + IN_TAIL
    }

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
