//! The server's certificate: TLS 1.3 only, reloaded without a restart. Never logs a key.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::TlsFiles;

/// Why a certificate could not be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// The file could not be read, or is no PEM.
    #[error("{file}: {what}")]
    File {
        /// Which.
        file: String,
        /// Why. Never quotes its content.
        what: String,
    },
    /// Read, but unusable.
    #[error("{cert} and {key}: {what}")]
    Pair {
        /// The chain's file.
        cert: String,
        /// The key's file.
        key: String,
        /// Why.
        what: String,
    },
    /// The library.
    #[error("TLS: {0}")]
    Setup(#[from] rustls::Error),
}

impl TlsError {
    fn file(path: &Path, what: String) -> Self {
        Self::File { file: path.display().to_string(), what }
    }
}

/// The present certificate, and where a newer one would be.
#[derive(Debug)]
pub(crate) struct Certificate {
    files: TlsFiles,
    current: RwLock<Arc<CertifiedKey>>,
}

impl Certificate {
    /// Reads chain and key.
    pub(crate) fn load(files: &TlsFiles) -> Result<Arc<Self>, TlsError> {
        let current = RwLock::new(read(files)?);
        Ok(Arc::new(Self { files: files.clone(), current }))
    }

    /// Reads chain and key again, and says whether the chain is another; on an error the present ones stay.
    pub(crate) fn reload(&self) -> Result<bool, TlsError> {
        let fresh = read(&self.files)?;
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let changed = fresh.cert != current.cert;
        *current = fresh;
        Ok(changed)
    }

    /// What a listener needs to speak TLS with this certificate.
    pub(crate) fn server_config(self: &Arc<Self>) -> Result<Arc<ServerConfig>, TlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?;
        let builder = match &self.files.clients {
            None => builder.with_no_client_auth(),
            Some(file) => builder.with_client_cert_verifier(self.clients(file, provider)?),
        };
        let mut config = builder.with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

impl Certificate {
    /// Who checks clients' certificates. These CAs are read once: changing them takes a restart.
    fn clients(
        &self,
        file: &Path,
        provider: Arc<rustls::crypto::CryptoProvider>,
    ) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in chain(file)? {
            roots.add(certificate).map_err(|e| TlsError::file(file, e.to_string()))?;
        }
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let builder = if self.files.clients_required { builder } else { builder.allow_unauthenticated() };
        builder.build().map_err(|e| TlsError::file(file, e.to_string()))
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

fn read(files: &TlsFiles) -> Result<Arc<CertifiedKey>, TlsError> {
    let chain = chain(&files.cert)?;
    let leaf = chain.first().map(|leaf| in_time(leaf)).unwrap_or(Ok(()));
    leaf.map_err(|what| TlsError::file(&files.cert, what))?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|e| TlsError::file(&files.key, format!("expected a PEM private key: {e}")))?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let pair = CertifiedKey::from_der(chain, key, &provider).map_err(|e| TlsError::Pair {
        cert: files.cert.display().to_string(),
        key: files.key.display().to_string(),
        what: e.to_string(),
    })?;
    Ok(Arc::new(pair))
}

/// The certificates of a PEM file, at least one.
fn chain(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| TlsError::file(file, format!("expected a PEM certificate chain: {e}")))?;
    if chain.is_empty() {
        let what = "expected a PEM certificate chain, found no certificate";
        return Err(TlsError::file(file, what.to_owned()));
    }
    Ok(chain)
}

/// A certificate that every client refuses is a mistake to be told about at once.
fn in_time(certificate: &CertificateDer<'_>) -> Result<(), String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
        .map_err(|e| format!("expected an X.509 certificate: {e}"))?;
    let (validity, now) = (parsed.validity(), x509_parser::time::ASN1Time::now());
    if now > validity.not_after {
        return Err(format!("the certificate expired on {}", validity.not_after));
    }
    if now < validity.not_before {
        return Err(format!("the certificate is not valid before {}", validity.not_before));
    }
    Ok(())
}
