//! Key-value mounts through the whole vault: what a SCAN may show, version 1 and the way to version 2, events.

use crate::bed;

use bed::Bed;
use coffer_vault::Operation::{Delete, List, Patch, Read, Scan, Update};
use serde_json::{Value, json};

async fn token(bed: &Bed, policy: &str) -> String {
    bed.root(Update, "sys/policies/acl/p", json!({ "policy": policy })).await.expect(204);
    let body = json!({ "policies": ["p"], "no_default_policy": true });
    bed.root(Update, "auth/token/create", body).await.expect(200).text("/auth/client_token")
}

async fn put(bed: &Bed, path: &str) {
    bed.root(Update, &format!("secret/data/{path}"), json!({ "data": { "at": path } })).await.expect(200);
}

#[tokio::test]
async fn a_scan_shows_nothing_that_the_token_could_not_find_otherwise() {
    let bed = Bed::new().await;
    for path in ["app/a", "app/denied", "app/deep/b", "app/deep/denied/c", "other/read", "other/x"] {
        put(&bed, path).await;
    }
    let everything =
        json!(["app/a", "app/denied", "app/deep/b", "app/deep/denied/c", "other/read", "other/x"]);
    let scan = |token: String, path: &'static str| {
        let bed = &bed;
        async move { bed.send(Scan, path, Some(&token), Value::Null).await }
    };
    let sorted = |body: &Value| {
        let mut names: Vec<String> = serde_json::from_value(body["data"]["keys"].clone()).unwrap();
        names.sort_unstable();
        json!(names)
    };
    let mut wanted: Vec<String> = serde_json::from_value(everything).unwrap();
    wanted.sort_unstable();
    assert_eq!(sorted(&scan(bed.root.clone(), "secret/metadata/").await.expect(200).body), json!(wanted));
    // The prefix may be scanned; below it only what some rule speaks of is shown, and nothing that is denied.
    let policy = r#"
        path "secret/metadata/" { capabilities = ["scan"] }
        path "secret/metadata/app/*" { capabilities = ["list"] }
        path "secret/metadata/app/denied" { capabilities = ["deny"] }
        path "secret/metadata/app/deep/denied/*" { capabilities = ["deny"] }
        path "secret/data/app/deep/denied/*" { capabilities = ["read"] }
        path "secret/data/other/read" { capabilities = ["read"] }"#;
    let mine = token(&bed, policy).await;
    let shown = scan(mine.clone(), "secret/metadata/").await.expect(200);
    assert_eq!(sorted(&shown.body), json!(["app/a", "app/deep/b", "other/read"]));
    scan(mine, "secret/metadata/app/").await.expect(403);
    let nothing = token(&bed, r#"path "secret/metadata/" { capabilities = ["scan"] }"#).await;
    let shown = scan(nothing, "secret/metadata/").await.expect(200);
    assert_eq!(shown.body["data"], json!({}));
}

#[tokio::test]
async fn version_one_is_served_and_upgraded_in_place() {
    let bed = Bed::new().await;
    bed.root(Update, "sys/mounts/one", json!({ "type": "kv", "options": { "version": "1" } }))
        .await
        .expect(204);
    for number in 0..1005 {
        bed.root(Update, &format!("one/dir{}/{number}", number % 7), json!({ "n": number }))
            .await
            .expect(204);
    }
    bed.root(Update, "one/config", json!({ "ttl": "30s" })).await.expect(204);
    let read = bed.root(Read, "one/dir0/0", Value::Null).await.expect(200);
    assert_eq!((&read.body["lease_duration"], &read.body["data"]["n"]), (&json!(2_764_800), &json!(0)));
    assert_eq!(bed.root(Read, "one/config", Value::Null).await.expect(200).body["lease_duration"], 30);
    bed.root(Patch, "one/config", json!({ "x": 1 })).await.expect(405);
    let tune = |options: Value| bed.root(Update, "sys/mounts/one/tune", json!({ "options": options }));
    tune(json!({ "version": "3" })).await.expect(400);
    tune(json!({ "version": "x" })).await.expect(400);
    tune(json!({ "version": "1" })).await.expect(204);
    tune(json!({ "version": "2" })).await.expect(200);
    for number in [0, 500, 1004] {
        let path = format!("one/data/dir{}/{number}", number % 7);
        let read = bed.root(Read, &path, Value::Null).await.expect(200);
        assert_eq!(read.body["data"]["data"]["n"], number);
        assert_eq!(read.body["data"]["metadata"]["version"], 1);
    }
    let shown = bed.root(Scan, "one/metadata/", Value::Null).await.expect(200);
    assert_eq!(shown.body["data"]["keys"].as_array().unwrap().len(), 1006);
    assert_eq!(
        bed.root(Read, "one/data/config", Value::Null).await.expect(200).body["data"]["data"]["ttl"],
        "30s"
    );
    let refused = tune(json!({ "version": "1" })).await.expect(400);
    assert_eq!(refused.body["errors"][0], "cannot downgrade mount from version 2");
    tune(json!({ "version": "2", "note": "x" })).await.expect(204);
    // A path of version 1 is now a hint, in an envelope.
    let hint = bed.root(Read, "one/dir0/0", Value::Null).await.expect(404);
    assert!(hint.body["data"].is_null() && hint.text("/warnings/0").contains("'vault kv get'"));
}

#[tokio::test]
async fn replies_have_vaults_shapes() {
    let bed = Bed::new().await;
    put(&bed, "a").await;
    let patch = json!({ "data": { "x": 1 } });
    assert_eq!(bed.root(Patch, "secret/data/none", patch.clone()).await.expect(404).body, Value::Null);
    assert_eq!(bed.root(Patch, "secret/data/a", patch.clone()).await.expect(200).body["data"]["version"], 2);
    bed.root(Delete, "secret/data/a", Value::Null).await.expect(204);
    assert_eq!(bed.root(Patch, "secret/data/a", patch).await.expect(404).body["data"]["version"], 2);
    assert_eq!(
        bed.root(Read, "secret/data/a", Value::Null).await.expect(404).body["data"]["data"],
        Value::Null
    );
    assert_eq!(
        bed.root(List, "secret/metadata/none", Value::Null).await.expect(404).body,
        json!({ "errors": [] })
    );
    let unsupported = bed.root(List, "secret/data/a", Value::Null).await.expect(405);
    assert_eq!(unsupported.body, json!({ "errors": ["1 error occurred:\n\t* unsupported operation\n\n"] }));
    let large = json!({ "data": { "x": "y".repeat(512 * 1024) } });
    let refused = bed.root(Update, "secret/data/a", large).await.expect(413);
    assert!(refused.text("/errors/0").contains("the limit is 524288"));
}
