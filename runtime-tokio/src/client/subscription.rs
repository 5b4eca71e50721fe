//! What a subscriber asks for.

use super::{Error, Form, Memory, Policy, Since, Transport};
use longwire_core::log::Pattern;
use longwire_core::session::backoff::BackoffConfig;
use std::time::Duration;

/// What to read, from where on, and how.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Subscription {
    /// Patterns of topics.
    pub topics: Vec<String>,
    /// Where to begin. Default: the state, then what is published from now on.
    pub since: Since,
    /// How.
    pub transport: Transport,
    /// In which form messages come over WebSocket; the other transports have JSON only. Default: JSON.
    pub form: Form,
    /// What the gateway does when this reader is too slow (`PROTOCOL.md` section 5.1). Default: the gateway's.
    pub policy: Option<Policy>,
    /// What an earlier subscriber has [learned](super::Subscriber::memory) about the way to the gateway.
    pub memory: Option<Memory>,
    /// Time between two plain polls ([`Transport::Poll`], and where [`Transport::Auto`] finds nothing better). Default
    /// 2 s; less than 100 ms counts as 100 ms, and more than a day as a day. What is published meanwhile comes late, and is not lost while the
    /// gateway's log holds it.
    pub poll_interval: Duration,
    /// When to try again.
    pub backoff: BackoffConfig,
}

impl Subscription {
    /// To the topics that match any of `topics`.
    pub fn new(topics: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            topics: topics.into_iter().map(Into::into).collect(),
            since: Since::Latest,
            transport: Transport::Auto,
            form: Form::Json,
            policy: None,
            memory: None,
            poll_interval: Duration::from_secs(2),
            backoff: BackoffConfig::default(),
        }
    }

    /// Sets where to begin.
    #[must_use]
    pub fn since(self, since: Since) -> Self {
        Self { since, ..self }
    }

    /// Sets how.
    #[must_use]
    pub fn transport(self, transport: Transport) -> Self {
        Self { transport, ..self }
    }

    /// Messages come in CBOR, over WebSocket: their data is [`Data::Cbor`](super::Data::Cbor) then.
    #[must_use]
    pub fn cbor(self) -> Self {
        Self { form: Form::Cbor, ..self }
    }

    /// Sets what happens when this reader is too slow. An operator may forbid some of the policies.
    #[must_use]
    pub fn policy(self, policy: Policy) -> Self {
        Self { policy: Some(policy), ..self }
    }

    /// Sets what an earlier subscriber has learned.
    #[must_use]
    pub fn memory(self, memory: Memory) -> Self {
        Self { memory: Some(memory), ..self }
    }

    /// Sets the time between two plain polls.
    #[must_use]
    pub fn poll_interval(self, poll_interval: Duration) -> Self {
        Self { poll_interval, ..self }
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        if self.topics.is_empty() {
            return Err(Error::NoPattern);
        }
        for topic in &self.topics {
            Pattern::parse(topic).map_err(|error| Error::Name(topic.clone(), error))?;
        }
        Ok(())
    }
}
