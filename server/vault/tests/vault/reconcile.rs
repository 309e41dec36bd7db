//! Accounts that no lease knows are found and taken away, and nobody else's is.

use crate::bed;

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use bed::Bed;
use coffer_core::audit::RecordType;

async fn metrics(bed: &Bed) -> String {
    let path = "sys/metrics?format=prometheus";
    let answer = bed.root(coffer_vault::Operation::Read, path, serde_json::Value::Null).await.expect(200);
    answer.body.to_string()
}

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn an_account_without_a_lease_goes_after_a_minute_and_is_recorded() {
    let bed = Bed::with_pods().await;
    let token = bed.login("pod-1").await;
    let (_, leased) = bed.issue(&token).await;
    bed.database.put("v-lost");
    bed.database.put("somebody-else");
    bed.vault.reconcile().await.unwrap();
    assert!(bed.database.has("v-lost"), "not at first sight");
    assert!(metrics(&bed).await.contains("coffer_accounts_without_lease 1"));
    bed.advance(MINUTE).await;
    bed.database.refuse_revoke.store(true, SeqCst);
    bed.vault.reconcile().await.unwrap();
    assert!(bed.database.has("v-lost"));
    assert!(metrics(&bed).await.contains("coffer_reconcile_failures_total 1"));
    bed.database.refuse_revoke.store(false, SeqCst);
    bed.vault.reconcile().await.unwrap();
    assert!(!bed.database.has("v-lost") && bed.database.has(&leased) && bed.database.has("somebody-else"));
    assert!(metrics(&bed).await.contains("coffer_accounts_dropped_total 1"));
    assert!(metrics(&bed).await.contains("coffer_accounts_without_lease 0"));

    let of_it: Vec<_> =
        bed.audit_records().into_iter().filter(|record| record.operation == "reconcile").collect();
    let kinds: Vec<_> = of_it.iter().map(|record| record.kind).collect();
    assert_eq!(
        kinds,
        [RecordType::Intent, RecordType::Completion, RecordType::Intent, RecordType::Completion]
    );
    assert_eq!(of_it[3].metadata["account"], "v-lost");
    assert_eq!((of_it[1].status.is_some_and(|status| status >= 500), of_it[3].status), (true, Some(204)));
}

#[tokio::test]
async fn an_account_that_is_made_while_accounts_are_listed_stays() {
    let bed = Bed::with_pods().await;
    let token = bed.login("pod-1").await;
    let (_, first) = bed.issue(&token).await;
    bed.database.hold_list.store(true, SeqCst);
    let issuing = async {
        bed.database.arrived.notified().await;
        let (_, second) = bed.issue(&token).await;
        bed.database.go.notify_one();
        second
    };
    let (done, second) = tokio::join!(bed.vault.reconcile(), issuing);
    done.unwrap();
    bed.database.hold_list.store(false, SeqCst);
    bed.advance(MINUTE).await;
    bed.vault.reconcile().await.unwrap();
    bed.advance(MINUTE).await;
    bed.vault.reconcile().await.unwrap();
    assert!(bed.database.has(&first) && bed.database.has(&second));
}

#[tokio::test]
async fn an_account_whose_lease_was_forgotten_by_force_goes() {
    let bed = Bed::with_pods().await;
    let token = bed.login("pod-1").await;
    let (_, account) = bed.issue(&token).await;
    bed.database.refuse_revoke.store(true, SeqCst);
    bed.root(coffer_vault::Operation::Update, "sys/leases/revoke-force/database", serde_json::json!({}))
        .await
        .expect(204);
    assert!(bed.database.has(&account));
    bed.database.refuse_revoke.store(false, SeqCst);
    bed.vault.reconcile().await.unwrap();
    bed.advance(MINUTE).await;
    bed.vault.reconcile().await.unwrap();
    assert!(!bed.database.has(&account));
}
