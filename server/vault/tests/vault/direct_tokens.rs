//! ServiceAccounts' tokens used as they are: where a role allows it, for as long as what they hang from is there.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
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
        ("another spelling of the role", format!("k8s:kubernetes/prod/Shop.Orders:{jwt}")),
        ("another spelling of the mount", format!("k8s:kubernetes/prod//shop.orders:{jwt}")),
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
    assert_eq!(entity(bed.get("auth/token/lookup-self", &token).await), known);
    // Another one that he becomes, and what that one may, count at once.
    let other =
        bed.root(Update, "identity/entity", json!({"name": "other"})).await.expect(200).text("/data/id");
    let merge = json!({"from_entity_ids": known, "to_entity_id": other});
    bed.root(Update, "identity/entity/merge", merge).await.expect(204);
    assert_eq!(entity(bed.get("auth/token/lookup-self", &token).await), other);
    bed.root(Update, &format!("identity/entity/id/{other}"), json!({"disabled": true})).await.expect(204);
    bed.get("auth/token/lookup-self", &token).await.expect(403);
    bed.root(Update, &format!("identity/entity/id/{other}"), json!({"disabled": false})).await.expect(204);
    bed.get("auth/token/lookup-self", &token).await.expect(200);
    bed.root(Delete, &format!("identity/entity/id/{other}"), Value::Null).await.expect(204);
    assert_eq!(entity(bed.get("auth/token/lookup-self", &token).await), "");
    let pods = bed.root(Read, &format!("{MOUNT}/pods"), Value::Null).await.expect(200);
    assert_eq!(pods.body["data"]["pods"][0]["uid"], "pod-1");
}

#[tokio::test]
async fn settings_that_change_while_it_is_verified_or_on_another_server_count() {
    let bed = allowing().await;
    let asking = json!({"kubernetes_host": "https://k8s", "kubernetes_ca_cert": "PEM"});
    bed.root(Update, &format!("{MOUNT}/config"), asking.clone()).await.expect(204);
    let claims = bed.cluster.claims("shop", "orders", "pod-1", bed.clock.now());
    let jwt = bed.cluster.jwt(&claims);
    bed.pages.api.believe(&jwt, &claims);
    let token = credential(&jwt);
    let strangers = json!({"issuer": cluster::ISSUER, "jwks": bed::Cluster::new().jwks()});
    let gate = bed.pages.api.gate.lock().await;
    let change = async {
        bed.pages.api.came.notified().await;
        bed.root(Update, &format!("{MOUNT}/config"), strangers.clone()).await.expect(204);
        drop(gate);
    };
    let (under_way, ()) = tokio::join!(bed.get("secret/data/shop/x", &token), change);
    under_way.expect(403);
    bed.get("secret/data/shop/x", &token).await.expect(403);

    bed.root(Update, &format!("{MOUNT}/config"), asking).await.expect(204);
    bed.get("secret/data/shop/x", &token).await.expect(200);
    let request = bed.request(Update, &format!("{MOUNT}/config"), Some(&bed.root), strangers);
    bed::Answer::of(bed.beside().await.handle(request).await.into_inner()).expect(204);
    bed.get("secret/data/shop/x", &token).await.expect(403);
}

#[tokio::test]
async fn its_leases_can_be_renewed_after_it_was_believed_anew() {
    let bed = allowing().await;
    let token = of_pod(&bed, "pod-1");
    bed.issue(&token).await;
    bed.root(Update, ROLE, json!({"token_ttl": "3h"})).await.expect(204);
    let (lease, _) = bed.issue(&token).await;
    bed.root(Update, "sys/leases/renew", json!({"lease_id": lease, "increment": 60})).await.expect(200);
}

#[tokio::test]
async fn a_signature_that_is_written_otherwise_makes_no_other_credential() {
    let bed = allowing().await;
    let token = of_pod(&bed, "pod-1");
    let (signed, signature) = token.rsplit_once('.').unwrap();
    // Of an ECDSA signature (r, s) the other one that is as good is (r, n - s).
    let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let order = hex_bytes("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551");
    let mut borrow = 0;
    for at in (0..32).rev() {
        let difference = i32::from(order[at]) - i32::from(bytes[32 + at]) - borrow;
        borrow = i32::from(difference < 0);
        bytes[32 + at] = u8::try_from(difference.rem_euclid(256)).unwrap();
    }
    let twin = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(bytes));
    assert_ne!(twin, token);
    for credential in [&token, &twin] {
        bed.get("secret/data/shop/x", credential).await.expect(200);
    }
    let records = bed.audit_records();
    let [.., one, other] = records.as_slice() else { panic!("{records:?}") };
    assert!(one.accessor.is_some());
    assert_eq!(one.accessor, other.accessor);
}

fn hex_bytes(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}
