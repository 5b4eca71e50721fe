//! Who may do what, until when.

use super::Filter;
use longwire_core::log::{LogName, Pattern, Topic};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use tokio::time::Instant;

/// What a credential allows. Patterns are checked at subscription and at publication, not per event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Who it is, for logs.
    pub subject: Arc<str>,
    /// When it ends; `None`: with the connection.
    pub expires: Option<Instant>,
    /// The logs that it is for; on any other it allows nothing.
    pub logs: Logs,
    /// What may be subscribed to: a subscription needs one of these to cover all of its pattern.
    pub subscribe: Filter,
    /// What may be published to.
    pub publish: Filter,
}

impl Grant {
    /// Everything on every log, for everybody, without end: for gateways that are open.
    pub fn open() -> Self {
        let all: Filter = Pattern::parse("**").into_iter().collect();
        Self {
            subject: "anonymous".into(),
            expires: None,
            logs: Logs::All,
            subscribe: all.clone(),
            publish: all,
        }
    }

    /// Whether it allows a subscription.
    pub fn may_subscribe(&self, pattern: Pattern<'_>) -> bool {
        self.subscribe.parsed().any(|own| own.covers(pattern))
    }

    /// Whether it allows a publication.
    pub fn may_publish(&self, topic: Topic<'_>) -> bool {
        self.publish.matches(topic.as_str())
    }

    /// Whether it still holds.
    pub fn holds(&self, now: Instant) -> bool {
        self.expires.is_none_or(|end| now < end)
    }
}

/// The logs that a grant is for. A grant that says nothing else is for the default log.
///
/// ```
/// use longwire::hub::Logs;
///
/// assert!(Logs::default().contains("default") && !Logs::default().contains("telemetry"));
/// let both: Logs = ["default", "telemetry"].into_iter().collect();
/// assert!(both.contains("default") && both.contains("telemetry"));
/// assert!(Logs::All.contains("telemetry"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Logs {
    /// Every log that there is.
    All,
    /// Those with these names.
    Only(Arc<[Box<str>]>),
}

impl Logs {
    /// Whether the log of this name is among them.
    pub fn contains(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.iter().any(|own| &**own == name),
        }
    }
}

impl Default for Logs {
    fn default() -> Self {
        [LogName::DEFAULT.as_str()].into_iter().collect()
    }
}

impl<N: Into<Box<str>>> FromIterator<N> for Logs {
    fn from_iter<I: IntoIterator<Item = N>>(names: I) -> Self {
        Self::Only(names.into_iter().map(Into::into).collect())
    }
}

/// A credential was refused, or one is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied(
    /// Why, in words that may be shown to whoever presented it.
    pub &'static str,
);

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Denied {}

/// Decides what a credential allows: asked for every connection, every request, and every renewal.
pub trait Authorize: Send + Sync + 'static {
    /// What `credential` allows; `None` when none was presented.
    fn authorize<'a>(&'a self, credential: Option<&'a str>) -> Authorizing<'a>;
}

/// A decision under way. Dropping it gives it up.
pub type Authorizing<'a> = Pin<Box<dyn Future<Output = Result<Grant, Denied>> + Send + 'a>>;

/// Allows everything to everybody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Open;

impl Authorize for Open {
    fn authorize<'a>(&'a self, _: Option<&'a str>) -> Authorizing<'a> {
        Box::pin(std::future::ready(Ok(Grant::open())))
    }
}
