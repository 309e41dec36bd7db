//! Why something is allowed or not: explained to whoever may know, and to nobody else.

use crate::bed;

use bed::{Answer, Bed};
use coffer_vault::Operation;
use serde_json::{Value, json};

const POLICY: &str = r#"
path "secret/data/team/*" { capabilities = ["read"] }
path "secret/app" { capabilities = ["read"] }
path "secret/data/new" { capabilities = ["create"] }
"#;

async fn with_policy(bed: &Bed, name: &str, policy: &str) {
    bed.root(Operation::Update, &format!("sys/policies/acl/{name}"), json!({ "policy": policy }))
        .await
        .expect(204);
}

/// A token with these policies, and its accessor.
async fn token(bed: &Bed, body: Value) -> (String, String) {
    let made = bed.root(Operation::Update, "auth/token/create", body).await.expect(200);
    (made.text("/auth/client_token"), made.text("/auth/accessor"))
}

fn first(answer: &Answer) -> &Value {
    &answer.body["data"]["operations"][0]
}

#[tokio::test]
async fn a_caller_is_told_which_rule_of_his_own_decides() {
    let bed = Bed::new().await;
    with_policy(&bed, "team", POLICY).await;
    let (mine, _) = token(&bed, json!({"policies": ["team"]})).await;
    let ask = |body: Value| bed.post("sys/policy-explain-self", &mine, body);
    let read = ask(json!({"path": "secret/data/team/a", "operation": "read"})).await.expect(200);
    let told = first(&read);
    assert_eq!((&told["allowed"], &told["reason"]), (&json!(true), &json!("granted")));
    let rule = json!({"path": "secret/data/team/*", "capabilities": ["read"],
        "policies": [{"name": "team", "capabilities": ["read"]}]});
    assert_eq!(told["rule"], rule);
    let write = ask(json!({"path": "secret/data/team/a", "operation": "write"})).await.expect(200);
    let missing: Vec<&Value> =
        write.body["data"]["operations"].as_array().unwrap().iter().map(|one| &one["missing"]).collect();
    assert_eq!(missing, [&json!(["create"]), &json!(["update"])]);
    let all = ask(json!({"path": "sys/audit"})).await.expect(200);
    assert_eq!(all.body["data"]["operations"].as_array().unwrap().len(), 7);
    assert_eq!(all.body["data"]["operations"][1]["needs"], json!(["read", "sudo"]));
    for wrong in [
        json!({}),
        json!({"path": "a/../b"}),
        json!({"path": "a", "operation": "dance"}),
        json!({"path": "a", "parameters": 1}),
    ] {
        ask(wrong).await.expect(400);
    }
}

#[tokio::test]
async fn about_others_only_those_are_told_who_may_read_their_policies() {
    let bed = Bed::new().await;
    with_policy(&bed, "team", POLICY).await;
    let helpdesk = r#"path "sys/policy-explain*" { capabilities = ["update"] }"#;
    with_policy(&bed, "helpdesk", helpdesk).await;
    with_policy(&bed, "auditor", r#"path "sys/policies/acl/team" { capabilities = ["read"] }"#).await;
    let (other, accessor) = token(&bed, json!({"policies": ["team"], "no_default_policy": true})).await;
    let (nobody, _) = token(&bed, json!({"policies": ["default"]})).await;
    let (helper, _) = token(&bed, json!({"policies": ["helpdesk"]})).await;
    let (auditor, _) = token(&bed, json!({"policies": ["helpdesk", "auditor"]})).await;
    let asked = "secret/data/team/a";
    for (path, body) in [
        ("sys/policy-explain", json!({"token": other, "path": asked, "operation": "read"})),
        ("sys/policy-explain", json!({"policies": ["team"], "path": asked, "operation": "read"})),
        ("sys/policy-explain-accessor", json!({"accessor": accessor, "path": asked, "operation": "read"})),
    ] {
        bed.post(path, &nobody, body.clone()).await.expect(403);
        bed.post(path, &helper, body.clone()).await.expect(403);
        for token in [&auditor, &bed.root] {
            let answer = bed.post(path, token, body.clone()).await.expect(200);
            assert_eq!(first(&answer)["allowed"], json!(true), "{path}");
        }
    }
    for (path, body) in [
        ("sys/policy-explain", json!({"path": asked})),
        ("sys/policy-explain", json!({"path": asked, "token": "s.nobody"})),
        ("sys/policy-explain-accessor", json!({"path": asked, "accessor": "none"})),
    ] {
        bed.root(Operation::Update, path, body).await.expect(400);
    }
    // A token whose policies do not say so is not even told about itself.
    bed.post("sys/policy-explain-self", &other, json!({"path": asked})).await.expect(403);
    // It is a question: recorded, once.
    let records = bed.audit_records().into_iter().filter(|r| r.path == "sys/policy-explain-accessor");
    assert!(records.clone().count() == 5 && records.into_iter().all(|r| r.status.is_some()));
}

#[tokio::test]
async fn a_boundary_is_explained_and_so_is_what_is_asked_about_another_operation() {
    let bed = Bed::with_pods().await;
    with_policy(&bed, "edge", r#"path "secret/data/other/*" { capabilities = ["read"] }"#).await;
    let tune = json!({"token_boundary_policy": "edge"});
    bed.root(Operation::Update, "sys/auth/kubernetes/prod/tune", tune).await.expect(204);
    let token = bed.login("pod-1").await;
    let body = json!({"path": "secret/data/shop/a", "operation": "read"});
    let answer = bed.post("sys/policy-explain-self", &token, body).await.expect(200);
    let told = first(&answer);
    assert_eq!((&told["allowed"], &told["reason"]), (&json!(false), &json!("boundary")));
    assert_eq!(told["boundaries"][0]["reason"], "no_rule");
}

#[tokio::test]
async fn a_refusal_names_what_is_missing_to_those_who_may_know() {
    let bed = Bed::new().await;
    with_policy(&bed, "team", POLICY).await;
    bed.root(Operation::Update, "secret/data/app", json!({"data": {"k": "v"}})).await.expect(200);
    let (mine, _) = token(&bed, json!({"policies": ["team"]})).await;
    let (blind, _) = token(&bed, json!({"policies": ["team"], "no_default_policy": true})).await;
    let denied = "1 error occurred:\n\t* permission denied\n\n";
    let said = async |operation, path: &str, token: &str| {
        let body = if operation == Operation::Update { json!({"data": {}}) } else { Value::Null };
        let answer = bed.send(operation, path, Some(token), body).await.expect(403);
        assert_eq!(answer.text("/errors/0"), denied);
        answer.body["errors"].get(1).and_then(Value::as_str).map(str::to_owned)
    };
    let missing = |path: &str, what: &str| Some(format!("missing capability on path \"{path}\": {what}"));
    assert_eq!(
        said(Operation::Delete, "secret/data/team/a", &mine).await,
        missing("secret/data/team/a", "delete")
    );
    assert_eq!(said(Operation::Read, "sys/audit", &mine).await, missing("sys/audit", "read"));
    // Whether it is there does not show.
    for path in ["secret/data/team/is-not", "secret/data/x"] {
        assert_eq!(said(Operation::Update, path, &mine).await, missing(path, "create or update"));
    }
    let written = said(Operation::Update, "secret/data/app", &mine).await.unwrap();
    assert!(written.contains("create or update"), "{written}");
    // The most common mistake has a word of its own.
    let read = said(Operation::Read, "secret/data/app", &mine).await.unwrap();
    assert!(
        read.contains("a rule for \"secret/app\" does not count, it has to name \"secret/data/app\""),
        "{read}"
    );
    assert_eq!(said(Operation::Delete, "secret/data/team/a", &blind).await, None);
    let nobody = bed.get("secret/data/team/a", "s.nobody").await.expect(403);
    assert_eq!(nobody.body["errors"], json!(["permission denied"]));
    // The record says what it always said.
    assert!(bed.audit_records().iter().all(|r| r.error.as_ref().is_none_or(|e| !e.contains("missing"))));
}
