//! The key-value engine against a barrier in memory: Vault's shapes and errors, versions, limits.

#![allow(clippy::unwrap_used, reason = "a test's helper fails the test")]

#[path = "kv_rotation/mod.rs"]
mod rotation;
mod support;

use std::time::Duration;

use coffer_engines::{EngineError, EngineReply, KvEngine, Op};
use serde_json::{Value, json};
use support::{Bench, data};

async fn bench() -> Bench<KvEngine> {
    Bench::new(KvEngine::new()).await
}

async fn put(kv: &Bench<KvEngine>, path: &str, value: Value) -> Value {
    data(kv.post(&format!("data/{path}"), json!({ "data": value })).await.unwrap().0)
}

fn refusal<T>(result: Result<T, EngineError>) -> String {
    match result {
        Err(EngineError::BadRequest(message)) => message,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("not refused"),
    }
}

#[tokio::test]
async fn writes_and_reads_as_vault_does() {
    let kv = bench().await;
    let written = put(&kv, "app/db", json!({ "user": "a", "n": 1 })).await;
    let version = json!({
        "created_time": "2026-11-24T12:00:00Z", "custom_metadata": null, "deletion_time": "",
        "destroyed": false, "version": 1,
    });
    assert_eq!(written, version);
    let read = data(kv.read("data/app/db").await.unwrap());
    assert_eq!(read, json!({ "data": { "user": "a", "n": 1 }, "metadata": version }));
    put(&kv, "app/db", json!({ "user": "b" })).await;
    assert_eq!(data(kv.read("data/app/db").await.unwrap())["data"], json!({ "user": "b" }));
    assert_eq!(data(kv.read("data/app/db?version=1").await.unwrap())["data"]["user"], "a");
    assert!(matches!(kv.read("data/app/db?version=3").await.unwrap(), EngineReply::NotFound));
    assert!(matches!(kv.read("data/none").await.unwrap(), EngineReply::NotFound));
    refusal(kv.read("data/app/db?version=x").await);
    assert!(kv.exists("data/app/db").await && !kv.exists("data/none").await);
}

#[tokio::test]
async fn check_and_set() {
    let kv = bench().await;
    let write = |cas: Value| kv.post("data/x", json!({ "data": { "a": 1 }, "options": { "cas": cas } }));
    let mismatch = "check-and-set parameter did not match the current version";
    assert_eq!(refusal(write(json!(1)).await), mismatch);
    write(json!(0)).await.unwrap();
    assert_eq!(refusal(write(json!(0)).await), mismatch);
    write(json!("1")).await.unwrap();
    refusal(write(json!(-1)).await);
    kv.post("config", json!({ "cas_required": true })).await.unwrap();
    let plain = kv.post("data/x", json!({ "data": {} })).await;
    assert_eq!(refusal(plain), "check-and-set parameter required for this call");
    write(json!(2)).await.unwrap();
    assert_eq!(refusal(kv.post("data/x", json!({})).await), "no data provided");
    assert_eq!(refusal(write(json!("x")).await), "error parsing check-and-set parameter");
    refusal(kv.post("data/x", json!({ "data": "text" })).await);
}

#[tokio::test]
async fn zero_means_that_nothing_can_be_read() {
    let kv = bench().await;
    let create = || kv.post("data/x", json!({ "data": { "a": 1 }, "options": { "cas": 0 } }));
    create().await.unwrap();
    kv.delete("data/x").await.unwrap();
    assert_eq!(data(create().await.unwrap().0)["version"], 2, "the deleted one is no hindrance");
    refusal(create().await);
    kv.post("destroy/x", json!({ "versions": [2] })).await.unwrap();
    assert_eq!(data(create().await.unwrap().0)["version"], 3);
    kv.post("metadata/y", json!({ "max_versions": 2 })).await.unwrap();
    let reply = kv.post("data/y", json!({ "data": {}, "options": { "cas": 0 } })).await.unwrap().0;
    assert_eq!(data(reply)["version"], 1);
}

#[tokio::test]
async fn metadata_has_a_check_and_set_of_its_own() {
    let kv = bench().await;
    kv.post("config", json!({ "metadata_cas_required": true })).await.unwrap();
    let write = |body: Value| kv.post("metadata/x", body);
    let required = "metadata check-and-set parameter required for this call";
    let mismatch = "metadata check-and-set parameter does not match the current version";
    assert_eq!(refusal(write(json!({ "max_versions": 3 })).await), required);
    let early = write(json!({ "max_versions": 3, "metadata_cas": 1 })).await;
    assert_eq!(refusal(early), "metadata_cas must be 0 when creating new metadata");
    write(json!({ "max_versions": 3, "metadata_cas": 0 })).await.unwrap();
    assert_eq!(refusal(write(json!({ "max_versions": 4, "metadata_cas": 0 })).await), mismatch);
    let patch = |body: Value| kv.write(Op::Patch, "metadata/x", body);
    assert_eq!(refusal(patch(json!({ "max_versions": 4 })).await), required);
    let (reply, effects) = patch(json!({ "cas_required": true, "metadata_cas": 1 })).await.unwrap();
    assert!(matches!(reply, EngineReply::Empty) && effects[0].event_type == "kv-v2/metadata-patch");
    let meta = data(kv.read("metadata/x").await.unwrap());
    assert_eq!((&meta["current_metadata_version"], &meta["max_versions"]), (&json!(2), &json!(3)));
    let (reply, _) = write(json!({ "metadata_cas_required": false, "metadata_cas": 2 })).await.unwrap();
    let EngineReply::Warn(_, warnings) = reply else { panic!("no warning") };
    assert!(warnings[0].contains("mandated by backend config"));
}

#[tokio::test]
async fn metadata_patches_merge_and_nulls_take_away() {
    let kv = bench().await;
    let patch = |body: Value| kv.write(Op::Patch, "metadata/x", body);
    assert!(matches!(patch(json!({ "max_versions": 3 })).await.unwrap().0, EngineReply::Missing));
    assert!(matches!(patch(json!({})).await.unwrap().0, EngineReply::Empty), "as in Vault: nothing asked");
    kv.post("metadata/x", json!({ "custom_metadata": { "a": "1", "b": "2" } })).await.unwrap();
    patch(json!({ "custom_metadata": { "a": null, "c": "3" }, "delete_version_after": "1m" })).await.unwrap();
    let meta = data(kv.read("metadata/x").await.unwrap());
    assert_eq!(meta["custom_metadata"], json!({ "b": "2", "c": "3" }));
    assert_eq!(meta["delete_version_after"], "1m0s");
    patch(json!({ "custom_metadata": null, "delete_version_after": null })).await.unwrap();
    let meta = data(kv.read("metadata/x").await.unwrap());
    assert_eq!((&meta["custom_metadata"], &meta["delete_version_after"]), (&Value::Null, &json!("1m0s")));
    assert!(refusal(patch(json!({ "custom_metadata": { "a": "\n" } })).await).contains("unprintable"));
    refusal(patch(json!({ "max_versions": "many" })).await);
}

#[tokio::test]
async fn every_change_shows_in_the_updated_time() {
    let mut kv = bench().await;
    put(&kv, "x", json!({ "a": 1 })).await;
    let mut before = data(kv.read("metadata/x").await.unwrap())["updated_time"].clone();
    for (path, body) in [
        ("delete/x", json!({ "versions": [1] })),
        ("undelete/x", json!({ "versions": [1] })),
        ("destroy/x", json!({ "versions": [1] })),
        ("metadata/x", json!({ "max_versions": 3 })),
        ("data/x", json!({ "data": {} })),
    ] {
        kv.now = kv.now.plus(Duration::from_secs(1));
        kv.post(path, body).await.unwrap();
        let after = data(kv.read("metadata/x").await.unwrap())["updated_time"].clone();
        assert_ne!(before, after, "{path}");
        before = after;
    }
}

#[tokio::test]
async fn deletes_undeletes_destroys() {
    let kv = bench().await;
    put(&kv, "x", json!({ "v": 1 })).await;
    put(&kv, "x", json!({ "v": 2 })).await;
    let (reply, effects) = kv.delete("data/x").await.unwrap();
    assert!(matches!(reply, EngineReply::Empty));
    assert_eq!((effects[0].event_type, effects[0].path.as_str()), ("kv-v2/data-delete", "data/x"));
    let EngineReply::NotFoundWith(gone) = kv.read("data/x").await.unwrap() else { panic!("still there") };
    assert_eq!(gone["data"], Value::Null);
    assert_eq!(gone["metadata"]["deletion_time"], "2026-11-24T12:00:00Z");
    assert_eq!(data(kv.read("data/x?version=1").await.unwrap())["data"]["v"], 1);
    assert!(kv.delete("data/x").await.unwrap().1.is_empty(), "nothing happened the second time");
    kv.post("undelete/x", json!({ "versions": [2] })).await.unwrap();
    assert_eq!(data(kv.read("data/x").await.unwrap())["data"]["v"], 2);
    kv.post("destroy/x", json!({ "versions": ["2"] })).await.unwrap();
    kv.post("undelete/x", json!({ "versions": [2] })).await.unwrap();
    let EngineReply::NotFoundWith(gone) = kv.read("data/x").await.unwrap() else { panic!("still there") };
    assert_eq!(gone["metadata"]["destroyed"], true);
    kv.post("delete/x", json!({ "versions": [1, 7] })).await.unwrap();
    assert!(matches!(kv.read("data/x?version=1").await.unwrap(), EngineReply::NotFoundWith(_)));
    assert_eq!(refusal(kv.post("destroy/x", json!({})).await), "no version number provided");
    let many = json!({ "versions": vec!["9"; 1001].join(",") });
    assert!(refusal(kv.post("destroy/x", many).await).contains("more than"), "none is left out in silence");
    assert!(matches!(kv.delete("data/none").await.unwrap().0, EngineReply::Empty));
}

#[tokio::test]
async fn old_versions_go() {
    let kv = bench().await;
    for n in 1..=12 {
        put(&kv, "x", json!({ "n": n })).await;
    }
    let meta = data(kv.read("metadata/x").await.unwrap());
    assert_eq!((&meta["current_version"], &meta["oldest_version"]), (&json!(12), &json!(3)));
    assert_eq!(meta["versions"].as_object().unwrap().len(), 10);
    assert!(matches!(kv.read("data/x?version=2").await.unwrap(), EngineReply::NotFound));
    kv.post("config", json!({ "max_versions": 2 })).await.unwrap();
    put(&kv, "x", json!({ "n": 13 })).await;
    let meta = data(kv.read("metadata/x").await.unwrap());
    assert_eq!(meta["versions"].as_object().unwrap().keys().collect::<Vec<_>>(), ["12", "13"]);
    kv.post("metadata/x", json!({ "max_versions": 4 })).await.unwrap();
    for n in 14..=16 {
        put(&kv, "x", json!({ "n": n })).await;
    }
    let meta = data(kv.read("metadata/x").await.unwrap());
    assert_eq!((&meta["oldest_version"], meta["versions"].as_object().unwrap().len()), (&json!(13), 4));
    for too_many in [json!(1_000_000), json!(-1)] {
        let (reply, _) = kv.post("config", json!({ "max_versions": too_many })).await.unwrap();
        assert!(matches!(reply, EngineReply::Warn(..)));
        assert_eq!(data(kv.read("config").await.unwrap())["max_versions"], 1000);
    }
}

#[tokio::test]
async fn versions_delete_themselves() {
    let mut kv = bench().await;
    kv.post("config", json!({ "delete_version_after": "1h" })).await.unwrap();
    kv.post("metadata/x", json!({ "delete_version_after": "30m" })).await.unwrap();
    let written = put(&kv, "x", json!({ "a": 1 })).await;
    assert_eq!(written["deletion_time"], "2026-11-24T12:30:00Z");
    kv.now = kv.now.plus(Duration::from_secs(1799));
    let EngineReply::Encoded(kept) = kv.read("data/x").await.unwrap() else { panic!("no data") };
    assert_eq!(kept.until, Some(kv.now.plus(Duration::from_secs(1))));
    kv.now = kv.now.plus(Duration::from_secs(1));
    assert!(matches!(kv.read("data/x").await.unwrap(), EngineReply::NotFoundWith(_)));
    let config = data(kv.read("config").await.unwrap());
    assert_eq!(
        config,
        json!({
            "cas_required": false, "delete_version_after": "1h0m0s", "max_versions": 0,
            "metadata_cas_required": false,
        })
    );
    kv.post("config", json!({ "delete_version_after": "-1s" })).await.unwrap();
    assert_eq!(data(kv.read("config").await.unwrap())["delete_version_after"], "-1s");
    assert_eq!(put(&kv, "x", json!({ "a": 1 })).await["deletion_time"], "", "the mount says never");
    refusal(kv.post("metadata/x", json!({ "delete_version_after": "-1s" })).await);
}

#[tokio::test]
async fn metadata_lists_and_vanishes() {
    let kv = bench().await;
    assert!(matches!(kv.list("metadata/").await.unwrap(), EngineReply::NotFound));
    kv.post("metadata/only", json!({ "custom_metadata": { "owner": "me" } })).await.unwrap();
    for path in ["a/b/c", "a/d", "z"] {
        put(&kv, path, json!({ "k": "v" })).await;
    }
    assert_eq!(data(kv.list("metadata/").await.unwrap()), json!(["a/", "only", "z"]));
    assert_eq!(data(kv.list("metadata/a/").await.unwrap()), json!(["b/", "d"]));
    assert_eq!(data(kv.list("metadata?limit=1&after=a/").await.unwrap()), json!(["only"]));
    assert_eq!(data(kv.read("metadata/only").await.unwrap())["custom_metadata"], json!({ "owner": "me" }));
    let empty = data(kv.read("metadata/z").await.unwrap());
    assert_eq!(
        empty,
        json!({
            "cas_required": false, "created_time": "2026-11-24T12:00:00Z", "current_metadata_version": 0,
            "current_version": 1, "metadata_cas_required": false,
            "custom_metadata": null, "delete_version_after": "0s", "max_versions": 0, "oldest_version": 0,
            "updated_time": "2026-11-24T12:00:00Z",
            "versions": { "1": { "created_time": "2026-11-24T12:00:00Z", "deletion_time": "", "destroyed": false } },
        })
    );
    kv.delete("metadata/a/b/c").await.unwrap();
    assert_eq!(data(kv.list("metadata/a").await.unwrap()), json!(["d"]));
    assert!(matches!(kv.read("data/a/b/c?version=1").await.unwrap(), EngineReply::NotFound));
    kv.delete("metadata/a/d").await.unwrap();
    assert_eq!(data(kv.list("metadata/").await.unwrap()), json!(["only", "z"]));
    put(&kv, "a/d", json!({})).await;
    assert_eq!(data(kv.read("data/a/d").await.unwrap())["metadata"]["version"], 1, "starts anew");
}

#[tokio::test]
async fn null_is_a_version_without_data() {
    let kv = bench().await;
    put(&kv, "x", Value::Null).await;
    for (path, name) in [("data/x", "data"), ("subkeys/x", "subkeys")] {
        assert_eq!(data(kv.read(path).await.unwrap())[name], Value::Null);
    }
    kv.write(Op::Patch, "data/x", json!({ "data": { "a": 1 } })).await.unwrap();
    assert_eq!(data(kv.read("data/x").await.unwrap())["data"], json!({ "a": 1 }));
}

#[tokio::test]
async fn patches_and_subkeys() {
    let kv = bench().await;
    let patch = |body: Value| kv.write(Op::Patch, "data/x", json!({ "data": body }));
    assert!(matches!(patch(json!({ "a": 1 })).await.unwrap().0, EngineReply::Missing));
    put(&kv, "x", json!({ "a": 1, "b": { "c": 2, "d": 3 } })).await;
    let (reply, effects) = patch(json!({ "a": null, "b": { "c": null, "e": [4] } })).await.unwrap();
    assert_eq!((data(reply)["version"].clone(), effects[0].event_type), (json!(2), "kv-v2/data-patch"));
    let read = data(kv.read("data/x").await.unwrap());
    assert_eq!(read["data"], json!({ "b": { "d": 3, "e": [4] } }));
    let keys = data(kv.read("subkeys/x").await.unwrap());
    assert_eq!(keys["subkeys"], json!({ "b": { "d": null, "e": null } }));
    assert_eq!(data(kv.read("subkeys/x?depth=1").await.unwrap())["subkeys"], json!({ "b": null }));
    kv.delete("data/x").await.unwrap();
    let EngineReply::NotFoundWith(gone) = patch(json!({ "a": 1 })).await.unwrap().0 else {
        panic!("patched")
    };
    assert_eq!(gone["version"], 2, "what there was stands at the top, as in Vault");
    let late = kv.write(Op::Patch, "data/x", json!({ "data": {}, "options": { "cas": 9 } })).await;
    refusal(late);
}

#[tokio::test]
async fn what_nobody_understands_is_named_in_a_warning() {
    let kv = bench().await;
    let (reply, _) = kv.post("data/x", json!({ "data": {}, "zeal": 1, "extra": 2 })).await.unwrap();
    let EngineReply::Warn(_, warnings) = reply else { panic!("no warning") };
    assert_eq!(warnings, ["Endpoint ignored these unrecognized parameters: [extra zeal]"]);
    let EngineReply::Warn(_, warnings) = kv.read("data/x?foo=1").await.unwrap() else { panic!("no warning") };
    assert_eq!(warnings, ["Endpoint ignored these unrecognized parameters: [foo]"]);
}

#[tokio::test]
async fn limits_and_foreign_paths() {
    let kv = bench().await;
    let fits = "x".repeat(512 * 1024 - r#"{"k":""}"#.len());
    put(&kv, "x", json!({ "k": fits })).await;
    let over = kv.post("data/x", json!({ "data": { "k": format!("{fits}x") } })).await;
    assert!(matches!(over, Err(EngineError::TooLarge(message)) if message.contains("524288")));
    for path in ["x", "data", "nothing/x", "metadata"] {
        assert!(matches!(kv.read(path).await.unwrap(), EngineReply::Warn(..)), "{path}");
    }
    assert!(matches!(kv.list("data/x").await, Err(EngineError::Unsupported)));
    assert!(matches!(kv.post("data/a//b", json!({ "data": {} })).await, Err(EngineError::BadRequest(_))));
}

#[tokio::test]
async fn mounts_do_not_see_each_other() {
    let mut kv = bench().await;
    put(&kv, "x", json!({ "a": 1 })).await;
    kv.mount = coffer_barrier::MountId::random();
    assert!(matches!(kv.read("data/x").await.unwrap(), EngineReply::NotFound));
    assert!(matches!(kv.list("metadata/").await.unwrap(), EngineReply::NotFound));
}
