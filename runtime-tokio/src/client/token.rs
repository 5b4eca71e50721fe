//! Credentials, and where they come from.

use super::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

type Fetching = Pin<Box<dyn Future<Output = Result<String, String>> + Send>>;

/// The credential of an endpoint.
#[derive(Clone)]
pub(super) enum Tokens {
    None,
    Fixed(Arc<str>),
    Source(Arc<TokenSource>),
}

/// Somebody to be asked, and the last answer.
pub(super) struct TokenSource {
    ask: Box<dyn Fn() -> Fetching + Send + Sync>,
    current: Mutex<Option<Arc<str>>>,
}

impl TokenSource {
    pub(super) fn new<F, E>(source: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<String, E>> + Send + 'static,
        E: fmt::Display,
    {
        let ask = move || -> Fetching {
            let answer = source();
            Box::pin(async { answer.await.map_err(|error| error.to_string()) })
        };
        Self { ask: Box::new(ask), current: Mutex::default() }
    }
}

impl Tokens {
    pub(super) fn fixed(token: String) -> Result<Self, Error> {
        check(&token)?;
        Ok(Self::Fixed(token.into()))
    }

    pub(super) const fn is_renewable(&self) -> bool {
        matches!(self, Self::Source(_))
    }

    pub(super) fn current(&self) -> Option<Arc<str>> {
        match self {
            Self::None => None,
            Self::Fixed(token) => Some(token.clone()),
            Self::Source(source) => source.current.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// Asks for a credential, if there is none yet or another one is wanted.
    pub(super) async fn prepare(&self, another: bool) -> Result<(), Error> {
        let Self::Source(source) = self else { return Ok(()) };
        if !another && self.current().is_some() {
            return Ok(());
        }
        let token = (source.ask)().await.map_err(Error::TokenSource)?;
        check(&token)?;
        *source.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(token.into());
        Ok(())
    }
}

fn check(token: &str) -> Result<(), Error> {
    let good = !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic());
    if good { Ok(()) } else { Err(Error::Token) }
}
