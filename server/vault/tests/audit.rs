//! The audit log as an administrator meets it: what is anchored, what is found at unseal, who may ask.
#![allow(clippy::unwrap_used)]

mod bed;

use bed::Bed;
use coffer_core::audit::{AuditRecord, Chain, verify_from};
use coffer_vault::Operation;
use serde_json::{Value, json};

async fn node(bed: &Bed) -> Value {
    let answer = bed.root(Operation::Read, "sys/audit/chain", Value::Null).await.expect(200);
    let name = answer.text("/data/node");
    answer.body["data"]["nodes"][name].clone()
}

#[tokio::test]
async fn the_anchored_head_fits_the_log() {
    let bed = Bed::new().await;
    bed.root(Operation::Update, "secret/data/a", json!({"data": {"k": "v"}})).await.expect(200);
    bed.vault.anchor().await.unwrap();
    let known = node(&bed).await;
    let head: Chain = serde_json::from_value(known["head"].clone()).unwrap();
    let start: Chain = serde_json::from_value(known["start"].clone()).unwrap();
    let report = verify_from(&start, bed.audit_text().lines(), Some(&head));
    // What asked for the head came after it.
    assert!(report.is_intact() && report.unanchored == 1 && head.seq >= 2, "{report:?}");
    assert_eq!(known["lost"], json!([]));
}

#[tokio::test]
async fn the_chain_is_for_administrators() {
    let bed = Bed::new().await;
    let policy = r#"path "sys/audit/chain" { capabilities = ["read"] }"#;
    bed.root(Operation::Update, "sys/policies/acl/auditor", json!({ "policy": policy })).await.expect(204);
    let made =
        bed.root(Operation::Update, "auth/token/create", json!({"policies": ["auditor"]})).await.expect(200);
    bed.get("sys/audit/chain", &made.text("/auth/client_token")).await.expect(403);
}

#[tokio::test]
async fn what_was_cut_off_stays_known_after_the_next_anchor() {
    let mut bed = Bed::new().await;
    bed.root(Operation::Update, "secret/data/a", json!({"data": {"k": "v"}})).await.expect(200);
    bed.vault.anchor().await.unwrap();
    bed.cut_audit(2);
    bed.restart().await;
    bed.vault.anchor().await.unwrap();
    let lost = node(&bed).await["lost"].clone();
    assert_eq!(lost.as_array().unwrap().len(), 1);
    assert_eq!(lost[0]["count"], 2);
}

#[tokio::test]
async fn a_log_that_was_rewritten_while_closed_is_told_at_unseal() {
    let mut bed = Bed::new().await;
    bed.root(Operation::Update, "secret/data/a", json!({"data": {"k": "v"}})).await.expect(200);
    bed.vault.anchor().await.unwrap();
    let mut chain = Chain::default();
    let mut forged = String::new();
    for mut record in bed.audit_records() {
        record.path = record.path.replace("secret/data/a", "secret/data/b");
        forged += &chain.append(&record).unwrap();
        forged += "\n";
    }
    bed.replace_audit(&forged);
    bed.restart().await;
    let told = |record: &AuditRecord| record.error.as_ref().is_some_and(|e| e.contains("rewritten"));
    assert!(bed.audit_records().iter().any(told));
    assert_eq!(node(&bed).await["lost"][0]["count"], 0);
}
