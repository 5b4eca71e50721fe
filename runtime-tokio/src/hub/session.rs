//! What one connection reads, publishes and may do: the server's side of `longwire.v1` (`PROTOCOL.md`).

use super::access::Access;
use super::event::{Form, Position};
use super::input::Reply;
use super::reads::{Past, Reads};
use super::sessions;
use super::shard::Shard;
use super::{AppendError, Data, Filter, Grant, Once, Publication, count, encode};
use bytes::BytesMut;
use longwire_core::log::{NameError, Policy, Quota, Since};
use longwire_core::session::publisher::{Incarnation, PublicationId};
use longwire_core::session::{
    self, ClientMessage, Code, Level, Refusal, ServerMessage, Text, Topics, cbor, json,
};
use longwire_core::ws::CloseCode;
use std::task::Poll;
use std::time::Duration;

/// Bytes that the answers to one message may take.
pub(super) const REPLY_ROOM: usize = 2048;
/// Subscriptions of one connection whose past was not sent yet. While there are as many, it is not read further
/// (`PROTOCOL.md` section 5).
const MAX_PASTS: usize = 8;
/// Messages that make no sense, before a connection is closed with 1008.
const MAX_ERRORS: u32 = 16;

/// The state of one connection above its transport.
pub(super) struct Session {
    pub(super) id: u32,
    /// Nobody can guess it, so whoever knows it is at the other end.
    pub(super) secret: u128,
    pub(super) form: Form,
    pub(super) access: Access,
    pub(super) reads: Reads,
    /// Of a connection that publishes, or has said that it will.
    publishing: Option<Box<Publishing>>,
    errors: u32,
    /// Messages that were worked off.
    pub(super) handled: u32,
}

#[derive(Default)]
struct Publishing {
    publisher: Option<Incarnation>,
    quota: Quota,
    /// The last publication that was settled and not acknowledged yet.
    settled: Option<u64>,
    /// What its acknowledgement says about pressure.
    pressure: Option<Duration>,
}

/// A connection has to end: what the peer is told.
pub(super) struct End {
    pub(super) close: CloseCode,
    pub(super) refusal: Option<Refusal<'static>>,
}

impl Session {
    /// `id` is its place in the shard.
    pub(super) fn new(
        id: u32,
        form: Form,
        access: Access,
        publisher: Option<Incarnation>,
        policy: Policy,
    ) -> Self {
        let publishing = publisher.map(|_| Box::new(Publishing { publisher, ..Publishing::default() }));
        Self {
            id,
            secret: rand::random(),
            form,
            access,
            reads: Reads::new(policy),
            publishing,
            handled: 0,
            errors: 0,
        }
    }

    /// The first words, and the subscription of the URL.
    pub(super) fn greet(&mut self, shard: &Shard, subscription: Option<(Filter, Since)>, out: &mut BytesMut) {
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
        let Some((filter, since)) = subscription else { return };
        if self.access.is_parked() {
            // The URL had no more patterns than there may be.
            self.access.park((filter, since, None), usize::MAX);
        } else {
            self.begin(shard, filter, since, None);
        }
    }

    pub(super) fn name(&self, shard: &Shard) -> String {
        sessions::name(shard, self.secret)
    }

    pub(super) fn hello<'n>(&self, shard: &Shard, name: &'n str) -> ServerMessage<'n> {
        ServerMessage::Hello {
            session: name.into(),
            heartbeat: shard.shared.config.heartbeat,
            lease: self.access.left(shard),
            limits: shard.shared.config.limits(),
            publisher_n: self.publisher().filter(|_| !self.access.is_parked()).and_then(|incarnation| {
                shard.shared.publishers.last(&self.access.grant().subject, incarnation)
            }),
            window: Some(shard.shared.config.reconnect_window),
        }
    }

    fn publisher(&self) -> Option<Incarnation> {
        self.publishing.as_ref()?.publisher
    }

    /// Whether input has to wait: until the shards have caught up, until the past that was asked for is on its way, or
    /// until a new credential was looked at. Something wakes the connection when it need not wait any more.
    pub(super) fn must_wait(&mut self, shard: &Shard, reply: &mut Reply<'_>) -> bool {
        match self.access.poll_renewed(shard, self.reads.filter()) {
            Poll::Pending => return true,
            Poll::Ready(None) => {
                if let Some(end) = self.access.overspent() {
                    reply.end(end);
                }
            }
            Poll::Ready(Some(Err(why))) => reply.end(End::told(Code::Unauthorized, why)),
            Poll::Ready(Some(Ok(waited))) => {
                let name = self.name(shard);
                reply.send(&self.hello(shard, &name));
                for (filter, since, id) in waited {
                    self.begin(shard, filter, since, id);
                }
            }
        }
        if shard.shared.is_congested() {
            shard.wait_for_relief(self.id);
            return true;
        }
        self.waits_for_pasts()
    }

    /// Whether input has to wait until the past that was asked for is on its way.
    pub(super) fn waits_for_pasts(&self) -> bool {
        self.reads.pasts() >= MAX_PASTS
    }

    /// Works off one message.
    pub(super) fn handle(&mut self, message: &[u8], shard: &Shard, reply: &mut Reply<'_>) {
        self.handled = self.handled.wrapping_add(1);
        let decoded =
            if self.form.is_cbor() { cbor::decode_client(message) } else { json::decode_client(message) };
        match decoded {
            Ok(ClientMessage::Pub { n, topic, key, data }) => self.publish(n, topic, key, data, shard, reply),
            Ok(ClientMessage::Sub { id, since, policy, topics }) => {
                match self.filter(topics, shard).and_then(|filter| Ok((filter, self.policy(policy, shard)?)))
                {
                    Ok((filter, policy)) if self.access.is_parked() => {
                        self.reads.policy = policy;
                        self.park(filter, since, id, shard, reply);
                    }
                    Ok((filter, policy)) => {
                        self.reads.policy = policy;
                        self.begin(shard, filter, since.unwrap_or(Since::Now), id);
                    }
                    Err(refusal) => self.object(refusal, id, reply),
                }
            }
            Ok(ClientMessage::Unsub { id, .. }) if self.access.is_parked() => {
                self.object(Refusal::new(Code::Forbidden, "before auth nothing is subscribed to"), id, reply);
            }
            Ok(ClientMessage::Unsub { id, topics }) => self.unsubscribe(topics, id, shard, reply),
            Ok(ClientMessage::Auth { token }) if self.access.present(token, self.id, shard) => {}
            Ok(_) => self.object(unknown(), None, reply),
            Err(error) if error.code == Code::BadData => {
                count(&shard.shared.counters.refused, 1);
                self.acknowledge_before(error.n, reply);
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
        if let Some(publishing) = &mut self.publishing
            && let Some(n) = publishing.settled.take()
        {
            let pressure = publishing.pressure.take();
            reply.send(&ServerMessage::Ack { n, level: Level::Ring, pressure });
        }
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

    /// Puts another grant in the place of this one.
    pub(super) fn renew(&mut self, shard: &Shard, grant: Grant) -> Result<(), &'static str> {
        // Only what has no words of its own is renewed so, and nothing of that waits for them.
        self.access.replace(shard, grant, self.reads.filter()).map(drop)
    }

    /// Takes its subscriptions out of the shard.
    pub(super) fn leave(&mut self, shard: &Shard) {
        for pattern in self.reads.filter().parsed() {
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
        match self.try_publish(n, topic, key, data, shard) {
            Ok(pressure) => {
                let settled = self.publishing.as_ref().and_then(|publishing| publishing.settled);
                // A number that does not count up is acknowledged by itself: it takes nothing back of what came before.
                if settled.zip(n).is_some_and(|(settled, n)| n <= settled) {
                    self.acknowledge(reply);
                }
                let publishing = self.publishing.get_or_insert_default();
                publishing.pressure = publishing.pressure.max(pressure);
                publishing.settled = n.or(publishing.settled);
            }
            Err(refusal) => {
                self.acknowledge_before(n, reply);
                reply.send(&ServerMessage::Nack { n, refusal });
            }
        }
    }

    /// What came before a publication that is refused is acknowledged first, so that numbers are settled in their order.
    fn acknowledge_before(&mut self, refused: Option<u64>, reply: &mut Reply<'_>) {
        if refused.is_some() {
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
        if !self.access.grant().may_publish(topic) {
            let why = "the grant does not allow to publish to this topic";
            return Err(refused(Refusal::new(Code::Forbidden, why)));
        }
        let data = Data::try_from(data).map_err(|e| refused(Refusal::new(Code::BadData, e.as_str())))?;
        let id = self.publisher().zip(n).map(|(incarnation, n)| PublicationId { incarnation, n });
        let publication = Publication {
            subject: &self.access.grant().subject,
            once: id.map(Once::Number),
            topic,
            key,
            data,
        };
        let published = shard.shared.publish(publication, &mut self.publishing.get_or_insert_default().quota);
        published.map(|published| published.pressure).map_err(|error| error.refusal())
    }

    /// Checks the patterns of a `sub`: all of them, or none is taken.
    fn filter(&self, topics: Topics<'_>, shard: &Shard) -> Result<Filter, Refusal<'static>> {
        let mut filter = Filter::default();
        let mut fresh = 0;
        for text in topics.iter() {
            let mut scratch = heapless::String::new();
            let pattern = text.pattern(&mut scratch).map_err(|e| bad_topic(&e))?;
            if !self.access.is_parked() && !self.access.grant().may_subscribe(pattern) {
                return Err(Refusal::new(Code::Forbidden, "the grant does not cover this pattern"));
            }
            if filter.insert(pattern) && !self.reads.filter().contains(pattern) {
                fresh += 1;
            }
            if self.reads.filter().len() + fresh > shard.shared.config.max_topics {
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

    /// Keeps what is to be read until it is known who reads.
    fn park(
        &mut self,
        filter: Filter,
        since: Option<Since>,
        id: Option<u32>,
        shard: &Shard,
        reply: &mut Reply<'_>,
    ) {
        let subscription = (filter, since.unwrap_or(Since::Now), id);
        if !self.access.park(subscription, shard.shared.config.max_topics) {
            let why = "more patterns than max_topics before auth";
            self.object(Refusal::new(Code::TooManyTopics, why), id, reply);
        }
    }

    /// Begins to read.
    fn begin(&mut self, shard: &Shard, filter: Filter, since: Since, id: Option<u32>) {
        let log = &shard.shared.log;
        let first = !std::mem::replace(&mut self.reads.begun, true);
        let position = self.hold(shard, first);
        let filter = self.reads.subscribe(shard, self.id, filter);
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
        self.reads.push_past(past);
    }

    /// Takes the reader from the head, so that a past can go out before what is new, and says where it stands.
    fn hold(&mut self, shard: &Shard, first: bool) -> u64 {
        if self.reads.live {
            let position = shard.leave_head(self.id).unwrap_or_else(|| shard.shared.log.head());
            self.reads.lag(position);
        } else if first || (self.reads.filter().is_empty() && self.reads.pasts() == 0) {
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
            self.reads.unsubscribe(shard, self.id, pattern);
        }
        // The answer stands in line, behind what was asked for before.
        self.reads.push_past(Past::new(Filter::default(), position, Position::Past, id));
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
    pub(super) fn told(code: Code, why: &'static str) -> Self {
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

fn bad_topic(error: &NameError) -> Refusal<'static> {
    Refusal::new(Code::BadTopic, error.as_str())
}

fn unknown() -> Refusal<'static> {
    Refusal::new(Code::UnknownType, "this version does not know that type")
}
