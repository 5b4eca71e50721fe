//! What one connection reads, publishes and may do: the server's side of `longwire.v1` (`PROTOCOL.md`).

use super::event::{Form, Position};
use super::input::Reply;
use super::reads::{Past, Reads};
use super::shard::Shard;
use super::{
    AppendError, Authorize, Authorizing, Data, Denied, Filter, Grant, Once, Publication, count, encode,
};
use bytes::BytesMut;
use longwire_core::log::{NameError, Policy, Quota, Since};
use longwire_core::session::publisher::{Incarnation, PublicationId};
use longwire_core::session::{
    self, ClientMessage, Code, Level, Refusal, ServerMessage, Text, Topics, cbor, json,
};
use longwire_core::ws::CloseCode;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;

/// Bytes that the answers to one message may take.
pub(super) const REPLY_ROOM: usize = 2048;
/// Subscriptions of one connection whose past was not sent yet. While there are as many, it is not read further.
const MAX_PASTS: usize = 64;
/// How long before the end of a grant its renewal is asked for.
const RENEW: Duration = Duration::from_secs(30);
/// Messages that make no sense, before a connection is closed with 1008.
const MAX_ERRORS: u32 = 16;

/// The state of one connection above its transport.
pub(super) struct Session {
    pub(super) id: usize,
    number: u64,
    pub(super) form: Form,
    pub(super) grant: Grant,
    pub(super) reads: Reads,
    subscription: Option<(Filter, Since)>,
    publisher: Option<Incarnation>,
    quota: Quota,
    /// The last publication that was settled and not acknowledged yet.
    settled: Option<u64>,
    /// What its acknowledgement says about pressure.
    pressure: Option<Duration>,
    errors: u32,
    renewing: Option<Authorizing<'static>>,
    /// When to ask for a new credential.
    renew_at: Option<Instant>,
}

/// A connection has to end: what the peer is told.
pub(super) struct End {
    pub(super) close: CloseCode,
    pub(super) refusal: Option<Refusal<'static>>,
}

impl Session {
    /// `id` is its place in the shard, `number` names it for people.
    pub(super) fn new(
        id: usize,
        number: u64,
        form: Form,
        grant: Grant,
        publisher: Option<Incarnation>,
        subscription: Option<(Filter, Since)>,
        policy: Policy,
    ) -> Self {
        let renew_at = if form == Form::Sse { None } else { when_to_renew(&grant) };
        Self {
            id,
            number,
            form,
            grant,
            reads: Reads::new(policy),
            subscription,
            publisher,
            quota: Quota::new(),
            settled: None,
            pressure: None,
            errors: 0,
            renewing: None,
            renew_at,
        }
    }

    /// The first words, and the subscription of the URL.
    pub(super) fn greet(&mut self, shard: &Shard, out: &mut BytesMut) {
        if self.form == Form::Sse {
            let config = &shard.shared.config;
            let retry = longwire_core::sse::Fields::retry(config.come_back(config.retry));
            if let Ok(parts) = retry.parts() {
                parts.for_each(|part| out.extend_from_slice(part));
            }
            out.extend_from_slice(b"\n");
        }
        let name = self.name(shard);
        encode::write(&self.hello(shard, &name), self.form, out);
        if let Some((filter, since)) = self.subscription.take() {
            self.begin(shard, filter, since, None);
        }
    }

    fn name(&self, shard: &Shard) -> String {
        format!("{:x}-{:x}", shard.shared.log.epoch() & 0xffff_ffff, self.number)
    }

    fn hello<'n>(&self, shard: &Shard, name: &'n str) -> ServerMessage<'n> {
        let now = Instant::now();
        ServerMessage::Hello {
            session: name.into(),
            heartbeat: shard.shared.config.heartbeat,
            lease: self.grant.expires.map(|end| end.saturating_duration_since(now)),
            limits: shard.shared.config.limits(),
            publisher_n: self.publisher.and_then(|it| shard.shared.publishers.last(&self.grant.subject, it)),
            window: Some(shard.shared.config.reconnect_window),
        }
    }

    /// Whether input has to wait: until the shards have caught up, until the past that was asked for is on its way, or
    /// until a new credential was looked at. Something wakes the task when it need not wait any more.
    pub(super) fn must_wait(&mut self, cx: &mut Context<'_>, shard: &Shard, reply: &mut Reply<'_>) -> bool {
        if let Some(renewing) = &mut self.renewing {
            let Poll::Ready(renewed) = renewing.as_mut().poll(cx) else { return true };
            self.renewing = None;
            match renewed {
                // Patterns are checked when they are subscribed to, so none may outlive what allowed it.
                Ok(grant) if !self.reads.filter.parsed().all(|own| grant.may_subscribe(own)) => {
                    let why = "the new grant does not cover what is subscribed to";
                    reply.end(End::told(Code::Unauthorized, why));
                }
                Ok(grant) if !grant.logs.contains(&shard.shared.name) => {
                    reply.end(End::told(Code::Unauthorized, "the new grant is not for this log"));
                }
                Ok(grant) => {
                    self.renew_at = when_to_renew(&grant);
                    self.grant = grant;
                    let name = self.name(shard);
                    reply.send(&self.hello(shard, &name));
                }
                Err(Denied(why)) => reply.end(End::told(Code::Unauthorized, why)),
            }
        }
        if shard.shared.is_congested() {
            shard.wait_for_relief(self.id);
            return true;
        }
        self.reads.pasts.len() >= MAX_PASTS
    }

    /// Works off one message.
    pub(super) fn handle(&mut self, message: &[u8], shard: &Shard, reply: &mut Reply<'_>) {
        let decoded =
            if self.form.is_cbor() { cbor::decode_client(message) } else { json::decode_client(message) };
        match decoded {
            Ok(ClientMessage::Pub { n, topic, key, data }) => self.publish(n, topic, key, data, shard, reply),
            Ok(ClientMessage::Sub { id, since, policy, topics }) => {
                match self.filter(topics, shard).and_then(|filter| Ok((filter, self.policy(policy, shard)?)))
                {
                    Ok((filter, policy)) => {
                        self.reads.policy = policy;
                        self.begin(shard, filter, since.unwrap_or(Since::Now), id);
                    }
                    Err(refusal) => self.object(refusal, id, reply),
                }
            }
            Ok(ClientMessage::Unsub { id, topics }) => self.unsubscribe(topics, id, shard, reply),
            Ok(ClientMessage::Auth { token }) => self.renew(token, shard, reply),
            Ok(_) => self.object(unknown(), None, reply),
            Err(error) if error.code == Code::BadData => {
                count(&shard.shared.counters.refused, 1);
                self.settle(error.n, reply);
                reply.send(&error.answer());
            }
            Err(error) => {
                let refusal = Refusal::new(error.code, error.malformed.reason.as_str());
                self.object(refusal, error.id, reply);
            }
        }
    }

    /// What was settled in this turn is acknowledged, once.
    pub(super) fn acknowledge(&mut self, reply: &mut Reply<'_>) {
        if let Some(n) = self.settled.take() {
            let pressure = self.pressure.take();
            reply.send(&ServerMessage::Ack { n, level: Level::Ring, pressure });
        }
    }

    /// When [`renew`](Self::renewal) is due, and when the grant ends.
    pub(super) fn deadlines(&self) -> impl Iterator<Item = Instant> {
        self.renew_at.into_iter().chain(self.grant.expires)
    }

    /// A `renew`, once for each grant, when it is about to end.
    pub(super) fn renewal(&mut self, now: Instant) -> Option<ServerMessage<'static>> {
        self.renew_at.take_if(|at| *at <= now)?;
        let within = self.grant.expires?.saturating_duration_since(now);
        Some(ServerMessage::Renew { within })
    }

    /// A `tick`, unless it would move the cursor over something that is still on its way.
    pub(super) fn tick(&self, shard: &Shard) -> Option<ServerMessage<'static>> {
        let reads = &self.reads;
        let seq = match (reads.live, reads.lags()) {
            (true, false) => shard.head_of(self.id)?,
            (_, true) => return None,
            (false, false) => shard.shared.log.head(),
        };
        Some(ServerMessage::Tick { at: shard.shared.log.cursor(seq) })
    }

    /// Takes its subscriptions out of the shard.
    pub(super) fn leave(&mut self, shard: &Shard) {
        for pattern in self.reads.filter.parsed() {
            shard.unsubscribe(self.id, pattern);
        }
        self.reads.settle(shard);
        self.reads = Reads::new(self.reads.policy);
        self.reads.begun = true;
    }

    fn publish(
        &mut self,
        n: Option<u64>,
        topic: Text<'_>,
        key: Option<Text<'_>>,
        data: session::Data<'_>,
        shard: &Shard,
        reply: &mut Reply<'_>,
    ) {
        let refused = match self.try_publish(n, topic, key, data, shard) {
            Ok(pressure) => {
                self.pressure = self.pressure.max(pressure);
                return self.settled = n.or(self.settled);
            }
            Err(refusal) => refusal,
        };
        // What came before it is acknowledged first, so that numbers are settled in their order.
        self.settle(n, reply);
        reply.send(&ServerMessage::Nack { n, refusal: refused });
    }

    fn settle(&mut self, n: Option<u64>, reply: &mut Reply<'_>) {
        if n.is_some() {
            self.acknowledge(reply);
        }
    }

    /// Publishes, and says what pressure there is.
    fn try_publish(
        &mut self,
        n: Option<u64>,
        topic: Text<'_>,
        key: Option<Text<'_>>,
        data: session::Data<'_>,
        shard: &Shard,
    ) -> Result<Option<Duration>, Refusal<'static>> {
        let refused = |refusal| {
            count(&shard.shared.counters.refused, 1);
            refusal
        };
        let (mut topic_text, mut key_text) = (heapless::String::new(), heapless::String::new());
        let topic = topic.topic(&mut topic_text).map_err(|e| refused(bad_topic(&e)))?;
        let key = key.map(|key| key.key(&mut key_text)).transpose().map_err(|e| refused(bad_topic(&e)))?;
        if !self.grant.may_publish(topic) {
            let why = "the grant does not allow to publish to this topic";
            return Err(refused(Refusal::new(Code::Forbidden, why)));
        }
        let data = Data::try_from(data).map_err(|e| refused(Refusal::new(Code::BadData, e.as_str())))?;
        let id = self.publisher.zip(n).map(|(incarnation, n)| PublicationId { incarnation, n });
        let publication =
            Publication { subject: &self.grant.subject, once: id.map(Once::Number), topic, key, data };
        let published = shard.shared.publish(publication, &mut self.quota);
        published.map(|published| published.pressure).map_err(|error| error.refusal())
    }

    /// Checks the patterns of a `sub`: all of them, or none is taken.
    fn filter(&self, topics: Topics<'_>, shard: &Shard) -> Result<Filter, Refusal<'static>> {
        let mut filter = Filter::default();
        let mut fresh = 0;
        for text in topics.iter() {
            let mut scratch = heapless::String::new();
            let pattern = text.pattern(&mut scratch).map_err(|e| bad_topic(&e))?;
            if !self.grant.may_subscribe(pattern) {
                return Err(Refusal::new(Code::Forbidden, "the grant does not cover this pattern"));
            }
            if filter.insert(pattern) && !self.reads.filter.contains(pattern) {
                fresh += 1;
            }
            if self.reads.filter.len() + fresh > shard.shared.config.max_topics {
                return Err(Refusal::new(
                    Code::TooManyTopics,
                    "more patterns than max_topics on one connection",
                ));
            }
        }
        if filter.is_empty() {
            return Err(Refusal::new(Code::BadMessage, "a sub needs at least one pattern"));
        }
        Ok(filter)
    }

    /// The policy that a `sub` asks for, or the one before.
    fn policy(&self, asked: Option<Policy>, shard: &Shard) -> Result<Policy, Refusal<'static>> {
        match asked {
            None => Ok(self.reads.policy),
            Some(policy) if shard.shared.config.allows(policy) => Ok(policy),
            Some(Policy::DropNewest) => {
                Err(Refusal::new(Code::BadMessage, "drop_newest is a policy of outboxes, not of readers"))
            }
            Some(_) => Err(Refusal::new(Code::Forbidden, "this gateway does not allow that policy")),
        }
    }

    /// Begins to read.
    fn begin(&mut self, shard: &Shard, filter: Filter, since: Since, id: Option<u32>) {
        let log = &shard.shared.log;
        let first = !std::mem::replace(&mut self.reads.begun, true);
        let position = self.hold(shard, first);
        for pattern in filter.parsed() {
            if self.reads.filter.insert(pattern) {
                shard.subscribe(self.id, pattern);
            }
        }
        let named = if first { Position::At } else { Position::Past };
        let mut past = Past::new(filter, position, named, id);
        match since {
            Since::Now => {}
            Since::Latest => past.read_state(),
            Since::Cursor(cursor) => match cursor.position_in(log.epoch()) {
                Some(seq) if seq <= log.head() => past.after = seq.min(position),
                _ => {
                    past.reset = Some(cursor);
                    past.read_state();
                }
            },
        }
        self.reads.pasts.push_back(past);
    }

    /// Takes the reader from the head, so that a past can go out before what is new, and says where it stands.
    fn hold(&mut self, shard: &Shard, first: bool) -> u64 {
        if self.reads.live {
            let position = shard.leave_head(self.id).unwrap_or_else(|| shard.shared.log.head());
            self.reads.lag(position);
        } else if first || (self.reads.filter.is_empty() && self.reads.pasts.is_empty()) {
            self.reads.position = shard.shared.log.head();
        }
        self.reads.position
    }

    fn unsubscribe(&mut self, topics: Topics<'_>, id: Option<u32>, shard: &Shard, reply: &mut Reply<'_>) {
        for text in topics.iter() {
            let mut scratch = heapless::String::new();
            if let Err(error) = text.pattern(&mut scratch) {
                return self.object(bad_topic(&error), id, reply);
            }
        }
        let position = self.hold(shard, false);
        for text in topics.iter() {
            let mut scratch = heapless::String::new();
            let Ok(pattern) = text.pattern(&mut scratch) else { continue };
            if self.reads.filter.remove(pattern) {
                shard.unsubscribe(self.id, pattern);
            }
            self.reads.pasts.iter_mut().for_each(|past| {
                past.filter.remove(pattern);
            });
        }
        // The answer stands in line, behind what was asked for before.
        self.reads.pasts.push_back(Past::new(Filter::default(), position, Position::Past, id));
    }

    fn renew(&mut self, token: Text<'_>, shard: &Shard, reply: &mut Reply<'_>) {
        let mut credential = String::new();
        if token.write_to(&mut credential).is_err() {
            return self.object(unknown(), None, reply);
        }
        let authorize: Arc<dyn Authorize> = Arc::clone(&shard.shared.authorize);
        self.renewing = Some(Box::pin(async move { authorize.authorize(Some(&credential)).await }));
    }

    /// Answers a message with what is wrong with it. What is no envelope counts, what cannot be done does not.
    fn object(&mut self, refusal: Refusal<'_>, id: Option<u32>, reply: &mut Reply<'_>) {
        let counts = matches!(refusal.code(), Some(Code::BadMessage | Code::UnknownType));
        self.errors += u32::from(counts);
        reply.send(&ServerMessage::Error { refusal, id });
        if self.errors > MAX_ERRORS {
            reply.end(End { close: CloseCode::POLICY, refusal: None });
        }
    }
}

impl End {
    /// With a `bye` that says why, and the close code that goes with it.
    fn told(code: Code, why: &'static str) -> Self {
        Self { close: close_code(code), refusal: Some(Refusal::new(code, why)) }
    }
}

/// The close code that follows a refusal (`PROTOCOL.md` section 9).
pub(super) fn close_code(code: Code) -> CloseCode {
    code.close_code().and_then(CloseCode::new).unwrap_or(CloseCode::INTERNAL)
}

impl AppendError {
    /// As the protocol says it.
    pub fn refusal(&self) -> Refusal<'static> {
        Refusal::new(Code::TopicsFull, self.as_str())
    }
}

/// When to ask for the renewal of a grant that begins now: half a minute before its end, or after half of its time.
fn when_to_renew(grant: &Grant) -> Option<Instant> {
    let end = grant.expires?;
    let left = end.saturating_duration_since(Instant::now());
    end.checked_sub(RENEW.min(left / 2))
}

fn bad_topic(error: &NameError) -> Refusal<'static> {
    Refusal::new(Code::BadTopic, error.as_str())
}

fn unknown() -> Refusal<'static> {
    Refusal::new(Code::UnknownType, "this version does not know that type")
}
