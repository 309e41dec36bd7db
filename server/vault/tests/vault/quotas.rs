//! Rate limits: their rules through the API, and who is refused when.

use crate::bed;

use std::time::Duration;

use bed::Bed;
use coffer_vault::Clock as _;
use coffer_vault::Operation::{Delete, List, Read, Update};
use coffer_vault::{Admission, RateInfo};
use serde_json::{Value, json};

const CLIENT: [u8; 4] = [10, 0, 0, 7];
const OTHER: [u8; 4] = [10, 0, 0, 8];

fn admitted(bed: &Bed, path: &str, ip: [u8; 4]) -> bool {
    matches!(bed.vault.admit(path, ip.into(), None), Admission::Pass(_))
}

async fn quota(bed: &Bed, name: &str, body: Value) {
    bed.root(Update, &format!("sys/quotas/rate-limit/{name}"), body).await.expect(204);
}

#[tokio::test]
async fn a_quota_is_made_shown_listed_changed_and_removed_as_vault_does() {
    let bed = Bed::with_pods().await;
    bed.root(List, "sys/quotas/rate-limit/", Value::Null).await.expect(404);
    quota(&bed, "q1", json!({"rate": 5})).await;
    let shown = bed.root(Read, "sys/quotas/rate-limit/q1", Value::Null).await.expect(200);
    assert_eq!(
        shown.body["data"],
        json!({"block_interval": 0, "inheritable": true, "interval": 1, "name": "q1",
        "path": "", "rate": 5, "role": "", "type": "rate-limit"})
    );
    quota(&bed, "q2", json!({"rate": "2.5", "interval": "10s", "block_interval": 5, "path": "secret"})).await;
    let shown = bed.root(Read, "sys/quotas/rate-limit/q2", Value::Null).await.expect(200);
    assert_eq!(
        shown.body["data"],
        json!({"block_interval": 5, "inheritable": false, "interval": 10, "name": "q2",
        "path": "secret/", "rate": 2.5, "role": "", "type": "rate-limit"})
    );
    let listed = bed.root(List, "sys/quotas/rate-limit/", Value::Null).await.expect(200);
    assert_eq!(listed.body["data"]["keys"], json!(["q1", "q2"]));
    for (name, body, words) in [
        ("q3", json!({}), "'rate' is invalid"),
        ("q3", json!({"rate": -1}), "'rate' is invalid"),
        ("q3", json!({"rate": 1, "path": "nope/"}), "invalid mount path \"nope/\""),
        (
            "q3",
            json!({"rate": 1, "path": "secret/"}),
            "quota rule with similar properties exists under the name \"q2\"",
        ),
        (
            "q3",
            json!({"rate": 1, "path": "auth/token", "role": "r"}),
            "Mount path \"auth/token/\" does not support use with role-based quotas",
        ),
        (
            "q3",
            json!({"rate": 1, "path": "secret/data/x", "role": "r"}),
            "Quotas cannot contain both a path suffix",
        ),
    ] {
        let answer = bed.root(Update, &format!("sys/quotas/rate-limit/{name}"), body).await.expect(400);
        assert!(answer.text("/errors/0").starts_with(words), "{answer:?}");
    }
    bed.root(Delete, "sys/quotas/rate-limit/q2", Value::Null).await.expect(204);
    bed.root(Read, "sys/quotas/rate-limit/q2", Value::Null).await.expect(404);
    bed.root(Delete, "sys/quotas/rate-limit/q2", Value::Null).await.expect(204);
}

#[tokio::test]
async fn the_most_specific_quota_counts_per_client_and_window() {
    let mut bed = Bed::new().await;
    quota(&bed, "all", json!({"rate": 4})).await;
    quota(&bed, "mount", json!({"rate": 3, "path": "secret"})).await;
    quota(&bed, "tree", json!({"rate": 2, "path": "secret/data/team/*"})).await;
    quota(&bed, "one", json!({"rate": 1, "path": "secret/data/team/x"})).await;
    let burst = |bed: &Bed| {
        for (path, most) in
            [("secret/data/team/x", 1), ("secret/data/team/y", 2), ("secret/data/z", 3), ("sys/mounts", 4)]
        {
            for n in 0..6 {
                assert_eq!(admitted(bed, path, CLIENT), n < most, "{path} {n}");
            }
            assert!(admitted(bed, path, OTHER), "another client is not concerned");
        }
    };
    burst(&bed);
    bed.advance(Duration::from_secs(1)).await;
    burst(&bed);
    assert!((0..100).all(|_| admitted(&bed, "sys/health", CLIENT)));
    bed.restart().await;
    burst(&bed);
}

#[tokio::test]
async fn a_block_interval_keeps_a_client_out_and_a_quota_for_everybody_counts_all() {
    let bed = Bed::new().await;
    quota(&bed, "all", json!({"rate": 1, "block_interval": "10s", "group_by": "none"})).await;
    assert!(admitted(&bed, "a", CLIENT) && !admitted(&bed, "a", OTHER));
    bed.advance(Duration::from_secs(9)).await;
    assert!(!admitted(&bed, "a", CLIENT));
    bed.advance(Duration::from_secs(1)).await;
    assert!(admitted(&bed, "a", CLIENT));
}

#[tokio::test]
async fn settings_say_what_is_exempt_and_what_clients_are_told() {
    let bed = Bed::new().await;
    let settings = bed.root(Read, "sys/quotas/config", Value::Null).await.expect(200);
    assert_eq!(settings.body["data"]["enable_rate_limit_response_headers"], false);
    assert!(
        settings.body["data"]["rate_limit_exempt_paths"].as_array().unwrap().contains(&json!("sys/unseal"))
    );
    quota(&bed, "all", json!({"rate": 2, "interval": "1m"})).await;
    let body = json!({"enable_rate_limit_response_headers": true, "enable_rate_limit_audit_logging": true,
        "rate_limit_exempt_paths": ["secret/*"]});
    bed.root(Update, "sys/quotas/config", body).await.expect(204);
    assert!((0..10).all(|_| admitted(&bed, "secret/data/x", CLIENT)));
    let told = |left| Some(RateInfo { limit: 2, remaining: left, reset: 60 });
    assert_eq!(bed.vault.admit("x", CLIENT.into(), None), Admission::Pass(told(1)));
    assert_eq!(bed.vault.admit("x", CLIENT.into(), None), Admission::Pass(told(0)));
    let Admission::Over(over) = bed.vault.admit("x", CLIENT.into(), None) else { panic!("admitted") };
    assert_eq!(
        (over.message.as_str(), over.info, over.audited),
        ("request path \"x\": rate limit quota exceeded", told(0), true)
    );
}

#[tokio::test]
async fn root_can_seal_revoke_and_lift_a_quota_under_any_overload_and_nobody_else_can() {
    let bed = Bed::new().await;
    quota(&bed, "all", json!({"rate": 1, "interval": "1h"})).await;
    let policy =
        json!({"policy": "path \"*\" { capabilities = [\"read\", \"update\", \"delete\", \"sudo\"] }"});
    bed.root(Update, "sys/policies/acl/admin", policy).await.expect(204);
    let admin = bed
        .root(Update, "auth/token/create", json!({"policies": ["admin"]}))
        .await
        .text("/auth/client_token");
    while admitted(&bed, "a", CLIENT) {}
    for path in
        ["sys/quotas/rate-limit/all", "sys/seal", "auth/token/revoke-accessor", "sys/leases/revoke-prefix/a"]
    {
        let Admission::Over(over) = bed.vault.admit(path, CLIENT.into(), None) else { panic!("admitted") };
        assert!(over.unless_root, "{path}");
    }
    let Admission::Over(over) = bed.vault.admit("secret/data/a", CLIENT.into(), None) else {
        panic!("admitted")
    };
    assert!(!over.unless_root);
    let over_limit = |token: &str| {
        let mut request = bed.request(Delete, "sys/quotas/rate-limit/all", Some(token), Value::Null);
        request.over_limit = true;
        request
    };
    bed.handle(over_limit(&admin)).await.expect(429);
    bed.handle(over_limit("s.nobody")).await.expect(403);
    bed.handle(over_limit(&bed.root)).await.expect(204);
    assert!(admitted(&bed, "a", CLIENT));
}

#[tokio::test]
async fn a_role_has_a_limit_of_its_own() {
    let bed = Bed::with_pods().await;
    quota(
        &bed,
        "r",
        json!({"rate": 1, "interval": "1h", "path": "auth/kubernetes/prod", "role": "shop.orders"}),
    )
    .await;
    bed.try_login("uid-1").await.expect(200);
    bed.try_login("uid-2").await.expect(429);
    let jwt = bed.cluster.jwt(&bed.cluster.claims(
        "shop",
        "orders",
        "u",
        coffer_core::time::Timestamp::from_millis(0),
    ));
    let other =
        bed.send(Update, "auth/kubernetes/prod/login", None, json!({"role": "another", "jwt": jwt})).await;
    assert_ne!(other.status, 429, "another role is not concerned");
    let same = bed
        .send(Update, "auth/kubernetes/prod/login", None, json!({"role": "Shop.Orders", "jwt": jwt}))
        .await;
    same.expect(429);
}

/// A ServiceAccount's token of this pod, as the credential of a request.
fn direct(bed: &Bed, pod: &str) -> String {
    let jwt = bed.cluster.jwt(&bed.cluster.claims("shop", "orders", pod, bed.clock.now()));
    format!("k8s:kubernetes/prod/shop.orders:{jwt}")
}

#[tokio::test]
async fn a_service_accounts_token_is_not_verified_for_whoever_is_over_his_limit() {
    let bed = Bed::with_pods().await;
    bed.root(Update, "auth/kubernetes/prod/role/shop.orders", json!({"allow_direct": true}))
        .await
        .expect(204);
    let config = json!({"kubernetes_host": "https://k8s", "kubernetes_ca_cert": "PEM"});
    bed.root(Update, "auth/kubernetes/prod/config", config).await.expect(204);
    let mut request = bed.request(Read, "secret/data/shop/x", Some(&direct(&bed, "pod-1")), Value::Null);
    request.over_limit = true;
    bed.handle(request).await.expect(429);
    assert!(bed.pages.api.asked_by.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_roles_limit_counts_verifications_of_tokens_that_are_used_without_a_login() {
    let bed = Bed::with_pods().await;
    bed.root(Update, "auth/kubernetes/prod/role/shop.orders", json!({"allow_direct": true}))
        .await
        .expect(204);
    let place = json!({"rate": 1, "interval": "1h", "path": "auth/kubernetes/prod", "role": "shop.orders"});
    quota(&bed, "r", place).await;
    let first = direct(&bed, "pod-1");
    for _ in 0..3 {
        bed.get("auth/token/lookup-self", &first).await.expect(200);
    }
    for token in [direct(&bed, "pod-2"), direct(&bed, "pod-3")] {
        bed.get("auth/token/lookup-self", &token).await.expect(429);
    }
    bed.try_login("pod-4").await.expect(429);
    bed.get("auth/token/lookup-self", &first).await.expect(200);
}
