//! A connection over WebSocket, from its beginning to its end.

use core::pin::{Pin, pin};

use embassy_futures::select::{Either4, select4};
use embassy_time::{Duration, Instant, Timer, with_deadline};
use heapless::String;
use longwire_core::http::upgrade::Offer;
use longwire_core::http::write::{Field, WriteError};
use longwire_core::rand_core::CryptoRng;
use longwire_core::session::connector::{Action, Event};
use longwire_core::session::ladder::Rung;
use longwire_core::session::lease::{Lease, LeaseStep, RENEW_BEFORE};
use longwire_core::session::publisher::Incarnation;
use longwire_core::session::{ClientMessage, Data, Length, Limits, SliceSink};
use longwire_core::ws::{self, CloseCode, SendError};

use super::form::Form;
use super::hear::{Heard, Hello, SUBSCRIPTION};
use super::tokens::{Present, Purse, Tokens, Why};
use super::{Desk, End, Line, Lost, MAX_TARGET, Status};
use crate::buffered::now;
use crate::error::{Error, HandshakeError};
use crate::link::{Connect, Link};
use crate::outbox::{Reading, Source};
use crate::websocket::{Decompressor, WebSocket};

/// What a publisher adds to the target: `?publisher=` and 16 digits, `&auth=later`.
const ADDED: usize = 27 + 11;

/// A target as a publisher asks for it; `None` when it is too long. (Out of the future, too.)
#[cfg_attr(target_os = "none", inline(never))]
fn target(target: &str, incarnation: Incarnation, later: bool) -> Option<String<{ MAX_TARGET + ADDED }>> {
    let mut whole = String::new();
    let publisher = incarnation.to_text();
    let separator = if target.contains('?') { "&" } else { "?" };
    let later = if later { "&auth=later" } else { "" };
    let fits = target.len() <= MAX_TARGET;
    let parts = [target, separator, "publisher=", &publisher, later];
    (fits && parts.iter().all(|part| whole.push_str(part).is_ok())).then_some(whole)
}

/// A token that is being asked for.
type Asking<'f, 't> = Pin<&'f mut (dyn Future<Output = Option<&'t str>> + 'f)>;

/// Why a [`Session::drive`] came back.
enum Turn<'t> {
    /// The first `hello`.
    Opened,
    /// Another credential is wanted.
    Renew,
    /// This is what was asked for.
    Token(Option<&'t str>),
    End(End),
}

/// One connection.
struct Session<'b, L, R> {
    socket: WebSocket<'b, L, R>,
    hello: Option<Hello>,
    open: bool,
    lease: Lease,
    /// Nothing is published earlier: the gateway asked for it.
    not_before: Instant,
    /// The gateway has, or needs, a credential; what is published before would be refused.
    authorised: bool,
}

/// Opens one, and works with it until it ends.
pub(super) async fn over_websocket<C: Connect, R: CryptoRng, T: Tokens, O: Source>(
    line: &mut Line<'_, C>,
    decompressor: Option<Decompressor<'_>>,
    rng: &mut R,
    purse: &mut Purse<'_, T>,
    desk: &mut Desk<'_, '_, O>,
) -> End {
    let mut place = None;
    match Session::open::<C, _, _>(line, &mut place, decompressor, rng, purse, desk).await {
        Ok(mut session) => session.work(purse, desk).await,
        Err(end) => end,
    }
}

impl<'p, L: Link, R: CryptoRng> Session<'p, &'p mut L, &'p mut R> {
    /// Connects, and upgrades. The link stays in `place`.
    async fn open<'s: 'p, 'l: 'p, C: Connect<Link<'l> = L>, T: Tokens, O: Source>(
        line: &'l mut Line<'_, C>,
        place: &'p mut Option<L>,
        decompressor: Option<Decompressor<'p>>,
        rng: &'p mut R,
        purse: &mut Purse<'_, T>,
        desk: &mut Desk<'_, 's, O>,
    ) -> Result<Self, End> {
        let later = T::SOME && purse.present == Present::InBand;
        let Line { connect, rx, tx } = line;
        let link = desk.reach(connect, place, purse).await?;
        let authorization = purse.authorization_or(desk.gateway.authorization);
        let incarnation = desk.outbox.incarnation(|| rng.next_u64());
        let Some(target) = target(desk.gateway.target, incarnation, later) else {
            return Err(End::request(WriteError::Target));
        };
        let field: Option<Field<'_>> = authorization.filter(|_| !later).map(|value| ("Authorization", value));
        let offer = Offer {
            subprotocols: &[desk.config.form.subprotocol()],
            fields: field.as_slice(),
            ..Offer::new(desk.gateway.host, &target)
        };
        let opening = WebSocket::open(link, &offer, &desk.config.connection, rng, rx, tx, decompressor);
        match with_deadline(desk.pilot.deadline(), opening).await {
            Err(_) => Err(desk.pilot.timed_out(Lost::Handshake(HandshakeError::Timeout))),
            Ok(Err(error)) => Err(End::new(Lost::Handshake(error.without_link()))),
            Ok(Ok((_, None))) => Err(End::new(Lost::NoSubprotocol)),
            Ok(Ok((socket, Some(_)))) => {
                desk.outbox.rewind();
                let (hello, open, lease, not_before) = (None, false, Lease::endless(), Instant::MIN);
                Ok(Self { socket, hello, open, lease, not_before, authorised: !later })
            }
        }
    }
}

impl<L: Link, R: CryptoRng> Session<'_, L, R> {
    /// Works with the connection until it ends.
    async fn work<T: Tokens, O: Source>(
        &mut self,
        purse: &mut Purse<'_, T>,
        desk: &mut Desk<'_, '_, O>,
    ) -> End {
        let end = loop {
            let done = match self.drive::<T, O>(desk, None).await {
                Turn::Opened => self.begin(purse.token(), desk).await,
                Turn::Renew if T::SOME => {
                    let mut asking = pin!(purse.ask(Why::Renew));
                    match self.drive::<T, O>(desk, Some(asking.as_mut())).await {
                        Turn::Token(Some(token)) => {
                            self.say(&ClientMessage::Auth { token: token.into() }, desk).await
                        }
                        Turn::End(end) => Err(end),
                        // Without another one the grant ends, and with it the connection: then a new one is opened.
                        _ => Ok(()),
                    }
                }
                Turn::Renew | Turn::Token(_) => Ok(()),
                Turn::End(end) => Err(end),
            };
            if let Err(end) = done {
                break end;
            }
        };
        if let Some(code) = end.code {
            // The last word: whether it is heard changes nothing.
            let _ = self.socket.close(code, "").await;
        }
        end
    }

    /// After the first `hello`: says who this is, if the head did not, and what is to come down.
    async fn begin<O: Source>(&mut self, token: Option<&str>, desk: &Desk<'_, '_, O>) -> Result<(), End> {
        if let Some(token) = token.filter(|_| !self.authorised) {
            self.say(&ClientMessage::Auth { token: token.into() }, desk).await?;
        }
        if let Some(subscription) = &desk.subscription {
            let (id, since) = (Some(SUBSCRIPTION), Some(desk.pilot.reader.since()));
            let topics = subscription.patterns.into();
            self.say(&ClientMessage::Sub { id, since, policy: None, topics }, desk).await?;
        }
        Ok(())
    }

    /// Sends a message that is no reading.
    async fn say<O: Source>(
        &mut self,
        message: &ClientMessage<'_>,
        desk: &Desk<'_, '_, O>,
    ) -> Result<(), End> {
        let form = desk.config.form;
        if queue(&mut self.socket, form, message, u64::MAX) == Err(SendError::Full) {
            self.socket.flush().await?;
            queue(&mut self.socket, form, message, u64::MAX).map_err(|_| End::new(Lost::TooLong))?;
        }
        Ok(())
    }

    /// Sends readings until there are none left, or as many as allowed are not acknowledged.
    async fn send<O: Source>(
        &mut self,
        desk: &mut Desk<'_, '_, O>,
        limits: Limits,
    ) -> Result<(), Error<L::Error>> {
        desk.report_counts();
        loop {
            let publish = |n, Reading { topic, key, data }: Reading<'_>| {
                let (key, data) = (key.map(Into::into), Data::Cbor(data));
                let message = ClientMessage::Pub { n: Some(n), topic: topic.into(), key, data };
                queue(&mut self.socket, desk.config.form, &message, limits.max_message)
            };
            match desk.outbox.send_next(limits.max_inflight, publish) {
                Some(Ok(())) => {}
                // No room even in an empty buffer: this reading can never be sent.
                Some(Err(SendError::Full)) if self.socket.is_flushed() => desk.outbox.give_up_next(),
                Some(Err(SendError::Full)) => self.socket.flush().await?,
                // It is closing: what comes next is for the receiver to say.
                Some(Err(_)) | None => return self.socket.flush().await,
            }
        }
    }

    /// Receives, sends, waits; until there is something to be done about it.
    ///
    /// What is dropped in between are waits that lose nothing: a write that began is always finished.
    async fn drive<'t, T: Tokens, O: Source>(
        &mut self,
        desk: &mut Desk<'_, '_, O>,
        mut asking: Option<Asking<'_, 't>>,
    ) -> Turn<'t> {
        loop {
            // 1. Work off what was received.
            loop {
                match self.socket.try_recv() {
                    Ok(Some(event)) => {
                        desk.pilot.handle(Event::Heard);
                        match receive(event, desk).map(|heard| self.take(heard, desk)) {
                            Ok(None) => {}
                            Ok(Some(turn)) => return turn,
                            Err(end) => return Turn::End(end),
                        }
                    }
                    Ok(None) => break,
                    Err(error) => {
                        // What is left to be said (why the connection fails) goes out if it can.
                        let _ = self.socket.flush().await;
                        return Turn::End(error.into());
                    }
                }
            }
            // 2. Do what is due.
            match desk.pilot.handle_timeout() {
                Action::Continue => {}
                // Full: then something goes out anyway.
                Action::Ping => drop(self.socket.try_send_ping(&[])),
                action => return Turn::End(End::due(action, self.open)),
            }
            let renew = matches!(self.lease.poll(now()), LeaseStep::Renew { .. });
            if renew && T::SOME && asking.is_none() {
                return Turn::Renew;
            }
            // 3. Queue readings and write everything. Nothing here is dropped half-way.
            let paused = Instant::now() < self.not_before;
            let sent = match self.hello {
                Some(hello) if self.authorised && !paused => self.send(desk, hello.limits).await,
                _ => self.socket.flush().await,
            };
            if let Err(error) = sent {
                return Turn::End(error.into());
            }
            // What is left to be sent is another publisher's, and a connection is one's.
            #[cfg(feature = "storage")]
            if self.open && desk.outbox.is_spent() {
                return Turn::End(End::closing(Lost::Incarnation, CloseCode::NORMAL));
            }
            // 4. Wait for whatever comes first.
            let mut deadline = desk.pilot.deadline();
            if T::SOME
                && let Some(at) = self.lease.poll_timeout()
            {
                deadline = deadline.min(Instant::from_millis(at.as_millis()));
            }
            if paused {
                deadline = deadline.min(self.not_before);
            }
            let token = async {
                match &mut asking {
                    Some(asking) if T::SOME => asking.await,
                    _ => core::future::pending().await,
                }
            };
            match select4(self.socket.fill(), desk.outbox.reported(), token, Timer::at(deadline)).await {
                Either4::First(Err(error)) => return Turn::End(error.into()),
                Either4::Third(token) => return Turn::Token(token),
                Either4::First(Ok(())) | Either4::Second(()) | Either4::Fourth(()) => {}
            }
        }
    }

    /// Does what is left to be done about a message.
    fn take<'t, O: Source>(&mut self, heard: Heard, desk: &mut Desk<'_, '_, O>) -> Option<Turn<'t>> {
        match heard {
            Heard::Nothing => {}
            Heard::Wait(wait) => {
                let wait =
                    Duration::try_from(wait.min(desk.config.backoff.max_told)).unwrap_or(Duration::MAX);
                self.not_before = self.not_before.max(Instant::now().saturating_add(wait));
            }
            Heard::Renew(within) => self.lease.asked(now(), within),
            Heard::Hello(hello) => {
                let first = self.hello.replace(hello).is_none();
                self.authorised |= !first;
                // Before its credential is taken a connection is of no use, and does not count as open.
                if self.authorised {
                    let (heartbeat, window) = (Some(hello.heartbeat), hello.window);
                    desk.pilot.handle(Event::Opened { heartbeat, window });
                    let renewed = core::mem::replace(&mut self.open, true);
                    desk.tell(if renewed { Status::Renewed } else { Status::Open(Rung::WebSocket) });
                }
                // Before that the time is what it may take to say `auth`.
                self.lease = match hello.lease.filter(|_| self.authorised) {
                    Some(lease) => Lease::until(now(), now().after(lease), RENEW_BEFORE),
                    None => Lease::endless(),
                };
                if first {
                    return Some(Turn::Opened);
                }
            }
        }
        None
    }
}

/// Reads a message. (Out of the future that waits for it: see `poll_head`.)
#[cfg_attr(target_os = "none", inline(never))]
fn receive<O: Source>(event: ws::Event<'_>, desk: &mut Desk<'_, '_, O>) -> Result<Heard, End> {
    let message = match &event {
        ws::Event::Ping(_) | ws::Event::Pong(_) => return Ok(Heard::Nothing),
        ws::Event::Close(reason) => return Err(End::closing(Lost::Closed(reason.code), CloseCode::NORMAL)),
        // `PROTOCOL.md` section 6: "A text frame on a CBOR connection, or a binary frame on a JSON one, closes with 1003."
        event => match desk.config.form.decode(event) {
            Some(message) => message,
            None => return Err(End::closing(Lost::WrongFrame, CloseCode::UNSUPPORTED)),
        },
    };
    desk.hear(message).map_err(|lost| {
        let code = if matches!(lost, Lost::BadMessage) { CloseCode::POLICY } else { CloseCode::NORMAL };
        End::closing(lost, code)
    })
}

/// Queues a message of at most `max` bytes, whole or not at all.
fn queue<L: Link, R: CryptoRng>(
    socket: &mut WebSocket<'_, L, R>,
    form: Form,
    message: &ClientMessage<'_>,
    max: u64,
) -> Result<(), SendError> {
    let mut length = Length::default();
    let counted = form.encode(message, &mut length);
    let fits = counted.is_ok() && length.0 <= max;
    let Some(len) = usize::try_from(length.0).ok().filter(|_| fits) else { return Err(SendError::Full) };
    socket.try_send_as(form.kind(), len, |space| {
        // The same message again, into as much room as was counted.
        let _ = form.encode(message, &mut SliceSink::new(space));
    })
}
