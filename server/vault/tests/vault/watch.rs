//! Streams of events and reads that wait: who is told, who is not, and that nothing is passed over in silence.

use std::sync::Arc;
use std::time::Duration;

use coffer_vault::{Clock as _, EventStream, Operation, SubscriberLimits, VaultConfig};
use futures::{FutureExt as _, StreamExt as _};
use serde_json::{Value, json};

use crate::bed::{Answer, Bed};

const SUBSCRIBER: &str = r#"path "sys/events/subscribe/*" { capabilities = ["read"] }
    path "secret/data/app/*" { capabilities = ["read", "subscribe"] }"#;

async fn allow(bed: &Bed, policy: &str) {
    bed.root(Operation::Update, "sys/policies/acl/watcher", json!({"policy": policy})).await.expect(204);
}

async fn token(bed: &Bed, policy: &str) -> String {
    allow(bed, policy).await;
    let made = bed.root(Operation::Update, "auth/token/create", json!({"policies": ["watcher"]})).await;
    made.expect(200).text("/auth/client_token")
}

async fn subscribe(bed: &Bed, token: &str, pattern: &str, more: &str) -> Result<EventStream, Answer> {
    let path = format!("sys/events/subscribe/{pattern}?json=true{more}");
    let request = bed.request(Operation::Read, &path, Some(token), Value::Null);
    let after = request.query.get("after").cloned();
    bed.vault.subscribe(request, pattern, after).await.map_err(|refused| Answer::of(refused.into_inner()))
}

async fn open(bed: &Bed, token: &str, pattern: &str, more: &str) -> EventStream {
    match subscribe(bed, token, pattern, more).await {
        Ok(stream) => stream,
        Err(refused) => panic!("{refused:?}"),
    }
}

async fn put(bed: &Bed, path: &str) {
    bed.root(Operation::Update, &format!("secret/data/{path}"), json!({"data": {"k": "v"}}))
        .await
        .expect(200);
}

async fn next_path(stream: &mut EventStream) -> String {
    let event = stream.next().await.unwrap();
    event["data"]["event"]["metadata"]["path"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_pattern_is_one_or_several_globs() {
    let bed = Bed::new().await;
    let mut deletes = open(&bed, &bed.root, "*-delete,database*", "&namespaces=*").await;
    let mut kv = open(&bed, &bed.root, "kv*", "").await;
    put(&bed, "app/a").await;
    bed.root(Operation::Delete, "secret/data/app/a", Value::Null).await.expect(204);
    assert_eq!(deletes.next().await.unwrap()["type"], "kv-v2/data-delete");
    assert_eq!(kv.next().await.unwrap()["type"], "kv-v2/data-write");
    for (pattern, more) in [("kv!", ""), ("kv*,", ""), ("*", "&filter=x"), ("*", "&json=false")] {
        let refused = subscribe(&bed, &bed.root, pattern, more).await.err().unwrap();
        assert_eq!(refused.status, 400, "{pattern}{more}");
    }
}

#[tokio::test]
async fn a_policy_narrows_and_widens_a_stream_and_ends_it() {
    let bed = Bed::new().await;
    let watcher = token(&bed, SUBSCRIBER).await;
    let mut stream = open(&bed, &watcher, "*", "").await;
    put(&bed, "other").await;
    put(&bed, "app/a").await;
    assert_eq!(next_path(&mut stream).await, "secret/data/app/a");
    assert!(stream.next().now_or_never().is_none());

    allow(&bed, &SUBSCRIBER.replace("app/*", "new/*")).await;
    put(&bed, "app/b").await;
    put(&bed, "new/a").await;
    assert_eq!(next_path(&mut stream).await, "secret/data/new/a");
    // What was published before it is looked at is decided about then.
    put(&bed, "new/b").await;
    allow(&bed, SUBSCRIBER).await;
    put(&bed, "app/c").await;
    assert_eq!(next_path(&mut stream).await, "secret/data/app/c");

    allow(&bed, r#"path "secret/data/app/*" { capabilities = ["subscribe"] }"#).await;
    put(&bed, "app/d").await;
    assert!(stream.next().await.is_none(), "it may not subscribe any more");
}

#[tokio::test]
async fn a_stream_ends_with_its_token_whoever_ends_it() {
    let bed = Bed::new().await;
    let maker = format!("{SUBSCRIBER}\npath \"auth/token/create\" {{ capabilities = [\"update\"] }}");
    let parent = token(&bed, &maker).await;
    let child =
        bed.post("auth/token/create", &parent, json!({})).await.expect(200).text("/auth/client_token");
    let other = token(&bed, &maker).await;
    let mut streams = Vec::new();
    for token in [&parent, &child, &other] {
        streams.push(open(&bed, token, "*", "").await);
    }
    for stream in &mut streams {
        assert!(stream.next().now_or_never().is_none());
    }
    bed.root(Operation::Update, "auth/token/revoke", json!({"token": parent})).await.expect(204);
    assert!(streams[0].next().await.is_none() && streams[1].next().await.is_none());
    put(&bed, "app/a").await;
    assert_eq!(next_path(&mut streams[2]).await, "secret/data/app/a");
    bed.root(Operation::Update, "sys/seal", Value::Null).await.expect(204);
    assert!(streams[2].next().await.is_none());
}

/// A vault whose pods may subscribe below `shop/`, and may use their tokens as they are.
async fn with_watching_pods() -> Bed {
    let subscribers = SubscriberLimits { idle: Duration::from_millis(5), ..SubscriberLimits::default() };
    let bed = Bed::configured(VaultConfig { subscribers, ..VaultConfig::default() }).await.and_pods().await;
    let policy = SUBSCRIBER.replace("app/*", "shop/*");
    let name = "sys/policies/acl/k8s/prod/shop/dsec/orders";
    bed.root(Operation::Update, name, json!({"policy": policy})).await.expect(204);
    change_role(&bed, json!({"allow_direct": true, "token_type": "batch"})).await;
    bed
}

async fn change_role(bed: &Bed, body: Value) {
    bed.root(Operation::Update, "auth/kubernetes/prod/role/shop.orders", body).await.expect(204);
}

async fn batch_and_direct(bed: &Bed) -> [String; 2] {
    let jwt = bed.cluster.jwt(&bed.cluster.claims("shop", "orders", "pod-1", bed.clock.now()));
    [bed.login("pod-1").await, format!("k8s:kubernetes/prod/shop.orders:{jwt}")]
}

#[tokio::test]
async fn a_stream_of_a_token_that_is_not_stored_ends_with_its_role() {
    let bed = with_watching_pods().await;
    let tokens = batch_and_direct(&bed).await;
    let mut streams = Vec::new();
    for token in &tokens {
        streams.push(open(&bed, token, "*", "").await);
    }
    put(&bed, "shop/a").await;
    for stream in &mut streams {
        assert_eq!(next_path(stream).await, "secret/data/shop/a");
    }
    change_role(&bed, json!({"token_policies": ["none"]})).await;
    put(&bed, "shop/b").await;
    for stream in &mut streams {
        assert!(stream.next().await.is_none());
    }
}

#[tokio::test]
async fn such_a_stream_ends_also_while_there_is_nothing_to_tell() {
    let bed = with_watching_pods().await;
    let tokens = batch_and_direct(&bed).await;
    for token in &tokens {
        change_role(&bed, json!({"token_policies": ["k8s/prod/shop/dsec/orders"]})).await;
        let mut stream = open(&bed, token, "*", "").await;
        assert!(stream.next().now_or_never().is_none());
        change_role(&bed, json!({"token_policies": ["none"]})).await;
        assert!(stream.next().await.is_none());
    }
}

#[tokio::test]
async fn a_stream_ends_with_the_entity_that_its_own_was_merged_into() {
    let bed = with_watching_pods().await;
    change_role(&bed, json!({"token_type": "service"})).await;
    let answer = bed.try_login("pod-1").await.expect(200);
    let (token, own) = (answer.text("/auth/client_token"), answer.text("/auth/entity_id"));
    let made = bed.root(Operation::Update, "identity/entity", json!({"name": "other"})).await.expect(200);
    let other = made.text("/data/id");
    let mut stream = open(&bed, &token, "*", "").await;
    let merge = json!({"from_entity_ids": own, "to_entity_id": other});
    bed.root(Operation::Update, "identity/entity/merge", merge).await.expect(204);
    put(&bed, "shop/a").await;
    assert_eq!(next_path(&mut stream).await, "secret/data/shop/a");
    let disabled = json!({"disabled": true});
    bed.root(Operation::Update, &format!("identity/entity/id/{other}"), disabled).await.expect(204);
    put(&bed, "shop/b").await;
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn a_reader_that_is_behind_misses_nothing() {
    let bed = Bed::new().await;
    let watcher = token(&bed, SUBSCRIBER).await;
    let mut stream = open(&bed, &watcher, "kv-v2/data-write", "").await;
    assert!(stream.next().now_or_never().is_none());
    // More than wait for one stream.
    for n in 0..600 {
        put(&bed, &format!("app/{n}")).await;
        put(&bed, "other").await;
    }
    for n in 0..600 {
        assert_eq!(next_path(&mut stream).await, format!("secret/data/app/{n}"));
    }
    put(&bed, "app/last").await;
    assert_eq!(next_path(&mut stream).await, "secret/data/app/last");
    assert!(stream.next().now_or_never().is_none());
}

#[tokio::test]
async fn there_is_a_limit_of_streams_and_each_is_recorded_from_its_beginning_to_its_end() {
    let limits = SubscriberLimits { in_all: 3, per_token: 2, ..SubscriberLimits::default() };
    let bed = Bed::configured(VaultConfig { subscribers: limits, ..VaultConfig::default() }).await;
    let watcher = token(&bed, SUBSCRIBER).await;
    let mut first = open(&bed, &watcher, "*", "").await;
    let second = open(&bed, &watcher, "*", "").await;
    assert_eq!(subscribe(&bed, &watcher, "*", "").await.err().unwrap().status, 429);
    let _third = open(&bed, &bed.root, "*", "").await;
    assert_eq!(subscribe(&bed, &bed.root, "*", "").await.err().unwrap().status, 503);
    put(&bed, "app/a").await;
    first.next().await.unwrap();
    let ended = |bed: &Bed| -> Vec<String> {
        let ends = bed.audit_records().into_iter().filter(|r| r.operation == "unsubscribe");
        ends.map(|r| r.metadata["events"].clone()).collect()
    };
    assert!(ended(&bed).is_empty());
    drop(first);
    while ended(&bed).is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(ended(&bed), ["1"]);
    let _again = open(&bed, &watcher, "*", "").await;
    drop(second);
}

async fn wait(bed: &Bed, token: &str, path: &str, wait: &str, index: &str) -> (Answer, String) {
    let path = format!("{path}?wait={wait}&index={index}");
    let request = bed.request(Operation::Read, &path, Some(token), Value::Null);
    let reply = bed.vault.handle(request).await.into_inner();
    let index = reply.index.clone().unwrap_or_default();
    (Answer::of(reply), index)
}

#[tokio::test]
async fn a_read_waits_for_a_change_of_what_it_reads() {
    let bed = Arc::new(Bed::new().await);
    put(&bed, "app/a").await;
    // Without an index there is nothing to compare with.
    let (answer, index) = wait(&bed, &bed.root, "secret/data/app/a", "55s", "").await;
    assert_eq!(answer.body["data"]["metadata"]["version"], 1);
    assert!(!index.is_empty());
    // Nothing happens to it, but to others.
    put(&bed, "app/b").await;
    let (answer, index) = wait(&bed, &bed.root, "secret/data/app/a", "20ms", &index).await;
    assert_eq!(answer.body["data"]["metadata"]["version"], 1);

    let waiting = |index: String| {
        let bed = Arc::clone(&bed);
        tokio::spawn(async move { wait(&bed, &bed.root, "secret/data/app/a", "55s", &index).await })
    };
    let (one, two) = (waiting(index.clone()), waiting(index.clone()));
    tokio::task::yield_now().await;
    put(&bed, "app/a").await;
    for waited in [one, two] {
        assert_eq!(waited.await.unwrap().0.body["data"]["metadata"]["version"], 2);
    }
    // The old index: it has changed already.
    let (_, index) = wait(&bed, &bed.root, "secret/data/app/a", "55s", &index).await;
    let waited = waiting(index);
    tokio::task::yield_now().await;
    bed.root(Operation::Update, "secret/destroy/app/a", json!({"versions": [2]})).await.expect(204);
    assert_eq!(waited.await.unwrap().0.status, 404);
    // An index of another process says nothing.
    wait(&bed, &bed.root, "secret/data/app/a", "55s", "elsewhere.3").await;
}

#[tokio::test]
async fn a_waiting_read_is_refused_where_it_makes_no_sense_and_ends_with_its_token() {
    let bed = Arc::new(Bed::new().await);
    put(&bed, "app/a").await;
    for (path, time) in [("secret/data/app/a", "56s"), ("secret/data/app/a", "soon"), ("sys/mounts", "1s")] {
        assert_eq!(wait(&bed, &bed.root, path, time, "").await.0.status, 400, "{path} {time}");
    }
    let watcher = token(&bed, SUBSCRIBER).await;
    assert_eq!(wait(&bed, &watcher, "secret/data/other", "1s", "").await.0.status, 403);
    let (_, index) = wait(&bed, &watcher, "secret/data/app/a", "0s", "").await;
    let waiting = |token: String, index: String| {
        let bed = Arc::clone(&bed);
        tokio::spawn(async move { wait(&bed, &token, "secret/data/app/a", "55s", &index).await.0.status })
    };
    let cut = waiting(watcher.clone(), index.clone());
    tokio::task::yield_now().await;
    bed.root(Operation::Update, "auth/token/revoke", json!({"token": watcher})).await.expect(204);
    assert_eq!(cut.await.unwrap(), 403);

    let ending = waiting(bed.root.clone(), index);
    tokio::task::yield_now().await;
    bed.vault.end_waits();
    assert_eq!(ending.await.unwrap(), 200, "a server that ends answers what waits");
}

#[tokio::test]
async fn sealing_ends_a_waiting_read() {
    let bed = Arc::new(Bed::new().await);
    put(&bed, "app/a").await;
    let (_, index) = wait(&bed, &bed.root, "secret/data/app/a", "0s", "").await;
    let waiting = {
        let bed = Arc::clone(&bed);
        tokio::spawn(async move { wait(&bed, &bed.root, "secret/data/app/a", "55s", &index).await.0.status })
    };
    tokio::task::yield_now().await;
    bed.root(Operation::Update, "sys/seal", Value::Null).await.expect(204);
    assert_eq!(waiting.await.unwrap(), 503);
}
