//! A stand-in for the server: the calls an agent makes, counted, with answers a test can bend. It keeps
//! the contract's shapes and nothing of its rules.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "a helper of tests")]

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Channel, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::net::TcpListener;
use tokio::sync::broadcast;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What happened and what to answer.
#[derive(Debug)]
pub(crate) struct Inner {
    /// Delivery documents by path without the mount.
    pub(crate) documents: BTreeMap<String, (u64, Value)>,
    /// Documents the token may not read, unless it logged in after `granted`.
    pub(crate) denied: BTreeSet<String>,
    /// Answer 503 to everything.
    pub(crate) sealed: bool,
    /// Seconds a login grants, and a renewal of it.
    pub(crate) token_ttl: u64,
    pub(crate) token_renewal: u64,
    /// Seconds an issue grants, and a renewal of it.
    pub(crate) lease_ttl: u64,
    pub(crate) lease_renewal: u64,
    /// Counts.
    pub(crate) logins: u64,
    pub(crate) issues: u64,
    pub(crate) document_reads: u64,
    pub(crate) lease_renewals: u64,
    pub(crate) token_renewals: u64,
    /// What was revoked, in order.
    pub(crate) revoked: Vec<String>,
    /// Tokens that are no more.
    pub(crate) dead: BTreeSet<String>,
    /// Bodies posted to `/app`.
    pub(crate) notified: u64,
}

/// The running stand-in.
#[derive(Clone)]
pub(crate) struct Fake {
    pub(crate) address: String,
    inner: Arc<Mutex<Inner>>,
    events: broadcast::Sender<String>,
    changed: Arc<tokio::sync::Notify>,
}

impl Fake {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let inner = Inner {
            documents: BTreeMap::new(),
            denied: BTreeSet::new(),
            sealed: false,
            token_ttl: 36_000,
            token_renewal: 36_000,
            lease_ttl: 3_600,
            lease_renewal: 3_600,
            logins: 0,
            issues: 0,
            document_reads: 0,
            lease_renewals: 0,
            token_renewals: 0,
            revoked: Vec::new(),
            dead: BTreeSet::new(),
            notified: 0,
        };
        let fake = Self {
            address,
            inner: Arc::new(Mutex::new(inner)),
            events: broadcast::channel(16).0,
            changed: Arc::default(),
        };
        let serving = fake.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let fake = serving.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let fake = fake.clone();
                        async move { Ok::<_, Infallible>(fake.answer(request).await) }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        fake
    }

    pub(crate) fn set(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// Logins and issues. Not two calls of `set` in one statement: the first lock is held to its end.
    pub(crate) fn taken(&self) -> (u64, u64) {
        let inner = self.set();
        (inner.logins, inner.issues)
    }

    /// A dynamic secret with one file.
    pub(crate) fn document(&self, name: &str, version: u64, template: &str) {
        let document = json!({
            "uid": "u", "generation": version,
            "source": {"path": format!("database/creds/k8s.c.shop.{name}"), "leased": true},
            "scope": "PerPod", "ttl": "1h", "maxTtl": "24h", "renewAtPercent": 66, "overlap": "5m",
            "files": [{"name": "dsn", "mode": "0440", "template": template}],
            "onChange": [{"http": {"post": format!("{}/app", self.address)}}]
        });
        self.set().documents.insert(format!("k8s/c/shop/dsec/{name}"), (version, document));
    }

    /// Sends an event to every subscriber.
    pub(crate) fn event(&self, path: &str) {
        let event = json!({
            "id": "e", "source": "coffer://n", "specversion": "1.0", "type": "delivery/write",
            "datacontenttype": "application/json", "time": "2026-11-24T00:00:00Z",
            "data": {"event": {"id": "e", "metadata": {"path": path, "operation": "write", "position": "1"}}}
        });
        let _ = self.events.send(format!("{event}\n"));
    }

    pub(crate) fn subscribers(&self) -> usize {
        self.events.receiver_count()
    }

    /// Waits until a request has made this true.
    pub(crate) async fn until(&self, what: impl Fn(&Inner) -> bool) {
        loop {
            let changed = self.changed.notified();
            if what(&self.set()) {
                return;
            }
            changed.await;
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let method = request.method().clone();
        let token = request.headers().get("x-vault-token").map(|t| t.to_str().unwrap().to_owned());
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        if path.starts_with("/v1/sys/events/subscribe/") {
            return self.stream();
        }
        let (status, reply) = self.reply(&method, &path, token.as_deref().unwrap_or_default(), &body);
        self.changed.notify_waiters();
        let reply = Full::new(Bytes::from(reply.to_string())).boxed_unsync();
        Response::builder().status(status).body(reply).unwrap()
    }

    fn stream(&self) -> Response<Body> {
        let (mut sender, body) = Channel::<Bytes, Infallible>::new(4);
        let mut events = self.events.subscribe();
        tokio::spawn(async move {
            while let Ok(line) = events.recv().await {
                if sender.send_data(Bytes::from(line)).await.is_err() {
                    return;
                }
            }
        });
        self.changed.notify_waiters();
        Response::new(body.boxed_unsync())
    }

    fn reply(&self, method: &Method, path: &str, token: &str, body: &Value) -> (StatusCode, Value) {
        let mut inner = self.set();
        let refuse = |code: u16| (StatusCode::from_u16(code).unwrap(), json!({"errors": ["no"]}));
        if path == "/app" {
            inner.notified += 1;
            return (StatusCode::OK, json!({}));
        }
        if inner.sealed {
            return refuse(503);
        }
        if path == "/v1/auth/kubernetes/c/login" {
            assert_eq!(body, &json!({"role": "shop.orders-api", "jwt": "jwt-of-the-pod"}));
            inner.logins += 1;
            let n = inner.logins;
            return (StatusCode::OK, auth(&format!("s.{n}"), &format!("acc{n}"), inner.token_ttl));
        }
        if token.is_empty() || inner.dead.contains(token) {
            return refuse(403);
        }
        if let Some(document) = path.strip_prefix("/v1/delivery/") {
            inner.document_reads += 1;
            if inner.denied.contains(document) {
                return refuse(403);
            }
            return match inner.documents.get(document) {
                Some((version, document)) => {
                    (StatusCode::OK, json!({"data": {"document": document, "version": version}}))
                }
                None => refuse(404),
            };
        }
        if let Some(role) = path.strip_prefix("/v1/database/creds/") {
            inner.issues += 1;
            let n = inner.issues;
            return (
                StatusCode::OK,
                json!({
                    "lease_id": format!("database/creds/{role}/l{n}"), "lease_duration": inner.lease_ttl,
                    "renewable": true, "data": {"username": format!("user{n}"), "password": format!("pass{n}")}
                }),
            );
        }
        let lease = body["lease_id"].as_str().unwrap_or_default().to_owned();
        match (method.as_str(), path) {
            ("PUT", "/v1/sys/leases/renew") => {
                inner.lease_renewals += 1;
                (StatusCode::OK, json!({"lease_id": lease, "lease_duration": inner.lease_renewal}))
            }
            ("PUT", "/v1/sys/leases/revoke") => {
                inner.revoked.push(lease);
                (StatusCode::NO_CONTENT, Value::Null)
            }
            ("POST", "/v1/auth/token/renew-self") => {
                inner.token_renewals += 1;
                (StatusCode::OK, auth(token, "same", inner.token_renewal))
            }
            ("POST", "/v1/auth/token/revoke-self") => {
                inner.revoked.push(token.to_owned());
                inner.dead.insert(token.to_owned());
                (StatusCode::NO_CONTENT, Value::Null)
            }
            ("GET", "/v1/auth/token/lookup-self") => (StatusCode::OK, json!({"data": {"ttl": 1}})),
            _ => refuse(404),
        }
    }
}

fn auth(token: &str, accessor: &str, ttl: u64) -> Value {
    json!({"auth": {"client_token": token, "accessor": accessor, "lease_duration": ttl, "renewable": true}})
}
