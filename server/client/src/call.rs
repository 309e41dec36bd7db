//! One call: a request goes out, a reply comes back as a type. Never says what calls there are.

use crate::builder::ClientBuilder;
use crate::transport::Transport;
use crate::{ClientError, address};
use bytes::Bytes;
use coffer_wire::{Disclose, Envelope, Errors, Keys};
use http::header::{ACCEPT, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use zeroize::Zeroizing;

/// A client of one server. Cheap to clone; clones share connections.
#[derive(Clone)]
pub struct Client {
    pub(crate) transport: Arc<Transport>,
    // A header value marked sensitive, so that no debug output of a request shows it.
    token: Option<HeaderValue>,
    /// For how long replies are to be wrapped, as the header says it.
    wrap_ttl: Option<HeaderValue>,
    headers: Arc<HeaderMap>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("address", &self.transport.address.authority()).finish_non_exhaustive()
    }
}

/// What is asked for; borrowed by the error it may end in.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// `GET`, `LIST`, `SCAN`, `POST`, `PUT`, `PATCH` (with a merge patch) or `DELETE`.
    pub method: &'static str,
    /// Path under `/v1/`, without a leading slash.
    pub path: &'a str,
    /// Query pairs.
    pub query: &'a [(&'a str, &'a str)],
    /// Whether a status other than 2xx is a reply too (health has some).
    pub any_status: bool,
}

impl<'a> Call<'a> {
    /// A call without a query.
    pub fn new(method: &'static str, path: &'a str) -> Self {
        Self { method, path, query: &[], any_status: false }
    }
}

/// The most names in one reply.
const PAGE: usize = 10_000;

impl Client {
    /// Starts setting up a client for `https://host:port` (or `http://` on loopback).
    pub fn builder(address: &str) -> ClientBuilder {
        ClientBuilder::new(address)
    }

    pub(crate) fn new(transport: Transport, headers: HeaderMap) -> Self {
        Self { transport: Arc::new(transport), token: None, wrap_ttl: None, headers: Arc::new(headers) }
    }

    /// The same client, calling with this token.
    ///
    /// # Errors
    /// [`ClientError::Config`] if the token cannot be a header.
    pub fn with_token(&self, token: &Disclose) -> Result<Self, ClientError> {
        let mut value = HeaderValue::from_str(token.expose())
            .map_err(|_| ClientError::Config("the token has characters no token has".to_owned()))?;
        value.set_sensitive(true);
        Ok(Self { token: Some(value), ..self.clone() })
    }

    /// The same client, calling without a token.
    #[must_use]
    pub fn without_token(&self) -> Self {
        Self { token: None, ..self.clone() }
    }

    /// The same client, asking for every reply to be wrapped for this long (`60` or `5m`): each comes with `wrap_info` in the
    /// place of everything else.
    ///
    /// # Errors
    /// [`ClientError::Config`] if it cannot be a header.
    pub fn with_wrap_ttl(&self, ttl: &str) -> Result<Self, ClientError> {
        let value = HeaderValue::from_str(ttl)
            .map_err(|_| ClientError::Config("the wrap TTL has characters no duration has".to_owned()))?;
        Ok(Self { wrap_ttl: Some(value), ..self.clone() })
    }

    /// `GET <path>`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<Envelope<T>, ClientError> {
        self.exchange(Call::new("GET", path), None::<&()>).await
    }

    /// `LIST <path>`: all names there, none if there are none; where they are more than one reply holds, the rest is
    /// asked for.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn list(&self, path: &str) -> Result<Vec<String>, ClientError> {
        self.all_names("LIST", path).await
    }

    /// The same by `LIST` or `SCAN`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn all_names(&self, method: &'static str, path: &str) -> Result<Vec<String>, ClientError> {
        let mut names: Vec<String> = Vec::new();
        loop {
            let after = names.last().cloned().unwrap_or_default();
            let query = [("after", after.as_str())];
            let query = if after.is_empty() { &query[..0] } else { &query[..] };
            let page = match self.names(Call { query, ..Call::new(method, path) }).await {
                Err(error) if error.is_not_found() => Vec::new(),
                page => page?,
            };
            // A server that takes no `after` gives the same names again.
            let goes_on = page.len() >= PAGE && page.last() != names.last();
            if names.is_empty() || page.last() != names.last() {
                names.extend(page);
            }
            if !goes_on {
                return Ok(names);
            }
        }
    }

    /// One page of names: the reply to a `LIST` or a `SCAN`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn names(&self, call: Call<'_>) -> Result<Vec<String>, ClientError> {
        let reply: Envelope<Keys> = self.exchange(call, None::<&()>).await?;
        Ok(reply.data.unwrap_or_default().keys)
    }

    /// `POST <path>` with a reply.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn post<B, T>(&self, path: &str, body: &B) -> Result<Envelope<T>, ClientError>
    where
        B: Serialize + ?Sized,
        T: DeserializeOwned,
    {
        self.exchange(Call::new("POST", path), Some(body)).await
    }

    /// `PUT <path>` with a reply.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn put<B, T>(&self, path: &str, body: &B) -> Result<Envelope<T>, ClientError>
    where
        B: Serialize + ?Sized,
        T: DeserializeOwned,
    {
        self.exchange(Call::new("PUT", path), Some(body)).await
    }

    /// `POST <path>` whose reply does not matter.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn write<B: Serialize + ?Sized>(&self, path: &str, body: &B) -> Result<(), ClientError> {
        self.post::<B, Value>(path, body).await.map(drop)
    }

    /// `DELETE <path>`. That there was nothing is success.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn delete(&self, path: &str) -> Result<(), ClientError> {
        match self.exchange::<(), Envelope<Value>>(Call::new("DELETE", path), None).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Any call whose reply is JSON, with or without the envelope.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn exchange<B, T>(&self, call: Call<'_>, body: Option<&B>) -> Result<T, ClientError>
    where
        B: Serialize + ?Sized,
        T: DeserializeOwned,
    {
        let limit = self.transport.limits.call;
        // What a server says before it does anything. After another error, a read may have had its effect already: a
        // login made at a database, a use of a token, a wrapped reply.
        let reads = matches!(call.method, "GET" | "LIST" | "SCAN");
        let mut retries = if reads { self.transport.limits.retries } else { 0 };
        let text = loop {
            let text = timeout(limit, self.exchange_bytes(call, body))
                .await
                .map_err(|_| ClientError::Timeout { path: call.path.to_owned(), seconds: limit.as_secs() })?;
            match text {
                Err(ClientError::Status { code: 412 | 503, .. }) if retries > 0 => {
                    retries -= 1;
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                text => break text?,
            }
        };
        // 204 and an empty body stand for a reply without fields.
        let text: &[u8] = if text.trim_ascii().is_empty() { b"{}" } else { &text };
        serde_json::from_slice(text).map_err(|e| ClientError::Decode {
            path: call.path.to_owned(),
            // serde's message may quote a value of the reply, which may be a secret.
            what: format!("{:?} error at line {} column {}", e.classify(), e.line(), e.column()),
        })
    }

    async fn exchange_bytes<B: Serialize + ?Sized>(
        &self,
        call: Call<'_>,
        body: Option<&B>,
    ) -> Result<Zeroizing<Vec<u8>>, ClientError> {
        let (connection, response) = self.transport.send(&call, self.request(call, body)?).await?;
        let status = response.status();
        let text = read_body(call, response, self.transport.limits.body_bytes_max).await?;
        self.transport.keep(connection);
        if status.is_success() || call.any_status { Ok(text) } else { Err(refusal(status, &text)) }
    }

    pub(crate) fn request<B: Serialize + ?Sized>(
        &self,
        call: Call<'_>,
        body: Option<&B>,
    ) -> Result<Request<Full<Bytes>>, ClientError> {
        let unusable = |e: &dyn fmt::Display| ClientError::Config(format!("request: {e}"));
        let method = Method::from_bytes(call.method.as_bytes()).map_err(|e| unusable(&e))?;
        let mut request = Request::builder()
            .method(method)
            .uri(address::target(call.path, call.query)?)
            .header(HOST, self.transport.address.authority())
            .header(ACCEPT, "application/json")
            // Vault's proxies and clients mark their calls so; it keeps browsers' form posts out.
            .header("x-vault-request", "true");
        for (name, value) in self.headers.iter() {
            request = request.header(name, value);
        }
        if let Some(token) = &self.token {
            request = request.header("x-vault-token", token.clone());
        }
        if let Some(ttl) = &self.wrap_ttl {
            request = request.header("x-vault-wrap-ttl", ttl.clone());
        }
        let bytes = match body {
            None => Bytes::new(),
            Some(body) => {
                let patches = call.method == "PATCH";
                let content_type = if patches { "application/merge-patch+json" } else { "application/json" };
                request = request.header(CONTENT_TYPE, content_type);
                // The owner scrubs the text once the last handle of it is gone.
                Bytes::from_owner(Zeroizing::new(serde_json::to_vec(body).map_err(|e| unusable(&e))?))
            }
        };
        request.body(Full::new(bytes)).map_err(|e| unusable(&e))
    }
}

pub(crate) async fn read_body(
    call: Call<'_>,
    response: Response<Incoming>,
    limit: usize,
) -> Result<Zeroizing<Vec<u8>>, ClientError> {
    let mut body = Limited::new(response.into_body(), limit);
    // Starts large enough for what the API usually answers: growing leaves unscrubbed copies behind.
    let mut text = Zeroizing::new(Vec::with_capacity(8 << 10));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| {
            if e.is::<http_body_util::LengthLimitError>() {
                ClientError::TooLarge { path: call.path.to_owned(), limit }
            } else {
                ClientError::Unreachable(format!("{} {}: {e}", call.method, call.path))
            }
        })?;
        if let Some(data) = frame.data_ref() {
            text.extend_from_slice(data);
        }
    }
    Ok(text)
}

/// As Vault's client waits at first.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

const ERRORS_MAX: usize = 8;
const ERROR_CHARS_MAX: usize = 512;

pub(crate) fn refusal(status: StatusCode, text: &[u8]) -> ClientError {
    let said: Errors = serde_json::from_slice(text).unwrap_or_default();
    // Whoever answers may not be our server: what goes into our logs is bounded.
    let errors = said
        .errors
        .into_iter()
        .take(ERRORS_MAX)
        .map(|error| error.chars().take(ERROR_CHARS_MAX).collect())
        .collect();
    ClientError::Status { code: status.as_u16(), errors }
}
