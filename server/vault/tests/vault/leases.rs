//! The life of a credential: issued, renewed, expired, revoked; and what no crash or race may leave behind.

use crate::bed;

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use bed::{Bed, hours};
use coffer_vault::Operation;
use serde_json::{Value, json};

#[tokio::test]
async fn login_issue_renew_expire() {
    let bed = Bed::with_pods().await;
    let token = bed.login("pod-1").await;
    let answer = bed.get("database/creds/orders", &token).await.expect(200);
    assert_eq!(answer.body["lease_duration"], 3600);
    assert_eq!(answer.body["renewable"], true);
    let (lease, account) = (answer.text("/lease_id"), answer.text("/data/username"));
    assert!(lease.starts_with("database/creds/orders/"), "{lease}");
    assert!(bed.database.has(&account));

    bed.advance(Duration::from_secs(3000)).await;
    let renewed = bed.post("sys/leases/renew", &token, json!({"lease_id": lease})).await.expect(200);
    assert_eq!(renewed.body["lease_duration"], 3600);
    bed.post("auth/token/renew-self", &token, json!({})).await.expect(200);
    bed.sweep().await;
    assert!(bed.database.has(&account), "renewed, so alive");

    bed.advance(Duration::from_secs(3599)).await;
    bed.sweep().await;
    assert!(bed.database.has(&account));
    bed.advance(Duration::from_secs(1)).await;
    bed.sweep().await;
    assert!(!bed.database.has(&account), "expired");
    bed.post("sys/leases/renew", &token, json!({"lease_id": lease})).await.expect(400);
    bed.root(Operation::Update, "sys/leases/lookup", json!({"lease_id": lease})).await.expect(400);
}

#[tokio::test]
async fn renewal_stops_at_the_maximum() {
    let bed = Bed::with_pods().await;
    let token = bed.login("pod-1").await;
    let (lease, account) = bed.issue(&token).await;
    for _ in 0..3 {
        bed.advance(Duration::from_secs(3500)).await;
        bed.post("auth/token/renew-self", &token, json!({})).await.expect(200);
        bed.post("sys/leases/renew", &token, json!({"lease_id": lease})).await.expect(200);
    }
    bed.advance(Duration::from_secs(3500)).await;
    let last = bed
        .post("sys/leases/renew", &token, json!({"lease_id": lease, "increment": "10h"}))
        .await
        .expect(200);
    assert_eq!(last.body["lease_duration"], 4 * 3600 - 4 * 3500);
    assert!(last.body["warnings"].is_array());
    bed.advance(Duration::from_secs(400)).await;
    bed.sweep().await;
    assert!(!bed.database.has(&account));
}

#[tokio::test]
async fn the_end_of_a_token_is_the_end_of_its_leases() {
    let bed = Bed::with_pods().await;
    let token = bed.login("pod-1").await;
    let (_, first) = bed.issue(&token).await;
    let child = bed.post("auth/token/create", &token, json!({"ttl": "1h"})).await;
    assert_eq!(child.status, 403, "its policies do not let it create tokens");
    let (_, second) = bed.issue(&token).await;
    bed.post("auth/token/revoke-self", &token, json!({})).await.expect(204);
    assert!(!bed.database.has(&first) && !bed.database.has(&second));
    bed.get("auth/token/lookup-self", &token).await.expect(403);
    bed.get("database/creds/orders", &token).await.expect(403);
}

#[tokio::test]
async fn children_die_with_their_parent_and_so_do_their_leases() {
    let bed = Bed::with_pods().await;
    let policies = json!({"policies": ["k8s/prod/shop/dsec/orders", "maker"]});
    let maker = r#"path "auth/token/create" { capabilities = ["update"] }"#;
    bed.root(Operation::Update, "sys/policies/acl/maker", json!({"policy": maker})).await.expect(204);
    let parent = bed.root(Operation::Update, "auth/token/create", policies).await.expect(200);
    let parent = parent.text("/auth/client_token");
    let child =
        bed.post("auth/token/create", &parent, json!({})).await.expect(200).text("/auth/client_token");
    let grandchild =
        bed.post("auth/token/create", &child, json!({})).await.expect(200).text("/auth/client_token");
    let (_, account) = bed.issue(&grandchild).await;
    bed.root(Operation::Update, "auth/token/revoke", json!({"token": parent})).await.expect(204);
    assert!(!bed.database.has(&account));
    for dead in [&parent, &child, &grandchild] {
        bed.get("auth/token/lookup-self", dead).await.expect(403);
    }
    bed.root(Operation::Update, "auth/token/revoke", json!({"token": "s.unknown"})).await.expect(204);
}

#[tokio::test]
async fn a_token_that_expires_takes_its_leases_along() {
    let bed = Bed::with_pods().await;
    let token = bed.login("pod-1").await;
    bed.advance(Duration::from_secs(3600)).await;
    let (_, account) = bed.issue(&token).await;
    bed.advance(Duration::from_secs(3600)).await;
    bed.get("auth/token/lookup-self", &token).await.expect(403);
    bed.sweep().await;
    assert!(!bed.database.has(&account));
}

#[tokio::test]
async fn a_token_touches_only_its_own_leases() {
    let bed = Bed::with_pods().await;
    let (mine, other) = (bed.login("pod-1").await, bed.login("pod-2").await);
    let (lease, account) = bed.issue(&mine).await;
    for verb in ["lookup", "renew", "revoke"] {
        let path = format!("sys/leases/{verb}");
        bed.post(&path, &other, json!({"lease_id": lease})).await.expect(403);
    }
    assert!(bed.database.has(&account));
    let listed =
        bed.root(Operation::List, "sys/leases/lookup/database/creds/orders/", Value::Null).await.expect(200);
    assert_eq!(listed.body["data"]["keys"].as_array().unwrap().len(), 1);
    bed.post("sys/leases/revoke", &mine, json!({"lease_id": lease})).await.expect(204);
    bed.post("sys/leases/revoke", &mine, json!({"lease_id": lease})).await.expect(204);
    assert!(!bed.database.has(&account));
    bed.root(Operation::List, "sys/leases/lookup/database/creds/orders/", Value::Null).await.expect(404);
}

#[tokio::test]
async fn revocation_by_prefix() {
    let bed = Bed::with_pods().await;
    let token = bed.login("pod-1").await;
    for _ in 0..3 {
        bed.issue(&token).await;
    }
    bed.post("sys/leases/revoke-prefix/database/creds", &token, json!({})).await.expect(403);
    bed.root(Operation::Update, "sys/leases/revoke-prefix/database/creds", json!({})).await.expect(204);
    assert!(bed.database.accounts().is_empty());
}

#[tokio::test]
async fn what_no_target_confirms_can_be_forgotten_by_force_and_only_by_an_administrator() {
    let bed = Bed::with_pods().await;
    let token = bed.login("pod-1").await;
    let (lease, account) = bed.issue(&token).await;
    bed.database.refuse_revoke.store(true, SeqCst);
    let lookup = || bed.root(Operation::Update, "sys/leases/lookup", json!({"lease_id": lease}));
    bed.root(Operation::Update, "sys/leases/revoke-prefix/database/creds", json!({})).await.expect(200);
    assert_eq!(lookup().await.expect(200).body["data"]["state"], "revoking");
    bed.post("sys/leases/revoke-force/database/creds", &token, json!({})).await.expect(403);
    bed.root(Operation::Update, "sys/leases/revoke-force/database/other", json!({})).await.expect(204);
    lookup().await.expect(200);
    bed.root(Operation::Update, "sys/leases/revoke-force/database/creds", json!({})).await.expect(204);
    lookup().await.expect(400);
    assert!(bed.database.has(&account), "forgotten here, not there");
    let forced = bed.audit_records().into_iter().filter(|r| r.path.starts_with("sys/leases/revoke-force/"));
    let told: Vec<_> = forced.filter_map(|r| r.metadata.get("forgotten_leases").cloned()).collect();
    assert_eq!(told, ["1"]);
    // What was confirmed is gone as ever.
    bed.database.refuse_revoke.store(false, SeqCst);
    let (_, second) = bed.issue(&token).await;
    bed.root(Operation::Update, "sys/leases/revoke-force/database/creds", json!({})).await.expect(204);
    assert!(!bed.database.has(&second));
}

#[tokio::test]
async fn what_cannot_be_revoked_is_tried_again_until_it_is_gone() {
    let bed = Bed::with_pods().await;
    let token = bed.login("pod-1").await;
    let (lease, account) = bed.issue(&token).await;
    bed.database.refuse_revoke.store(true, SeqCst);
    bed.post("auth/token/revoke-self", &token, json!({})).await.expect(204);
    assert!(bed.database.has(&account));
    for _ in 0..10 {
        bed.advance(Duration::from_secs(600)).await;
        bed.sweep().await;
    }
    let seen = bed.root(Operation::Update, "sys/leases/lookup", json!({"lease_id": lease})).await.expect(200);
    assert_eq!(seen.body["data"]["state"], "stuck");
    assert!(seen.text("/data/why").contains("down"));
    bed.database.refuse_revoke.store(false, SeqCst);
    bed.advance(Duration::from_secs(600)).await;
    bed.sweep().await;
    assert!(!bed.database.has(&account));
}

#[tokio::test]
async fn a_failed_creation_leaves_nothing() {
    let bed = Bed::with_pods().await;
    let token = bed.login("pod-1").await;
    bed.database.refuse_create.store(true, SeqCst);
    bed.get("database/creds/orders", &token).await.expect(503);
    bed.database.refuse_create.store(false, SeqCst);
    for _ in 0..4 {
        bed.advance(Duration::from_secs(120)).await;
        bed.sweep().await;
    }
    assert!(bed.database.accounts().is_empty());
    bed.root(Operation::List, "sys/leases/lookup/database/creds/orders/", Value::Null).await.expect(404);
}

#[tokio::test]
async fn a_crash_between_intent_and_delivery_leaves_nothing() {
    let mut bed = Bed::with_pods().await;
    let token = bed.login("pod-1").await;
    bed.database.lose_create.store(true, SeqCst);
    let request = bed.request(Operation::Read, "database/creds/orders", Some(&token), Value::Null);
    let vault = Arc::clone(&bed.vault);
    let lost = tokio::spawn(async move { vault.handle(request).await });
    bed.database.arrived.notified().await;
    lost.abort();
    assert_eq!(bed.database.accounts().len(), 1, "the account was made, and nobody was told");
    bed.database.lose_create.store(false, SeqCst);

    bed.restart().await;
    for _ in 0..4 {
        bed.advance(Duration::from_secs(61)).await;
        bed.sweep().await;
    }
    assert!(bed.database.accounts().is_empty());
}

#[tokio::test]
async fn a_revocation_during_the_issue_wins() {
    let bed = Bed::with_pods().await;
    let token = bed.login("pod-1").await;
    bed.database.hold_create.store(true, SeqCst);
    let request = bed.request(Operation::Read, "database/creds/orders", Some(&token), Value::Null);
    let vault = Arc::clone(&bed.vault);
    let issuing = tokio::spawn(async move { vault.handle(request).await.into_inner().status });
    bed.database.arrived.notified().await;
    bed.post("auth/token/revoke-self", &token, json!({})).await.expect(204);
    bed.database.hold_create.store(false, SeqCst);
    bed.database.go.notify_one();
    assert_eq!(issuing.await.unwrap(), 503);
    for _ in 0..4 {
        bed.advance(Duration::from_secs(61)).await;
        bed.sweep().await;
    }
    assert!(bed.database.accounts().is_empty());
}

#[tokio::test]
async fn a_counted_token_revoked_during_its_last_use_gets_nothing() {
    let bed = Bed::with_pods().await;
    let policy = json!({"policy": r#"path "database/held" { capabilities = ["read"] }"#});
    bed.root(Operation::Update, "sys/policies/acl/held", policy).await.expect(204);
    let create = json!({"policies": ["held"], "num_uses": 1});
    // Whether it is the token in use that is revoked, or some other.
    for (own, status) in [(true, 403), (false, 200)] {
        let mut tokens = Vec::new();
        for _ in 0..2 {
            let made = bed.root(Operation::Update, "auth/token/create", create.clone()).await.expect(200);
            tokens.push(made.text("/auth/client_token"));
        }
        let request = bed.request(Operation::Read, "database/held", Some(&tokens[0]), Value::Null);
        let vault = Arc::clone(&bed.vault);
        let reading = tokio::spawn(async move { vault.handle(request).await.into_inner().status });
        bed.database.arrived.notified().await;
        let cut = json!({"token": tokens[usize::from(!own)]});
        bed.root(Operation::Update, "auth/token/revoke", cut).await.expect(204);
        bed.database.go.notify_one();
        assert_eq!(reading.await.unwrap(), status);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn races_of_issue_and_revoke_leave_no_account() {
    let bed = Arc::new(Bed::with_pods().await);
    for round in 0..25 {
        let token = Arc::new(bed.login(&format!("pod-{round}")).await);
        let issuers: Vec<_> = (0..4)
            .map(|_| {
                let (bed, token) = (Arc::clone(&bed), Arc::clone(&token));
                tokio::spawn(async move { bed.get("database/creds/orders", &token).await.status })
            })
            .collect();
        let revoker = {
            let (bed, token) = (Arc::clone(&bed), Arc::clone(&token));
            tokio::spawn(async move { bed.post("auth/token/revoke-self", &token, json!({})).await.status })
        };
        for issuer in issuers {
            assert!([200, 403, 503].contains(&issuer.await.unwrap()));
        }
        revoker.await.unwrap();
        bed.get("auth/token/lookup-self", &token).await.expect(403);
    }
    for _ in 0..4 {
        bed.advance(Duration::from_secs(61)).await;
        bed.sweep().await;
    }
    assert!(bed.database.accounts().is_empty(), "{:?}", bed.database.accounts());
}

#[tokio::test]
async fn nothing_expires_while_sealed_and_there_is_time_to_renew() {
    let mut bed = Bed::with_pods().await;
    let token = bed.login("pod-1").await;
    let (lease, account) = bed.issue(&token).await;
    bed.advance(hours(3)).await;
    bed.restart().await;
    bed.sweep().await;
    assert!(bed.database.has(&account), "its hour is over, but nobody could renew");
    bed.post("auth/token/renew-self", &token, json!({})).await.expect(200);
    let renewed = bed.post("sys/leases/renew", &token, json!({"lease_id": lease})).await.expect(200);
    assert_eq!(renewed.body["lease_duration"], 3600);
    bed.advance(hours(1)).await;
    bed.sweep().await;
    assert!(!bed.database.has(&account));

    let token = bed.login("pod-2").await;
    let (_, account) = bed.issue(&token).await;
    bed.advance(hours(5)).await;
    bed.restart().await;
    bed.sweep().await;
    assert!(!bed.database.has(&account), "no grace beyond the maximum");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_pods_at_once() {
    let bed = Arc::new(Bed::with_pods().await);
    let pods: Vec<_> = (0..60)
        .map(|n| {
            let bed = Arc::clone(&bed);
            tokio::spawn(async move {
                let token = bed.login(&format!("pod-{n}")).await;
                bed.issue(&token).await;
                let (lease, _) = bed.issue(&token).await;
                bed.post("sys/leases/renew", &token, json!({"lease_id": lease})).await.expect(200);
            })
        })
        .collect();
    for pod in pods {
        pod.await.unwrap();
    }
    assert_eq!(bed.database.accounts().len(), 120);
    let revocations: Vec<_> = (0..60)
        .map(|n| {
            let bed = Arc::clone(&bed);
            let body = json!({"uid": format!("pod-{n}")});
            tokio::spawn(
                async move { bed.root(Operation::Update, "auth/kubernetes/prod/revoke-pod", body).await },
            )
        })
        .collect();
    for revocation in revocations {
        revocation.await.unwrap().expect(204);
    }
    for _ in 0..4 {
        bed.advance(Duration::from_secs(61)).await;
        bed.sweep().await;
    }
    assert!(bed.database.accounts().is_empty());
    bed.root(Operation::List, "sys/leases/lookup/database/creds/orders/", Value::Null).await.expect(404);
    let pods = bed.root(Operation::Read, "auth/kubernetes/prod/pods", Value::Null).await.expect(200);
    assert_eq!(pods.body["data"]["pods"], json!([]));
}
