//! A fuzz target over everything at once: requests with bodies, to a vault in memory, as root.
//!
//! An input is a JSON list of `[method, path, body]`. Whatever is sent, the answer is one that the API has: never a 500,
//! never a panic, and an error always in the form of errors.

use axum::body::Body;
use coffer_fuzz::Target;
use http::{Method, Request};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::Limits;
use crate::tests::{Bed, bed_with};

const REQUESTS_MAX: usize = 8;
/// So many inputs share a vault, which fills up under way.
const INPUTS_PER_VAULT: u32 = 100;

/// What fields are called, and what is in them, here and there.
const WORDS: [&str; 34] = [
    "data",
    "options",
    "cas",
    "version",
    "versions",
    "max_versions",
    "delete_version_after",
    "custom_metadata",
    "policy",
    "type",
    "kv",
    "approle",
    "ttl",
    "-1s",
    "1h",
    "num_uses",
    "period",
    "policies",
    "root",
    "default",
    "meta",
    "token",
    "accessor",
    "path",
    "paths",
    "token_bound_cidrs",
    "10.0.0.0/8",
    "rate",
    "interval",
    "secret_shares",
    "key",
    "sys/",
    "../",
    "\u{0}",
];

#[test]
fn no_request_body_is_answered_with_a_fault_of_the_server() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let bed = std::cell::RefCell::new((runtime.block_on(bed_with(Limits::default())), 0));
    Target::new("bodies").words(&WORDS).runs(400).run(|input| {
        let requests: Vec<Value> = match serde_json::from_slice(input) {
            Ok(requests) => requests,
            Err(_) => return "no list".into(),
        };
        let mut bed = bed.borrow_mut();
        if bed.1 == INPUTS_PER_VAULT {
            *bed = (runtime.block_on(bed_with(Limits::default())), 0);
        }
        bed.1 += 1;
        let mut answers = String::new();
        for request in requests.iter().take(REQUESTS_MAX) {
            let Some((status, error)) = runtime.block_on(send(&bed.0, request)) else { continue };
            answers.push_str(&format!(
                "{status} {} ",
                error.chars().filter(|c| !c.is_ascii_digit()).take(16).collect::<String>()
            ));
            // Sealed, or the token is gone: what follows needs another vault.
            if matches!(status, 403 | 429 | 503) {
                bed.1 = INPUTS_PER_VAULT;
            }
        }
        answers
    });
}

async fn send(bed: &Bed, request: &Value) -> Option<(u16, String)> {
    let method = Method::from_bytes(request[0].as_str()?.as_bytes()).ok()?;
    let path = request[1].as_str()?;
    let builder = Request::builder().method(method.clone()).uri(format!("/v1/{path}"));
    let builder = builder.header("x-vault-token", &bed.token);
    let builder = if method == "PATCH" {
        builder.header("content-type", "application/merge-patch+json")
    } else {
        builder
    };
    let body = if request[2].is_null() { Body::empty() } else { Body::from(request[2].to_string()) };
    let response = bed.send(builder.body(body).ok()?).await;
    let status = response.status().as_u16();
    // A subscription's body does not end.
    if response.headers().get("content-type").is_none_or(|kind| kind != "application/json") {
        assert_ne!(status, 500, "{request}");
        return Some((status, String::new()));
    }
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let answer: Value = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() };
    assert_ne!(status, 500, "{request}: {answer}");
    let errors = answer["errors"].as_array();
    // A 404 may come with what is left of a secret, and health is its own.
    let errors_only = status >= 400 && status != 404 && !path.starts_with("sys/health");
    let shape = !errors_only || errors.is_some_and(|e| e.iter().all(Value::is_string));
    assert!(shape, "{status} {request}: {answer}");
    Some((status, errors.and_then(|e| e.first()?.as_str()).unwrap_or_default().to_owned()))
}

/// A batch token of this vault, edited as the input says: pairs of bytes, a place and what is put there. Zero takes a
/// character out.
#[test]
fn no_token_is_let_in_but_the_one_that_was_issued() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let bed = runtime.block_on(bed_with(Limits::default()));
    let made = json!({"type": "batch", "policies": ["default"], "ttl": "1h"});
    let (status, made) = runtime.block_on(bed.ask("POST", "/v1/auth/token/create", made));
    assert_eq!(status, 200);
    let token = made["auth"]["client_token"].as_str().unwrap().to_owned();
    Target::new("token-edits").words(&["\u{5}A", "\u{1}.", "\u{0}s", "=", "\u{ff}"]).runs(1_000).run(
        |input| {
            let mut edited = token.clone().into_bytes();
            for edit in input.chunks_exact(2).take(8) {
                let at = usize::from(edit[0]) % edited.len();
                match edit[1] {
                    0 if edited.len() > 1 => drop(edited.remove(at)),
                    byte => edited[at] = b'!' + byte % 94,
                }
            }
            let edited = String::from_utf8(edited).unwrap();
            let request = Request::get("/v1/auth/token/lookup-self").header("x-vault-token", &edited);
            let status = runtime.block_on(bed.send(request.body(Body::empty()).unwrap())).status().as_u16();
            assert_eq!(status, if edited == token { 200 } else { 403 }, "{input:?}");
            format!("{status}")
        },
    );
}
