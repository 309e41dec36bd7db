//! Version 1 of the key-value engine: Vault's shapes, lives, lists, and the way to version 2.

#![allow(clippy::unwrap_used, reason = "a test's helper fails the test")]

mod support;

use coffer_engines::kv::upgrade;
use coffer_engines::{EngineError, EngineReply, KvEngine, Op, PlainKvEngine, WriteView};
use serde_json::{Value, json};
use support::{Bench, data};

async fn bench() -> Bench<PlainKvEngine> {
    Bench::new(PlainKvEngine::new()).await
}

async fn life(kv: &Bench<PlainKvEngine>, body: Value) -> Option<u64> {
    kv.post("life", body).await.unwrap();
    match kv.read("life").await.unwrap() {
        EngineReply::Lasting { seconds, .. } => seconds,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_value_is_replaced_as_a_whole_and_goes_with_its_name() {
    let kv = bench().await;
    assert!(matches!(kv.read("a/b").await.unwrap(), EngineReply::NotFound));
    assert!(!kv.exists("a/b").await);
    let (reply, effects) = kv.post("a/b", json!({ "user": "x", "n": 1 })).await.unwrap();
    assert!(matches!(reply, EngineReply::Empty));
    assert_eq!((effects[0].event_type, effects[0].path.as_str()), ("kv-v1/write", "a/b"));
    kv.post("a/b", json!({ "user": "y" })).await.unwrap();
    let EngineReply::Lasting { json: read, seconds } = kv.read("a/b").await.unwrap() else {
        panic!("no data")
    };
    assert_eq!((read.expose(), seconds), (&br#"{"user":"y"}"#[..], None));
    assert!(kv.exists("a/b").await);
    assert_eq!(kv.delete("a/b").await.unwrap().1[0].event_type, "kv-v1/delete");
    assert!(kv.delete("a/b").await.unwrap().1.is_empty());
    assert!(matches!(kv.list("").await.unwrap(), EngineReply::NotFound));
}

#[tokio::test]
async fn the_writer_may_say_how_long_a_value_lasts() {
    let kv = bench().await;
    for (body, wanted) in [
        (json!({ "x": 1 }), None),
        (json!({ "ttl": "30s" }), Some(30)),
        (json!({ "ttl": 30 }), Some(30)),
        (json!({ "lease": "1h" }), Some(3600)),
        (json!({ "lease": "1h", "ttl": "2h" }), Some(7200)),
        (json!({ "ttl": null }), Some(0)),
        (json!({ "ttl": "" }), Some(0)),
        (json!({ "ttl": "soon" }), None),
        (json!({ "ttl": 1.5 }), None),
        (json!({ "ttl": ["x"] }), None),
    ] {
        assert_eq!(life(&kv, body.clone()).await, wanted, "{body}");
    }
}

#[tokio::test]
async fn refuses_what_vault_refuses() {
    let kv = bench().await;
    for (path, body, message) in
        [("", json!({ "a": 1 }), "missing path"), ("a", json!({}), "missing data fields")]
    {
        let refused = kv.post(path, body).await;
        assert!(matches!(refused, Err(EngineError::BadRequest(said)) if said == message));
    }
    let large = kv.post("a", json!({ "k": "x".repeat(512 * 1024) })).await;
    assert!(matches!(large, Err(EngineError::TooLarge(_))));
    assert!(matches!(kv.write(Op::Patch, "a", json!({ "a": 1 })).await, Err(EngineError::Unsupported)));
}

#[tokio::test]
async fn lists_and_scans() {
    let kv = bench().await;
    assert_eq!(data(kv.scan("").await.unwrap()), json!({}));
    for path in ["b", "a", "b/c"] {
        kv.post(path, json!({ "x": 1 })).await.unwrap();
    }
    assert_eq!(data(kv.list("").await.unwrap()), json!(["a", "b", "b/"]));
    assert_eq!(data(kv.list("b/").await.unwrap()), json!(["c"]));
    assert_eq!(data(kv.list("?after=a&limit=1").await.unwrap()), json!(["b"]));
    assert_eq!(data(kv.scan("").await.unwrap()), json!(["a", "b", "b/c"]));
}

#[tokio::test]
async fn an_upgrade_keeps_every_value_as_its_first_version() {
    let old = bench().await;
    for path in ["config", "a/b", "c"] {
        old.post(path, json!({ "at": path })).await.unwrap();
    }
    let names: Vec<String> = serde_json::from_value(data(old.scan("").await.unwrap())).unwrap();
    for _ in 0..2 {
        let mut writer = old.barrier.begin().await.unwrap();
        upgrade(&mut WriteView::new(old.mount, &mut writer), &names, old.now).await.unwrap();
        writer.commit().await.unwrap();
    }
    let new = Bench { barrier: old.barrier, mount: old.mount, engine: KvEngine::new(), now: old.now };
    for path in ["config", "a/b", "c"] {
        let read = data(new.read(&format!("data/{path}")).await.unwrap());
        assert_eq!((&read["data"]["at"], &read["metadata"]["version"]), (&json!(path), &json!(1)));
    }
    assert_eq!(data(new.read("metadata/c").await.unwrap())["oldest_version"], 1);
    new.post("data/c", json!({ "data": { "n": 2 }, "options": { "cas": 1 } })).await.unwrap();
    assert_eq!(data(new.read("data/c?version=1").await.unwrap())["data"]["at"], "c");
    new.delete("metadata/a/b").await.unwrap();
    assert_eq!(data(new.list("metadata").await.unwrap()), json!(["c", "config"]));
}
