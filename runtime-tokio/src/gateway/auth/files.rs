//! The files of a gateway's credentials, read again when they change.

use super::{Credentials, FileError, Jwt, JwtConfig, Revoked, TokenFile};
use crate::gateway::files::{Stamp, read, watch};
use crate::hub::{Hub, count};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// How often the files are looked at: with it, a revocation is in force within a second.
const EVERY: Duration = Duration::from_millis(500);

/// What the files are called in errors.
const TOKENS: &str = "token file";
const KEYS: &str = "key set";
const REVOKED: &str = "list of revocations";

/// Where a gateway's credentials come from. At least one of `tokens` and `jwt` is needed, or nobody gets in.
#[derive(Clone, Debug, Default)]
pub struct CredentialFiles {
    /// Tokens ([`TokenFile`]).
    pub tokens: Option<PathBuf>,
    /// A JWK Set ([`Jwt`]), and what else is asked of a JWT.
    pub jwt: Option<(PathBuf, JwtConfig)>,
    /// Who is shut out ([`Revoked`]).
    pub revoked: Option<PathBuf>,
}

/// Looks at the files from time to time.
#[derive(Debug)]
pub struct Watcher {
    files: CredentialFiles,
    credentials: Arc<Credentials>,
    tokens: Seen,
    jwt: Seen,
    revoked: Seen,
}

/// A file as it was read.
#[derive(Clone, Debug, Default)]
struct Seen {
    stamp: Option<Stamp>,
    /// Its SHA-256, and whether it could be used.
    content: Option<([u8; 32], bool)>,
    /// It could not be used, and that was said.
    bad: bool,
}

impl CredentialFiles {
    /// Reads all of them.
    ///
    /// # Errors
    /// One cannot be read, is larger than 16 MiB, or is not what it should be.
    pub fn load(self) -> Result<(Arc<Credentials>, Watcher), FileError> {
        let credentials = Arc::new(Credentials::default());
        let mut watcher = Watcher {
            files: self,
            credentials,
            tokens: Seen::default(),
            jwt: Seen::default(),
            revoked: Seen::default(),
        };
        let all = watcher.changes()?;
        watcher.take(all, None);
        Ok((Arc::clone(&watcher.credentials), watcher))
    }
}

/// Files that changed, parsed.
#[derive(Default)]
struct Changes {
    tokens: Option<TokenFile>,
    jwt: Option<Jwt>,
    revoked: Option<Revoked>,
}

impl Watcher {
    /// Looks at the files twice a second for as long as the hub is there, and puts what has changed into force:
    /// whoever lost a credential, or is revoked, is cut off. A file that cannot be used changes nothing: it is logged
    /// as an error, and counted ([`Counters::bad_files`](crate::hub::Counters::bad_files) of the default log). A
    /// dropped future stops looking.
    pub async fn run(self, hub: Weak<Hub>) {
        let take = |watcher: &Self, (changes, bad), hub: &Hub| {
            count(&hub.counters().bad_files, bad);
            watcher.take(changes, Some(hub));
        };
        watch(self, EVERY, hub, Self::changes_that_can_be_used, take).await;
    }

    fn changes(&mut self) -> Result<Changes, FileError> {
        let CredentialFiles { tokens, jwt, revoked } = &self.files;
        Ok(Changes {
            tokens: self.tokens.look(TOKENS, tokens.as_deref(), TokenFile::parse)?,
            jwt: match jwt {
                Some((path, config)) => {
                    self.jwt.look(KEYS, Some(path), |text| Jwt::parse(text, config.clone()))?
                }
                None => None,
            },
            revoked: self.revoked.look(REVOKED, revoked.as_deref(), Revoked::parse)?,
        })
    }

    /// What can be used of what has changed, and how many cannot that could before.
    fn changes_that_can_be_used(&mut self) -> (Changes, u64) {
        let CredentialFiles { tokens, jwt, revoked } = &self.files;
        let mut bad = 0;
        let changes = Changes {
            tokens: said(
                self.tokens.look(TOKENS, tokens.as_deref(), TokenFile::parse),
                &mut self.tokens,
                &mut bad,
            ),
            jwt: jwt.as_ref().and_then(|(path, config)| {
                let looked = self.jwt.look(KEYS, Some(path), |text| Jwt::parse(text, config.clone()));
                said(looked, &mut self.jwt, &mut bad)
            }),
            revoked: said(
                self.revoked.look(REVOKED, revoked.as_deref(), Revoked::parse),
                &mut self.revoked,
                &mut bad,
            ),
        };
        (changes, bad)
    }

    fn take(&self, changes: Changes, hub: Option<&Hub>) {
        let Changes { tokens, jwt, revoked } = changes;
        let credentials = &self.credentials;
        match hub {
            // First who is shut out: a new token of theirs is no way in.
            Some(hub) => {
                revoked.into_iter().for_each(|revoked| credentials.set_revoked(revoked, hub));
                tokens.into_iter().for_each(|tokens| credentials.set_tokens(Some(tokens), hub));
            }
            // Before there is a hub nobody can be cut off.
            None => {
                revoked.into_iter().for_each(|revoked| drop(credentials.revoked.set(revoked)));
                tokens.into_iter().for_each(|tokens| drop(credentials.tokens.set(Some(tokens))));
            }
        }
        jwt.into_iter().for_each(|jwt| credentials.set_jwt(Some(jwt)));
    }
}

/// Says what is wrong with a file, once for each time that it becomes so.
fn said<T>(looked: Result<Option<T>, FileError>, seen: &mut Seen, bad: &mut u64) -> Option<T> {
    match looked {
        Ok(changed) => {
            if changed.is_some() {
                tracing::info!("a file of credentials was read again");
            }
            changed
        }
        Err(error) => {
            if !std::mem::replace(&mut seen.bad, true) {
                *bad += 1;
                tracing::error!(%error, "a file of credentials cannot be used; what was read before stays in force");
            }
            None
        }
    }
}

impl Seen {
    /// Reads a file and parses it, if it is another than before.
    fn look<T>(
        &mut self,
        what: &str,
        path: Option<&Path>,
        parse: impl FnOnce(&str) -> Result<T, FileError>,
    ) -> Result<Option<T>, FileError> {
        let Some(path) = path else { return Ok(None) };
        let named = |error: &dyn std::fmt::Display| FileError(format!("{what} {}: {error}", path.display()));
        let before = self.stamp.take();
        let stamp = fs::metadata(path).and_then(|metadata| Stamp::of(&metadata)).map_err(|e| named(&e))?;
        if before.as_ref() == Some(&stamp) {
            self.stamp = before;
            return Ok(None);
        }
        let text = read(path).map_err(|e| named(&e))?;
        // One that was just written is read again, for its time may not show the next change.
        self.stamp = stamp.is_settled().then_some(stamp);
        let digest = Sha256::digest(&text).into();
        if let Some((_, good)) = self.content.filter(|(before, _)| *before == digest) {
            // What was said of it holds; it may have been away in between.
            self.bad = !good;
            return Ok(None);
        }
        let parsed = parse(&text).map_err(|e| named(&e));
        self.content = Some((digest, parsed.is_ok()));
        self.bad &= parsed.is_err();
        parsed.map(Some)
    }
}
