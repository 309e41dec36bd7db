//! Kubernetes logins that a cluster's API server has a say in.

use coffer_vault::Clock as _;
use coffer_vault::Operation::{Read, Update};
use serde_json::{Value, json};

use crate::bed::{self, Answer, Bed, cluster};

const MOUNT: &str = "auth/kubernetes/prod";

/// A vault with pods whose tokens are verified in this way.
async fn verifying(config: Value) -> Bed {
    let bed = Bed::with_pods().await;
    let mut body = json!({"kubernetes_host": "https://k8s", "kubernetes_ca_cert": "PEM"});
    body.as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
    bed.root(Update, &format!("{MOUNT}/config"), body).await.expect(204);
    bed
}

fn claims(bed: &Bed) -> Value {
    bed.cluster.claims("shop", "orders", "pod-1", bed.clock.now())
}

#[track_caller]
fn refused(bed: &Bed, answer: &Answer, why: &str) {
    assert_eq!(answer.status, 403, "{answer:?}");
    assert_eq!(answer.body["errors"], json!(["permission denied"]));
    let said = bed.audit_records().pop().unwrap().error.unwrap_or_default();
    assert!(said.contains(why), "{why}: {said}");
}

#[tokio::test]
async fn a_token_is_believed_when_the_api_server_believes_it() {
    let bed = verifying(json!({})).await;
    let claims = claims(&bed);
    // Another's signature: nothing but the API server's word counts here.
    let jwt = bed::Cluster::new().jwt(&claims);
    refused(&bed, &bed.login_with(&jwt).await, "does not believe the JWT");
    bed.pages.api.believe(&jwt, &claims);
    let answer = bed.login_with(&jwt).await.expect(200);
    assert_eq!(answer.body["auth"]["metadata"]["pod_uid"], "pod-1");
    assert_eq!(*bed.pages.api.asked_by.lock().unwrap(), ["own", "own"]);
    bed.pages.api.forget(&jwt);
    refused(&bed, &bed.login_with(&jwt).await, "does not believe the JWT");
}

#[tokio::test]
async fn what_the_api_server_says_must_be_what_the_token_says() {
    let bed = verifying(json!({})).await;
    let claims = claims(&bed);
    let jwt = bed.cluster.jwt(&claims);
    bed.pages.api.believe(&jwt, &claims);
    let good = |change: &dyn Fn(&mut Value)| {
        let mut status = json!({
            "authenticated": true, "audiences": ["coffer"],
            "user": {"username": "system:serviceaccount:shop:orders", "uid": "sa-orders", "extra": {
                "authentication.kubernetes.io/pod-uid": ["pod-1"]}},
        });
        change(&mut status);
        status
    };
    for (status, why) in [
        (good(&|s| s["authenticated"] = json!(false)), "does not believe the JWT"),
        (json!({}), "does not believe the JWT"),
        (good(&|s| s["audiences"] = json!(["https://kubernetes.default.svc"])), "for this audience"),
        (good(&|s| s["audiences"] = json!([])), "for this audience"),
        (good(&|s| s["user"]["username"] = json!("system:serviceaccount:shop:admin")), "by another name"),
        (good(&|s| s["user"]["username"] = json!("admin")), "by another name"),
        (good(&|s| s["user"]["uid"] = json!("other")), "by another name"),
        (
            good(&|s| s["user"]["extra"] = json!({"authentication.kubernetes.io/pod-uid": ["pod-2"]})),
            "another UID",
        ),
    ] {
        bed.pages.api.say(&jwt, status);
        refused(&bed, &bed.login_with(&jwt).await, why);
    }
    bed.pages.api.say(&jwt, good(&|s| s["user"]["extra"] = json!({})));
    bed.login_with(&jwt).await.expect(200);
}

#[tokio::test]
async fn the_api_server_is_not_asked_about_what_is_wrong_anyway() {
    let bed = verifying(json!({"issuer": cluster::ISSUER, "verification": "token_review"})).await;
    let now = bed.clock.now().as_secs();
    for (field, value, why) in [
        ("aud", json!(["elsewhere"]), "invalid audience"),
        ("iss", json!("https://elsewhere"), "invalid issuer"),
        ("exp", json!(now), "token is expired"),
        ("exp", json!(now + 25 * 3600), "longer than 24 hours"),
        ("sub", json!("system:serviceaccount:shop:admin"), "contradicts itself"),
        ("kubernetes.io", Value::Null, "not of a ServiceAccount"),
        (
            "kubernetes.io",
            json!({"namespace": "../x", "serviceaccount": {"name": "a", "uid": "u"}}),
            "contradicts",
        ),
    ] {
        let mut claims = claims(&bed);
        claims[field] = value;
        let jwt = bed.cluster.jwt(&claims);
        bed.pages.api.believe(&jwt, &claims);
        refused(&bed, &bed.login_with(&jwt).await, why);
    }
    // A token without an end is none, whatever the API server thinks of it.
    let mut endless = claims(&bed);
    endless.as_object_mut().unwrap().remove("exp");
    let jwt = bed.cluster.jwt(&endless);
    bed.pages.api.believe(&jwt, &endless);
    refused(&bed, &bed.login_with(&jwt).await, "no expiration time");
    assert!(bed.pages.api.asked_by.lock().unwrap().is_empty());
}

#[tokio::test]
async fn with_both_the_signature_must_be_right_and_the_pod_must_be_there() {
    let bed = Bed::with_pods().await;
    let config = json!({
        "kubernetes_host": "https://k8s", "issuer": cluster::ISSUER, "jwks": bed.cluster.jwks(), "verification": "both",
    });
    bed.root(Update, &format!("{MOUNT}/config"), config).await.expect(204);
    let claims = claims(&bed);
    let (own, others) = (bed.cluster.jwt(&claims), bed::Cluster::new().jwt(&claims));
    bed.pages.api.believe(&others, &claims);
    refused(&bed, &bed.login_with(&others).await, "no known key");
    refused(&bed, &bed.login_with(&own).await, "does not believe the JWT");
    bed.pages.api.believe(&own, &claims);
    bed.login_with(&own).await.expect(200);
}

#[tokio::test]
async fn the_api_server_is_asked_as_whom_the_mount_says() {
    let reviewer = bed::Cluster::new().jwt(&json!({"sub": "reviewer"}));
    for (config, by) in [
        (json!({}), Some("own".to_owned())),
        (json!({"token_reviewer_jwt": reviewer}), Some(reviewer.clone())),
        (json!({"token_reviewer_jwt": reviewer, "disable_local_ca_jwt": true}), Some(reviewer.clone())),
        (json!({"disable_local_ca_jwt": true}), None),
    ] {
        let bed = verifying(config.clone()).await;
        let claims = claims(&bed);
        let jwt = bed.cluster.jwt(&claims);
        bed.pages.api.believe(&jwt, &claims);
        bed.login_with(&jwt).await.expect(200);
        let by = by.unwrap_or_else(|| jwt.clone());
        assert_eq!(*bed.pages.api.asked_by.lock().unwrap(), [by], "{config}");
        let read = bed.root(Read, &format!("{MOUNT}/config"), Value::Null).await.expect(200);
        let given = config.get("token_reviewer_jwt").is_some();
        assert_eq!(read.body["data"]["token_reviewer_jwt_set"], given);
        assert!(!read.body.to_string().contains(&reviewer), "it is never shown");
        // The caller himself may be nobody there; the vault may not be.
        let expected = if config.get("disable_local_ca_jwt").is_some() && !given { 403 } else { 503 };
        for status in [401, 403] {
            *bed.pages.api.refuses.lock().unwrap() = Some(status);
            bed.login_with(&jwt).await.expect(expected);
        }
        *bed.pages.api.refuses.lock().unwrap() = Some(500);
        bed.login_with(&jwt).await.expect(503);
    }
}

#[tokio::test]
async fn namespaces_are_chosen_by_pattern_or_by_their_labels() {
    let bed = Bed::with_pods().await;
    let role = json!({
        "bound_service_account_names": "ord*", "bound_service_account_namespaces": "sho*,x-*-y", "audience": "coffer",
        "bound_service_account_namespace_selector": "matchLabels:\n  team: blue\n",
    });
    bed.root(Update, &format!("{MOUNT}/role/Some"), role).await.expect(204);
    bed.pages.api.label("blue", json!({"team": "blue"}));
    bed.pages.api.label("red", json!({"team": "red"}));
    for (namespace, account, fits) in [
        ("shop", "orders", true),
        ("x-1-y", "orders", true),
        ("blue", "orders", true),
        ("red", "orders", false),
        ("none", "orders", false),
        ("shop", "admin", false),
        ("blue", "admin", false),
    ] {
        let jwt = bed.cluster.jwt(&bed.cluster.claims(namespace, account, "pod-1", bed.clock.now()));
        let body = json!({"role": "SOME", "jwt": jwt});
        let answer = bed.send(Update, &format!("{MOUNT}/login"), None, body).await;
        assert_eq!(answer.status, if fits { 200 } else { 403 }, "{namespace} {account}: {answer:?}");
    }
    // Without the API server nobody is admitted by labels, and the others are as before.
    *bed.pages.api.refuses.lock().unwrap() = Some(403);
    for (namespace, status) in [("shop", 200), ("blue", 503)] {
        let jwt = bed.cluster.jwt(&bed.cluster.claims(namespace, "orders", "pod-1", bed.clock.now()));
        bed.send(Update, &format!("{MOUNT}/login"), None, json!({"role": "some", "jwt": jwt}))
            .await
            .expect(status);
    }
    for (field, value, why) in [
        ("bound_service_account_namespace_selector", "{}", "invalid"),
        ("bound_service_account_namespaces", "a,*", "can not mix"),
        ("bound_service_account_names", "a,*", "can not mix"),
        ("alias_name_source", "x", "invalid alias_name_source"),
    ] {
        let answer = bed.root(Update, &format!("{MOUNT}/role/some"), json!({field: value})).await.expect(400);
        assert!(answer.text("/errors/0").contains(why), "{answer:?}");
    }
}

#[tokio::test]
async fn a_service_account_is_one_by_its_uid_or_by_its_name() {
    let bed = Bed::with_pods().await;
    let login = async |uid: &str| {
        let mut claims = claims(&bed);
        claims["kubernetes.io"]["serviceaccount"]["uid"] = json!(uid);
        bed.login_with(&bed.cluster.jwt(&claims)).await.expect(200).text("/auth/entity_id")
    };
    assert_ne!(login("u1").await, login("u2").await);
    let role = json!({"alias_name_source": "serviceaccount_name"});
    bed.root(Update, &format!("{MOUNT}/role/shop.orders"), role).await.expect(204);
    let entity = login("u3").await;
    assert_eq!(login("u4").await, entity);
    let read = bed.root(Read, &format!("identity/entity/id/{entity}"), Value::Null).await.expect(200);
    assert_eq!(read.body["data"]["aliases"][0]["name"], "shop/orders");
    assert_eq!(read.body["data"]["aliases"][0]["metadata"]["service_account_uid"], "u4");
}

#[tokio::test]
async fn settings_say_who_is_believed_or_are_refused() {
    let bed = Bed::with_pods().await;
    let path = format!("{MOUNT}/config");
    let pem = crate::bed::issuer::Issuer::new(jsonwebtoken::Algorithm::ES256).public_pem();
    for (body, why) in [
        (json!({}), "no host provided"),
        (json!({"kubernetes_host": "k8s:443"}), "must be an https:// URL"),
        (json!({"issuer": "i"}), "no host provided"),
        (json!({"kubernetes_host": "https://k8s", "verification": "local"}), "missing issuer"),
        (json!({"kubernetes_host": "https://k8s", "pem_keys": [pem]}), "missing issuer"),
        (json!({"kubernetes_host": "https://k8s", "issuer": "i", "pem_keys": ["x"]}), "valid public keys"),
        (
            json!({"kubernetes_host": "https://k8s", "issuer": "i", "pem_keys": [pem], "jwks": "{\"keys\":[]}"}),
            "at most",
        ),
        (
            json!({"kubernetes_host": "https://k8s", "token_reviewer_jwt": "x"}),
            "token_reviewer_jwt is not a JWT",
        ),
        (
            json!({"kubernetes_host": "https://k8s", "disable_local_ca_jwt": true}),
            "kubernetes_ca_cert must be given",
        ),
        (
            json!({"kubernetes_host": "https://k8s", "use_annotations_as_alias_metadata": true}),
            "not supported",
        ),
        (
            json!({"kubernetes_host": "https://k8s", "issuer": "i", "disable_iss_validation": true}),
            "not supported",
        ),
        (json!({"kubernetes_host": "https://k8s", "verification": "none"}), "verification must be"),
        // Keys that nothing would be verified with.
        (
            json!({"kubernetes_host": "https://k8s", "verification": "token_review", "pem_keys": [pem]}),
            "verifies no signature",
        ),
        (
            json!({"kubernetes_host": "https://k8s", "verification": "token_review", "jwks": "{\"keys\":[]}"}),
            "verifies no signature",
        ),
        (
            json!({"kubernetes_host": "https://k8s", "verification": "token_review", "jwks_url": "https://k8s/keys"}),
            "verifies no signature",
        ),
        (json!({"kubernetes_host": "https://k8s", "jwks": "{\"keys\":[]}"}), "missing issuer"),
        (json!({"kubernetes_host": "https://k8s", "jwks_url": "https://k8s/keys"}), "missing issuer"),
    ] {
        let answer = bed.root(Update, &path, body.clone()).await;
        assert_eq!(answer.status, 400, "{body}: {answer:?}");
        assert!(answer.text("/errors/0").contains(why), "{body}: {answer:?}");
    }
    for (body, verification) in [
        (json!({"kubernetes_host": "https://k8s"}), "token_review"),
        (json!({"kubernetes_host": "https://k8s", "disable_iss_validation": true}), "token_review"),
        (json!({"kubernetes_host": "https://k8s", "issuer": "i"}), "local"),
        (json!({"kubernetes_host": "https://k8s", "issuer": "i", "pem_keys": [pem]}), "both"),
        (json!({"issuer": "i", "pem_keys": [pem], "verification": "local"}), "local"),
    ] {
        bed.root(Update, &path, body.clone()).await.expect(204);
        let read = bed.root(Read, &path, Value::Null).await.expect(200);
        assert_eq!(read.body["data"]["verification"], verification, "{body}");
    }
}
