//! `GET /v1/stream` without a stream: poll, long poll, and the state, of whatever log (`PROTOCOL.md` section 8.1).

use super::Gateway;
use super::access::{Credential, any_credential, check_filter};
use super::refused::{Refused, grown};
use super::selection::Selection;
use crate::hub::{Event, Grant, Log, LogHandle, Page, PageSize};
use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use longwire_core::http::view::Request;
use longwire_core::log::{Cursor, Since};
use longwire_core::session::{self, Code, Gap, GapReason, Position, Pressure, ServerMessage, json};
use std::time::Duration;
use tokio::time::Instant;

/// Bytes at which an answer is cut.
const MAX_BODY: usize = 1 << 20;

const NO_STORE: HeaderValue = HeaderValue::from_static("no-store, no-transform");

impl Gateway {
    /// Answers a poll.
    pub(super) async fn poll(&self, request: &Request<'_>) -> Result<Response, Refused> {
        self.check_open()?;
        let handle = self.log_of(request.path())?;
        let credential = any_credential(request)?;
        let grant = self.grant(&credential, &handle).await?;
        let max_topics = self.hub().config().max_topics;
        let selection = Selection::parse(request.query().unwrap_or_default(), max_topics)?.require_topic()?;
        check_filter(&grant, &selection.filter)?;
        // No policy acts on a poll, which is a resume; but a word that means nothing is not taken in silence.
        selection.policy(self.hub().config())?;
        let log = handle.log();
        let after = match selection.since {
            None => {
                let private = credential != Credential::None;
                return Self::cacheable_state(log, request, &selection, private).await;
            }
            Some(Since::Latest) => {
                let state = Self::state(log, &selection, None).await?;
                return Ok(answer(state.finish(false), HeaderValue::from_static("no-store")));
            }
            Some(Since::Now) => log.head(),
            Some(Since::Cursor(cursor)) => match cursor.position_in(log.epoch()) {
                Some(seq) if seq <= log.head() => seq,
                _ => {
                    let state = Self::state(log, &selection, Some(cursor)).await?;
                    return Ok(answer(state.finish(false), NO_STORE));
                }
            },
        };
        // `HEAD` never waits.
        let wait = if request.method() == "GET" { selection.wait } else { Duration::ZERO };
        self.events(&handle, selection, after, wait, &grant).await
    }

    /// What came after a position, or nothing.
    async fn events(
        &self,
        handle: &LogHandle,
        selection: Selection,
        after: u64,
        wait: Duration,
        grant: &Grant,
    ) -> Result<Response, Refused> {
        let Selection { filter, limit, .. } = selection;
        // One more than allowed, to know that there is one.
        let size = PageSize { events: limit + 1, bytes: MAX_BODY };
        let mut reader = handle.reader(filter, after);
        let mut page = reader.read(size).await;
        if is_empty(&page) && !wait.is_zero() {
            let until = Instant::now() + wait;
            let end = grant.expires.map_or(until, |expires| until.min(expires));
            tokio::select! {
                next = reader.next(size) => page = next,
                () = tokio::time::sleep_until(end) => {}
                () = self.drained() => {}
                () = self.hub().revoked(grant) => {}
            }
            // Also when an event came in the same moment.
            self.check_still(grant)?;
            if is_empty(&page) {
                self.check_open()?;
            }
        }
        let log = handle.log();
        if is_empty(&page) {
            return Ok(nothing(log.cursor(reader.position())));
        }
        let mut events = Events::new(log.epoch(), Position::At);
        let cut = loop {
            match page.gap {
                // A gap stands before the first event; a later one is for the next poll.
                Some(_) if events.count > 0 => break true,
                Some(gap) => {
                    let (from, to) = (log.cursor(gap.from), log.cursor(gap.to));
                    handle.counters().skipped(GapReason::Evicted, gap.skipped);
                    events.gap(Gap { from, to, reason: GapReason::Evicted, skipped: gap.skipped });
                }
                None => {}
            }
            if !page.records.iter().all(|record| events.count < limit && events.push(record.event())) {
                break true;
            }
            let bytes = MAX_BODY.saturating_sub(events.list.len());
            page = reader.read(PageSize { events: limit + 1 - events.count, bytes }).await;
            if is_empty(&page) {
                break false;
            }
        };
        events.next = events.last.filter(|_| cut).unwrap_or(reader.position());
        let (bounds, behind) = (log.bounds(self.hub().config().max_lag()), log.distance(events.next));
        if events.gap.is_some() || bounds.presses(behind) {
            let skipped = events.gap.and_then(|gap| gap.skipped).unwrap_or(0);
            events.pressure = Some(bounds.pressure(behind, skipped));
        }
        Ok(answer(events.finish(cut), NO_STORE))
    }

    /// The state, the same for all who may read it.
    async fn cacheable_state(
        log: &Log,
        request: &Request<'_>,
        selection: &Selection,
        private: bool,
    ) -> Result<Response, Refused> {
        let state = Self::state(log, selection, None).await?;
        // What comes into a state is newer than all of it, and what leaves makes it smaller. Weak, for `next` may differ.
        let etag = format!("W/\"{:016x}-{}-{}\"", state.epoch, state.count, state.last.unwrap_or(0));
        let scope = if private { "private, max-age=1" } else { "public, max-age=1" };
        let known = request.headers().list("if-none-match").any(|tag| tag == b"*" || is_same(tag, &etag));
        let mut response = if known {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response
        } else {
            answer(state.finish(false), NO_STORE)
        };
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(scope));
        headers.insert(header::VARY, HeaderValue::from_static("Accept, Authorization, Origin"));
        if let Ok(etag) = HeaderValue::try_from(etag) {
            headers.insert(header::ETAG, etag);
        }
        Ok(response)
    }

    /// The latest event of each topic and key; all of them, or a refusal.
    async fn state(log: &Log, selection: &Selection, reset: Option<Cursor>) -> Result<Events, Refused> {
        let until = log.head();
        let mut events = Events::new(log.epoch(), Position::Past);
        events.next = until;
        if let Some(from) = reset {
            events.gap(Gap { from, to: log.cursor(until), reason: GapReason::Reset, skipped: None });
        }
        let mut after = 0;
        loop {
            // One more than allowed, to know that there is one.
            let size = PageSize { events: selection.limit + 1 - events.count, bytes: MAX_BODY };
            let page = log.latest(&selection.filter, after, until, size);
            for record in &page.records {
                if events.count >= selection.limit || !events.push(record.event()) {
                    return Err(too_large(selection.limit));
                }
            }
            if page.next >= until {
                return Ok(events);
            }
            after = page.next;
            // A large log takes several looks; others want their turn, too.
            tokio::task::yield_now().await;
        }
    }
}

/// The body of an answer, while it is written.
struct Events {
    epoch: u64,
    position: fn(Cursor) -> Position,
    gap: Option<Gap>,
    pressure: Option<Pressure>,
    list: Vec<u8>,
    count: usize,
    /// The position of the last event.
    last: Option<u64>,
    next: u64,
}

impl Events {
    fn new(epoch: u64, position: fn(Cursor) -> Position) -> Self {
        Self { epoch, position, gap: None, pressure: None, list: Vec::new(), count: 0, last: None, next: 0 }
    }

    /// Before the first event. What is missing right behind a gap makes it longer.
    fn gap(&mut self, gap: Gap) {
        let longer = |before: Gap| {
            let skipped = before.skipped.zip(gap.skipped).map(|(before, more)| before + more);
            Gap { from: before.from, skipped, ..gap }
        };
        self.gap = Some(self.gap.map_or(gap, longer));
    }

    /// Adds an event; false when that would make the body too large, and it is not the first.
    fn push(&mut self, event: &Event) -> bool {
        let message = ServerMessage::Event(session::Event {
            topic: (&*event.topic).into(),
            position: (self.position)(event.cursor(self.epoch)),
            key: event.key.as_deref().map(Into::into),
            data: event.data.borrowed(),
        });
        let envelope = grown(|sink| json::encode_server(&message, sink));
        if self.count > 0 {
            if self.list.len() + envelope.len() >= MAX_BODY {
                return false;
            }
            self.list.push(b',');
        }
        self.list.extend_from_slice(&envelope);
        self.count += 1;
        self.last = Some(event.seq);
        true
    }

    fn finish(self, more: bool) -> Vec<u8> {
        let gap = self.gap.map(|Gap { from, to, reason, skipped }| {
            let reason = reason.as_str();
            let skipped = skipped.map(|n| format!(",\"skipped\":{n}")).unwrap_or_default();
            format!("\"gap\":{{\"from\":\"{from}\",\"to\":\"{to}\",\"reason\":\"{reason}\"{skipped}}},")
        });
        let pressure = self.pressure.map(|Pressure { lag, limit, skipped }| {
            format!("\"pressure\":{{\"lag\":{lag},\"limit\":{limit},\"skipped\":{skipped}}},")
        });
        let next = Cursor { epoch: self.epoch, seq: self.next };
        let more = if more { ",\"more\":true" } else { "" };
        let head = format!("{{{}{}\"events\":[", gap.unwrap_or_default(), pressure.unwrap_or_default());
        let tail = format!("],\"next\":\"{next}\"{more}}}");
        [head.as_bytes(), &self.list, tail.as_bytes()].concat()
    }
}

fn is_empty(page: &Page) -> bool {
    page.gap.is_none() && page.records.is_empty()
}

fn answer(body: Vec<u8>, cache: HeaderValue) -> Response {
    let mut response = Response::new(Body::from(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, cache);
    response
}

fn too_large(limit: usize) -> Refused {
    let message = format!(
        "the state has more than {limit} events or 1 MiB: narrow the topics, or begin with since=now"
    );
    Refused::new(Code::StateTooLarge, message)
}

fn nothing(next: Cursor) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, NO_STORE);
    if let Ok(next) = HeaderValue::try_from(&*next.to_text()) {
        headers.insert("longwire-next", next);
    }
    response
}

/// The weak comparison of RFC 9110 section 8.8.3.2.
fn is_same(tag: &[u8], etag: &str) -> bool {
    let opaque = |tag: &[u8]| tag.strip_prefix(b"W/").unwrap_or(tag).to_vec();
    opaque(tag) == opaque(etag.as_bytes())
}
