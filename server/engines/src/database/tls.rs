//! TLS to databases: version 1.3, and only the configured CA is trusted. Never connects.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::url::Tls;
use crate::EngineError;

const CA_BYTES_MAX: usize = 64 * 1024;

/// The certificates of a CA bundle.
pub(super) fn roots(pem: &str) -> Result<RootCertStore, EngineError> {
    let refused = |why: &str| EngineError::bad(format!("root_ca: {why}"));
    if pem.len() > CA_BYTES_MAX {
        return Err(refused("longer than 65536 bytes"));
    }
    if pem.contains("PRIVATE KEY") {
        return Err(refused("it has a private key; only certificates belong there"));
    }
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|_| refused("not PEM"))?;
        roots.add(certificate).map_err(|_| refused("a certificate cannot serve as a CA"))?;
    }
    if roots.is_empty() {
        return Err(refused("no certificate in it"));
    }
    Ok(roots)
}

/// How sessions are protected; `None` for not at all.
pub(super) fn client(tls: Tls, root_ca: Option<&str>) -> Result<Option<ClientConfig>, EngineError> {
    if tls == Tls::Off {
        return Ok(None);
    }
    let pem = root_ca.ok_or_else(|| {
        EngineError::bad("root_ca is missing: the PEM of the CA that signed the database's certificate")
    })?;
    let roots = Arc::new(roots(pem)?);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|_| EngineError::bad("TLS 1.3 is not available"))?;
    let config = match tls {
        Tls::Ca => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(ChainOnly { roots, provider }))
            .with_no_client_auth(),
        Tls::Full | Tls::Off => builder.with_root_certificates(roots).with_no_client_auth(),
    };
    Ok(Some(config))
}

/// `verify-ca`: everything but the name.
#[derive(Debug)]
struct ChainOnly {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ChainOnly {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        rustls::client::verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(end_entity)?,
            &self.roots,
            intermediates,
            now,
            self.provider.signature_verification_algorithms.all,
        )?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        // Only TLS 1.3 is offered, so nobody can get here honestly.
        Err(rustls::Error::General("TLS 1.2 is not spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
