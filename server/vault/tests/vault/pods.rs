//! Kubernetes logins: who gets in, who does not, and the end of a pod.

use crate::bed;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bed::issuer::Issuer;
use bed::{Bed, hours};
use coffer_vault::{Clock, Operation};
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

#[tokio::test]
async fn a_login_carries_the_pods_identity() {
    let bed = Bed::with_pods().await;
    let auth = bed.try_login("pod-1").await.expect(200);
    let metadata = &auth.body["auth"]["metadata"];
    assert_eq!(metadata["pod_uid"], "pod-1");
    assert_eq!(metadata["service_account_namespace"], "shop");
    assert_eq!(metadata["role"], "shop.orders");
    assert_eq!(auth.body["auth"]["lease_duration"], 7200);
    let looked = bed.get("auth/token/lookup-self", &auth.text("/auth/client_token")).await.expect(200);
    assert_eq!(looked.body["data"]["meta"]["pod_name"], "orders-pod-1");
    assert_eq!(looked.body["data"]["policies"], json!(["default", "k8s/prod/shop/dsec/orders"]));
}

#[tokio::test]
async fn tokens_that_must_not_be_believed() {
    let bed = Bed::with_pods().await;
    let now = bed_now(&bed);
    let good = bed.cluster.claims("shop", "orders", "pod-1", now);
    let with = |pointer: &str, value: Value| {
        let mut claims = good.clone();
        *claims.pointer_mut(pointer).unwrap() = value;
        bed.cluster.jwt(&claims)
    };
    for (why, jwt) in [
        ("other audience", with("/aud", json!(["vault"]))),
        ("other issuer", with("/iss", json!("https://elsewhere"))),
        ("expired", with("/exp", json!(now.as_secs() - 1))),
        ("not yet", with("/nbf", json!(now.as_secs() + 600))),
        ("lives too long", with("/exp", json!(now.as_secs() + 25 * 3600))),
        ("other subject", with("/sub", json!("system:serviceaccount:shop:admin"))),
        ("other account", bed.cluster.jwt(&bed.cluster.claims("shop", "admin", "pod-1", now))),
        ("other namespace", bed.cluster.jwt(&bed.cluster.claims("shop2", "orders", "pod-1", now))),
        ("other key", bed::Cluster::new().jwt(&good)),
        ("rubbish", "a.b.c".into()),
    ] {
        let answer = bed.login_with(&jwt).await;
        assert_eq!(answer.status, 403, "{why}: {answer:?}");
        assert_eq!(answer.body["errors"][0], "permission denied", "{why}");
    }
    bed.login_with(&bed.cluster.jwt(&good)).await.expect(200);
    let mut no_audience = good.clone();
    no_audience.as_object_mut().unwrap().remove("aud");
    bed.login_with(&bed.cluster.jwt(&no_audience)).await.expect(403);
    let why: Vec<String> = bed.audit_records().into_iter().filter_map(|r| r.error).collect();
    assert!(why.iter().any(|w| w.contains("invalid audience")), "{why:?}");
}

#[tokio::test]
async fn a_pods_token_does_not_choose_how_it_is_verified() {
    let cluster = Issuer::new(Algorithm::RS256);
    let bed = Bed::with_pods().await;
    let claims = bed.cluster.claims("shop", "orders", "pod-1", bed_now(&bed));
    let good = cluster.jwt(&claims);
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let headed = |header: Value, signature: &str| {
        let (_, payload) = signed.split_once('.').unwrap();
        format!("{}.{payload}.{signature}", URL_SAFE_NO_PAD.encode(header.to_string()))
    };
    let symmetric = |secret: &[u8]| {
        let header = jsonwebtoken::Header { kid: Some("k1".into()), ..Default::default() };
        jsonwebtoken::encode(&header, &claims, &jsonwebtoken::EncodingKey::from_secret(secret)).unwrap()
    };
    let other = Issuer::new(Algorithm::RS256);
    let wrong = [
        headed(json!({"alg": "none", "kid": "k1"}), ""),
        headed(json!({"alg": "none", "kid": "k1"}), signature),
        headed(json!({"alg": "RS512", "kid": "k1"}), signature),
        headed(json!({"alg": "ES256", "kid": "k1"}), signature),
        headed(json!({"alg": "RS256", "kid": "k1", "typ": "at+jwt"}), signature),
        format!("{signed}."),
        // The public key as the secret.
        symmetric(cluster.public_pem().as_bytes()),
        symmetric(cluster.jwks().as_bytes()),
        cluster.signed(&json!({"alg": "HS256", "kid": "k1"}), &claims),
        cluster.signed(&json!({"alg": "RS256", "kid": "k2"}), &claims),
        cluster.signed(&json!({"alg": "RS256", "kid": "k1", "crit": ["exp"]}), &claims),
        // A key that it brings along.
        other.signed(&json!({"alg": "RS256", "kid": "k1", "jwk": other.jwk()}), &claims),
    ];
    let keys = [
        json!({"jwks": cluster.jwks()}),
        json!({"pem_keys": [cluster.public_pem()], "verification": "local"}),
    ];
    for (keys, named) in keys.into_iter().zip([true, false]) {
        let mut config = json!({"issuer": bed::cluster::ISSUER, "kubernetes_host": "https://k8s"});
        config.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
        bed.root(Operation::Update, "auth/kubernetes/prod/config", config).await.expect(204);
        for (at, jwt) in wrong.iter().enumerate() {
            // Keys in PEM have no names.
            let status = if at == 9 && !named { 200 } else { 403 };
            bed.login_with(jwt).await.expect(status);
        }
        bed.login_with(&good).await.expect(200);
    }
}

fn bed_now(bed: &Bed) -> coffer_core::time::Timestamp {
    use coffer_vault::Clock as _;
    bed.clock.now()
}

#[tokio::test]
async fn a_revoked_pod_loses_everything_and_stays_out() {
    let bed = Bed::with_pods().await;
    let (first, second) = (bed.login("pod-1").await, bed.login("pod-1").await);
    let other = bed.login("pod-2").await;
    let (_, account) = bed.issue(&first).await;
    let (_, others) = bed.issue(&other).await;
    let pods = bed.root(Operation::Read, "auth/kubernetes/prod/pods", Value::Null).await.expect(200);
    let list = pods.body["data"]["pods"].as_array().unwrap();
    assert_eq!(list[0], json!({"uid": "pod-1", "name": "orders-pod-1", "namespace": "shop", "tokens": 2}));
    assert_eq!(list.len(), 2);

    bed.root(Operation::Update, "auth/kubernetes/prod/revoke-pod", json!({"uid": "pod-1"})).await.expect(204);
    for dead in [&first, &second] {
        bed.get("auth/token/lookup-self", dead).await.expect(403);
    }
    assert!(!bed.database.has(&account));
    assert!(bed.database.has(&others));
    bed.try_login("pod-1").await.expect(403);
    bed.get("auth/token/lookup-self", &other).await.expect(200);
    bed.root(Operation::Update, "auth/kubernetes/prod/revoke-pod", json!({"uid": "never-seen"}))
        .await
        .expect(204);

    bed.advance(hours(49)).await;
    bed.sweep().await;
    bed.try_login("pod-1").await.expect(200);
}

#[tokio::test]
async fn a_boundary_limits_whatever_the_policies_say() {
    let bed = Bed::with_pods().await;
    bed.root(Operation::Update, "sys/policies/acl/wide", json!({"policy": "path \"*\" { capabilities = [\"create\", \"read\", \"update\", \"list\", \"sudo\"] }"}))
        .await
        .expect(204);
    let role = json!({"token_policies": ["wide"]});
    bed.root(Operation::Update, "auth/kubernetes/prod/role/shop.orders", role).await.expect(204);
    let boundary = r#"path "secret/data/{{auth.metadata.service_account_namespace}}/*" { capabilities = ["read", "create"] }"#;
    bed.root(Operation::Update, "sys/policies/acl/k8s/prod/boundary", json!({"policy": boundary}))
        .await
        .expect(204);
    let unbounded = bed.login("pod-0").await;
    bed.get("secret/data/other/x", &unbounded).await.expect(404);
    let tune = json!({"token_boundary_policy": "k8s/prod/boundary"});
    bed.root(Operation::Update, "sys/auth/kubernetes/prod/tune", tune).await.expect(204);
    let tuned = bed.root(Operation::Read, "sys/auth/kubernetes/prod/tune", Value::Null).await.expect(200);
    assert_eq!(tuned.body["data"]["token_boundary_policy"], "k8s/prod/boundary");

    let token = bed.login("pod-1").await;
    bed.post("secret/data/shop/x", &token, json!({"data": {"a": "b"}})).await.expect(200);
    bed.get("secret/data/shop/x", &token).await.expect(200);
    bed.get("secret/data/other/x", &token).await.expect(403);
    bed.get("sys/mounts", &token).await.expect(403);
    bed.post("auth/token/create", &token, json!({})).await.expect(403);
    bed.get("auth/token/lookup-self", &token).await.expect(200);
    bed.post("auth/token/renew-self", &token, json!({})).await.expect(200);
    // An edit of the default policy crosses no boundary.
    bed.root(
        Operation::Update,
        "sys/policies/acl/default",
        json!({"policy": "path \"secret/*\" { capabilities = [\"read\"] }"}),
    )
    .await
    .expect(204);
    bed.get("secret/data/other/x", &token).await.expect(403);
    // Without its boundary a token can do nothing but look after itself.
    bed.root(Operation::Delete, "sys/policies/acl/k8s/prod/boundary", Value::Null).await.expect(204);
    bed.get("secret/data/shop/x", &token).await.expect(403);
    bed.get("auth/token/lookup-self", &token).await.expect(200);
}

#[tokio::test]
async fn a_policy_change_is_in_force_at_once() {
    let bed = Bed::with_pods().await;
    let token = bed.login("pod-1").await;
    bed.get("secret/data/shop/x", &token).await.expect(404);
    let path = "sys/policies/acl/k8s/prod/shop/dsec/orders";
    bed.root(Operation::Update, path, json!({"policy": "# nothing"})).await.expect(204);
    bed.get("secret/data/shop/x", &token).await.expect(403);
    let listed = bed.root(Operation::List, "sys/policies/acl/k8s/prod/shop/", Value::Null).await.expect(200);
    assert_eq!(listed.body["data"]["keys"], json!(["dsec/"]));
    bed.root(Operation::Delete, path, Value::Null).await.expect(204);
    bed.root(Operation::Read, path, Value::Null).await.expect(404);
}

#[tokio::test]
async fn disabling_an_auth_mount_ends_its_tokens() {
    let bed = Bed::with_pods().await;
    let token = bed.login("pod-1").await;
    let (_, account) = bed.issue(&token).await;
    bed.root(Operation::Delete, "sys/auth/kubernetes/prod", Value::Null).await.expect(204);
    bed.get("auth/token/lookup-self", &token).await.expect(403);
    assert!(!bed.database.has(&account));
    bed.try_login("pod-2").await.expect(403);
    bed.root(Operation::Update, "sys/auth/kubernetes/prod", json!({"type": "kubernetes"})).await.expect(204);
    bed.root(Operation::Read, "auth/kubernetes/prod/config", Value::Null).await.expect(404);
}

#[tokio::test]
async fn roles_must_say_whom_they_are_for() {
    let bed = Bed::with_pods().await;
    let path = "auth/kubernetes/prod/role/r";
    let good = json!({"bound_service_account_names": ["a"], "bound_service_account_namespaces": ["n"], "audience": "coffer"});
    for (field, value) in [
        ("audience", json!("")),
        ("bound_service_account_names", json!([])),
        ("bound_service_account_namespaces", json!("n,*")),
        ("token_bound_cidrs", json!(["10.0.0.0/99"])),
        ("token_policies", json!(["root"])),
    ] {
        let mut body = good.clone();
        body[field] = value;
        bed.root(Operation::Update, path, body).await.expect(400);
    }
    bed.root(Operation::Update, path, good).await.expect(204);
    let listed = bed.root(Operation::List, "auth/kubernetes/prod/role/", Value::Null).await.expect(200);
    assert_eq!(listed.body["data"]["keys"], json!(["r", "shop.orders"]));
    bed.root(Operation::Delete, path, Value::Null).await.expect(204);
    bed.root(Operation::Read, path, Value::Null).await.expect(404);
    bed.advance(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn tokens_bound_to_addresses_work_from_there_only_and_so_do_their_children() {
    let bed = Bed::with_pods().await;
    let path = "auth/kubernetes/prod/role/shop.orders";
    let role = json!({"token_bound_cidrs": ["10.0.0.0/8", "127.0.0.1"], "token_num_uses": 0});
    bed.root(Operation::Update, path, role).await.expect(204);
    let role = bed.root(Operation::Read, path, Value::Null).await.expect(200);
    assert_eq!(role.body["data"]["token_bound_cidrs"], json!(["10.0.0.0/8", "127.0.0.1"]));
    let token = bed.login("pod-1").await;
    let looked = bed.get("auth/token/lookup-self", &token).await.expect(200);
    assert_eq!(looked.body["data"]["bound_cidrs"], json!(["10.0.0.0/8", "127.0.0.1"]));
    let from = async |token: &str, ip: [u8; 4]| {
        let mut request = bed.request(Operation::Read, "auth/token/lookup-self", Some(token), Value::Null);
        request.client_ip = ip.into();
        bed.handle(request).await.status
    };
    assert_eq!(from(&token, [127, 0, 0, 1]).await, 200);
    assert_eq!(from(&token, [192, 168, 0, 1]).await, 403);
    let jwt = bed.cluster.jwt(&bed.cluster.claims("shop", "orders", "pod-1", bed.clock.now()));
    let body = json!({"role": "shop.orders", "jwt": jwt});
    let mut login = bed.request(Operation::Update, "auth/kubernetes/prod/login", None, body);
    login.client_ip = [192, 168, 0, 1].into();
    bed.handle(login).await.expect(403);
    bed.root(
        Operation::Update,
        "sys/policies/acl/k8s/prod/shop/dsec/orders",
        json!({"policy":
        r#"path "auth/token/create" { capabilities = ["update"] }"#}),
    )
    .await
    .expect(204);
    let child = bed.post("auth/token/create", &token, json!({})).await.expect(200).text("/auth/client_token");
    assert_eq!(from(&child, [10, 0, 0, 1]).await, 200);
    assert_eq!(from(&child, [192, 168, 0, 1]).await, 403);
}
