//! The ceiling: axum over rustls that gives the same bytes to everybody. What is above it, no server of this kind
//! can reach.

use std::sync::Arc;

use anyhow::{Context, Result};
use axum::Router;
use axum::response::IntoResponse;
use bytes::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::pki::{CERT, KEY};

/// The argument that makes this program such a server.
pub(crate) const COMMAND: &str = "serve-ceiling";
/// The reply's file in the server's directory; the file with the address to listen on.
pub(crate) const REPLY: &str = "reply.json";
pub(crate) const ADDRESS: &str = "address";

/// Serves until it is killed.
pub(crate) fn serve(dir: &str) -> Result<()> {
    let read = |name: &str| std::fs::read(format!("{dir}/{name}")).with_context(|| name.to_owned());
    let chain = CertificateDer::pem_slice_iter(&read(CERT)?).collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(&read(KEY)?)?;
    let tls = rustls::ServerConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    let address = String::from_utf8(read(ADDRESS)?)?;
    let reply = Bytes::from(read(REPLY)?);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(listen(&address, TlsAcceptor::from(Arc::new(tls)), reply))
}

async fn listen(address: &str, tls: TlsAcceptor, reply: Bytes) -> Result<()> {
    let answer = || async move {
        let headers = [("content-type", "application/json"), ("cache-control", "no-store")];
        (headers, reply).into_response()
    };
    let router = Router::new().fallback(axum::routing::any(answer));
    let listener = TcpListener::bind(address).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (tls, router) = (tls.clone(), router.clone());
        tokio::spawn(async move {
            let Ok(stream) = tls.accept(stream).await else { return };
            let service = TowerToHyperService::new(router);
            let http = auto::Builder::new(TokioExecutor::new());
            // A client that hangs up ends it.
            let _ = http.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
