//! SCAN, paging and the detailed list of the key-value engine.

#![allow(clippy::unwrap_used, reason = "a test's helper fails the test")]

mod support;

use std::collections::BTreeMap;

use coffer_engines::{Engine, EngineError, EngineReply, EngineRequest, KvEngine, Op, ReadView};
use serde_json::{Map, Value, json};
use support::{Bench, data};

/// OpenBao's order: the secrets of a directory, then its directories from the last to the first.
const ORDER: [&str; 10] = ["B", "a", "a+b", "b", "c d", "z%", "é", "ü/x", "b/c", "b/d/e"];

async fn bench() -> Bench<KvEngine> {
    let kv = Bench::new(KvEngine::new()).await;
    for path in ORDER {
        kv.post(&format!("data/l/{path}"), json!({ "data": { "a": 1 } })).await.unwrap();
    }
    kv
}

fn names(reply: EngineReply) -> Vec<String> {
    serde_json::from_value(data(reply)).unwrap()
}

#[tokio::test]
async fn a_scan_finds_everything_below_in_openbaos_order() {
    let kv = bench().await;
    assert_eq!(names(kv.scan("metadata/l").await.unwrap()), ORDER);
    assert_eq!(names(kv.scan("metadata/l/").await.unwrap()), ORDER);
    let root = names(kv.scan("metadata").await.unwrap());
    assert_eq!((root.len(), root[0].as_str()), (10, "l/B"));
    for nothing in ["metadata/none", "metadata/l/a"] {
        assert_eq!(data(kv.scan(nothing).await.unwrap()), json!({}));
    }
    assert!(matches!(kv.scan("config").await.unwrap(), EngineReply::Warn(..)));
    assert!(matches!(kv.scan("data/l").await, Err(EngineError::Unsupported)));
}

#[tokio::test]
async fn the_pages_of_a_scan_join_up_whatever_their_size() {
    let kv = bench().await;
    for limit in 1..=11 {
        let mut found: Vec<String> = Vec::new();
        loop {
            let after = found.last().map(String::as_str).unwrap_or("");
            let page = data(kv.scan(&format!("metadata/l?limit={limit}&after={after}")).await.unwrap());
            let Value::Array(page) = page else { break };
            assert!(page.len() <= limit);
            found.extend(page.iter().map(|name| name.as_str().unwrap().to_owned()));
        }
        assert_eq!(found, ORDER, "{limit}");
    }
    // A name that is gone in the meantime is no obstacle.
    let rest = names(kv.scan("metadata/l?after=b/ca").await.unwrap());
    assert_eq!(rest, ["b/d/e"]);
}

#[tokio::test]
async fn a_scan_shows_only_what_the_caller_may_know_of() {
    let kv = bench().await;
    let reader = kv.barrier.reader().await.unwrap();
    let view = ReadView::new(kv.mount, &reader);
    let (body, query) = (Map::new(), BTreeMap::from([("limit".to_owned(), "1".to_owned())]));
    let sees = |paths: &[String]| {
        assert!(paths[0].starts_with("metadata/l/") && paths[1].starts_with("data/l/"));
        paths[0].starts_with("metadata/l/b/")
    };
    let request = EngineRequest {
        op: Op::Scan,
        path: "metadata/l",
        body: &body,
        exact: None,
        query: &query,
        now: kv.now,
        display_name: "test-app",
        sees: &sees,
    };
    assert_eq!(names(kv.engine.read(&view, &request).await.unwrap()), ["b/c"], "hidden ones fill no page");
}

#[tokio::test]
async fn a_detailed_list_says_what_is_known_of_each_secret() {
    let kv = bench().await;
    let list = data(kv.list("detailed-metadata/l/b").await.unwrap());
    assert_eq!(list["keys"], json!(["c", "d/"]));
    assert_eq!(list["key_info"]["c"], data(kv.read("metadata/l/b/c").await.unwrap()));
    assert_eq!(list["key_info"]["d/"], json!({}));
    let both = data(kv.list("detailed-metadata/l").await.unwrap());
    assert_eq!(both["key_info"]["b/"], both["key_info"]["b"], "as in OpenBao");
    let page = data(kv.list("detailed-metadata/l?limit=2").await.unwrap());
    assert_eq!(page["keys"], json!(["B", "a"]));
    assert!(matches!(kv.list("detailed-metadata/none").await.unwrap(), EngineReply::NotFound));
    let scan = data(kv.scan("detailed-metadata/l").await.unwrap());
    assert_eq!(scan["keys"], json!(ORDER));
    assert_eq!(scan["key_info"]["b/d/e"], data(kv.read("metadata/l/b/d/e").await.unwrap()));
    assert!(matches!(kv.read("detailed-metadata/l/a").await, Err(EngineError::Unsupported)));
}

#[tokio::test]
async fn a_detailed_list_of_much_is_cut_where_it_has_become_large_and_says_so() {
    let kv = Bench::new(KvEngine::new()).await;
    let labels: Map<String, Value> =
        (0..64).map(|n| (format!("{n:0>100}"), Value::from("v".repeat(500)))).collect();
    let names: Vec<String> = (0..130).map(|n| format!("s{n:03}")).collect();
    for name in &names {
        kv.post(&format!("metadata/l/{name}"), json!({ "custom_metadata": labels })).await.unwrap();
    }
    let reply = kv.list("detailed-metadata/l?limit=900").await.unwrap();
    assert!(matches!(reply, EngineReply::Warn(..)));
    let page = data(reply);
    let shown = page["keys"].as_array().unwrap().len();
    assert!(shown < 130 && page["key_info"].as_object().unwrap().len() == shown, "{shown}");
    let rest = data(kv.list(&format!("detailed-metadata/l?after={}", names[shown - 1])).await.unwrap());
    assert_eq!(rest["keys"], json!(names[shown..]));
}

#[tokio::test]
async fn what_is_wrong_with_labels_is_said_briefly_however_long_they_are() {
    let kv = Bench::new(KvEngine::new()).await;
    let labels = json!({ "custom_metadata": { "k".repeat(300_000): "x" } });
    let why = kv.post("metadata/l", labels).await.unwrap_err().to_string();
    assert!(why.len() < 1000 && why.contains("is 300000 but must be 0 < len(key) <= 128"), "{}", why.len());
}
