//! The client against a server of the test's own, over TLS and in plain: what it sends, what it makes of
//! the answer, and where it stops waiting.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use bytes::Bytes;
use coffer_client::{Client, ClientError, Limits};
use http::{Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Channel, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

type Body = UnsyncBoxBody<Bytes, Infallible>;
type Answer = fn(Request<Incoming>) -> Response<Body>;

fn reply(status: u16, text: &str) -> Response<Body> {
    let body = Full::new(Bytes::from(text.to_owned())).boxed_unsync();
    Response::builder().status(StatusCode::from_u16(status).unwrap()).body(body).unwrap()
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(stream: S, answer: Answer, once: bool) {
    let service = service_fn(move |request| async move { Ok::<_, Infallible>(answer(request)) });
    let mut server = hyper::server::conn::http1::Builder::new();
    let _ = server.keep_alive(!once).serve_connection(TokioIo::new(stream), service).await;
}

struct Server {
    address: String,
    connections: Arc<AtomicUsize>,
}

async fn plain(answer: Answer, once: bool) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(converse(stream, answer, once));
        }
    });
    Server { address, connections }
}

// A server with a certificate for `localhost`; returns its address and its certificate.
async fn tls(answer: Answer) -> (String, String) {
    let own = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(own.signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    converse(stream, answer, false).await;
                }
            });
        }
    });
    (address, own.cert.pem())
}

fn client(address: &str) -> Client {
    Client::builder(address).build().unwrap()
}

fn show(request: Request<Incoming>) -> Response<Body> {
    let header = |name: &str| request.headers().get(name).map_or("", |v| v.to_str().unwrap());
    let keys =
        [request.method().as_str(), request.uri().path(), header("x-vault-token"), header("x-vault-request")];
    reply(200, &serde_json::json!({"data": {"keys": keys}}).to_string())
}

#[tokio::test]
async fn method_path_and_token_arrive() {
    let server = plain(show, false).await;
    let client = client(&server.address).with_token(&"s.abc".into()).unwrap();
    assert_eq!(client.list("auth/k/role").await.unwrap(), ["LIST", "/v1/auth/k/role", "s.abc", "true"]);
    assert_eq!(client.without_token().list("a b").await.unwrap(), ["LIST", "/v1/a%20b", "", "true"]);
}

#[tokio::test]
async fn calls_share_a_connection() {
    let server = plain(show, false).await;
    let client = client(&server.address);
    for _ in 0..5 {
        client.list("x").await.unwrap();
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_connection_the_server_closed_is_no_error() {
    let server = plain(show, true).await;
    let client = client(&server.address);
    for _ in 0..5 {
        client.list("x").await.unwrap();
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), 5);
}

#[tokio::test]
async fn only_the_stated_ca_is_trusted() {
    let (address, pem) = tls(show).await;
    let trusting = Client::builder(&address).ca_pem(&pem).build().unwrap();
    trusting.list("x").await.unwrap();
    let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap().cert.pem();
    let error = Client::builder(&address).ca_pem(other).build().unwrap().list("x").await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable(_)), "{error}");
    let wrong_name = address.replace("localhost", "127.0.0.1");
    let error = Client::builder(&wrong_name).ca_pem(&pem).build().unwrap().list("x").await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable(_)), "{error}");
    assert!(Client::builder(&address).build().is_err(), "https without a CA");
}

#[tokio::test]
async fn refusals_are_told_apart() {
    let server = plain(
        |request| match request.uri().path() {
            "/v1/denied" => reply(403, r#"{"errors":["permission denied"]}"#),
            "/v1/sealed" => reply(503, r#"{"errors":["Vault is sealed"]}"#),
            "/v1/rubbish" => reply(502, "<html>"),
            "/v1/wrong" => reply(200, r#"{"data": {"keys": ["s.secret", 7]}}"#),
            "/v1/nothing" => reply(204, ""),
            _ => reply(404, r#"{"errors":[]}"#),
        },
        false,
    )
    .await;
    let client = client(&server.address);
    let denied = client.get::<()>("denied").await.unwrap_err();
    assert!(denied.is_denied() && !denied.is_transient());
    assert_eq!(denied.to_string(), "status 403: permission denied");
    let sealed = client.get::<()>("sealed").await.unwrap_err();
    assert!(sealed.is_sealed() && sealed.is_transient());
    assert!(client.get::<()>("rubbish").await.unwrap_err().is_transient());
    let wrong = client.list("wrong").await.unwrap_err();
    assert!(
        matches!(wrong, ClientError::Decode { .. }) && !wrong.to_string().contains("s.secret"),
        "{wrong}"
    );
    assert!(client.get::<()>("nothing").await.unwrap().data.is_none());
    assert!(client.list("missing").await.unwrap().is_empty());
    assert!(client.read_policy("missing").await.unwrap().is_none());
    client.delete("missing").await.unwrap();
}

#[tokio::test]
async fn health_is_an_answer_whatever_its_status() {
    let server = plain(|_| reply(503, r#"{"initialized":true,"sealed":true}"#), false).await;
    assert!(client(&server.address).health().await.unwrap().sealed);
}

#[tokio::test]
async fn a_reply_may_not_grow_without_end() {
    let server = plain(|_| reply(200, &"x".repeat(100_000)), false).await;
    let limits = Limits { body_bytes_max: 10_000, ..Limits::default() };
    let client = Client::builder(&server.address).limits(limits).build().unwrap();
    let error = client.get::<()>("x").await.unwrap_err();
    assert!(matches!(error, ClientError::TooLarge { limit: 10_000, .. }), "{error}");
}

#[tokio::test]
async fn a_server_that_says_nothing_is_left() {
    // Accepts by the kernel's queue and never answers.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let limits = Limits { call: Duration::from_millis(50), ..Limits::default() };
    let address = format!("http://{}", listener.local_addr().unwrap());
    let client = Client::builder(&address).limits(limits).build().unwrap();
    let error = client.get::<()>("x").await.unwrap_err();
    assert!(matches!(error, ClientError::Timeout { .. }) && error.is_transient(), "{error}");
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = client(&address).get::<()>("x").await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable(_)) && error.is_transient(), "{error}");
}

fn event_line(position: u32) -> String {
    let event = serde_json::json!({
        "id": "e", "source": "coffer://n", "specversion": "1.0", "type": "delivery/write",
        "time": "2026-11-24T00:00:00Z",
        "data": {"event": {"id": "e", "metadata": {"path": "p", "operation": "write", "position": position.to_string()}}}
    });
    format!("{event}\n")
}

fn stream(request: Request<Incoming>) -> Response<Body> {
    assert_eq!(request.uri().path(), "/v1/sys/events/subscribe/*");
    assert_eq!(request.uri().query(), Some("after=7"));
    let (mut sender, body) = Channel::<Bytes, Infallible>::new(4);
    tokio::spawn(async move {
        let (one, two) = (event_line(8), event_line(9));
        // A keep-alive, then two events in pieces that do not respect their lines.
        let text = format!("\n{one}\n{two}");
        for piece in text.as_bytes().chunks(50) {
            sender.send_data(Bytes::copy_from_slice(piece)).await.unwrap();
        }
    });
    Response::new(body.boxed_unsync())
}

#[tokio::test]
async fn events_come_line_by_line() {
    let server = plain(stream, false).await;
    let mut events = client(&server.address).subscribe("*", Some("7")).await.unwrap();
    let mut positions = Vec::new();
    while let Some(event) = events.next().await.unwrap() {
        positions.push(event.data.event.metadata.position);
    }
    assert_eq!(positions, ["8", "9"]);
}

#[tokio::test]
async fn a_refused_subscription_is_an_error() {
    let server = plain(|_| reply(403, r#"{"errors":["no"]}"#), false).await;
    let error = client(&server.address).subscribe("*", None).await.unwrap_err();
    assert!(error.is_denied());
}

static ASKED: AtomicUsize = AtomicUsize::new(0);

/// The first answer to each path is its last segment; the next is a success.
fn reluctant(request: Request<Incoming>) -> Response<Body> {
    let code: u16 = request.uri().path().rsplit('/').next().unwrap().parse().unwrap();
    match ASKED.fetch_add(1, Ordering::SeqCst) {
        0 => reply(code, r#"{"errors":["not now"]}"#),
        _ => reply(200, r#"{"data":{"keys":["a"]}}"#),
    }
}

#[tokio::test]
async fn only_what_had_no_effect_is_asked_again() {
    let server = plain(reluctant, false).await;
    let limits = Limits { retries: 2, ..Limits::default() };
    let client = Client::builder(&server.address).limits(limits).build().unwrap();
    // (path, by a write, asked so often)
    for (path, writes, times) in [
        ("a/503", false, 2),
        ("a/412", false, 2),
        ("a/500", false, 1),
        ("a/504", false, 1),
        ("a/503", true, 1),
    ] {
        ASKED.store(0, Ordering::SeqCst);
        let answer = match writes {
            false => client.get::<serde_json::Value>(path).await.map(drop),
            true => client.write(path, &serde_json::json!({})).await,
        };
        assert_eq!((ASKED.load(Ordering::SeqCst), answer.is_ok()), (times, times == 2), "{path} {writes}");
    }
}

/// 25,000 names, by ten thousand; below `all/` the parameters are ignored.
fn many(request: Request<Incoming>) -> Response<Body> {
    let after = request.uri().query().and_then(|query| query.strip_prefix("after=k"));
    let after = after.filter(|_| !request.uri().path().starts_with("/v1/all"));
    let from = after.map_or(0, |number| number.parse::<usize>().unwrap() + 1);
    let names: Vec<String> = (from..25_000).take(10_000).map(|n| format!("k{n:05}")).collect();
    reply(200, &serde_json::json!({"data": {"keys": names}}).to_string())
}

#[tokio::test]
async fn long_lists_are_asked_for_to_their_end_and_not_for_ever() {
    let client = client(&plain(many, false).await.address);
    let names = client.list("x").await.unwrap();
    assert_eq!((names.len(), names[24_999].as_str()), (25_000, "k24999"));
    assert_eq!(client.all_names("SCAN", "all/x").await.unwrap().len(), 10_000);
}
