//! A certificate authority of a test's own.

use longwire::net::client_config;
use longwire::net::rustls::{ClientConfig, RootCertStore};
use rcgen::{BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use std::path::PathBuf;
use std::sync::Arc;

/// An authority, and its certificate in a file, which is removed with it.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: Certificate,
    file: PathBuf,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        // Two of one name would be told apart by their signatures only.
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        let file = std::env::temp_dir().join(format!("longwire-{}-{name}.pem", std::process::id()));
        std::fs::write(&file, certificate.pem()).unwrap();
        Self { issuer: Issuer::new(params, key), certificate, file }
    }

    /// Where its certificate is.
    pub(crate) fn path(&self) -> &str {
        self.file.to_str().unwrap()
    }

    /// A certificate of this authority for `localhost`, and its key.
    pub(crate) fn certificate(&self) -> (Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// A client that trusts it.
    pub(crate) fn client(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone()).unwrap();
        Arc::new(client_config(roots))
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file);
    }
}

/// A certificate and its key in files, which are removed with it.
pub(crate) struct Files {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Files {
    pub(crate) fn new(name: &str, (certificate, key): &(Certificate, KeyPair)) -> Self {
        let file =
            |kind| std::env::temp_dir().join(format!("longwire-{}-{name}-{kind}.pem", std::process::id()));
        let files = Self { certificate: file("certificate"), key: file("key") };
        files.put(certificate, key);
        files
    }

    pub(crate) fn put(&self, certificate: &Certificate, key: &KeyPair) {
        std::fs::write(&self.certificate, certificate.pem()).unwrap();
        std::fs::write(&self.key, key.serialize_pem()).unwrap();
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = (std::fs::remove_file(&self.certificate), std::fs::remove_file(&self.key));
    }
}
