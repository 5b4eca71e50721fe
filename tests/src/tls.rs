//! Certificates of a test's own, and requests to a gateway that shows one.

use std::io::BufReader;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::http::{self, Response};

/// The name that [`Authority::gateway`] is for.
pub const NAME: &str = "gateway.test";

/// Somebody who signs certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: Vec<u8>,
    pem: String,
}

impl Authority {
    /// One that vouches for itself.
    pub fn root(name: &str) -> Self {
        let (params, key) = (Self::params(name), key());
        let certificate = params.self_signed(&key).expect("a certificate");
        Self { der: certificate.der().to_vec(), pem: certificate.pem(), issuer: Issuer::new(params, key) }
    }

    /// One that this one vouches for; whether it may be one is in `params`.
    pub fn signs(&self, params: CertificateParams) -> Self {
        let key = key();
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Self { der: certificate.der().to_vec(), pem: certificate.pem(), issuer: Issuer::new(params, key) }
    }

    /// What an authority of this name asks for.
    pub fn params(name: &str) -> CertificateParams {
        let mut params = params(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
    }

    /// Its certificate in DER, as a device is given it.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// A certificate and its key, as a gateway is given them; behind it those of `between`.
    pub fn issue(&self, params: &CertificateParams, between: &[&Self]) -> Credentials {
        let key = key();
        let mut chain = params.signed_by(&key, &self.issuer).expect("a certificate").pem();
        chain.extend(between.iter().map(|authority| authority.pem.as_str()));
        Credentials {
            certificate: Temporary::new("certificate.pem", chain.as_bytes()),
            key: Temporary::new("key.pem", key.serialize_pem().as_bytes()),
        }
    }

    /// A good certificate for [`NAME`], and for `localhost`.
    pub fn gateway(&self) -> Credentials {
        let mut params = params(NAME);
        params.subject_alt_names.push(SanType::DnsName("localhost".try_into().expect("a name")));
        self.issue(&params, &[])
    }

    /// Its certificate in DER, in a file for the emulator's firmware.
    pub fn file(&self) -> Temporary {
        Temporary::new("ca.der", &self.der)
    }

    /// A client that trusts it.
    pub fn client(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone().into()).expect("a certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        Arc::new(builder.expect("versions").with_root_certificates(roots).with_no_client_auth())
    }
}

/// What a server of this name asks for; its time is that of the library's defaults, which is long.
pub fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
    // Two authorities of one name would be told apart by their signatures only.
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key")
}

/// The files of a gateway.
pub struct Credentials {
    certificate: Temporary,
    key: Temporary,
}

impl Credentials {
    /// The options of `longwire serve`.
    pub fn options(&self) -> [&str; 4] {
        ["--tls-cert", self.certificate.path(), "--tls-key", self.key.path()]
    }
}

/// A file that is removed with this.
pub struct Temporary(PathBuf);

impl Temporary {
    fn new(what: &str, content: &[u8]) -> Self {
        static FILES: AtomicU32 = AtomicU32::new(0);
        let nth = FILES.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("longwire-{}-{nth}-{what}", std::process::id()));
        std::fs::write(&path, content).expect("a file");
        Self(path)
    }

    /// Where it is.
    pub fn path(&self) -> &str {
        self.0.to_str().expect("UTF-8")
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// As [`http::request`], over TLS to [`NAME`].
pub fn request(
    config: &Arc<ClientConfig>,
    address: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Response {
    let connection = ClientConnection::new(config.clone(), NAME.try_into().expect("a name"));
    let stream = StreamOwned::new(connection.expect("a client"), http::connect(address));
    http::exchange(BufReader::new(stream), address, method, target, headers, body)
}
