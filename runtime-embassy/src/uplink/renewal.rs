//! Another credential for an event stream before its grant ends (`PROTOCOL.md` section 8.4): it goes by a POST beside it.

use core::cell::{Cell, RefCell};

use embassy_time::Instant;
use heapless::String;
use longwire_core::session::ServerMessage;
use longwire_core::session::lease::{Lease, LeaseStep, RENEW_BEFORE};

use super::http::{self, Url};
use crate::buffered::now;

/// Bytes of the longest name of a session that can be renewed. Those of longwire's gateway have 58 at most.
const MAX_SESSION: usize = 64;

/// What the reader of a stream knows of its grant, and what is left to be done about it by who posts beside it.
///
/// The two are parts of one task in which the reader has its turn first, so what it says is seen in the same turn. Where nobody
/// [has tokens](super::Tokens::SOME) nobody asks, and there is no code for it.
pub(super) struct Renewal {
    session: RefCell<String<MAX_SESSION>>,
    lease: Cell<Lease>,
    task: Cell<Option<Task>>,
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Task {
    /// Ask for a credential.
    Ask,
    /// Show it.
    Show,
}

impl Renewal {
    pub(super) const fn new() -> Self {
        let lease = Cell::new(Lease::endless());
        Self { session: RefCell::new(String::new()), lease, task: Cell::new(None) }
    }

    /// The reader has heard this.
    pub(super) fn heard(&self, message: &ServerMessage<'_>) {
        match message {
            ServerMessage::Hello { session, lease, .. } => {
                if let Ok(mut name) = self.session.try_borrow_mut() {
                    name.clear();
                    // What does not fit cannot be renewed: the grant ends, and the next connection has another one.
                    if session.write_to(&mut *name).is_err() {
                        name.clear();
                    }
                }
                let lease = lease.map(|lease| Lease::until(now(), now().after(lease), RENEW_BEFORE));
                self.lease.set(lease.unwrap_or_default());
            }
            ServerMessage::Renew { within } => {
                let mut lease = self.lease.get();
                lease.asked(now(), *within);
                self.lease.set(lease);
            }
            _ => {}
        }
    }

    /// When the reader is to look again.
    pub(super) fn deadline(&self) -> Instant {
        self.lease.get().poll_timeout().map_or(Instant::MAX, |at| Instant::from_millis(at.as_millis()))
    }

    /// The reader looks whether it is time.
    pub(super) fn look(&self) {
        let mut lease = self.lease.get();
        let due = matches!(lease.poll(now()), LeaseStep::Renew { .. });
        self.lease.set(lease);
        if due {
            self.task.set(Some(Task::Ask));
        }
    }

    /// What is to be done by who posts.
    pub(super) fn task(&self) -> Option<Task> {
        self.task.get()
    }

    /// It was done as far as this.
    pub(super) fn set_task(&self, task: Option<Task>) {
        self.task.set(task);
    }

    /// A credential was shown. Whether another one was asked for meanwhile, that is still to be done.
    pub(super) fn shown(&self) {
        if self.task() == Some(Task::Show) {
            self.set_task(None);
        }
    }

    /// Appends where a credential is shown, to a URL that ends where the gateway's begin; `None` when the session has no name.
    pub(super) fn push_to(&self, url: &mut Url) -> Option<()> {
        let session = self.session.try_borrow().ok().filter(|session| !session.is_empty())?;
        url.push_str("session/").ok()?;
        http::push_encoded(url, &session)?;
        url.push_str("/auth").ok()
    }
}
