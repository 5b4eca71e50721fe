//! Credentials that are made, or asked for, when they are needed.

use embassy_time::{Duration, with_deadline};

use crate::buffered::after;

/// In front of a token in the `Authorization` header (RFC 6750 section 2.1).
const BEARER: &[u8] = b"Bearer ";

/// What a token is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Why {
    /// A connection is about to be opened. The last token will do if it still holds.
    Connect,
    /// The gateway refused the last one, or its time is over: only another one helps.
    Refused,
    /// The connection's grant is about to end: only one that lasts longer helps.
    Renew,
}

/// Gives bearer tokens: from flash, from a secure element that signs them, or from a server that is asked.
///
/// ```
/// use longwire_embassy::{Tokens, Why};
///
/// /// One token for ever.
/// struct Fixed(&'static str);
///
/// impl Tokens for Fixed {
///     async fn token(&mut self, why: Why, space: &mut [u8]) -> Option<usize> {
///         let token = (why == Why::Connect).then_some(self.0.as_bytes())?;
///         space.get_mut(..token.len())?.copy_from_slice(token);
///         Some(token.len())
///     }
/// }
/// ```
#[expect(
    async_fn_in_trait,
    reason = "embassy's executors poll a task where it lives: no future has to be Send"
)]
pub trait Tokens {
    /// Whether there are any: true for all but [`NoTokens`].
    const SOME: bool = true;

    /// Writes a token to the beginning of `space` and says how long it is; `None` when there is none to be had now.
    ///
    /// It may take its time, up to [`UplinkConfig::token_timeout`](crate::UplinkConfig::token_timeout), and is dropped then,
    /// or when the connection ends meanwhile. The connection lives on beside it.
    async fn token(&mut self, why: Why, space: &mut [u8]) -> Option<usize>;
}

/// No tokens: for a gateway that is open to all, or a fixed [`Gateway::authorization`](crate::Gateway::authorization).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NoTokens;

impl Tokens for NoTokens {
    const SOME: bool = false;

    async fn token(&mut self, _: Why, _: &mut [u8]) -> Option<usize> {
        None
    }
}

/// Where a token stands in the first request of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Present {
    /// In its head, as `Authorization: Bearer TOKEN`.
    #[default]
    Head,
    /// Not in the head: behind the upgrade, in `auth` (`PROTOCOL.md` section 8.4, `auth=later`). For tokens that are too
    /// long for a head, or that no proxy is to see in one. What is not a WebSocket has no other place than the head.
    InBand,
}

/// Tokens, and the room for one.
pub(super) struct Purse<'b, T> {
    pub(super) tokens: T,
    pub(super) space: &'b mut [u8],
    pub(super) present: Present,
    pub(super) timeout: Duration,
    /// Bytes of the last token.
    len: usize,
}

impl<'b, T: Tokens> Purse<'b, T> {
    pub(super) const fn new(tokens: T, space: &'b mut [u8], present: Present, timeout: Duration) -> Self {
        Self { tokens, space, present, timeout, len: 0 }
    }

    /// Asks for a token. False when there is none.
    pub(super) async fn fill(&mut self, why: Why) -> bool {
        let Some((bearer, space)) = self.space.split_at_mut_checked(BEARER.len()) else { return false };
        bearer.iter_mut().zip(BEARER).for_each(|(to, from)| *to = *from);
        // What stood there is gone, also when this is dropped.
        self.len = 0;
        let len = with_deadline(after(self.timeout), self.tokens.token(why, space)).await.ok().flatten();
        self.len = len.unwrap_or(0);
        self.token().is_some()
    }

    /// Asks for a token, and gives it.
    pub(super) async fn ask(&mut self, why: Why) -> Option<&str> {
        if self.fill(why).await { self.token() } else { None }
    }

    /// The last token, if there was one to be had.
    pub(super) fn token(&self) -> Option<&str> {
        self.authorization()?.get(BEARER.len()..).filter(|token| !token.is_empty())
    }

    /// What the next request shows: the last token, or else what is always the same.
    pub(super) fn authorization_or<'a>(&'a self, fixed: Option<&'a str>) -> Option<&'a str> {
        if T::SOME { self.authorization() } else { fixed }
    }

    /// The same as the value of a header.
    pub(super) fn authorization(&self) -> Option<&str> {
        core::str::from_utf8(self.space.get(..BEARER.len().checked_add(self.len)?)?).ok()
    }
}
