//! Credentials: who is let in, by what, and until when (`PROTOCOL.md` section 8.4).

mod files;
mod jwt;
pub(super) mod requests;
mod revoked;
mod ring;
pub(super) mod tickets;
mod tokens;

pub use files::{CredentialFiles, Watcher};
pub use jwt::{Jwt, JwtConfig};
pub use revoked::Revoked;
pub use tokens::TokenFile;

use crate::hub::{Authorize, Authorizing, Denied, Grant, Hub};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

/// Why a file of credentials, a certificate or a key cannot be used, in one line that shows no credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileError(pub(super) String);

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for FileError {}

/// All that a gateway accepts: tokens, JWTs, or both, but for those that were revoked. Each can be put in the place
/// of another while the gateway runs; [`CredentialFiles`] does so when its files change.
///
/// ```
/// use longwire::gateway::{Credentials, Revoked, TokenFile};
/// use longwire::hub::{Hub, HubConfig};
/// use std::sync::Arc;
///
/// let tokens = TokenFile::parse("[[token]]\nsecret = \"5f1d7e84a6c34e0b\"\nsubject = \"dashboard\"")?;
/// let credentials = Arc::new(Credentials::default());
/// let hub = Hub::start(HubConfig::default(), credentials.clone())?;
/// credentials.set_tokens(Some(tokens), &hub);
/// // Shut out from now on, and what is open is cut off.
/// credentials.set_revoked(Revoked::parse("dashboard")?, &hub);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
pub struct Credentials {
    tokens: Slot<Option<TokenFile>>,
    jwt: Slot<Option<Jwt>>,
    revoked: Slot<Revoked>,
}

/// Something that is read often, and replaced at times.
#[derive(Debug, Default)]
struct Slot<T>(RwLock<Arc<T>>);

impl<T> Slot<T> {
    fn get(&self) -> Arc<T> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts another in its place, and returns the old one.
    fn set(&self, new: T) -> Arc<T> {
        std::mem::replace(&mut self.0.write().unwrap_or_else(PoisonError::into_inner), Arc::new(new))
    }
}

impl Credentials {
    /// Accepts these tokens, and no others. Subjects of which a token is gone, or allows something else now, are cut
    /// off the hub.
    pub fn set_tokens(&self, tokens: Option<TokenFile>, hub: &Hub) {
        let old = self.tokens.set(tokens);
        if let Some(old) = &*old {
            hub.revoke_all(old.changed((*self.tokens.get()).as_ref()));
        }
    }

    /// Accepts JWTs that these keys have signed, and no others. Grants that were given on others hold to their end.
    pub fn set_jwt(&self, jwt: Option<Jwt>) {
        self.jwt.set(jwt);
    }

    /// Accepts no credential of these. Those that were not among them before are cut off the hub.
    pub fn set_revoked(&self, revoked: Revoked, hub: &Hub) {
        let old = self.revoked.set(revoked);
        hub.revoke_all(self.revoked.get().beyond(&old));
    }

    fn look_up(&self, credential: Option<&str>) -> Result<Grant, Denied> {
        let secret = credential.ok_or(Denied("a token is needed"))?;
        let (tokens, jwt) = (self.tokens.get(), self.jwt.get());
        let known = (*tokens).as_ref().map(|tokens| tokens.look_up(credential));
        let grant = match (known, &*jwt) {
            (None, Some(jwt)) => jwt.verify(secret),
            (Some(Err(denied)), Some(jwt)) if denied == TokenFile::UNKNOWN && Jwt::is_like(secret) => {
                jwt.verify(secret)
            }
            (Some(known), _) => known,
            (None, None) => Err(TokenFile::UNKNOWN),
        }?;
        let revoked = self.revoked.get();
        if revoked.contains(&grant.subject) || grant.id.as_deref().is_some_and(|id| revoked.contains(id)) {
            return Err(Denied("the grant was revoked"));
        }
        Ok(grant)
    }
}

impl Authorize for Credentials {
    fn authorize<'a>(&'a self, credential: Option<&'a str>) -> Authorizing<'a> {
        Box::pin(std::future::ready(self.look_up(credential)))
    }
}
