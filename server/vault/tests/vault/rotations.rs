//! Rotations that nobody asks for: by the system, on the record, and each target for itself.

use std::sync::Arc;

use coffer_core::audit::RecordType;
use coffer_vault::Operation;
use serde_json::json;

use crate::bed::Bed;

fn due(bed: &Bed, target: &str, path: &str) {
    bed.database.due.lock().unwrap().insert((target.to_owned(), path.to_owned()));
}

#[tokio::test]
async fn what_is_due_is_done_by_the_system_and_on_the_record() {
    let bed = Bed::with_pods().await;
    due(&bed, "well", "rotate-role/a");
    due(&bed, "refusing", "rotate-role/b");
    bed.sweep().await;
    assert_eq!(bed.database.due.lock().unwrap().len(), 1, "one is done, one is due again");
    for (path, status) in [("database/rotate-role/a", 204), ("database/rotate-role/b", 503)] {
        let records: Vec<_> = bed.audit_records().into_iter().filter(|record| record.path == path).collect();
        let kinds: Vec<_> = records.iter().map(|record| record.kind).collect();
        assert_eq!(kinds, [RecordType::Intent, RecordType::Completion], "{path}");
        assert_eq!(records[0].request_id, records[1].request_id);
        assert!(records.iter().all(|record| record.display_name.as_deref() == Some("system")));
        assert_eq!((records[1].status, records[1].error.is_some()), (Some(status), status != 204));
    }
}

#[tokio::test]
async fn a_target_that_never_answers_holds_up_no_other() {
    let bed = Arc::new(Bed::with_pods().await);
    due(&bed, "stuck", "rotate-role/a");
    for number in 0..40 {
        due(&bed, "well", &format!("rotate-role/w{number}"));
        due(&bed, &format!("target-{number}"), &format!("rotate-role/t{number}"));
    }
    let sweeping = tokio::spawn({
        let bed = Arc::clone(&bed);
        async move { bed.sweep().await }
    });
    while bed.database.due.lock().unwrap().len() > 1 {
        bed.database.rotated.notified().await;
    }
    assert!(!sweeping.is_finished());
    bed.database.go.notify_one();
    sweeping.await.unwrap();
    assert!(bed.database.due.lock().unwrap().is_empty());
}

#[tokio::test]
async fn readers_are_written_down_before_they_are_given_anything_and_acknowledge_for_themselves() {
    let bed = Bed::with_pods().await;
    let policy = "path \"database/static-creds/two\" { capabilities = [\"read\"] }";
    bed.root(Operation::Update, "sys/policies/acl/reader", json!({ "policy": policy })).await.expect(204);
    let made = |policies: serde_json::Value| json!({ "policies": policies, "no_default_policy": true });
    let reader = bed.root(Operation::Update, "auth/token/create", made(json!(["reader"]))).await.expect(200);
    let reader = reader.text("/auth/client_token");
    let nobody = bed.root(Operation::Update, "auth/token/create", made(json!(["none"]))).await.expect(200);
    let nobody = nobody.text("/auth/client_token");

    let first = bed.get("database/static-creds/two", &reader).await.expect(200);
    assert_eq!(first.body["data"]["version"], 1, "the version changed under the first look");
    bed.get("database/static-creds/two", &reader).await.expect(200);
    assert_eq!(*bed.database.readers.lock().unwrap(), [(1, None)]);
    bed.get("database/static-creds/two?consumer=1", &reader).await.expect(200);
    bed.get("database/static-creds/two?consumer=1", &reader).await.expect(200);
    let declared = bed.database.readers.lock().unwrap()[1].1.clone().unwrap();
    assert_eq!(bed.database.readers.lock().unwrap().len(), 2);
    assert!(!declared.accessor.is_empty() && declared.id != reader);

    let ack = json!({ "path": "database/static-creds/two", "version": 1 });
    bed.post("sys/rotations/ack", &reader, ack.clone()).await.expect(204);
    assert_eq!(*bed.database.acknowledged.lock().unwrap(), [(1, declared.id)]);
    bed.post("sys/rotations/ack", &nobody, ack).await.expect(403);
    bed.post("sys/rotations/ack", &reader, json!({ "path": "database/static-creds/two" })).await.expect(400);
    bed.post("sys/rotations/ack", &reader, json!({ "version": 1 })).await.expect(400);
    let elsewhere = json!({ "path": "secret/data/x", "version": 1 });
    bed.root(Operation::Update, "sys/rotations/ack", elsewhere).await.expect(404);
    assert_eq!(bed.database.acknowledged.lock().unwrap().len(), 1);

    bed.get("sys/rotations/database/static-creds/two", &reader).await.expect(403);
    let known =
        bed.root(Operation::Read, "sys/rotations/database/static-creds/two", json!({})).await.expect(200);
    assert_eq!(known.body["data"]["version"], 1);
    bed.root(Operation::Read, "sys/rotations/database/static-creds/none", json!({})).await.expect(404);
}

#[tokio::test]
async fn no_rotation_waits_for_a_pod_that_was_revoked() {
    let bed = Bed::with_pods().await;
    let policy = "path \"database/static-creds/two\" { capabilities = [\"read\"] }";
    bed.root(Operation::Update, "sys/policies/acl/k8s/prod/shop/dsec/orders", json!({ "policy": policy }))
        .await
        .expect(204);
    let token = bed.login("pod-1").await;
    bed.get("database/static-creds/two?consumer=1", &token).await.expect(200);
    let reader = bed.database.readers.lock().unwrap()[0].1.clone().unwrap();
    assert!(bed.database.pods_gone.lock().unwrap().is_empty());
    let revoke = json!({ "uid": "pod-1" });
    bed.root(Operation::Update, "auth/kubernetes/prod/revoke-pod", revoke.clone()).await.expect(204);
    assert_eq!(*bed.database.pods_gone.lock().unwrap(), [reader.pod.clone().unwrap()]);
    // Whoever got no answer says it again.
    bed.root(Operation::Update, "auth/kubernetes/prod/revoke-pod", revoke).await.expect(204);
    assert_eq!(bed.database.pods_gone.lock().unwrap().len(), 2);
    // A token of nobody's pod has none.
    let made = json!({ "policies": ["k8s/prod/shop/dsec/orders"] });
    let other = bed.root(Operation::Update, "auth/token/create", made).await.expect(200);
    bed.get("database/static-creds/two?consumer=1", &other.text("/auth/client_token")).await.expect(200);
    assert_eq!(bed.database.readers.lock().unwrap()[1].1.as_ref().unwrap().pod, None);
}
