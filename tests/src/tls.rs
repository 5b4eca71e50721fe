//! Certificates of a test's own, and requests to a gateway that shows one.

use std::io::BufReader;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
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
        static FILES: AtomicU32 = AtomicU32::new(0);
        let key = key();
        let mut chain = params.signed_by(&key, &self.issuer).expect("a certificate").pem();
        chain.extend(between.iter().map(|authority| authority.pem.as_str()));
        let number = FILES.fetch_add(1, Ordering::Relaxed);
        let file = |what, content: String| {
            let path =
                std::env::temp_dir().join(format!("longwire-{}-{number}-{what}.pem", std::process::id()));
            std::fs::write(&path, content).expect("a file");
            path
        };
        Credentials { certificate: file("certificate", chain), key: file("key", key.serialize_pem()) }
    }

    /// A good certificate for [`NAME`].
    pub fn gateway(&self) -> Credentials {
        self.issue(&params(NAME), &[])
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

/// The files of a gateway, which are removed with this.
pub struct Credentials {
    certificate: PathBuf,
    key: PathBuf,
}

impl Credentials {
    /// The options of `longwire serve`.
    pub fn options(&self) -> [&str; 4] {
        let [certificate, key] = [&self.certificate, &self.key].map(|path| path.to_str().expect("UTF-8"));
        ["--tls-cert", certificate, "--tls-key", key]
    }
}

impl Drop for Credentials {
    fn drop(&mut self) {
        let _ = (std::fs::remove_file(&self.certificate), std::fs::remove_file(&self.key));
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
    let host = [headers, &[("Connection", "close")]].concat();
    http::exchange(BufReader::new(stream), address, method, target, &host, body)
}
