//! Batch tokens: nothing is kept of them, and still they end when what they hang from does. Token roles.

use crate::bed;

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bed::{Answer, Bed};
use coffer_vault::Operation;
use serde_json::{Value, json};

async fn policy(bed: &Bed, name: &str, text: &str) {
    let path = format!("sys/policies/acl/{name}");
    bed.root(Operation::Update, &path, json!({"policy": text})).await.expect(204);
}

/// A service token that may make others and read credentials.
async fn maker(bed: &Bed) -> String {
    let text = r#"path "auth/token/create*" { capabilities = ["update"] }
        path "database/creds/*" { capabilities = ["read"] }"#;
    policy(bed, "mk", text).await;
    create(bed, &bed.root, "create", json!({"policies": ["mk"]})).await.text("/auth/client_token")
}

async fn create(bed: &Bed, by: &str, how: &str, body: Value) -> Answer {
    bed.post(&format!("auth/token/{how}"), by, body).await.expect(200)
}

async fn batch(bed: &Bed, by: &str, how: &str, ttl: &str) -> String {
    create(bed, by, how, json!({"type": "batch", "ttl": ttl})).await.text("/auth/client_token")
}

async fn alive(bed: &Bed, token: &str) -> bool {
    bed.get("auth/token/lookup-self", token).await.status == 200
}

#[tokio::test]
async fn a_batch_token_has_vaults_shape_and_leaves_no_row() {
    let bed = Bed::with_pods().await;
    let maker = maker(&bed).await;
    let rows = bed.store.dump().len();
    let made = create(
        &bed,
        &maker,
        "create",
        json!({"type": "batch", "ttl": "10m", "meta": {"k": "a word of the metadata"}}),
    )
    .await;
    let token = made.text("/auth/client_token");
    let sealed = URL_SAFE_NO_PAD.decode(token.strip_prefix("b.").expect("Vault's prefix")).unwrap();
    assert!(!String::from_utf8_lossy(&sealed).contains("a word of the metadata"), "the token is sealed");
    let auth = &made.body["auth"];
    assert_eq!((&auth["accessor"], &auth["token_type"]), (&json!(""), &json!("batch")));
    assert_eq!((&auth["renewable"], &auth["orphan"]), (&json!(false), &json!(false)));
    assert_eq!(auth["lease_duration"], 600);
    bed.vault.trim().await.unwrap();
    assert!(bed.store.dump().len() <= rows + 1, "nothing is stored but the log's entries");
    let own = bed.get("auth/token/lookup-self", &token).await.expect(200);
    let data = &own.body["data"];
    assert_eq!((&data["type"], &data["accessor"], &data["id"]), (&json!("batch"), &json!(""), &json!(token)));
    assert_eq!(
        (&data["policies"], &data["meta"]),
        (&json!(["default", "mk"]), &json!({"k": "a word of the metadata"}))
    );
    let named = bed.root(Operation::Update, "auth/token/lookup", json!({"token": token})).await.expect(200);
    assert_eq!(named.body["data"]["creation_ttl"], 600);
    let cannot = [
        ("auth/token/renew-self", json!({}), "batch tokens cannot be renewed"),
        ("auth/token/revoke-self", json!({}), "batch tokens cannot be revoked"),
        ("auth/token/create", json!({}), "batch tokens cannot create more tokens"),
        ("cubbyhole/a", json!({"x": 1}), "cubbyhole operations are only supported by 'service' type tokens"),
    ];
    for (path, body, said) in cannot {
        assert_eq!(bed.post(path, &token, body).await.expect(400).text("/errors/0"), said);
    }
    for path in ["renew", "revoke", "revoke-orphan"] {
        bed.root(Operation::Update, &format!("auth/token/{path}"), json!({"token": token})).await.expect(400);
    }
    bed.advance(Duration::from_secs(600)).await;
    assert!(!alive(&bed, &token).await);
    bed.root(Operation::Update, "auth/token/lookup", json!({"token": token})).await.expect(403);
}

#[tokio::test]
async fn what_a_batch_token_cannot_have_is_refused() {
    let bed = Bed::new().await;
    for (body, said) in [
        (json!({}), "batch tokens cannot be root tokens"),
        (json!({"policies": ["a"], "num_uses": 3}), "batch tokens cannot have \"num_uses\" set"),
        (json!({"policies": ["a"], "period": "1h"}), "batch tokens cannot have \"period\" set"),
        (
            json!({"policies": ["a"], "explicit_max_ttl": "1h"}),
            "batch tokens cannot have \"explicit_max_ttl\" set",
        ),
        (
            json!({"policies": ["a"], "meta": {"k": "v".repeat(500), "l": "v".repeat(500), "m": "v".repeat(500),
            "n": "v".repeat(500), "o": "v".repeat(500), "p": "v".repeat(500), "q": "v".repeat(500),
            "r": "v".repeat(500), "s": "v".repeat(500), "t": "v".repeat(500), "u": "v".repeat(500),
            "v": "v".repeat(500), "w": "v".repeat(500)}}),
            "the batch token would be longer than 8192 bytes: fewer policies or less metadata",
        ),
    ] {
        let mut body = body;
        body["type"] = json!("batch");
        let answer = bed.root(Operation::Update, "auth/token/create", body).await.expect(400);
        assert_eq!(answer.text("/errors/0"), said);
    }
}

#[tokio::test]
async fn what_is_not_ours_or_was_changed_is_no_token() {
    let bed = Bed::new().await;
    let token = batch(&bed, &maker(&bed).await, "create", "1h").await;
    let other = Bed::new().await;
    assert!(alive(&bed, &token).await && !alive(&other, &token).await);
    let at = |n: usize| if token.as_bytes()[n] == b'A' { "B" } else { "A" };
    for n in (2..token.len()).step_by(7) {
        let changed = format!("{}{}{}", &token[..n], at(n), &token[n + 1..]);
        // The last character may hold bits that mean nothing.
        assert!(n + 1 == token.len() || !alive(&bed, &changed).await, "{n}");
    }
    for junk in ["b.", "b.AAAA", "b.%%%", &token[..token.len() - 4], &format!("{token}AAAA")] {
        assert!(!alive(&bed, junk).await);
    }
}

#[tokio::test]
async fn a_batch_token_ends_with_its_parent_and_so_do_its_leases() {
    let bed = Bed::with_pods().await;
    let grand = maker(&bed).await;
    let parent = create(&bed, &grand, "create", json!({})).await.text("/auth/client_token");
    let child = batch(&bed, &parent, "create", "1h").await;
    let orphan = batch(&bed, &parent, "create-orphan", "1h").await;
    let (lease, account) = bed.issue(&child).await;
    let (_, of_orphan) = bed.issue(&orphan).await;
    // It may look after its own leases, and nobody else's.
    bed.post("sys/leases/renew", &child, json!({"lease_id": lease})).await.expect(200);
    bed.post("sys/leases/revoke", &orphan, json!({"lease_id": lease})).await.expect(403);
    bed.root(Operation::Update, "auth/token/revoke", json!({"token": grand})).await.expect(204);
    assert!(!alive(&bed, &child).await && alive(&bed, &orphan).await);
    assert!(!bed.database.has(&account) && bed.database.has(&of_orphan));
    bed.get("database/creds/orders", &child).await.expect(403);
    bed.advance(Duration::from_secs(3600)).await;
    bed.sweep().await;
    assert!(!alive(&bed, &orphan).await && bed.database.accounts().is_empty());
}

#[tokio::test]
async fn a_batch_token_cannot_do_without_its_parent() {
    let bed = Bed::with_pods().await;
    let parent = maker(&bed).await;
    let used = batch(&bed, &parent, "create", "1h").await;
    let idle = batch(&bed, &parent, "create", "1h").await;
    let (_, account) = bed.issue(&used).await;
    bed.root(Operation::Update, "auth/token/revoke-orphan", json!({"token": parent})).await.expect(204);
    assert!(!alive(&bed, &used).await && !alive(&bed, &idle).await && !bed.database.has(&account));
}

async fn role(bed: &Bed, more: Value) {
    let mut role = json!({
        "bound_service_account_names": ["orders"], "bound_service_account_namespaces": ["shop"],
        "audience": "coffer", "token_policies": ["k8s/prod/shop/dsec/orders"],
        "token_ttl": "2h", "token_max_ttl": "72h", "token_type": "batch",
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        role[key] = value.clone();
    }
    bed.root(Operation::Update, "auth/kubernetes/prod/role/shop.orders", role).await.expect(204);
}

#[tokio::test]
async fn a_batch_token_of_a_login_ends_with_its_pod_its_role_and_its_mounts_boundary() {
    let bed = Bed::with_pods().await;
    role(&bed, json!({})).await;
    let token = bed.login("pod-1").await;
    let other = bed.login("pod-2").await;
    assert!(token.starts_with("b."));
    let (_, account) = bed.issue(&token).await;
    bed.root(Operation::Update, "auth/kubernetes/prod/revoke-pod", json!({"uid": "pod-1"})).await.expect(204);
    assert!(!alive(&bed, &token).await && !bed.database.has(&account));
    assert!(alive(&bed, &other).await);

    let (_, account) = bed.issue(&other).await;
    role(&bed, json!({"token_policies": ["less"]})).await;
    assert!(!alive(&bed, &other).await, "what its role gave is not what it gives now");
    bed.advance(Duration::from_secs(2 * 3600)).await;
    bed.sweep().await;
    assert!(!bed.database.has(&account), "it was over with the token's time at the latest");

    role(&bed, json!({})).await;
    let third = bed.login("pod-3").await;
    assert!(alive(&bed, &third).await);
    policy(&bed, "edge", r#"path "database/*" { capabilities = ["read"] }"#).await;
    let tune = json!({"token_boundary_policy": "edge"});
    bed.root(Operation::Update, "sys/auth/kubernetes/prod/tune", tune).await.expect(204);
    assert!(!alive(&bed, &third).await);
    let fourth = bed.login("pod-4").await;
    bed.issue(&fourth).await;
    bed.root(Operation::Delete, "sys/auth/kubernetes/prod", Value::Null).await.expect(204);
    assert!(!alive(&bed, &fourth).await && bed.database.accounts().is_empty());

    let bed = Bed::with_pods().await;
    role(&bed, json!({"token_ttl": "72h"})).await;
    let login = bed.try_login("pod-5").await.expect(200);
    assert_eq!(login.body["auth"]["lease_duration"], 24 * 3600, "the tombstone of its pod outlives it");
}

#[tokio::test]
async fn roles_say_what_is_made_by_them() {
    let bed = Bed::new().await;
    let write = async |name: &str, body: Value| {
        bed.root(Operation::Update, &format!("auth/token/roles/{name}"), body).await
    };
    write("plain", json!({})).await.expect(204);
    let shown = bed.root(Operation::Read, "auth/token/roles/plain", Value::Null).await.expect(200);
    let wanted = json!({
        "allowed_entity_aliases": null, "allowed_policies": [], "allowed_policies_glob": [],
        "disallowed_policies": [], "disallowed_policies_glob": [], "explicit_max_ttl": 0, "name": "plain",
        "orphan": false, "path_suffix": "", "period": 0, "renewable": true, "token_explicit_max_ttl": 0,
        "token_no_default_policy": false, "token_period": 0, "token_type": "default-service",
    });
    assert_eq!(shown.body["data"], wanted);
    write("old", json!({"period": "10m", "explicit_max_ttl": "1h", "bound_cidrs": "10.0.0.0/8"}))
        .await
        .expect(204);
    let shown = bed.root(Operation::Read, "auth/token/roles/old", Value::Null).await.expect(200);
    for (name, value) in [("period", 600), ("token_period", 600), ("explicit_max_ttl", 3600)] {
        assert_eq!(shown.body["data"][name], value, "{name}");
    }
    assert_eq!(shown.body["data"]["bound_cidrs"], json!(["10.0.0.0/8"]));
    for (body, said) in [
        (json!({"token_type": "foo"}), "invalid 'token_type' value \"foo\""),
        (
            json!({"token_type": "batch"}),
            "'token_type' cannot be 'batch' when role is set to generate non-orphan tokens",
        ),
        (
            json!({"token_type": "batch", "orphan": true, "renewable": false, "token_period": "1h"}),
            "'token_type' cannot be 'batch' when role is set to generate periodic tokens",
        ),
        (
            json!({"path_suffix": "a/b"}),
            "given role path suffix contains invalid characters; must match \\w[\\w-.]+\\w",
        ),
    ] {
        assert_eq!(write("bad", body).await.expect(400).text("/errors/0"), said);
    }
    let full = json!({
        "allowed_policies": "dev,prod", "disallowed_policies_glob": "y*", "allowed_policies_glob": ["d*", "y*"],
        "orphan": true, "renewable": false, "path_suffix": "abc", "token_explicit_max_ttl": 7200,
        "token_no_default_policy": true, "token_num_uses": 3, "token_period": "1h",
    });
    write("full", full).await.expect(204);
    let made = create(&bed, &bed.root, "create/full", json!({})).await;
    let auth = &made.body["auth"];
    assert_eq!((&auth["policies"], &auth["num_uses"]), (&json!(["dev", "prod"]), &json!(3)));
    assert_eq!((&auth["orphan"], &auth["renewable"]), (&json!(true), &json!(false)));
    assert_eq!(auth["lease_duration"], 3600);
    let named = json!({"token": made.text("/auth/client_token")});
    let looked = bed.root(Operation::Update, "auth/token/lookup", named).await.expect(200);
    assert_eq!(looked.text("/data/path"), "auth/token/create/full/abc");
    assert_eq!(looked.text("/data/role"), "full");
    create(&bed, &bed.root, "create/full", json!({"policies": ["dx"]})).await;
    for (policies, said) in [
        (
            json!(["zzz"]),
            "token policies ([\"zzz\"]) must be subset of the role's allowed policies ([\"dev\" \"prod\"]) or glob policies ([\"d*\" \"y*\"])",
        ),
        (json!(["yes"]), "token policy \"yes\" is disallowed by this role"),
    ] {
        let answer =
            bed.root(Operation::Update, "auth/token/create/full", json!({"policies": policies})).await;
        assert_eq!(answer.expect(400).text("/errors/0"), said);
    }
    let absent = bed.root(Operation::Update, "auth/token/create/none", json!({})).await.expect(400);
    assert_eq!(absent.text("/errors/0"), "unknown role none");
    let listed = bed.root(Operation::List, "auth/token/roles", Value::Null).await.expect(200);
    assert_eq!(listed.body["data"]["keys"], json!(["full", "old", "plain"]));
    bed.root(Operation::Read, "auth/token/roles/none", Value::Null).await.expect(404);
    bed.root(Operation::Delete, "auth/token/roles/none", Value::Null).await.expect(204);
    bed.root(Operation::Delete, "auth/token/roles/old", Value::Null).await.expect(204);
    bed.root(Operation::Read, "auth/token/roles/old", Value::Null).await.expect(404);
}

#[tokio::test]
async fn by_a_role_a_token_gets_what_its_maker_has_not_and_a_change_of_it_ends_its_batch_tokens() {
    let bed = Bed::new().await;
    let maker = maker(&bed).await;
    let role = json!({"allowed_policies": "far", "orphan": true, "renewable": false, "token_type": "batch"});
    bed.root(Operation::Update, "auth/token/roles/far", role.clone()).await.expect(204);
    let made = create(&bed, &maker, "create/far", json!({})).await;
    assert_eq!(made.body["auth"]["policies"], json!(["default", "far"]));
    let token = made.text("/auth/client_token");
    assert!(token.starts_with("b.") && alive(&bed, &token).await);
    bed.root(Operation::Update, "auth/token/roles/far", role).await.expect(204);
    assert!(alive(&bed, &token).await, "the same was written again");
    let less = json!({"allowed_policies": "near"});
    bed.root(Operation::Update, "auth/token/roles/far", less).await.expect(204);
    assert!(!alive(&bed, &token).await);
}

#[tokio::test]
async fn what_a_role_limits_is_limited_whatever_is_asked_for() {
    let bed = Bed::with_pods().await;
    let write = async |name: &str, body: Value| {
        bed.root(Operation::Update, &format!("auth/token/roles/{name}"), body).await.expect(204);
    };
    // Uses that nobody would count.
    write("once", json!({"allowed_policies": "p", "token_num_uses": 1})).await;
    let answer = bed.root(Operation::Update, "auth/token/create/once", json!({"type": "batch"})).await;
    assert_eq!(answer.expect(400).text("/errors/0"), "batch tokens cannot have \"num_uses\" set");
    // Addresses: the narrower of role and parent, and none where they do not meet.
    write("near", json!({"token_bound_cidrs": "10.1.0.0/16"})).await;
    write("far", json!({"token_bound_cidrs": "192.168.0.0/16"})).await;
    write("wide", json!({"token_bound_cidrs": "10.0.0.0/8"})).await;
    policy(&bed, "mk", r#"path "auth/token/create*" { capabilities = ["update"] }"#).await;
    let parent = create(&bed, &bed.root, "create/wide", json!({"policies": ["mk"]})).await;
    let parent = parent.text("/auth/client_token");
    let by_parent = async |role: &str, body: Value| {
        let path = format!("auth/token/create/{role}");
        let mut request = bed.request(Operation::Update, &path, Some(&parent), body);
        request.client_ip = [10, 1, 0, 1].into();
        bed.handle(request).await
    };
    let child = by_parent("near", json!({})).await.expect(200).text("/auth/client_token");
    let shown = bed.root(Operation::Update, "auth/token/lookup", json!({"token": child})).await.expect(200);
    assert_eq!(shown.body["data"]["bound_cidrs"], json!(["10.1.0.0/16"]));
    by_parent("far", json!({})).await.expect(400);
    // The default policy.
    write("bare", json!({"token_no_default_policy": true})).await;
    let made = create(&bed, &bed.root, "create/bare", json!({"policies": ["mk"]})).await;
    assert_eq!(made.body["auth"]["policies"], json!(["mk"]));
}

#[tokio::test]
async fn a_child_made_by_a_token_that_became_an_orphan_lives_on_with_it() {
    let bed = Bed::with_pods().await;
    policy(&bed, "mk", r#"path "auth/token/create*" { capabilities = ["update"] }"#).await;
    let top = create(&bed, &bed.root, "create", json!({"policies": ["mk"]})).await.text("/auth/client_token");
    let child = create(&bed, &top, "create", json!({})).await.text("/auth/client_token");
    // Known in memory with its old line of ancestors.
    assert!(alive(&bed, &child).await);
    bed.root(Operation::Update, "auth/token/revoke-orphan", json!({"token": top})).await.expect(204);
    let grandchild = create(&bed, &child, "create", json!({})).await.text("/auth/client_token");
    assert!(alive(&bed, &grandchild).await);
    bed.root(Operation::Update, "auth/token/revoke", json!({"token": child})).await.expect(204);
    assert!(!alive(&bed, &grandchild).await);
}
