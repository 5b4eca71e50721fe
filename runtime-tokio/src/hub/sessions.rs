//! Sessions by their names: how a request reaches a connection that cannot be written to (`PROTOCOL.md` section 8.4).

use super::mailbox::Mail;
use super::shard::Shard;
use super::{Grant, Hub};
use std::fmt;
use tokio::sync::oneshot;

/// Why a session could not be [renewed](Hub::renew).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenewError {
    /// There is no such session, or none that is renewed from outside.
    Unknown,
    /// The grant is another subject's, not for the session's log, or does not cover what it reads; the words say which.
    Forbidden(&'static str),
}

impl fmt::Display for RenewError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "there is no such session",
            Self::Forbidden(why) => why,
        })
    }
}

impl std::error::Error for RenewError {}

/// A letter to the shard of a session.
pub(super) struct Renewal {
    pub(super) secret: u128,
    pub(super) grant: Grant,
    pub(super) answer: oneshot::Sender<Result<(), RenewError>>,
}

/// The name of a session: which log, which shard, and 128 random bits.
pub(super) fn name(shard: &Shard, secret: u128) -> String {
    format!("{:08x}-{:x}-{secret:032x}", log_of(shard.shared.log.epoch()), shard.id)
}

/// Enough of an epoch to find the log again.
fn log_of(epoch: u64) -> u64 {
    epoch & 0xffff_ffff
}

/// The parts of a [`name`].
fn parse(name: &str) -> Option<(u64, usize, u128)> {
    let hex = |text: &str| text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let mut parts = name.split('-').filter(|part| hex(part));
    let (log, shard, secret) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || secret.len() != 32 {
        return None;
    }
    let log = u64::from_str_radix(log, 16).ok()?;
    Some((log, usize::from_str_radix(shard, 16).ok()?, u128::from_str_radix(secret, 16).ok()?))
}

impl Hub {
    /// Puts a new grant in the place of that of an SSE session, which `hello` named. (A WebSocket is renewed in band.)
    /// It has to be the same subject's, and cover what the session reads. Dropped while it waits, it may have been
    /// done or not.
    ///
    /// # Errors
    /// See [`RenewError`].
    pub async fn renew(&self, session: &str, grant: Grant) -> Result<(), RenewError> {
        let (log, shard, secret) = parse(session).ok_or(RenewError::Unknown)?;
        let shared = self.logs().map(|log| &log.shared).find(|shared| log_of(shared.log.epoch()) == log);
        let shard = shared.and_then(|shared| shared.shards.get(shard)).ok_or(RenewError::Unknown)?;
        let (answer, answered) = oneshot::channel();
        shard.post(Mail::Renew(Box::new(Renewal { secret, grant, answer })));
        // A shard that is ending has dropped the letter.
        answered.await.unwrap_or(Err(RenewError::Unknown))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_is_written_and_nothing_else_is_one() {
        let secret = "0123456789abcdef0123456789abcdef";
        assert_eq!(
            parse(&format!("0000002a-f-{secret}")),
            Some((42, 15, 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef))
        );
        for name in [
            "".to_owned(),
            "-".to_owned(),
            secret.to_owned(),
            format!("2a-{secret}"),
            format!("2a--{secret}"),
            format!("2a-+f-{secret}"),
            format!("2a-f-{}", secret.to_uppercase()),
            format!("2a-f-{secret}0"),
            format!("2a-f-{}", &secret[1..]),
            format!("2a-f-{secret}-"),
            format!("2a-f-{secret}-1"),
            format!("ffffffffffffffffffff-f-{secret}"),
            format!("2a-fffffffffffffffffffff-{secret}"),
        ] {
            assert_eq!(parse(&name), None, "{name}");
        }
    }
}
