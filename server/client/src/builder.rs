//! Setting a client up: address, trust, limits. Never opens a connection.

use crate::address::Address;
use crate::transport::Transport;
use crate::{Client, ClientError};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use std::sync::Arc;
use std::time::Duration;

/// How long and how much a client waits for.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For a connection with its TLS handshake.
    pub connect: Duration,
    /// For a whole call, connection included.
    pub call: Duration,
    /// Silence on an event stream; the server sends a blank line every 15 s.
    pub stream_idle: Duration,
    /// Bytes of a reply.
    pub body_bytes_max: usize,
    /// Idle connections kept.
    pub idle_connections_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            call: Duration::from_secs(20),
            stream_idle: Duration::from_secs(45),
            body_bytes_max: 4 << 20,
            idle_connections_max: 4,
        }
    }
}

/// Collects what a [`Client`] needs.
#[derive(Debug)]
pub struct ClientBuilder {
    address: String,
    ca_pem: Vec<u8>,
    limits: Limits,
}

impl ClientBuilder {
    pub(crate) fn new(address: &str) -> Self {
        Self { address: address.to_owned(), ca_pem: Vec::new(), limits: Limits::default() }
    }

    /// Trusts these CAs, and only these. May be called more than once; the CAs add up.
    #[must_use]
    pub fn ca_pem(mut self, pem: impl AsRef<[u8]>) -> Self {
        self.ca_pem.extend_from_slice(pem.as_ref());
        self.ca_pem.push(b'\n');
        self
    }

    /// Replaces the limits.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Checks address and CAs.
    ///
    /// # Errors
    /// [`ClientError::Config`] if one of them cannot be used.
    pub fn build(self) -> Result<Client, ClientError> {
        let address = Address::parse(&self.address)?;
        let tls = if address.tls { Some(Arc::new(tls_config(&self.ca_pem)?)) } else { None };
        Ok(Client::new(Transport::new(address, tls, self.limits)?))
    }
}

fn tls_config(ca_pem: &[u8]) -> Result<ClientConfig, ClientError> {
    let mut roots = RootCertStore::empty();
    for cert in CertificateDer::pem_slice_iter(ca_pem) {
        let cert = cert.map_err(|e| ClientError::Config(format!("CA bundle: {e}")))?;
        roots.add(cert).map_err(|e| ClientError::Config(format!("CA bundle: {e}")))?;
    }
    if roots.is_empty() {
        return Err(ClientError::Config("https needs a CA bundle, and it has no certificate".to_owned()));
    }
    // Named explicitly, so that no process-wide default decides about it.
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| ClientError::Config(format!("TLS: {e}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}
