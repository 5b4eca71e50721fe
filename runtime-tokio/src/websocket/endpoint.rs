//! The core's connection, of either role behind one type.

use super::config::Rules;
use super::deflate::Deflater;
use longwire_core::buf::{Io, TxBuf};
use longwire_core::rand_core::{TryCryptoRng, TryRng};
use longwire_core::time::Instant;
use longwire_core::ws::deflate::{Agreed, Window};
use longwire_core::ws::{
    Client, CloseCode, Connection, EncodedHeader, Kind, ProtocolError, SendError, Server, Step,
};
use rand::Rng as _;
use std::convert::Infallible;
use std::time::Duration;

/// Which end of a connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The connecting end: it masks what it sends.
    Client,
    /// The accepting end.
    Server,
}

/// Draws from the generator of whatever thread runs the connection: a cryptographic one (ChaCha), seeded by the
/// operating system and reseeded as it goes. So a connection holds no generator, and its masks cannot be told
/// from those before (RFC 6455 section 10.3).
#[derive(Clone, Copy, Debug)]
pub(crate) struct ThreadRng;

impl TryRng for ThreadRng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(rand::rng().next_u32())
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(rand::rng().next_u64())
    }

    fn try_fill_bytes(&mut self, dst: &mut [u8]) -> Result<(), Infallible> {
        rand::rng().fill_bytes(dst);
        Ok(())
    }
}

impl TryCryptoRng for ThreadRng {}

#[derive(Debug)]
pub(super) enum Endpoint {
    Client(Connection<Client<ThreadRng>, Rules>),
    Server(Connection<Server, Rules>),
}

/// Says the same to either.
macro_rules! either {
    ($self:expr, $c:ident => $say:expr) => {
        match $self {
            Endpoint::Client($c) => $say,
            Endpoint::Server($c) => $say,
        }
    };
}

impl Endpoint {
    pub(super) fn new(role: Role, rules: Rules, now: Instant) -> Self {
        match role {
            Role::Client => Self::Client(Connection::new(Client(ThreadRng), rules, now)),
            Role::Server => Self::Server(Connection::new(Server, rules, now)),
        }
    }

    /// The same, with permessage-deflate.
    pub(super) fn with_deflate(self, agreed: Agreed) -> Self {
        match self {
            Self::Client(c) => Self::Client(c.with_deflate(agreed)),
            Self::Server(c) => Self::Server(c.with_deflate(agreed)),
        }
    }

    pub(super) fn deflate(&self) -> Option<Agreed> {
        either!(self, c => c.deflate())
    }

    pub(super) fn send_window(&self) -> Option<Window> {
        either!(self, c => c.send_window())
    }

    pub(super) fn role(&self) -> Role {
        match self {
            Self::Client(_) => Role::Client,
            Self::Server(_) => Role::Server,
        }
    }

    #[inline]
    pub(super) fn poll(&mut self, now: Instant, io: &mut Io<'_>) -> Result<Step, ProtocolError> {
        either!(self, c => c.poll(now, io))
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, io: &mut Io<'_>) -> Step {
        either!(self, c => c.handle_timeout(now, io))
    }

    pub(super) fn handle_eof(&mut self) -> Step {
        either!(self, c => c.handle_eof())
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        either!(self, c => c.poll_timeout())
    }

    pub(super) fn rtt(&self) -> Option<Duration> {
        either!(self, c => c.rtt())
    }

    pub(super) fn is_open(&self) -> bool {
        either!(self, c => c.is_open())
    }

    #[inline]
    pub(super) fn send(&mut self, tx: &mut TxBuf<'_>, kind: Kind, data: &[u8]) -> Result<(), SendError> {
        either!(self, c => c.send_message(tx, kind, data))
    }

    /// The header of a message that is not compressed and goes out from where it lies; `None` where messages are
    /// masked, or may be compressed.
    pub(super) fn begin_shared(
        &mut self,
        kind: Kind,
        len: usize,
    ) -> Option<Result<EncodedHeader, SendError>> {
        match self {
            Self::Server(c) if c.deflate().is_none() => Some(c.begin_shared(kind, len as u64)),
            _ => None,
        }
    }

    pub(super) fn send_deflated(
        &mut self,
        tx: &mut TxBuf<'_>,
        kind: Kind,
        data: &[u8],
        codec: &mut Deflater<'_>,
    ) -> Result<(), SendError> {
        either!(self, c => c.send_deflated(tx, kind, data, codec))
    }

    pub(super) fn send_ping(&mut self, tx: &mut TxBuf<'_>, payload: &[u8]) -> Result<(), SendError> {
        either!(self, c => c.send_ping(tx, payload))
    }

    pub(super) fn start(&mut self, kind: Kind) -> Result<(), SendError> {
        either!(self, c => c.start(kind))
    }

    pub(super) fn start_deflated(&mut self, kind: Kind) -> Result<(), SendError> {
        either!(self, c => c.start_deflated(kind))
    }

    pub(super) fn write(&mut self, tx: &mut TxBuf<'_>, data: &[u8]) -> Result<usize, SendError> {
        either!(self, c => c.write(tx, data))
    }

    pub(super) fn finish(&mut self, tx: &mut TxBuf<'_>) -> Result<(), SendError> {
        either!(self, c => c.finish(tx))
    }

    pub(super) fn close(
        &mut self,
        now: Instant,
        tx: &mut TxBuf<'_>,
        code: CloseCode,
        reason: &str,
    ) -> Result<(), SendError> {
        either!(self, c => c.close(now, tx, code, reason))
    }
}
