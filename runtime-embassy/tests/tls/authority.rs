//! Certificates of a test's own, and servers that show them.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, SupportedProtocolVersion};

/// Somebody who signs certificates.
pub(crate) struct Authority {
    pub(crate) issuer: Issuer<'static, KeyPair>,
    pub(crate) der: Vec<u8>,
}

pub(crate) fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    (params.not_before, params.not_after) = (date_time_ymd(2026, 1, 1), date_time_ymd(2027, 1, 1));
    params
}

pub(crate) fn ca_params() -> CertificateParams {
    let mut params = params("ca.example");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

pub(crate) fn named_ca(name: &str) -> CertificateParams {
    named(ca_params(), name)
}

/// All others have one name.
pub(crate) fn named(mut params: CertificateParams, name: &str) -> CertificateParams {
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params
}

impl Authority {
    pub(crate) fn root() -> Self {
        let key = KeyPair::generate().unwrap();
        let der = ca_params().self_signed(&key).unwrap().der().to_vec();
        Self { issuer: Issuer::new(ca_params(), key), der }
    }

    /// One that this one vouches for; whether it may be one is in `params`.
    pub(crate) fn signs(&self, params: CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let der = params.signed_by(&key, &self.issuer).unwrap().der().to_vec();
        Self { issuer: Issuer::new(params, key), der }
    }

    /// A server with a certificate signed by this one, which shows `between` as well.
    pub(crate) fn server(&self, params: CertificateParams, between: &[&[u8]]) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap().der().to_vec();
        server(std::iter::once(leaf).chain(between.iter().map(|der| der.to_vec())).collect(), &key)
    }
}

/// A server with these certificates, its own first, and its key.
pub(crate) fn server(chain: Vec<Vec<u8>>, key: &KeyPair) -> Arc<ServerConfig> {
    server_of(&rustls::version::TLS13, chain, key)
}

pub(crate) fn server_of(
    version: &'static SupportedProtocolVersion,
    chain: Vec<Vec<u8>>,
    key: &KeyPair,
) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            chain.into_iter().map(Into::into).collect(),
            PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        );
    Arc::new(config.unwrap())
}
