//! Connections: open, keep a few, reuse. Never looks into a request or a reply.

use crate::address::Address;
use crate::builder::Limits;
use crate::{Call, ClientError};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

type Connection = SendRequest<Full<Bytes>>;

pub(crate) struct Transport {
    pub(crate) address: Address,
    pub(crate) limits: Limits,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    idle: Mutex<Vec<Connection>>,
}

impl Transport {
    pub(crate) fn new(
        address: Address,
        name: &str,
        tls: Option<Arc<ClientConfig>>,
        limits: Limits,
    ) -> Result<Self, ClientError> {
        let tls = match tls {
            None => None,
            Some(config) => {
                let name = ServerName::try_from(name.to_owned())
                    .map_err(|_| ClientError::Config(format!("{name:?} is not a host name")))?;
                Some((TlsConnector::from(config), name))
            }
        };
        Ok(Self { address, limits, tls, idle: Mutex::new(Vec::new()) })
    }

    /// Sends a request on an idle connection or a new one. The connection comes back by
    /// [`Transport::keep`] once the body has been read.
    pub(crate) async fn send(
        &self,
        call: &Call<'_>,
        request: Request<Full<Bytes>>,
    ) -> Result<(Connection, Response<Incoming>), ClientError> {
        let mut request = request;
        while let Some(mut connection) = self.idle() {
            if connection.ready().await.is_err() {
                continue;
            }
            match connection.try_send_request(request).await {
                Ok(response) => return Ok((connection, response)),
                // Handed back means the server closed the connection before it saw a byte.
                Err(mut refused) => match refused.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(broken(call, &refused.into_error())),
                },
            }
        }
        let mut connection = self.connect().await?;
        let response = connection.send_request(request).await.map_err(|e| broken(call, &e))?;
        Ok((connection, response))
    }

    /// Takes a connection back for the next call.
    pub(crate) fn keep(&self, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if !connection.is_closed() && idle.len() < self.limits.idle_connections_max {
            idle.push(connection);
        }
    }

    fn idle(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|connection| !connection.is_closed());
        idle.pop()
    }

    async fn connect(&self) -> Result<Connection, ClientError> {
        let seconds = self.limits.connect.as_secs();
        timeout(self.limits.connect, self.open()).await.unwrap_or_else(|_| {
            Err(ClientError::Unreachable(format!(
                "no connection to {} in {seconds} s",
                self.address.authority()
            )))
        })
    }

    async fn open(&self) -> Result<Connection, ClientError> {
        let at = || self.address.authority();
        let unreachable = |e: std::io::Error| ClientError::Unreachable(format!("{}: {e}", at()));
        let stream =
            TcpStream::connect((self.address.host.as_str(), self.address.port)).await.map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        match &self.tls {
            None => handshake(stream).await,
            Some((connector, name)) => {
                let stream = connector.connect(name.clone(), stream).await.map_err(unreachable)?;
                handshake(stream).await
            }
        }
    }
}

async fn handshake<S>(stream: S) -> Result<Connection, ClientError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(128 << 10)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|e| ClientError::Unreachable(e.to_string()))?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection ended");
        }
    });
    Ok(sender)
}

/// hyper's own words end where the reason begins: a TLS alert, a reset.
fn broken(call: &Call<'_>, error: &hyper::Error) -> ClientError {
    let reason = std::error::Error::source(error).map(|reason| format!(": {reason}")).unwrap_or_default();
    ClientError::Unreachable(format!("{} {}: {error}{reason}", call.method, call.path))
}
