//! `sys/policies/password`: as OpenBao answers.

use coffer_vault::Operation;
use serde_json::json;

use crate::bed::Bed;

const POLICY: &str = "length = 20\nrule \"charset\" { charset = \"abc\" min-chars = 1 }";

#[tokio::test]
async fn a_policy_is_written_read_listed_used_and_deleted() {
    let bed = Bed::with_pods().await;
    bed.root(Operation::List, "sys/policies/password", json!({})).await.expect(404);
    bed.root(Operation::Update, "sys/policies/password/p", json!({ "policy": POLICY })).await.expect(204);
    let read = bed.root(Operation::Read, "sys/policies/password/p", json!({})).await.expect(200);
    assert_eq!(read.body["data"], json!({ "policy": POLICY }));
    let list = bed.root(Operation::List, "sys/policies/password", json!({})).await.expect(200);
    assert_eq!(list.body["data"]["keys"], json!(["p"]));
    let made = bed.root(Operation::Read, "sys/policies/password/p/generate", json!({})).await.expect(200);
    let password = made.text("/data/password");
    assert!(password.len() == 20 && password.chars().all(|c| "abc".contains(c)), "{password}");
    assert!(!bed.audit_text().contains(&password));
    bed.root(Operation::Delete, "sys/policies/password/p", json!({})).await.expect(204);
    bed.root(Operation::Delete, "sys/policies/password/p", json!({})).await.expect(204);
    for path in ["sys/policies/password/p", "sys/policies/password/p/generate"] {
        let gone = bed.root(Operation::Read, path, json!({})).await.expect(404);
        assert!(gone.body["errors"][0].as_str().unwrap().contains("policy does not exist"));
    }
}

#[tokio::test]
async fn a_policy_that_makes_no_sense_is_refused() {
    let bed = Bed::with_pods().await;
    for (policy, why) in [
        (json!(""), "missing policy"),
        (json!("length = 2"), "invalid password policy: 1 error occurred:\n\t* no charset specified\n"),
        (json!("rule \"charset\" { charset = \"abc\" }"), "length must be > 0"),
        (json!("length = 2\nrule \"charset\" { charset = \"abc\" min-chars = 3 }"), "at least 3 characters"),
    ] {
        let refused = bed
            .root(Operation::Update, "sys/policies/password/q", json!({ "policy": policy }))
            .await
            .expect(400);
        assert!(refused.body["errors"][0].as_str().unwrap().contains(why), "{:?}", refused.body);
    }
    bed.root(Operation::Update, "sys/policies/password/a b", json!({ "policy": POLICY })).await.expect(400);
}
