//! Response wrapping: who has the token has the reply, once.

use crate::bed;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bed::database::CANARY;
use bed::{Answer, Bed};
use coffer_core::audit::RecordType;
use coffer_vault::Operation;
use serde_json::{Value, json};

const MINUTE: Duration = Duration::from_secs(60);

async fn wrapped(bed: &Bed, operation: Operation, path: &str, token: Option<&str>, body: Value) -> Answer {
    let mut request = bed.request(operation, path, token, body);
    request.wrap_ttl = Some(MINUTE);
    bed.handle(request).await
}

/// Wraps a secret; gives back the token for it.
async fn secret(bed: &Bed) -> String {
    bed.root(Operation::Update, "secret/data/shop/x", json!({"data": {"password": CANARY}}))
        .await
        .expect(200);
    let root = bed.root.clone();
    wrapped(bed, Operation::Read, "secret/data/shop/x", Some(&root), Value::Null)
        .await
        .expect(200)
        .text("/wrap_info/token")
}

async fn unwrap(bed: &Bed, token: &str) -> Answer {
    bed.post("sys/wrapping/unwrap", token, json!({})).await
}

const NOT_VALID: &str = "wrapping token is not valid or does not exist";

#[tokio::test]
async fn a_wrapped_reply_has_vaults_shape_and_is_given_out_once() {
    let bed = Bed::new().await;
    bed.root(Operation::Update, "secret/data/shop/x", json!({"data": {"password": CANARY}}))
        .await
        .expect(200);
    let root = bed.root.clone();
    let reply =
        wrapped(&bed, Operation::Read, "secret/data/shop/x", Some(&root), Value::Null).await.expect(200);
    let info = reply.body["wrap_info"].as_object().unwrap();
    let names: BTreeSet<&str> = info.keys().map(String::as_str).collect();
    assert_eq!(names, BTreeSet::from(["accessor", "creation_path", "creation_time", "token", "ttl"]));
    assert_eq!((&info["ttl"], &info["creation_path"]), (&json!(60), &json!("secret/data/shop/x")));
    assert_eq!((&reply.body["request_id"], &reply.body["data"]), (&json!(""), &Value::Null));
    let token = reply.text("/wrap_info/token");

    for asker in [None, Some("s.nobody"), Some(root.as_str())] {
        let looked = bed
            .send(Operation::Update, "sys/wrapping/lookup", asker, json!({"token": token}))
            .await
            .expect(200);
        assert_eq!(looked.body["data"]["creation_path"], "secret/data/shop/x");
        assert_eq!(looked.body["data"]["creation_ttl"], 60);
    }
    bed.get("sys/wrapping/lookup", &token).await.expect(200);
    // Somebody who may not even log in cannot unwrap for others.
    bed.send(Operation::Update, "sys/wrapping/unwrap", None, json!({"token": token})).await.expect(403);
    bed.post("sys/wrapping/unwrap", "s.nobody", json!({"token": token})).await.expect(403);

    let given = unwrap(&bed, &token).await.expect(200);
    assert_eq!(given.text("/data/data/password"), CANARY);
    assert_ne!(given.body["request_id"], "");
    assert_eq!(unwrap(&bed, &token).await.expect(400).text("/errors/0"), NOT_VALID);
    for path in ["lookup", "unwrap", "rewrap"] {
        let path = format!("sys/wrapping/{path}");
        bed.post(&path, &root, json!({"token": ""})).await.expect(403);
        let said = bed.post(&path, &root, json!({"token": token})).await.expect(400);
        assert_eq!(said.text("/errors/0"), NOT_VALID);
    }
    let text = bed.audit_text();
    assert!(!text.contains(&token) && !text.contains(CANARY));
}

#[tokio::test]
async fn a_token_named_in_the_body_is_unwrapped_by_who_may() {
    let bed = Bed::new().await;
    let make =
        async |body: Value| bed.post("auth/token/create", &bed.root, body).await.text("/auth/client_token");
    let ordinary = make(json!({"policies": ["default"]})).await;
    let bare = make(json!({"policies": ["none"], "no_default_policy": true})).await;
    let token = secret(&bed).await;
    bed.post("sys/wrapping/unwrap", &bare, json!({"token": token})).await.expect(403);
    bed.post("sys/wrapping/rewrap", &bare, json!({"token": token})).await.expect(403);
    let given = bed.post("sys/wrapping/unwrap", &ordinary, json!({"token": token})).await.expect(200);
    assert_eq!(given.text("/data/data/password"), CANARY);
    // Other tokens are not wrapping tokens, whoever asks.
    for other in [&ordinary, &bed.root] {
        let said = bed.post("sys/wrapping/unwrap", &bed.root, json!({"token": other})).await.expect(400);
        assert_eq!(said.text("/errors/0"), NOT_VALID);
        assert_eq!(unwrap(&bed, other).await.expect(400).text("/errors/0"), NOT_VALID);
        bed.get("auth/token/lookup-self", other).await.expect(200);
    }
    for body in [json!({"policies": ["response-wrapping"]}), json!({"policies": ["response-wrapping", "x"]})]
    {
        let said = bed.post("auth/token/create", &bed.root, body).await.expect(400).text("/errors/0");
        assert_eq!(said, "cannot assign policy \"response-wrapping\"");
    }
}

#[tokio::test]
async fn what_is_sent_can_be_wrapped_and_wrapped_anew() {
    let bed = Bed::new().await;
    let root = bed.root.clone();
    let said = bed.post("sys/wrapping/wrap", &root, json!({"a": 1})).await.expect(400).text("/errors/0");
    assert_eq!(said, "endpoint requires response wrapping to be used");
    let body = json!({"a": "b", "c": [1]});
    let first =
        wrapped(&bed, Operation::Update, "sys/wrapping/wrap", Some(&root), body.clone()).await.expect(200);
    let first = first.text("/wrap_info/token");
    let moved =
        wrapped(&bed, Operation::Update, "sys/wrapping/rewrap", Some(&root), json!({"token": first})).await;
    let moved = moved.expect(200);
    assert_eq!(moved.text("/wrap_info/creation_path"), "sys/wrapping/wrap");
    let second = moved.text("/wrap_info/token");
    assert_eq!(unwrap(&bed, &first).await.expect(400).text("/errors/0"), NOT_VALID);
    assert_eq!(unwrap(&bed, &second).await.expect(200).body["data"], body);
    // The old way to unwrap.
    let third = secret(&bed).await;
    let read = bed.get("cubbyhole/response", &third).await.expect(200);
    assert!(read.text("/data/response").contains(CANARY));
    assert!(read.text("/warnings/0").starts_with("Reading from 'cubbyhole/response' is deprecated."));
    bed.get("cubbyhole/response", &third).await.expect(403);
    unwrap(&bed, &third).await.expect(400);
}

#[tokio::test]
async fn logins_and_new_tokens_can_be_wrapped() {
    let bed = Bed::with_pods().await;
    let jwt = bed.cluster.jwt(&bed.cluster.claims("shop", "orders", "pod-1", now(&bed)));
    let login = json!({"role": "shop.orders", "jwt": jwt});
    let reply =
        wrapped(&bed, Operation::Update, "auth/kubernetes/prod/login", None, login.clone()).await.expect(200);
    assert_eq!(reply.body["auth"], Value::Null);
    let accessor = reply.text("/wrap_info/wrapped_accessor");
    let given = unwrap(&bed, &reply.text("/wrap_info/token")).await.expect(200);
    assert_eq!(given.text("/auth/accessor"), accessor);
    bed.get("auth/token/lookup-self", &given.text("/auth/client_token")).await.expect(200);

    // What a pod's login was wrapped into goes with the pod.
    let reply = wrapped(&bed, Operation::Update, "auth/kubernetes/prod/login", None, login).await.expect(200);
    bed.root(Operation::Update, "auth/kubernetes/prod/revoke-pod", json!({"uid": "pod-1"})).await.expect(204);
    unwrap(&bed, &reply.text("/wrap_info/token")).await.expect(400);
}

fn now(bed: &Bed) -> coffer_core::time::Timestamp {
    use coffer_vault::Clock as _;
    bed.clock.now()
}

#[tokio::test]
async fn what_has_nothing_to_hide_stays_as_it_is() {
    let bed = Bed::new().await;
    let root = bed.root.clone();
    let policy = json!({"policy": "path \"a\" { capabilities = [\"read\"] }"});
    wrapped(&bed, Operation::Update, "sys/policies/acl/a", Some(&root), policy).await.expect(204);
    let absent =
        wrapped(&bed, Operation::Read, "secret/data/none", Some(&root), Value::Null).await.expect(404);
    assert_eq!(absent.body, json!({"errors": []}));
    wrapped(&bed, Operation::Read, "secret/data/none", Some("s.nobody"), Value::Null).await.expect(403);
    let mounts = wrapped(&bed, Operation::Read, "sys/mounts", Some(&root), Value::Null).await.expect(200);
    assert!(!mounts.body.to_string().contains("database"), "nothing of it stands beside the token");
    let given = unwrap(&bed, &mounts.text("/wrap_info/token")).await.expect(200);
    assert!(given.body["secret/"].is_object());
}

#[tokio::test]
async fn wrapped_replies_expire_with_everything_in_them() {
    let bed = Bed::new().await;
    let token = secret(&bed).await;
    let mounts =
        |bed: &Bed| bed.store.dump().iter().map(|(k, _)| k[..17].to_vec()).collect::<BTreeSet<_>>().len();
    let with = mounts(&bed);
    bed.advance(MINUTE).await;
    assert_eq!(unwrap(&bed, &token).await.expect(400).text("/errors/0"), NOT_VALID);
    bed.sweep().await;
    assert_eq!(mounts(&bed), with - 1, "its cubbyhole is gone");
    let reply = wrapped(&bed, Operation::Update, "sys/wrapping/wrap", Some(&bed.root), json!({"a": 1})).await;
    let (token, accessor) = (reply.text("/wrap_info/token"), reply.text("/wrap_info/accessor"));
    bed.root(Operation::Update, "auth/token/revoke-accessor", json!({"accessor": accessor}))
        .await
        .expect(204);
    unwrap(&bed, &token).await.expect(400);
}

#[tokio::test]
async fn policies_say_whether_and_for_how_long() {
    let bed = Bed::new().await;
    let policy = r#"path "secret/data/*" { capabilities = ["read"]
        min_wrapping_ttl = "1m" max_wrapping_ttl = "2m" }"#;
    bed.root(Operation::Update, "sys/policies/acl/wr", json!({"policy": policy})).await.expect(204);
    secret(&bed).await;
    let made = bed.root(Operation::Update, "auth/token/create", json!({"policies": ["wr"]})).await;
    let token = made.text("/auth/client_token");
    for (seconds, status) in
        [(None, 403), (Some(59), 403), (Some(60), 200), (Some(120), 200), (Some(121), 403)]
    {
        let mut request = bed.request(Operation::Read, "secret/data/shop/x", Some(&token), Value::Null);
        request.wrap_ttl = seconds.map(Duration::from_secs);
        let answer = bed.handle(request).await.expect(status);
        assert!(!answer.body.to_string().contains(CANARY), "{seconds:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_who_unwrap_at_once_one_gets_it() {
    let bed = Arc::new(Bed::new().await);
    for round in 0..20 {
        let token = secret(&bed).await;
        let start = Arc::new(tokio::sync::Barrier::new(12));
        let tasks: Vec<_> = (0..12)
            .map(|n| {
                let (bed, token, start) = (Arc::clone(&bed), token.clone(), Arc::clone(&start));
                tokio::spawn(async move {
                    start.wait().await;
                    match n % 4 {
                        0 => bed.get("cubbyhole/response", &token).await,
                        1 => bed.post("sys/wrapping/unwrap", &bed.root, json!({"token": token})).await,
                        2 => bed.post("sys/wrapping/rewrap", &bed.root, json!({"token": token})).await,
                        _ => unwrap(&bed, &token).await,
                    }
                })
            })
            .collect();
        let mut winners = Vec::new();
        for task in tasks {
            let answer = task.await.unwrap();
            match answer.status {
                200 => winners.push(answer),
                other => assert!(other == 400 || other == 403, "{answer:?}"),
            }
        }
        assert_eq!(winners.len(), 1, "round {round}");
        let winner = &winners[0];
        let holds = match winner.body["wrap_info"]["token"].as_str() {
            Some(moved) => unwrap(&bed, moved).await.expect(200).body.to_string(),
            None => winner.body.to_string(),
        };
        assert!(holds.contains(CANARY), "round {round}");
    }
}

#[tokio::test]
async fn a_wrapped_reply_that_is_not_recorded_is_taken_back() {
    let bed = Bed::with_pods().await;
    secret(&bed).await;
    bed.advance(Duration::from_secs(3600)).await;
    bed.sweep().await;
    let accessors = async || {
        bed.root(Operation::List, "auth/token/accessors", Value::Null).await.body["data"]["keys"].clone()
    };
    let before = accessors().await;
    let root = bed.root.clone();
    let create = json!({"policies": ["default"]});
    let mut only_intents = 0;
    // A record takes 256 KiB: somewhere below that the first one fits and the last one, which says more, does not.
    for room in (120..640).step_by(20) {
        for (operation, path, body) in [
            (Operation::Read, "secret/data/shop/x", Value::Null),
            (Operation::Update, "auth/token/create", create.clone()),
        ] {
            let id = "x".repeat(256 * 1024 - room);
            let mut request = bed.request(operation, path, Some(&root), body);
            request.wrap_ttl = Some(MINUTE);
            request.id.clone_from(&id);
            let answer = bed.handle(request).await;
            if answer.status == 500 {
                let intent =
                    bed.audit_records().iter().any(|r| r.kind == RecordType::Intent && r.request_id == id);
                only_intents += usize::from(intent);
                assert_eq!(accessors().await, before, "{path} {room}");
            } else {
                let token = answer.expect(200).text("/wrap_info/token");
                let inner = unwrap(&bed, &token).await.expect(200);
                if let Some(token) = inner.body["auth"]["client_token"].as_str() {
                    bed.root(Operation::Update, "auth/token/revoke", json!({"token": token}))
                        .await
                        .expect(204);
                }
            }
        }
    }
    assert!(only_intents >= 2, "the case was not met");
}
