//! A certificate authority for one run, and a certificate for loopback.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{ClientConfig, RootCertStore};

/// Name of the chain in a server's directory.
pub(crate) const CERT: &str = "server.pem";
/// Name of the key in a server's directory.
pub(crate) const KEY: &str = "server.key";

/// What clients trust and servers show.
pub(crate) struct Pki {
    cert: String,
    key: String,
    pub(crate) ca: String,
    pub(crate) client: Arc<ClientConfig>,
}

impl Pki {
    pub(crate) fn new() -> Result<Self> {
        let ca_key = KeyPair::generate()?;
        let mut ca = CertificateParams::new(Vec::new())?;
        ca.distinguished_name.push(DnType::CommonName, "bench CA");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_cert = ca.self_signed(&ca_key)?;
        let issuer = Issuer::new(ca, ca_key);
        let key = KeyPair::generate()?;
        let server = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?;
        let cert = server.signed_by(&key, &issuer)?;
        let mut roots = RootCertStore::empty();
        roots.add(ca_cert.der().clone())?;
        let client = ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { cert: cert.pem(), key: key.serialize_pem(), ca: ca_cert.pem(), client: Arc::new(client) })
    }

    /// Puts chain and key into a server's directory.
    pub(crate) fn write(&self, dir: &Path) -> Result<()> {
        std::fs::write(dir.join(CERT), format!("{}{}", self.cert, self.ca))?;
        Ok(std::fs::write(dir.join(KEY), &self.key)?)
    }
}
