//! The story of a request: the door, the audit log, events, and Vault's shapes.

use crate::bed;

use std::collections::{BTreeMap, BTreeSet};

use bed::Bed;
use bed::database::CANARY;
use coffer_core::audit::{RecordType, verify};
use coffer_vault::{HealthParams, Operation, Refusal, StatusRequest};
use futures::StreamExt as _;
use serde_json::{Value, json};

#[tokio::test]
async fn a_sealed_vault_serves_nothing() {
    let bed = Bed::with_pods().await;
    let token = bed.login("pod-1").await;
    bed.post("sys/seal", &token, json!({})).await.expect(403);
    bed.root(Operation::Update, "sys/seal", json!({})).await.expect(204);
    let refused = bed.get("auth/token/lookup-self", &token).await.expect(503);
    assert_eq!(refused.body["errors"][0], "Vault is sealed");
    bed.try_login("pod-1").await.expect(503);
    bed.status(StatusRequest::Health(HealthParams::default())).await.expect(503);
    let params = HealthParams { sealed_code: Some(200), ..HealthParams::default() };
    bed.status(StatusRequest::Health(params)).await.expect(200);
    assert_eq!(bed.status(StatusRequest::SealStatus).await.expect(200).body["sealed"], true);
    bed.unseal().await;
    bed.get("auth/token/lookup-self", &token).await.expect(200);
    bed.status(StatusRequest::Health(HealthParams::default())).await.expect(200);
}

#[tokio::test]
async fn unsealing_takes_as_many_shares_as_were_agreed() {
    use coffer_core::secret::SecretString;
    let bed = Bed::new().await;
    let again = bed
        .status(StatusRequest::Init { secret_shares: 1, secret_threshold: 1, pgp: false })
        .await
        .expect(400);
    assert_eq!(again.body["errors"][0], "Vault is already initialized");

    let fresh = bed::Bed::blank();
    assert_eq!(fresh.status(StatusRequest::InitStatus).await.body["initialized"], false);
    fresh.status(StatusRequest::Health(HealthParams::default())).await.expect(501);
    let made = fresh
        .status(StatusRequest::Init { secret_shares: 3, secret_threshold: 2, pgp: false })
        .await
        .expect(200);
    let root = made.text("/root_token");
    let unseal = |key: String| StatusRequest::Unseal { key: Some(SecretString::new(key)), reset: false };
    let first = fresh.status(unseal(made.text("/keys/0"))).await.expect(200);
    assert_eq!((&first.body["progress"], &first.body["sealed"]), (&json!(1), &json!(true)));
    let same = fresh.status(unseal(made.text("/keys/0"))).await.expect(200);
    assert_eq!(same.body["progress"], 1, "the same share twice is one share");
    fresh.status(StatusRequest::Unseal { key: None, reset: true }).await.expect(200);
    fresh.status(unseal(made.text("/keys/2"))).await.expect(200);
    let open = fresh.status(unseal(made.text("/keys_base64/1"))).await.expect(200);
    assert_eq!(open.body["sealed"], false);
    fresh.get("auth/token/lookup-self", &root).await.expect(200);
    let text = fresh.audit_text();
    assert!(text.contains("sys/init") && text.contains("sys/unseal"));
    assert!(!text.contains(&made.text("/keys/0")) && !text.contains(&root));
}

#[tokio::test]
async fn every_effect_has_its_intent_and_no_secret_is_written_anywhere() {
    let bed = Bed::with_pods().await;
    let token = bed.login("pod-1").await;
    bed.issue(&token).await;
    let secret = json!({"data": {"password": CANARY}});
    bed.root(Operation::Update, "secret/data/shop/x", secret).await.expect(200);
    assert_eq!(bed.get("secret/data/shop/x", &token).await.expect(200).text("/data/data/password"), CANARY);
    bed.get("secret/data/other/x", &token).await.expect(403);
    bed.get("secret/data/shop/x", "s.nobody").await.expect(403);
    let refusal = Refusal {
        id: "bad-1".into(),
        method: "GET".into(),
        path: "secret/../x".into(),
        client_ip: [10, 0, 0, 9].into(),
        status: 400,
        message: "path has a relative segment".into(),
    };
    assert_eq!(bed.vault.refuse(refusal).await.into_inner().status, 400);
    bed.post("auth/token/revoke-self", &token, json!({})).await.expect(204);
    bed.vault.anchor().await.unwrap();

    let text = bed.audit_text();
    assert!(verify(text.lines(), None).is_intact());
    for secret in [CANARY, token.as_str(), bed.root.as_str(), bed.unseal_key.as_str()] {
        assert!(!text.contains(secret));
        let bytes = secret.as_bytes();
        let stored = |row: &(Vec<u8>, Vec<u8>)| row.1.windows(bytes.len()).any(|w| w == bytes);
        assert!(!bed.store.dump().iter().any(stored));
    }
    let records = bed.audit_records();
    let mut intents = BTreeSet::new();
    let mut ends: BTreeMap<String, u16> = BTreeMap::new();
    for record in &records {
        match record.kind {
            RecordType::Intent => assert!(intents.insert(record.request_id.clone())),
            _ => {
                assert!(ends.insert(record.request_id.clone(), record.status.unwrap()).is_none());
                let wrote = record.operation == "update" && record.status.unwrap() < 300;
                assert!(!wrote || intents.contains(&record.request_id), "{record:?}");
            }
        }
    }
    assert!(intents.iter().all(|id| ends.contains_key(id)));
    let issued = records.iter().find(|r| r.lease_id.is_some() && r.kind == RecordType::Intent).unwrap();
    assert_eq!(issued.metadata["pod_uid"], "pod-1");
    assert!(records.iter().any(|r| r.operation == "revoke" && r.display_name.as_deref() == Some("system")));
    assert!(records.iter().any(|r| r.request_id == "bad-1" && r.status == Some(400)));
    assert!(records.iter().any(|r| r.path == "secret/data/other/x" && r.status == Some(403)));

    let lease = issued.lease_id.clone().unwrap();
    let tail =
        bed.root(Operation::Read, &format!("sys/audit/tail?lease_id={lease}"), Value::Null).await.expect(200);
    assert_eq!(tail.body["data"]["records"].as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn without_an_audit_log_nothing_happens() {
    let bed = Bed::with_pods().await;
    let token = bed.login("pod-1").await;
    for path in ["secret/data/shop/x", "database/creds/orders"] {
        // The log takes no line as long as this.
        let id = "x".repeat(300 * 1024);
        let mut request = bed.request(Operation::Read, path, Some(&token), Value::Null);
        request.id = id;
        bed.handle(request).await.expect(500);
    }
    assert!(bed.database.accounts().is_empty());
    bed.get("secret/data/shop/x", &token).await.expect(404);
    assert!(verify(bed.audit_text().lines(), None).is_intact());
}

#[tokio::test]
async fn events_reach_only_who_may_see_them() {
    let bed = Bed::with_pods().await;
    let token = bed.login("pod-1").await;
    let subscribe = |after: Option<String>| {
        let request =
            bed.request(Operation::Read, "sys/events/subscribe/delivery*", Some(&token), Value::Null);
        bed.vault.subscribe(request, "delivery*", after)
    };
    let Ok(mut stream) = subscribe(None).await else { panic!("refused") };
    let document = json!({"document": {"uid": "u", "generation": 1}});
    bed.root(Operation::Update, "delivery/k8s/prod/else/dsec/x", document.clone()).await.expect(200);
    bed.root(Operation::Update, "delivery/k8s/prod/shop/dsec/orders", document.clone()).await.expect(200);
    let event = stream.next().await.unwrap();
    assert_eq!(event["type"], "delivery/write");
    assert_eq!(event["data"]["event"]["metadata"]["path"], "delivery/k8s/prod/shop/dsec/orders");
    let position = event["data"]["event"]["metadata"]["position"].as_str().unwrap().to_owned();

    bed.root(Operation::Delete, "delivery/k8s/prod/shop/dsec/orders", Value::Null).await.expect(204);
    assert_eq!(stream.next().await.unwrap()["type"], "delivery/delete");
    let Ok(mut resumed) = subscribe(Some(position)).await else { panic!("refused") };
    assert_eq!(resumed.next().await.unwrap()["type"], "delivery/delete");
    let Ok(mut unknown) = subscribe(Some("elsewhere.7".into())).await else { panic!("refused") };
    assert_eq!(unknown.next().await.unwrap()["type"], "coffer/resync");

    bed.post("auth/token/revoke-self", &token, json!({})).await.expect(204);
    assert!(stream.next().await.is_none(), "the stream ends with the token");
    assert!(subscribe(None).await.is_err());
}

#[tokio::test]
async fn delivery_documents_are_versioned_and_listed() {
    let bed = Bed::with_pods().await;
    let path = "delivery/k8s/prod/shop/dsec/orders";
    bed.root(Operation::Update, path, json!({"document": "no"})).await.expect(400);
    for version in 1..=2 {
        let body = json!({"document": {"n": version}, "custom_metadata": {"uid": "u"}});
        let written = bed.root(Operation::Update, path, body).await.expect(200);
        assert_eq!(written.body["data"]["version"], version);
    }
    let read = bed.root(Operation::Read, path, Value::Null).await.expect(200);
    assert_eq!(read.body["data"]["document"]["n"], 2);
    assert_eq!(read.body["data"]["custom_metadata"]["uid"], "u");
    let listed = bed.root(Operation::List, "delivery/k8s/prod/shop/", Value::Null).await.expect(200);
    assert_eq!(listed.body["data"]["keys"], json!(["dsec/"]));
    bed.root(Operation::Delete, path, Value::Null).await.expect(204);
    bed.root(Operation::Read, path, Value::Null).await.expect(404);
    bed.root(Operation::List, "delivery/k8s/prod/shop/", Value::Null).await.expect(404);
}

#[tokio::test]
async fn mounts_in_vaults_shapes() {
    let bed = Bed::with_pods().await;
    let mounts = bed.root(Operation::Read, "sys/mounts", Value::Null).await.expect(200);
    assert_eq!(mounts.body["secret/"]["options"]["version"], "2");
    assert_eq!(mounts.body["data"]["database/"]["type"], "database");
    let taken = bed
        .root(Operation::Update, "sys/mounts/secret", json!({"type": "kv", "options": {"version": "2"}}))
        .await;
    assert!(taken.expect(400).text("/errors/0").starts_with("path is already in use at secret/"));
    bed.root(Operation::Update, "sys/mounts/sys", json!({"type": "kv"})).await.expect(400);
    bed.root(Operation::Update, "sys/mounts/x", json!({"type": "nonsense"})).await.expect(400);
    let token = bed.login("pod-1").await;
    let seen = bed.get("sys/internal/ui/mounts/secret/shop/x", &token).await.expect(200);
    assert_eq!(
        (&seen.body["data"]["path"], &seen.body["data"]["options"]["version"]),
        (&json!("secret/"), &json!("2"))
    );
    let ui = bed.get("sys/internal/ui/mounts", &token).await.expect(200);
    assert!(ui.body["data"]["secret"]["secret/"].is_object());
    let caps =
        bed.post("sys/capabilities-self", &token, json!({"paths": ["secret/data/shop/x", "sys/seal"]})).await;
    let caps = caps.expect(200);
    assert_eq!(caps.body["secret/data/shop/x"], json!(["read"]));
    assert_eq!(caps.body["data"]["sys/seal"], json!(["deny"]));
    assert_eq!(
        bed.root(Operation::Update, "sys/capabilities-self", json!({"path": "x"})).await.body["x"],
        json!(["root"])
    );
    bed.root(Operation::Read, "nowhere/x", Value::Null).await.expect(404);
    bed.get("nowhere/x", &token).await.expect(403);
    let metrics = bed.root(Operation::Read, "sys/metrics?format=prometheus", Value::Null).await.expect(200);
    assert!(metrics.body.as_str().unwrap().contains("coffer_unsealed 1"));
    assert_eq!(bed.status(StatusRequest::Ca).await.expect(200).body["data"]["ca_bundle"], "PEM");
}

#[tokio::test]
async fn removing_a_mount_takes_back_what_it_issued_and_everything_it_held() {
    let bed = Bed::with_pods().await;
    let token = bed.login("pod-1").await;
    let (_, account) = bed.issue(&token).await;
    bed.root(Operation::Delete, "sys/mounts/database", Value::Null).await.expect(204);
    assert!(!bed.database.has(&account));
    bed.root(Operation::Update, "secret/data/shop/x", json!({"data": {"a": "b"}})).await.expect(200);
    bed.root(Operation::Delete, "sys/mounts/secret", Value::Null).await.expect(204);
    bed.root(Operation::Update, "sys/mounts/secret", json!({"type": "kv-v2"})).await.expect(204);
    bed.root(Operation::Read, "secret/data/shop/x", Value::Null).await.expect(404);
}

#[tokio::test]
async fn counted_tokens_run_out() {
    let bed = Bed::new().await;
    let made = bed
        .root(Operation::Update, "auth/token/create", json!({"policies": ["default"], "num_uses": 2}))
        .await;
    let token = made.expect(200).text("/auth/client_token");
    bed.get("auth/token/lookup-self", &token).await.expect(200);
    bed.get("auth/token/lookup-self", &token).await.expect(200);
    bed.get("auth/token/lookup-self", &token).await.expect(403);
}

#[tokio::test]
async fn a_shortened_audit_log_is_told_at_the_next_unseal() {
    let mut bed = Bed::with_pods().await;
    bed.login("pod-1").await;
    let shutdown = tokio_util::sync::CancellationToken::new();
    let background = tokio::spawn(std::sync::Arc::clone(&bed.vault).run_background(shutdown.clone()));
    shutdown.cancel();
    background.await.unwrap();
    bed.cut_audit(3);
    bed.restart().await;
    let told = bed.audit_records().into_iter().find(|r| r.path == "sys/audit").unwrap();
    assert!(told.error.unwrap().starts_with("3 records lost"));
    assert!(verify(bed.audit_text().lines(), None).is_intact());
}

#[tokio::test]
async fn a_clock_that_was_set_back_gives_no_time_back() {
    let mut bed = Bed::with_pods().await;
    let token = bed.login("pod-1").await;
    let (_, account) = bed.issue(&token).await;
    bed.advance(std::time::Duration::from_secs(3000)).await;
    bed.vault.anchor().await.unwrap();
    bed.clock.set_back(std::time::Duration::from_secs(3000));
    bed.restart().await;
    bed.advance(std::time::Duration::from_secs(601)).await;
    bed.sweep().await;
    assert!(!bed.database.has(&account));
}

#[tokio::test]
async fn restarts_do_not_fill_the_store_with_change_logs() {
    let mut bed = Bed::new().await;
    for _ in 0..12 {
        bed.restart().await;
    }
    // A position names every stream there is: all but this process's own are closed, and so can be removed.
    let barrier = coffer_barrier::Barrier::new(std::sync::Arc::new(bed.store.clone()));
    let share = coffer_core::shamir::Share::parse(&bed.unseal_key).unwrap();
    barrier.unseal(&[share]).await.unwrap();
    let own = barrier.stream().unwrap();
    bed.vault.trim().await.unwrap();
    let position =
        coffer_barrier::log::ChangeLog::start(&barrier.reader().await.unwrap()).await.unwrap().to_string();
    let streams: Vec<_> = position.split('.').skip(1).filter(|s| !s.starts_with(&own.to_hex())).collect();
    assert_eq!(streams.len(), 8 + 1, "the newest closed ones and the vault's own: {position}");
}

#[tokio::test]
async fn a_rule_that_names_event_types_gives_no_others() {
    let bed = Bed::new().await;
    let policy = r#"path "sys/events/subscribe/*" { capabilities = ["read"] }
        path "delivery/*" { capabilities = ["subscribe"], subscribe_event_types = ["delivery/delete"] }"#;
    bed.root(Operation::Update, "sys/policies/acl/ends", json!({"policy": policy})).await.expect(204);
    let made = bed.root(Operation::Update, "auth/token/create", json!({"policies": ["ends"]})).await;
    let token = made.expect(200).text("/auth/client_token");
    let request = bed.request(Operation::Read, "sys/events/subscribe/*", Some(&token), Value::Null);
    let Ok(mut stream) = bed.vault.subscribe(request, "*", None).await else { panic!("refused") };
    let path = "delivery/k8s/prod/shop/dsec/orders";
    bed.root(Operation::Update, path, json!({"document": {"n": 1}})).await.expect(200);
    bed.root(Operation::Delete, path, Value::Null).await.expect(204);
    assert_eq!(stream.next().await.unwrap()["type"], "delivery/delete");
}

#[tokio::test]
async fn sealing_takes_sudo() {
    let bed = Bed::new().await;
    for (capabilities, status) in [(r#"["update"]"#, 403), (r#"["update", "sudo"]"#, 204)] {
        let policy = format!("path \"sys/seal\" {{ capabilities = {capabilities} }}");
        bed.root(Operation::Update, "sys/policies/acl/sealer", json!({"policy": policy})).await.expect(204);
        let made = bed.root(Operation::Update, "auth/token/create", json!({"policies": ["sealer"]})).await;
        let token = made.expect(200).text("/auth/client_token");
        bed.post("sys/seal", &token, json!({})).await.expect(status);
    }
}
