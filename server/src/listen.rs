//! The accept loop: connections in, requests to the API, a graceful end.
//!
//! Every connection is bounded: its handshake in time, its headers in time and size, its number by a cap.
//! Never looks into a request.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use coffer_api::{Api, Held, Peer, TrustedProxies};
use hyper::body::Incoming;
use hyper::header::UPGRADE;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::config::{Limits, Listener};
use crate::idle::Idle;
use crate::places::{Clients, Place};
use crate::prompt::Prompt;

const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a connection may say nothing at its beginning.
const FIRST_BYTES: Duration = Duration::from_secs(30);
const HEADER_BYTES_MAX: usize = 64 << 10;
const STREAMS_MAX: u32 = 256;
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_ANSWER: Duration = Duration::from_secs(20);
/// Kubernetes kills a pod 30 s after it asked it to end.
const DRAIN: Duration = Duration::from_secs(20);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A bound listener.
pub(crate) struct Bound {
    socket: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    connections_max: usize,
    per_client_max: usize,
    limits: Limits,
    proxies: Option<Arc<TrustedProxies>>,
}

impl Bound {
    /// Takes the address.
    pub(crate) async fn bind(listener: &Listener, tls: Option<Arc<ServerConfig>>) -> io::Result<Self> {
        let socket = TcpListener::bind(listener.address).await.map_err(|e| {
            let hint =
                if e.kind() == io::ErrorKind::AddrInUse { " (another process listens there)" } else { "" };
            io::Error::new(e.kind(), format!("cannot listen on {}: {e}{hint}", listener.address))
        })?;
        Ok(Self {
            socket,
            tls,
            connections_max: listener.connections_max,
            per_client_max: listener.connections_per_client_max,
            limits: listener.limits,
            proxies: listener.proxies.clone(),
        })
    }

    /// The address taken; its port is known even if the configuration said 0.
    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Whether this listener speaks TLS.
    pub(crate) const fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// How much its clients may send, and how long they may take.
    pub(crate) const fn limits(&self) -> Limits {
        self.limits
    }

    /// Serves until `closing` turns true, then lets requests in flight finish.
    pub(crate) async fn serve(self, api: Api, mut closing: watch::Receiver<bool>) {
        let mut http = auto::Builder::new(TokioExecutor::new());
        http.http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.headers)
            .max_buf_size(HEADER_BYTES_MAX);
        http.http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(HEADER_BYTES_MAX as u32)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_ANSWER);
        let api = Arc::new(api);
        let connections = Arc::new(Semaphore::new(self.connections_max));
        let clients = Clients::new(self.per_client_max);
        let graceful = GracefulShutdown::new();
        let acceptor = self.tls.map(TlsAcceptor::from);
        loop {
            let accepted = tokio::select! {
                biased;
                _ = closing.wait_for(|closing| *closing) => break,
                accepted = accept(&self.socket, &connections) => accepted,
            };
            let Some((stream, peer, permit)) = accepted else { continue };
            let proxies = self.proxies.clone();
            // Behind a proxy there are many clients, so it may hold all places.
            let trusted = proxies.as_ref().is_some_and(|p| p.trusts(peer.ip()));
            let place = clients.enter(peer.ip());
            if place.is_none() && !trusted {
                tracing::debug!(%peer, "too many connections from this address");
                continue;
            }
            let (http, api, idle_max) = (http.clone(), Arc::clone(&api), self.limits.idle);
            let connection = Connection { http, api, peer, proxies, idle_max, permit, place };
            let watcher = graceful.watcher();
            match acceptor.clone() {
                None => drop(tokio::spawn(connection.serve(stream, watcher))),
                Some(acceptor) => drop(tokio::spawn(async move {
                    match timeout(HANDSHAKE, acceptor.accept(stream)).await {
                        Ok(Ok(stream)) => connection.serve(stream, watcher).await,
                        Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
                        Err(_) => tracing::debug!(%peer, "TLS handshake timed out"),
                    }
                })),
            }
        }
        drop(self.socket);
        let open = graceful.count();
        if timeout(DRAIN, graceful.shutdown()).await.is_err() {
            tracing::warn!(open, "connections were still busy after {DRAIN:?}; they are cut");
        }
    }
}

/// One connection, with a permit that it holds for as long as it lives.
async fn accept(
    socket: &TcpListener,
    connections: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    // At the cap, new connections wait in the kernel's queue until an old one ends.
    let permit = Arc::clone(connections).acquire_owned().await.ok()?;
    match socket.accept().await {
        Ok((stream, peer)) => {
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%peer, %error, "TCP_NODELAY");
            }
            Some((stream, peer, permit))
        }
        Err(error) => {
            // Out of file descriptors, mostly: pausing beats spinning.
            tracing::warn!(%error, "cannot accept a connection");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

struct Connection {
    http: auto::Builder<TokioExecutor>,
    api: Arc<Api>,
    peer: SocketAddr,
    proxies: Option<Arc<TrustedProxies>>,
    idle_max: Duration,
    permit: OwnedSemaphorePermit,
    place: Option<Place>,
}

impl Connection {
    async fn serve<S>(self, stream: S, watcher: hyper_util::server::graceful::Watcher)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let Self { http, api, peer, proxies, idle_max, permit, place } = self;
        let idle = Idle::default();
        let busy = idle.clone();
        let held = Held(Arc::new((permit, place)));
        let theirs = held.clone();
        let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
            let in_flight = busy.begin();
            request.extensions_mut().insert(Peer(peer));
            if request.headers().contains_key(UPGRADE) {
                request.extensions_mut().insert(theirs.clone());
            }
            if let Some(proxies) = &proxies {
                request.extensions_mut().insert(Arc::clone(proxies));
            }
            let api = Arc::clone(&api);
            async move {
                let response = coffer_api::respond(&api, request.map(Body::new)).await;
                Ok::<_, Infallible>(response.map(|body| in_flight.until_end_of(body)))
            }
        });
        let connection =
            http.serve_connection_with_upgrades(TokioIo::new(Prompt::new(stream, FIRST_BYTES)), service);
        let connection = watcher.watch(connection.into_owned());
        // Pings keep an HTTP/2 connection open, but not for ever without any request.
        tokio::select! {
            result = connection => {
                if let Err(error) = result {
                    tracing::debug!(%peer, error = %error, "connection ended");
                }
            }
            () = idle.for_long(idle_max) => tracing::debug!(%peer, "idle connection closed"),
        }
        drop(held);
    }
}
