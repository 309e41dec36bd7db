//! The server's certificate: TLS 1.3 only, reloaded without a restart. Never logs a key.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
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
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

fn read(files: &TlsFiles) -> Result<Arc<CertifiedKey>, TlsError> {
    let refuse = |path: &Path, what: String| TlsError::File { file: path.display().to_string(), what };
    let chain = CertificateDer::pem_file_iter(&files.cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| refuse(&files.cert, format!("expected a PEM certificate chain: {e}")))?;
    if chain.is_empty() {
        return Err(refuse(&files.cert, "expected a PEM certificate chain, found no certificate".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|e| refuse(&files.key, format!("expected a PEM private key: {e}")))?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let pair = CertifiedKey::from_der(chain, key, &provider).map_err(|e| TlsError::Pair {
        cert: files.cert.display().to_string(),
        key: files.key.display().to_string(),
        what: e.to_string(),
    })?;
    Ok(Arc::new(pair))
}
