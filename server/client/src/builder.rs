//! Setting a client up: address, trust, limits. Never opens a connection.

use crate::address::Address;
use crate::transport::Transport;
use crate::trust::Anyone;
use crate::{Client, ClientError};
use http::HeaderMap;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

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
    /// How often a call without an effect is repeated when the server says that it is busy or elsewhere (412, 5xx but
    /// not 501).
    pub retries: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            call: Duration::from_secs(20),
            stream_idle: Duration::from_secs(45),
            body_bytes_max: 4 << 20,
            idle_connections_max: 4,
            retries: 0,
        }
    }
}

/// Collects what a [`Client`] needs.
#[derive(Debug)]
pub struct ClientBuilder {
    address: String,
    ca_pem: Vec<u8>,
    own: Option<(Vec<u8>, Zeroizing<Vec<u8>>)>,
    server_name: Option<String>,
    trust_anyone: bool,
    headers: HeaderMap,
    limits: Limits,
}

impl ClientBuilder {
    pub(crate) fn new(address: &str) -> Self {
        Self {
            address: address.to_owned(),
            ca_pem: Vec::new(),
            own: None,
            server_name: None,
            trust_anyone: false,
            headers: HeaderMap::new(),
            limits: Limits::default(),
        }
    }

    /// Trusts these CAs, and only these. May be called more than once; the CAs add up.
    #[must_use]
    pub fn ca_pem(mut self, pem: impl AsRef<[u8]>) -> Self {
        self.ca_pem.extend_from_slice(pem.as_ref());
        self.ca_pem.push(b'\n');
        self
    }

    /// Shows this certificate, with its key, to a server that asks; both PEM.
    #[must_use]
    pub fn own_certificate(mut self, chain_pem: Vec<u8>, key_pem: Zeroizing<Vec<u8>>) -> Self {
        self.own = Some((chain_pem, key_pem));
        self
    }

    /// Expects this name in the server's certificate, whatever the address says.
    #[must_use]
    pub fn server_name(mut self, name: &str) -> Self {
        self.server_name = Some(name.to_owned());
        self
    }

    /// Believes any certificate: whoever is on the way can read and change everything. For trying things out.
    #[must_use]
    pub fn trust_anyone(mut self) -> Self {
        self.trust_anyone = true;
        self
    }

    /// Sends this header with every call, such as the namespace.
    ///
    /// # Errors
    /// [`ClientError::Config`] if the value cannot be a header's.
    pub fn header(mut self, name: &'static str, value: &str) -> Result<Self, ClientError> {
        let value = value.parse().map_err(|_| ClientError::Config(format!("{name} cannot be {value:?}")))?;
        self.headers.insert(name, value);
        Ok(self)
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
        let tls = if address.tls { Some(Arc::new(self.tls_config()?)) } else { None };
        let name = self.server_name.as_deref().unwrap_or(&address.host).to_owned();
        Ok(Client::new(Transport::new(address, &name, tls, self.limits)?, self.headers))
    }

    fn tls_config(&self) -> Result<ClientConfig, ClientError> {
        // Named explicitly, so that no process-wide default decides about it.
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| ClientError::Config(format!("TLS: {e}")))?;
        let builder = if self.trust_anyone {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone::new(provider)))
        } else {
            builder.with_root_certificates(roots(&self.ca_pem)?)
        };
        match &self.own {
            None => Ok(builder.with_no_client_auth()),
            Some((chain, key)) => {
                let wrong =
                    |e: &dyn std::fmt::Display| ClientError::Config(format!("client certificate: {e}"));
                let chain = CertificateDer::pem_slice_iter(chain).collect::<Result<Vec<_>, _>>();
                let chain = chain.map_err(|e| wrong(&e))?;
                let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| wrong(&e))?;
                builder.with_client_auth_cert(chain, key).map_err(|e| wrong(&e))
            }
        }
    }
}

fn roots(ca_pem: &[u8]) -> Result<RootCertStore, ClientError> {
    let mut roots = RootCertStore::empty();
    for cert in CertificateDer::pem_slice_iter(ca_pem) {
        let cert = cert.map_err(|e| ClientError::Config(format!("CA bundle: {e}")))?;
        roots.add(cert).map_err(|e| ClientError::Config(format!("CA bundle: {e}")))?;
    }
    if roots.is_empty() {
        return Err(ClientError::Config("https needs a CA bundle, and it has no certificate".to_owned()));
    }
    Ok(roots)
}
