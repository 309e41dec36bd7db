//! The webhook's HTTPS: TLS 1.3, two routes, bounded in bytes, time and connections. Never decides
//! about a pod.

use crate::certs::Pair;
use crate::review;
use crate::settings::Settings;
use anyhow::Context;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::future::Future;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

/// A review holds a pod twice at most, and the API server stores none above 1.5 MiB.
const REVIEW_BYTES_MAX: usize = 4 << 20;
const CONNECTIONS_MAX: usize = 512;
const HANDSHAKE: Duration = Duration::from_secs(5);
const HEADERS: Duration = Duration::from_secs(10);
const DRAIN: Duration = Duration::from_secs(10);

/// What changes while the webhook serves.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    settings: RwLock<Option<Arc<Settings>>>,
    certificate: RwLock<Option<Arc<CertifiedKey>>>,
}

impl Shared {
    pub(crate) fn set_settings(&self, settings: Settings) {
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(settings));
    }

    pub(crate) fn set_certificate(&self, pair: &Pair) -> anyhow::Result<()> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(pair.cert.as_bytes())
            .collect::<Result<_, _>>()
            .context("read the certificate")?;
        let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).context("read the key")?;
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).context("use the key")?;
        let certified = CertifiedKey::new(chain, key);
        certified.keys_match().context("certificate and key")?;
        *self.certificate.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(certified));
        Ok(())
    }

    fn settings(&self) -> Option<Arc<Settings>> {
        self.settings.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ResolvesServerCert for Shared {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.certificate.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

pub(crate) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/mutate", post(mutate))
        .route("/healthz", get(healthz))
        .layer(DefaultBodyLimit::max(REVIEW_BYTES_MAX))
        .with_state(shared)
}

async fn healthz(State(shared): State<Arc<Shared>>) -> StatusCode {
    if shared.settings().is_some() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

async fn mutate(State(shared): State<Arc<Shared>>, body: Bytes) -> Response {
    let Some(settings) = shared.settings() else { return StatusCode::SERVICE_UNAVAILABLE.into_response() };
    let Some(review) = review::answer(&body, &settings) else {
        return (StatusCode::BAD_REQUEST, "not an AdmissionReview of a Pod").into_response();
    };
    match serde_json::to_vec(&review) {
        Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Serves until `stop` ends, then lets open requests finish.
pub(crate) async fn serve(
    listener: TcpListener,
    shared: Arc<Shared>,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let resolver: Arc<dyn ResolvesServerCert> = Arc::clone(&shared) as _;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .context("TLS")?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let service = TowerToHyperService::new(router(shared));
    let graceful = GracefulShutdown::new();
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    tokio::pin!(stop);
    loop {
        let next = async {
            // A connection waits for a slot in the kernel's queue, not in ours.
            let slot = Arc::clone(&slots).acquire_owned().await.context("connection slots")?;
            anyhow::Ok((slot, listener.accept().await))
        };
        let (slot, accepted) = tokio::select! {
            next = next => next?,
            () = &mut stop => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, usually: give the open connections time to end.
                tracing::warn!(%error, "accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (acceptor, service, watcher) = (acceptor.clone(), service.clone(), graceful.watcher());
        tokio::spawn(async move {
            let _slot = slot;
            let Ok(Ok(stream)) = timeout(HANDSHAKE, acceptor.accept(stream)).await else { return };
            let mut server = auto::Builder::new(TokioExecutor::new());
            server.http1().timer(TokioTimer::new()).header_read_timeout(HEADERS);
            let connection = server.serve_connection(TokioIo::new(stream), service).into_owned();
            if let Err(error) = watcher.watch(connection).await {
                tracing::debug!(%error, "connection ended");
            }
        });
    }
    if timeout(DRAIN, graceful.shutdown()).await.is_err() {
        tracing::warn!("some connections did not end in time");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certs;
    use axum::body::Body;
    use axum::http::Request;
    use hyper::client::conn::http1;
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, RootCertStore};
    use std::net::SocketAddr;
    use tokio::net::TcpStream;
    use tokio::sync::oneshot;
    use tokio_rustls::TlsConnector;

    const NAME: &str = "coffer-injector.coffer-system.svc";

    fn settings() -> Settings {
        use clap::Parser;
        let args = ["coffer-injector", "--cluster", "c", "--agent-image", "agent:1"];
        crate::settings::Args::parse_from(args).settings(String::new())
    }

    // As the API server calls: by the Service's name, trusting the bundle only.
    async fn call(to: SocketAddr, ca_bundle: &str, request: Request<Body>) -> anyhow::Result<StatusCode> {
        let mut roots = RootCertStore::empty();
        for cert in CertificateDer::pem_slice_iter(ca_bundle.as_bytes()) {
            roots.add(cert?)?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(to).await?;
        let stream =
            TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(NAME)?, stream).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(sender.send_request(request).await?.status())
    }

    fn get(path: &str) -> Request<Body> {
        Request::get(path).header("host", NAME).body(Body::empty()).unwrap()
    }

    fn post(bytes: usize) -> Request<Body> {
        Request::post("/mutate").header("host", NAME).body(Body::from(vec![b'x'; bytes])).unwrap()
    }

    #[tokio::test]
    async fn certificates_change_under_a_running_server_and_rubbish_is_refused() {
        let shared = Arc::new(Shared::default());
        let first = certs::mint(&[NAME.to_owned()], crate::clock::unix_secs(), None).unwrap();
        shared.set_certificate(&first.current).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let stopping = async move {
            let _ = stopped.await;
        };
        let serving = tokio::spawn(serve(listener, Arc::clone(&shared), stopping));

        let ca = &first.ca_bundle;
        assert_eq!(call(to, ca, get("/healthz")).await.unwrap(), StatusCode::SERVICE_UNAVAILABLE);
        shared.set_settings(settings());
        assert_eq!(call(to, ca, get("/healthz")).await.unwrap(), StatusCode::OK);
        assert_eq!(call(to, ca, post(10)).await.unwrap(), StatusCode::BAD_REQUEST);
        assert_eq!(call(to, ca, post(REVIEW_BYTES_MAX + 1)).await.unwrap(), StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(call(to, ca, get("/mutate")).await.unwrap(), StatusCode::METHOD_NOT_ALLOWED);

        let second = certs::mint(&[NAME.to_owned()], first.serve_from + 1, Some(&first)).unwrap();
        assert_eq!(call(to, &second.ca_bundle, get("/healthz")).await.unwrap(), StatusCode::OK);
        shared.set_certificate(&second.current).unwrap();
        assert_eq!(call(to, &second.ca_bundle, get("/healthz")).await.unwrap(), StatusCode::OK);
        assert!(call(to, ca, get("/healthz")).await.is_err(), "the old CA alone does not vouch for the new");

        stop.send(()).unwrap();
        serving.await.unwrap().unwrap();
    }
}
