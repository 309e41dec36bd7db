//! The routes over a real vault in memory, one request at a time, without a socket.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use coffer_core::time::Timestamp;
use coffer_storage::memory::MemoryStore;
use coffer_vault::{Clock, Deps, FetchKeys, KeysQuery, Vault, VaultConfig, standard_engines};
use futures::StreamExt;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::{Api, Bodies, Limits, respond};

/// Every look at it is a millisecond later.
#[derive(Default)]
struct Ticking(AtomicU64);

impl Clock for Ticking {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000 + self.0.fetch_add(1, Ordering::Relaxed))
    }
}

struct NoKeys;

#[async_trait]
impl FetchKeys for NoKeys {
    async fn fetch(&self, _query: &KeysQuery) -> Result<String, String> {
        Err("no cluster here".to_owned())
    }
}

pub(crate) struct Bed {
    api: Api,
    vault: Arc<Vault>,
    pub(crate) token: String,
    closing: watch::Sender<bool>,
    audit: tempfile::TempDir,
}

/// A vault that was never initialised.
fn fresh(limits: Limits) -> Bed {
    let audit = tempfile::tempdir().unwrap();
    let clock: Arc<dyn Clock> = Arc::new(Ticking::default());
    let vault = Vault::new(Deps {
        store: Arc::new(MemoryStore::new()),
        store_is_exclusive: true,
        clock: Arc::clone(&clock),
        keys: Arc::new(NoKeys),
        engines: standard_engines(&coffer_vault::Outbound::default()),
        audit_dir: audit.path().to_owned(),
        ca_bundle: Some("-----BEGIN CERTIFICATE-----\n".to_owned()),
        config: VaultConfig::default(),
    })
    .unwrap();
    let (closing, closed) = watch::channel(false);
    let api = Api { vault: Arc::clone(&vault), clock, closing: closed, limits, bodies: Bodies::default() };
    Bed { api, vault, token: String::new(), closing, audit }
}

/// A vault ready for use, with `secret/` mounted.
pub(crate) async fn bed_with(limits: Limits) -> Bed {
    let mut bed = fresh(limits);
    bed.token = bed.vault.dev_init().await.unwrap().root_token.expose().to_owned();
    bed
}

async fn bed() -> Bed {
    bed_with(Limits::default()).await
}

impl Bed {
    pub(crate) async fn send(&self, request: Request<Body>) -> Response {
        respond(&self.api, request).await
    }

    /// As root, with a JSON body unless it is null.
    pub(crate) async fn ask(&self, method: &str, uri: &str, body: Value) -> (StatusCode, Value) {
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let request = Request::builder().method(method).uri(uri).header("x-vault-token", &self.token);
        read(self.send(request.body(body).unwrap()).await).await
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.audit.path().join("audit.log")).unwrap()
    }
}

async fn read(response: Response) -> (StatusCode, Value) {
    let status = response.status();
    assert_eq!(response.headers()["cache-control"], "no-store");
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() };
    (status, body)
}

#[tokio::test]
async fn a_secret_goes_in_and_comes_out_in_vaults_envelope() {
    let bed = bed().await;
    let written = json!({"data": {"password": "s3cret"}});
    for (method, version) in [("POST", 1), ("PUT", 2)] {
        let (status, body) = bed.ask(method, "/v1/secret/data/app", written.clone()).await;
        assert_eq!((status.as_u16(), &body["data"]["version"]), (200, &json!(version)));
    }
    let request =
        Request::get("/v1/secret/data/app").header("authorization", format!("Bearer {}", bed.token));
    let response = bed.send(request.header("x-vault-request", "true").body(Body::empty()).unwrap()).await;
    assert_eq!(response.headers()["content-type"], "application/json");
    let (status, body) = read(response).await;
    assert_eq!(status, 200);
    assert_eq!(body["data"]["data"]["password"], "s3cret");
    for key in ["request_id", "lease_id", "renewable", "lease_duration", "wrap_info", "warnings", "auth"] {
        assert!(body.get(key).is_some(), "{key}");
    }
    let (_, older) = bed.ask("GET", "/v1/secret/data/app?version=1", Value::Null).await;
    assert_eq!(older["data"]["metadata"]["version"], 1);
}

#[tokio::test]
async fn list_has_three_spellings() {
    let bed = bed().await;
    bed.ask("POST", "/v1/secret/data/a/b", json!({"data": {}})).await;
    for (method, uri) in [
        ("LIST", "/v1/secret/metadata"),
        ("LIST", "/v1/secret/metadata/"),
        ("GET", "/v1/secret/metadata?list=true"),
    ] {
        let (status, body) = bed.ask(method, uri, Value::Null).await;
        assert_eq!((status.as_u16(), &body["data"]["keys"]), (200, &json!(["a/"])), "{method} {uri}");
    }
    let (status, body) = bed.ask("LIST", "/v1/secret/metadata/none", Value::Null).await;
    assert_eq!((status.as_u16(), body), (404, json!({"errors": []})));
}

#[tokio::test]
async fn an_uninitialised_vault_is_initialised_and_unsealed() {
    let mut bed = fresh(Limits::default());
    let (status, body) = bed.ask("GET", "/v1/sys/health", Value::Null).await;
    assert_eq!((status.as_u16(), &body["initialized"]), (501, &json!(false)));
    let (status, _) = bed.ask("GET", "/v1/sys/health?uninitcode=204", Value::Null).await;
    assert_eq!(status, 204);
    let (_, body) = bed.ask("GET", "/v1/sys/init", Value::Null).await;
    assert_eq!(body, json!({"initialized": false}));
    let (status, _) =
        bed.ask("PUT", "/v1/sys/init", json!({"secret_shares": 2, "secret_threshold": 3})).await;
    assert_eq!(status, 400);
    let (status, made) =
        bed.ask("PUT", "/v1/sys/init", json!({"secret_shares": 3, "secret_threshold": 2})).await;
    assert_eq!(status, 200);
    assert_eq!(made["keys"].as_array().unwrap().len(), 3);
    let (status, _) = bed.ask("GET", "/v1/sys/health", Value::Null).await;
    assert_eq!(status, 503);
    let (status, body) = bed.ask("GET", "/v1/secret/data/a", Value::Null).await;
    assert_eq!((status.as_u16(), body), (503, json!({"errors": ["Vault is sealed"]})));
    let (_, body) = bed.ask("PUT", "/v1/sys/unseal", json!({"key": made["keys"][0]})).await;
    assert_eq!((&body["sealed"], &body["progress"]), (&json!(true), &json!(1)));
    let (_, body) = bed.ask("PUT", "/v1/sys/unseal", json!({"key": made["keys_base64"][2]})).await;
    assert_eq!(body["sealed"], false);
    bed.token = made["root_token"].as_str().unwrap().to_owned();
    let (status, _) = bed.ask("GET", "/v1/auth/token/lookup-self", Value::Null).await;
    assert_eq!(status, 200);
    let log = bed.log();
    for secret in [&made["keys"][0], &made["keys_base64"][2], &made["root_token"]] {
        assert!(!log.contains(secret.as_str().unwrap()));
    }
}

#[tokio::test]
async fn status_needs_no_token() {
    let bed = bed().await;
    for uri in ["/v1/sys/health", "/v1/sys/seal-status", "/v1/sys/leader", "/v1/sys/ca", "/v1/sys/init"] {
        let (status, _) = read(bed.send(Request::get(uri).body(Body::empty()).unwrap()).await).await;
        assert_eq!(status, 200, "{uri}");
    }
    // One more spelling of the same path is the same path.
    let (status, _) =
        read(bed.send(Request::get("/v1/sys%2Fhealth").body(Body::empty()).unwrap()).await).await;
    assert_eq!(status, 200);
    let head = bed.send(Request::head("/v1/sys/health").body(Body::empty()).unwrap()).await;
    assert_eq!(read(head).await, (StatusCode::OK, Value::Null));
    let (status, _) = bed.ask("GET", "/v1/sys/health?activecode=abc", Value::Null).await;
    assert_eq!(status, 400);
}

#[tokio::test]
async fn rubbish_gets_a_clear_refusal_that_is_recorded() {
    let bed = bed().await;
    let deep = format!("{{\"a\":{}1{}}}", "[".repeat(40), "]".repeat(40));
    for (method, uri, content_type, body, wanted) in [
        ("GET", "/", "", "", 404),
        ("GET", "/ui/", "", "", 404),
        ("GET", "/v1/", "", "", 404),
        ("BREW", "/v1/secret/data/a", "", "", 405),
        ("HEAD", "/v1/secret/data/a", "", "", 405),
        ("OPTIONS", "/v1/sys/health", "", "", 405),
        ("GET", "/v1/secret//data/a", "", "", 400),
        ("GET", "/v1/secret/%2e%2e/sys/health", "", "", 400),
        ("GET", "/v1/secret/data/a%00b", "", "", 400),
        ("GET", "/v1/secret/data/%ff", "", "", 400),
        ("GET", "/v1/secret/data/%zz", "", "", 400),
        ("POST", "/v1/secret/data/a/", "", "{}", 400),
        ("POST", "/v1/secret/data/a", "application/json", "{\"hunter2", 400),
        ("POST", "/v1/secret/data/a", "application/json", "[\"hunter2\"]", 400),
        ("POST", "/v1/secret/data/a", "application/json", deep.as_str(), 400),
        ("POST", "/v1/secret/data/a", "text/plain", "hunter2", 400),
        ("PATCH", "/v1/secret/data/a", "application/json", "{}", 415),
        ("PUT", "/v1/sys/unseal", "application/json", "hunter2", 400),
    ] {
        let mut request = Request::builder().method(method).uri(uri).header("x-vault-token", &bed.token);
        if !content_type.is_empty() {
            request = request.header("content-type", content_type);
        }
        let response = bed.send(request.body(Body::from(body.to_owned())).unwrap()).await;
        assert_eq!(response.status().as_u16(), wanted, "{method} {uri}");
        assert_eq!(response.headers()["content-type"], "application/json");
        let (_, answer) = read(response).await;
        assert!(method == "HEAD" || answer["errors"].is_array(), "{method} {uri}: {answer}");
        assert!(!answer.to_string().contains("hunter2"), "{answer}");
    }
    let log = bed.log();
    assert!(!log.contains("hunter2"));
    assert!(log.contains("secret/%2e%2e/sys/health") && log.contains("BREW"));
}

#[tokio::test]
async fn sizes_are_limited_whether_declared_or_not() {
    let bed = bed().await;
    let limit = Limits::default().body_bytes_max;
    let request = || Request::post("/v1/secret/data/a").header("x-vault-token", &bed.token);
    let declared = request().header("content-length", limit + 1).body(Body::empty()).unwrap();
    assert_eq!(bed.send(declared).await.status(), 413);
    let endless = futures::stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(&[b' '; 4096])));
    let streamed = request().body(Body::from_stream(endless)).unwrap();
    let (status, body) = read(bed.send(streamed).await).await;
    assert_eq!(status, 413);
    assert!(body["errors"][0].as_str().unwrap().contains(&limit.to_string()));
    let cut = futures::stream::iter([Err::<Bytes, _>(std::io::Error::other("reset"))]);
    assert_eq!(bed.send(request().body(Body::from_stream(cut)).unwrap()).await.status(), 400);
}

#[tokio::test]
async fn a_body_that_never_ends_does_not_hold_the_server() {
    let bed = bed_with(Limits { body_time: Duration::from_millis(20), ..Limits::default() }).await;
    let silent = futures::stream::pending::<Result<Bytes, std::io::Error>>();
    let request = Request::post("/v1/secret/data/a").header("x-vault-token", &bed.token);
    assert_eq!(bed.send(request.body(Body::from_stream(silent)).unwrap()).await.status(), 408);
}

#[tokio::test]
async fn bodies_share_a_bounded_room_and_give_it_back() {
    let mut bed = bed_with(Limits { body_time: Duration::from_millis(20), ..Limits::default() }).await;
    bed.api.bodies = Bodies::new(10_000);
    let write = |body: Body| {
        Request::post("/v1/secret/data/a").header("x-vault-token", &bed.token).body(body).unwrap()
    };
    // Two who stop in the middle of what they send, and whom nobody knows yet.
    let half = || {
        let begun = futures::stream::once(async { Ok::<_, std::io::Error>(Bytes::from(vec![b' '; 5_000])) });
        bed.send(write(Body::from_stream(begun.chain(futures::stream::pending()))))
    };
    let third = async {
        tokio::task::yield_now().await;
        read(bed.send(write(Body::from("{}"))).await).await
    };
    let (first, second, (status, body)) = tokio::join!(half(), half(), third);
    assert_eq!((first.status(), second.status()), (StatusCode::REQUEST_TIMEOUT, StatusCode::REQUEST_TIMEOUT));
    assert_eq!(status, 503);
    assert!(body["errors"][0].as_str().unwrap().contains("too many request bodies"), "{body}");
    // Of its own size it would fit, and does once the others are gone.
    let whole = format!(r#"{{"data": {{"a": "{}"}}}}"#, "x".repeat(9_000));
    assert_eq!(bed.send(write(Body::from(whole))).await.status(), 200);
}

#[tokio::test]
async fn tokens_are_asked_for() {
    let bed = bed().await;
    for (name, value) in [("x-vault-token", "s.unknown"), ("x-vault-token", "with space"), ("x-other", "")] {
        let request = Request::get("/v1/secret/data/a").header(name, value);
        let (status, body) = read(bed.send(request.body(Body::empty()).unwrap()).await).await;
        assert_eq!((status.as_u16(), body), (403, json!({"errors": ["permission denied"]})), "{value}");
    }
    let long = Request::get("/v1/secret/data/a").header("x-vault-token", "x".repeat(9000));
    let (status, body) = read(bed.send(long.body(Body::empty()).unwrap()).await).await;
    assert_eq!(status, 400);
    assert!(body["errors"][0].as_str().unwrap().contains("8192"));
}

#[tokio::test]
async fn wrapping_is_asked_for_by_a_header() {
    let bed = bed().await;
    let ask = async |path: &str, value: &str| {
        let request = Request::get(format!("/v1/{path}")).header("x-vault-token", &bed.token);
        let request = request.header("x-vault-wrap-ttl", value);
        read(bed.send(request.body(Body::empty()).unwrap()).await).await
    };
    let (status, body) = ask("auth/token/lookup-self", "60s").await;
    assert_eq!((status.as_u16(), &body["wrap_info"]["ttl"]), (200, &json!(60)));
    let (status, body) = ask("auth/token/lookup-self", "rubbish").await;
    let said = "error parsing X-Vault-Wrap-TTL header: invalid duration";
    assert_eq!((status.as_u16(), &body["errors"][0]), (400, &json!(said)));
    let (status, _) = ask("sys/events/subscribe/kv*", "60s").await;
    assert_eq!(status, 400, "a stream cannot be put away");
}

#[tokio::test]
async fn namespaces_are_refused_rather_than_ignored() {
    let bed = bed().await;
    let request = Request::get("/v1/auth/token/lookup-self").header("x-vault-token", &bed.token);
    let response = bed.send(request.header("x-vault-namespace", "team-a").body(Body::empty()).unwrap()).await;
    assert_eq!(response.status(), 404);
}

async fn subscribe(bed: &Bed, uri: &str) -> Response {
    let request = Request::get(uri).header("x-vault-token", &bed.token);
    bed.send(request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn events_are_lines_and_can_be_resumed() {
    let bed = bed().await;
    let response = subscribe(&bed, "/v1/sys/events/subscribe/kv-v2/*?json=true").await;
    assert_eq!(response.status(), 200);
    let mut lines = response.into_body().into_data_stream();
    for name in ["a", "b"] {
        bed.ask("POST", &format!("/v1/secret/data/{name}"), json!({"data": {"k": "s3cret"}})).await;
    }
    let first = lines.next().await.unwrap().unwrap();
    assert!(first.ends_with(b"\n") && !first.windows(6).any(|w| w == b"s3cret"));
    let first: Value = serde_json::from_slice(&first).unwrap();
    assert_eq!(first["type"], "kv-v2/data-write");
    let metadata = &first["data"]["event"]["metadata"];
    assert_eq!(metadata["path"], "secret/data/a");
    let after = metadata["position"].as_str().unwrap();
    let resumed = subscribe(&bed, &format!("/v1/sys/events/subscribe/kv-v2/data-write?after={after}")).await;
    let line = resumed.into_body().into_data_stream().next().await.unwrap().unwrap();
    let second: Value = serde_json::from_slice(&line).unwrap();
    assert_eq!(second["data"]["event"]["metadata"]["path"], "secret/data/b");
}

#[tokio::test]
async fn the_index_of_an_answer_lets_a_read_wait_for_the_next_change() {
    let bed = bed().await;
    let send = |method: &str, uri: &str, body: &'static str| {
        let request = Request::builder().method(method).uri(uri).header("x-vault-token", &bed.token);
        bed.send(request.body(Body::from(body)).unwrap())
    };
    let written = send("POST", "/v1/secret/data/a", r#"{"data":{"k":"1"}}"#).await;
    let index = written.headers()["x-vault-index"].to_str().unwrap().to_owned();
    let read_after = |index: &str| send("GET", &format!("/v1/secret/data/a?wait=55s&index={index}"), "");
    let waiting = read_after(&index);
    let later = send("POST", "/v1/secret/data/a", r#"{"data":{"k":"2"}}"#);
    let (waited, later) = tokio::join!(waiting, later);
    assert_eq!(later.status(), 200);
    assert_ne!(waited.headers()["x-vault-index"].to_str().unwrap(), index);
    assert_eq!(read(waited).await.1["data"]["data"]["k"], "2");
    let plain = send("GET", "/v1/secret/data/a", "").await;
    assert!(!plain.headers().contains_key("x-vault-index"), "a read that does not ask for it has none");
}

#[tokio::test]
async fn a_stream_stays_alive_and_ends_with_the_server() {
    let bed = bed_with(Limits { stream_keep_alive: Duration::from_millis(5), ..Limits::default() }).await;
    let mut lines = subscribe(&bed, "/v1/sys/events/subscribe/*").await.into_body().into_data_stream();
    assert_eq!(lines.next().await.unwrap().unwrap(), "\n");
    bed.closing.send_replace(true);
    while let Some(line) = lines.next().await {
        assert_eq!(line.unwrap(), "\n");
    }
}

#[tokio::test]
async fn subscribing_takes_a_permission_and_ends_with_it() {
    let bed = bed().await;
    let request = Request::get("/v1/sys/events/subscribe/*").body(Body::empty()).unwrap();
    assert_eq!(read(bed.send(request).await).await.0, 403);
    let policy = r#"path "sys/events/subscribe/*" { capabilities = ["read"] }
        path "secret/data/*" { capabilities = ["subscribe"] subscribe_event_types = ["*"] }"#;
    bed.ask("PUT", "/v1/sys/policies/acl/listener", json!({"policy": policy})).await;
    let (_, made) = bed.ask("POST", "/v1/auth/token/create", json!({"policies": ["listener"]})).await;
    let token = made["auth"]["client_token"].as_str().unwrap();
    let request = Request::get("/v1/sys/events/subscribe/*").header("x-vault-token", token);
    let response = bed.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!(response.status(), 200);
    let accessor = &made["auth"]["accessor"];
    let (status, _) = bed.ask("POST", "/v1/auth/token/revoke-accessor", json!({"accessor": accessor})).await;
    assert_eq!(status, 204);
    let mut lines = response.into_body().into_data_stream();
    assert!(lines.next().await.is_none());
}
