//! ServiceAccounts' tokens used as they are: where a role allows it, for as long as what they hang from is there.

use std::time::Duration;

use coffer_vault::Clock as _;
use coffer_vault::Operation::{Delete, Read, Update};
use serde_json::{Value, json};

use crate::bed::{self, Bed, cluster};

const MOUNT: &str = "auth/kubernetes/prod";
const ROLE: &str = "auth/kubernetes/prod/role/shop.orders";

/// A vault with pods whose role allows it.
async fn allowing() -> Bed {
    let bed = Bed::with_pods().await;
    bed.root(Update, ROLE, json!({"allow_direct": true})).await.expect(204);
    bed.root(Update, "secret/data/shop/x", json!({"data": {"a": "b"}})).await.expect(200);
    bed
}

fn credential(jwt: &str) -> String {
    format!("k8s:kubernetes/prod/shop.orders:{jwt}")
}

fn of_pod(bed: &Bed, pod: &str) -> String {
    credential(&bed.cluster.jwt(&bed.cluster.claims("shop", "orders", pod, bed.clock.now())))
}

#[tokio::test]
async fn a_pods_own_token_may_do_what_its_role_may_and_the_log_says_whose_it_was() {
    let bed = allowing().await;
    let token = of_pod(&bed, "pod-1");
    bed.get("secret/data/shop/x", &token).await.expect(200);
    let record = bed.audit_records().pop().unwrap();
    assert_eq!(record.auth_method.as_deref(), Some("auth/kubernetes/prod/direct"));
    assert_eq!(record.display_name.as_deref(), Some("kubernetes-prod-shop-orders"));
    assert_eq!(record.metadata["pod_uid"], "pod-1");
    assert!(record.accessor.is_some());
    assert!(!bed.audit_text().contains(&token[40..80]), "the token itself is in no record");
    bed.get("secret/data/other", &token).await.expect(403);
    let looked = bed.get("auth/token/lookup-self", &token).await.expect(200);
    assert_eq!((&looked.body["data"]["type"], &looked.body["data"]["ttl"]), (&json!("batch"), &json!(3600)));
    // It stays what it is: nothing is made from it, renewed or revoked by itself.
    for path in ["auth/token/renew-self", "auth/token/revoke-self"] {
        bed.post(path, &token, json!({})).await.expect(400);
    }
    for path in ["auth/token/revoke", "auth/token/renew"] {
        bed.root(Update, path, json!({"token": token})).await.expect(400);
    }
    bed.root(Update, "auth/token/lookup", json!({"token": token})).await.expect(200);
}

#[tokio::test]
async fn it_is_nothing_where_no_role_allows_it_or_the_token_is_not_believed() {
    let bed = allowing().await;
    let now = bed.clock.now();
    let good = bed.cluster.claims("shop", "orders", "pod-1", now);
    let jwt = bed.cluster.jwt(&good);
    let with = |field: &str, value: Value| {
        let mut claims = good.clone();
        claims[field] = value;
        credential(&bed.cluster.jwt(&claims))
    };
    for (why, token) in [
        ("no role named", jwt.clone()),
        ("no such role", format!("k8s:kubernetes/prod/none:{jwt}")),
        ("no such mount", format!("k8s:kubernetes/none/shop.orders:{jwt}")),
        ("another kind of mount", format!("k8s:token/shop.orders:{jwt}")),
        ("no mount", format!("k8s:shop.orders:{jwt}")),
        ("no token", "k8s:kubernetes/prod/shop.orders:a.b.c".into()),
        ("nothing", "k8s:.".into()),
        ("another's key", credential(&bed::Cluster::new().jwt(&good))),
        ("another audience", with("aud", json!("elsewhere"))),
        ("over", with("exp", json!(now.as_secs()))),
        ("another account", credential(&bed.cluster.jwt(&bed.cluster.claims("shop", "admin", "pod-1", now)))),
    ] {
        let answer = bed.get("secret/data/shop/x", &token).await;
        assert_eq!((answer.status, &answer.body["errors"]), (403, &json!(["permission denied"])), "{why}");
    }
    let token = credential(&jwt);
    bed.get("secret/data/shop/x", &token).await.expect(200);
    bed.root(Update, ROLE, json!({"allow_direct": false})).await.expect(204);
    bed.get("secret/data/shop/x", &token).await.expect(403);
    bed.login_with(&jwt).await.expect(200);
    for wrong in [json!({"token_num_uses": 3}), json!({"token_strictly_bind_ip": true})] {
        let mut body = wrong.clone();
        body["allow_direct"] = json!(true);
        bed.root(Update, ROLE, body).await.expect(400);
    }
    bed.root(Update, ROLE, json!({"allow_direct": true, "token_bound_cidrs": "192.168.0.0/16"}))
        .await
        .expect(204);
    bed.get("secret/data/shop/x", &token).await.expect(403);
}

#[tokio::test]
async fn it_ends_with_its_pod_and_so_do_its_leases() {
    let bed = allowing().await;
    let (token, other) = (of_pod(&bed, "pod-1"), of_pod(&bed, "pod-2"));
    let ((_, account), (_, others)) = (bed.issue(&token).await, bed.issue(&other).await);
    let unused = of_pod(&bed, "pod-3");
    for pod in ["pod-1", "pod-3"] {
        bed.root(Update, &format!("{MOUNT}/revoke-pod"), json!({"uid": pod})).await.expect(204);
    }
    for dead in [&token, &unused] {
        bed.get("secret/data/shop/x", dead).await.expect(403);
        bed.get("database/creds/orders", dead).await.expect(403);
    }
    assert!(!bed.database.has(&account));
    assert!(bed.database.has(&others));
    bed.get("secret/data/shop/x", &other).await.expect(200);
}

#[tokio::test]
async fn its_leases_do_not_outlive_the_token() {
    let bed = allowing().await;
    let token = of_pod(&bed, "pod-1");
    let answer = bed.get("database/creds/orders", &token).await.expect(200);
    let account = answer.text("/data/username");
    assert!(answer.body["lease_duration"].as_u64().unwrap() <= 3600);
    let lease = answer.text("/lease_id");
    bed.advance(Duration::from_secs(3000)).await;
    let renewed =
        bed.post("sys/leases/renew", &bed.root, json!({"lease_id": lease, "increment": 7200})).await;
    assert!(renewed.expect(200).body["lease_duration"].as_u64().unwrap() <= 600);
    bed.advance(Duration::from_secs(601)).await;
    bed.sweep().await;
    assert!(!bed.database.has(&account));
    bed.get("secret/data/shop/x", &token).await.expect(403);
}

#[tokio::test]
async fn a_change_of_role_boundary_settings_or_mount_counts_at_once() {
    let bed = allowing().await;
    let token = of_pod(&bed, "pod-1");
    bed.get("secret/data/shop/x", &token).await.expect(200);
    bed.root(Update, ROLE, json!({"token_policies": ["none"]})).await.expect(204);
    bed.get("secret/data/shop/x", &token).await.expect(403);
    bed.root(Update, ROLE, json!({"token_policies": ["k8s/prod/shop/dsec/orders"]})).await.expect(204);
    bed.get("secret/data/shop/x", &token).await.expect(200);
    bed.root(Update, ROLE, json!({"token_ttl": "3h"})).await.expect(204);
    bed.get("secret/data/shop/x", &token).await.expect(200);
    // A boundary that leaves nothing.
    bed.root(Update, "sys/policies/acl/bound", json!({"policy": "# nothing"})).await.expect(204);
    let tune = |policy: &str| json!({"token_boundary_policy": policy});
    bed.root(Update, "sys/auth/kubernetes/prod/tune", tune("bound")).await.expect(204);
    bed.get("secret/data/shop/x", &token).await.expect(403);
    bed.root(
        Update,
        "sys/policies/acl/bound",
        json!({"policy": r#"path "secret/*" { capabilities = ["read"] }"#}),
    )
    .await
    .expect(204);
    bed.get("secret/data/shop/x", &token).await.expect(200);
    // Keys that are not trusted any more.
    let config =
        |keys: &str| json!({"issuer": cluster::ISSUER, "kubernetes_host": "https://k8s", "jwks": keys});
    bed.root(Update, &format!("{MOUNT}/config"), config(bed::Cluster::new().jwks())).await.expect(204);
    bed.get("secret/data/shop/x", &token).await.expect(403);
    bed.root(Update, &format!("{MOUNT}/config"), config(bed.cluster.jwks())).await.expect(204);
    bed.get("secret/data/shop/x", &token).await.expect(200);
    bed.root(Delete, "sys/auth/kubernetes/prod", Value::Null).await.expect(204);
    bed.get("secret/data/shop/x", &token).await.expect(403);
}

#[tokio::test]
async fn the_api_server_is_asked_once_a_minute_and_its_word_counts() {
    let bed = allowing().await;
    let config = json!({"kubernetes_host": "https://k8s", "kubernetes_ca_cert": "PEM"});
    bed.root(Update, &format!("{MOUNT}/config"), config).await.expect(204);
    let claims = bed.cluster.claims("shop", "orders", "pod-1", bed.clock.now());
    let jwt = bed.cluster.jwt(&claims);
    bed.pages.api.believe(&jwt, &claims);
    let asked = || bed.pages.api.asked_by.lock().unwrap().len();
    for _ in 0..5 {
        bed.get("secret/data/shop/x", &credential(&jwt)).await.expect(200);
    }
    assert_eq!(asked(), 1);
    bed.pages.api.forget(&jwt);
    bed.advance(Duration::from_secs(60)).await;
    for _ in 0..2 {
        bed.get("secret/data/shop/x", &credential(&jwt)).await.expect(403);
    }
    assert_eq!(asked(), 3, "a refusal is not kept");
}

#[tokio::test]
async fn it_is_whoever_its_service_account_is_known_as() {
    let bed = allowing().await;
    let token = of_pod(&bed, "pod-1");
    let entity = |answer: bed::Answer| answer.expect(200).text("/data/entity_id");
    assert_eq!(entity(bed.get("auth/token/lookup-self", &token).await), "");
    let known = bed.try_login("pod-1").await.expect(200).text("/auth/entity_id");
    bed.advance(Duration::from_secs(60)).await;
    assert_eq!(entity(bed.get("auth/token/lookup-self", &token).await), known);
    bed.root(Update, &format!("identity/entity/id/{known}"), json!({"disabled": true})).await;
    bed.get("auth/token/lookup-self", &token).await.expect(403);
    let pods = bed.root(Read, &format!("{MOUNT}/pods"), Value::Null).await.expect(200);
    assert_eq!(pods.body["data"]["pods"][0]["uid"], "pod-1");
}
