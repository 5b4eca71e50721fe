//! TLS of the gateway's own: a certificate and its key from files, read again when they change.

use super::FileError;
use super::files::{Stamp, read, watch};
use crate::hub::{Hub, count};
use crate::net::rustls::crypto::ring::{Ticketer, default_provider};
use crate::net::rustls::pki_types::pem::PemObject as _;
use crate::net::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use crate::net::rustls::server::{ClientHello, ResolvesServerCert};
use crate::net::rustls::sign::CertifiedKey;
use crate::net::rustls::{Error, ServerConfig};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::Duration;

/// How often the files are looked at.
const EVERY: Duration = Duration::from_secs(1);

/// Where a gateway's certificate and its key are (PEM).
#[derive(Clone, Debug)]
pub struct CertificateFiles {
    /// The certificate, and behind it those that it is signed with, up to but without the root.
    pub certificate: PathBuf,
    /// Its private key: PKCS #8, PKCS #1 or SEC1.
    pub key: PathBuf,
}

impl CertificateFiles {
    /// Reads both: TLS 1.2 and 1.3, HTTP/1.1, and tickets to resume a session with, of which nothing is kept here.
    ///
    /// ```no_run
    /// use longwire::gateway::{CertificateFiles, Gateway};
    /// use std::sync::Arc;
    ///
    /// # async fn serve(gateway: Gateway) -> Result<(), Box<dyn std::error::Error>> {
    /// let files = CertificateFiles { certificate: "chain.pem".into(), key: "key.pem".into() };
    /// let (config, watcher) = files.load()?;
    /// tokio::spawn(watcher.run(Arc::downgrade(gateway.hub())));
    /// let listener = tokio::net::TcpListener::bind("0.0.0.0:443").await?;
    /// gateway.serve_tls(listener, config).await;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// One cannot be read, is larger than 16 MiB, or is not what it should be; the key is another certificate's; the
    /// system has no randomness.
    pub fn load(self) -> Result<(Arc<ServerConfig>, CertificateWatcher), FileError> {
        let stamps = self.stamps();
        let current = Arc::new(Current(RwLock::new(self.read()?)));
        let mut config = ServerConfig::builder()
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&current) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.ticketer = Ticketer::new().map_err(|error| FileError(format!("TLS tickets: {error}")))?;
        Ok((Arc::new(config), CertificateWatcher { files: self, current, stamps, bad: false }))
    }

    fn read(&self) -> Result<Arc<CertifiedKey>, FileError> {
        fn wrong(what: &str, path: &Path, error: &dyn fmt::Display) -> FileError {
            FileError(format!("{what} {}: {error}", path.display()))
        }
        let no_certificate = |error: &dyn fmt::Display| wrong("certificate", &self.certificate, error);
        let no_key = |error: &dyn fmt::Display| wrong("key", &self.key, error);
        let pem = read(&self.certificate).map_err(|error| no_certificate(&error))?;
        let chain = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|error| no_certificate(&error))?;
        if chain.is_empty() {
            return Err(no_certificate(&"no certificate in it"));
        }
        let pem = read(&self.key).map_err(|error| no_key(&error))?;
        let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|error| no_key(&error))?;
        let fits = CertifiedKey::from_der(chain, key, &default_provider());
        fits.map(Arc::new).map_err(|error| match error {
            Error::InvalidCertificate(error) => no_certificate(&format_args!("{error:?}")),
            Error::InconsistentKeys(_) => no_key(&"it is not the certificate's"),
            error => no_key(&error),
        })
    }

    /// What tells these files from others, as far as that can be said without reading them.
    fn stamps(&self) -> [Option<Stamp>; 2] {
        [&self.certificate, &self.key].map(|path| fs::metadata(path).and_then(|m| Stamp::of(&m)).ok())
    }
}

/// The certificate in force.
#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// Looks at the files of a certificate from time to time.
#[derive(Debug)]
pub struct CertificateWatcher {
    files: CertificateFiles,
    current: Arc<Current>,
    stamps: [Option<Stamp>; 2],
    /// They could not be used, and that was said.
    bad: bool,
}

impl CertificateWatcher {
    /// Looks once a second for as long as the hub is there. Whoever connects after the files have changed gets the new
    /// certificate; open connections keep theirs. Files that cannot be used, or do not fit each other, change nothing:
    /// that is logged as an error, and counted ([`Counters::bad_files`](crate::hub::Counters::bad_files) of the default
    /// log). A dropped future stops looking.
    pub async fn run(self, hub: Weak<Hub>) {
        let take = |_: &Self, bad, hub: &Hub| count(&hub.counters().bad_files, u64::from(bad));
        watch(self, EVERY, hub, Self::look, take).await;
    }

    /// Takes what has changed; true when it can no longer be used.
    fn look(&mut self) -> bool {
        let stamps = self.files.stamps();
        let same = stamps == self.stamps;
        // One that was just written may be written again without its stamp showing it, or only half of them is there.
        if same && !self.bad && stamps.iter().flatten().all(Stamp::is_settled) {
            return false;
        }
        self.stamps = stamps;
        match self.files.read() {
            Ok(read) => {
                let mut current = self.current.0.write().unwrap_or_else(PoisonError::into_inner);
                if current.cert != read.cert {
                    tracing::info!("the certificate was read again");
                }
                *current = read;
                self.bad = false;
                false
            }
            Err(error) => {
                let new = !std::mem::replace(&mut self.bad, true);
                if new {
                    tracing::error!(%error, "the certificate cannot be used; the one before stays in force");
                }
                new
            }
        }
    }
}
