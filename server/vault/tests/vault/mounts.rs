//! Mounts made, tuned, moved and removed, as clients see it and as the store has it.

use crate::bed;

use std::pin::pin;
use std::sync::atomic::Ordering::SeqCst;

use bed::Bed;
use coffer_vault::Operation::{Delete, Read, Update};
use serde_json::{Value, json};

async fn kv(bed: &Bed, path: &str) {
    bed.root(Update, &format!("sys/mounts/{path}"), json!({"type": "kv-v2"})).await.expect(204);
}

fn error(answer: &bed::Answer) -> &str {
    answer.body["errors"][0].as_str().unwrap_or_default()
}

#[tokio::test]
async fn a_mount_is_shown_with_every_field_clients_know() {
    let bed = Bed::new().await;
    let config = json!({"default_lease_ttl": "1h", "max_lease_ttl": 7200, "listing_visibility": "unauth",
        "audit_non_hmac_request_keys": ["a", "b"], "passthrough_request_headers": "X-A,X-B", "force_no_cache": true});
    let body = json!({"type": "kv", "options": {"version": "2"}, "description": "d", "config": config,
        "local": true, "seal_wrap": true});
    bed.root(Update, "sys/mounts/a/b", body).await.expect(204);
    let shown = bed.root(Read, "sys/mounts/a/b", Value::Null).await.expect(200);
    let wanted = json!({"audit_non_hmac_request_keys": ["a", "b"], "default_lease_ttl": 3600,
        "force_no_cache": true, "listing_visibility": "unauth", "max_lease_ttl": 7200,
        "passthrough_request_headers": ["X-A", "X-B"]});
    assert_eq!(shown.body["data"]["config"], wanted);
    assert_eq!(shown.body["config"], wanted, "the keys are at the top level too");
    for (field, value) in [
        ("deprecation_status", json!("supported")),
        ("external_entropy_access", json!(false)),
        ("local", json!(true)),
        ("options", json!({"version": "2"})),
        ("plugin_version", json!("")),
        ("running_sha256", json!("")),
        ("seal_wrap", json!(true)),
        ("type", json!("kv")),
    ] {
        assert_eq!(shown.body["data"][field], value, "{field}");
    }
    assert!(uuid::Uuid::parse_str(&shown.text("/data/uuid")).is_ok());
    let all = bed.root(Read, "sys/mounts", Value::Null).await.expect(200);
    for (path, kind) in [
        ("a/b/", "kv"),
        ("secret/", "kv"),
        ("sys/", "system"),
        ("cubbyhole/", "cubbyhole"),
        ("identity/", "identity"),
    ] {
        assert_eq!(all.body["data"][path]["type"], kind);
    }
    let auth = bed.root(Read, "sys/auth", Value::Null).await.expect(200);
    assert_eq!(auth.body["token/"]["config"]["token_type"], "default-service");
    let tune = bed.root(Read, "sys/mounts/auth/token/tune", Value::Null).await.expect(200);
    assert_eq!(tune.body["data"]["default_lease_ttl"], 2_764_800);
}

#[tokio::test]
async fn wrong_mounts_are_refused_in_vaults_words() {
    let bed = Bed::new().await;
    kv(&bed, "x").await;
    kv(&bed, "deep/er").await;
    for (method, path, body, words) in [
        (Update, "sys/mounts/x", json!({"type": "kv-v2"}), "path is already in use at x/"),
        (Update, "sys/mounts/x/y", json!({"type": "kv-v2"}), "path is already in use at x/"),
        (Update, "sys/mounts/deep", json!({"type": "kv-v2"}), "path is already in use at deep/er/"),
        (Update, "sys/mounts/sys/a", json!({"type": "kv-v2"}), "cannot mount \"sys/a/\""),
        (Update, "sys/mounts/n", json!({"type": "nosuch"}), "plugin not found in the catalog: nosuch"),
        (Update, "sys/mounts/n", json!({}), "backend type must be specified as a string"),
        (
            Update,
            "sys/mounts/n",
            json!({"type": "cubbyhole"}),
            "mount type of \"cubbyhole\" is not mountable",
        ),
        (Update, "sys/auth/token", json!({"type": "kubernetes"}), "path is already in use at token/"),
        (
            Update,
            "sys/mounts/n",
            json!({"type": "kv-v2", "config": {"default_lease_ttl": "3h", "max_lease_ttl": "1h"}}),
            "given default lease TTL greater than given max lease TTL",
        ),
        (
            Update,
            "sys/mounts/n",
            json!({"type": "kv-v2", "config": {"listing_visibility": "bad"}}),
            "invalid listing_visibility bad",
        ),
        (Read, "sys/mounts/nope", json!({}), "No secret engine mount at nope/"),
        (Read, "sys/auth/nope", json!({}), "No auth engine at nope/"),
        (Read, "sys/mounts/nope/tune", json!({}), "cannot fetch sysview for path \"nope/\""),
        (Update, "sys/auth/nope/tune", json!({}), "tune of path \"auth/nope/\" failed: no mount entry found"),
        (
            Update,
            "sys/mounts/x/tune",
            json!({"options": {"version": "1"}}),
            "cannot downgrade mount from version 2",
        ),
        (
            Update,
            "sys/mounts/x/tune",
            json!({"token_type": "batch"}),
            "'token_type' can only be modified on auth mounts",
        ),
        (
            Update,
            "sys/mounts/sys/tune",
            json!({"description": "x"}),
            "cannot tune parameter description of sys/",
        ),
        (Delete, "sys/mounts/sys", json!({}), "cannot unmount \"sys/\""),
        (Delete, "sys/mounts/cubbyhole", json!({}), "cannot unmount \"cubbyhole/\""),
        (Delete, "sys/auth/token", json!({}), "token credential backend cannot be disabled"),
    ] {
        let answer = bed.root(method, path, body).await;
        assert_eq!((answer.status, error(&answer)), (400, words), "{path}");
    }
    bed.root(Delete, "sys/mounts/nope", json!({})).await.expect(204);
}

#[tokio::test]
async fn tuning_changes_what_is_given_and_nothing_else() {
    let bed = Bed::with_pods().await;
    let body = json!({"description": "new", "default_lease_ttl": "1h", "max_lease_ttl": "2h",
        "audit_non_hmac_response_keys": ["b"], "allowed_response_headers": ["X-B"], "options": {"o": "p"}});
    bed.root(Update, "sys/mounts/secret/tune", body).await.expect(204);
    bed.root(Update, "sys/mounts/secret/tune", json!({"max_lease_ttl": "system", "default_lease_ttl": 60}))
        .await
        .expect(204);
    let tune = bed.root(Read, "sys/mounts/secret/tune", Value::Null).await.expect(200).body["data"].clone();
    assert_eq!(
        tune,
        json!({"description": "new", "default_lease_ttl": 60, "max_lease_ttl": 2_764_800,
        "force_no_cache": false, "audit_non_hmac_response_keys": ["b"], "allowed_response_headers": ["X-B"],
        "options": {"o": "p", "version": "2"}})
    );
    let lockout = json!({"user_lockout_config": {"lockout_threshold": "7"}});
    let refused = bed.root(Update, "sys/auth/kubernetes/prod/tune", lockout).await.expect(400);
    assert!(error(&refused).contains("not allowed"), "{refused:?}");
    bed.root(Update, "sys/auth/token/tune", json!({"max_lease_ttl": "1h", "description": "short"}))
        .await
        .expect(204);
    let made = bed
        .root(Update, "auth/token/create", json!({"ttl": "10h", "policies": ["default"]}))
        .await
        .expect(200);
    assert_eq!(made.body["auth"]["lease_duration"], 3600, "what auth/token/ makes obeys its mount");
}

#[tokio::test]
async fn a_removed_mount_is_gone_at_once_and_its_rows_soon_also_across_a_crash() {
    let mut bed = Bed::new().await;
    kv(&bed, "gone").await;
    for n in 0..30 {
        bed.root(Update, &format!("gone/data/{n}"), json!({"data": {"a": "b"}})).await.expect(200);
    }
    let shown = bed.root(Read, "sys/mounts/gone", Value::Null).await.expect(200);
    let id = uuid::Uuid::parse_str(&shown.text("/data/uuid")).unwrap();
    let rows = |bed: &Bed| {
        let of_mount = |key: &[u8]| key.windows(16).any(|part| part == id.as_bytes());
        bed.store.dump().iter().filter(|row| of_mount(&row.0)).count()
    };
    assert!(rows(&bed) >= 60);
    bed.root(Delete, "sys/mounts/gone", Value::Null).await.expect(204);
    bed.root(Read, "gone/data/1", Value::Null).await.expect(404);
    assert!(bed.root(Read, "sys/mounts", Value::Null).await.body["data"].get("gone/").is_none());
    kv(&bed, "gone").await;
    bed.root(Read, "gone/data/1", Value::Null).await.expect(404);
    assert!(rows(&bed) >= 60, "the request did not wait for them");
    bed.restart().await;
    bed.sweep().await;
    assert_eq!(rows(&bed), 0, "nothing of the removed mount is left, its key neither");
    bed.root(Update, "gone/data/1", json!({"data": {"a": "new"}})).await.expect(200);
    bed.sweep().await;
    bed.root(Read, "gone/data/1", Value::Null).await.expect(200);
}

#[tokio::test]
async fn removing_a_mount_revokes_what_it_issued() {
    let bed = Bed::with_pods().await;
    let token = bed.login("uid-1").await;
    let (_, user) = bed.issue(&token).await;
    assert!(bed.database.accounts().contains(&user));
    bed.root(Delete, "sys/mounts/database", Value::Null).await.expect(204);
    assert!(bed.database.accounts().is_empty());
    bed.root(Delete, "sys/auth/kubernetes/prod", Value::Null).await.expect(204);
    bed.get("auth/token/lookup-self", &token).await.expect(403);
}

#[tokio::test]
async fn a_moved_mount_keeps_its_secrets_and_revokes_its_leases() {
    let bed = Bed::with_pods().await;
    bed.root(Update, "secret/data/a", json!({"data": {"k": "v"}})).await.expect(200);
    let moved =
        bed.root(Update, "sys/remount", json!({"from": "secret", "to": "kept/here"})).await.expect(200);
    let status = bed
        .root(Read, &format!("sys/remount/status/{}", moved.text("/data/migration_id")), Value::Null)
        .await;
    assert_eq!(
        status.expect(200).body["data"]["migration_info"],
        json!({"source_mount": "secret/", "target_mount": "kept/here/", "status": "success"})
    );
    bed.root(Read, "secret/data/a", Value::Null).await.expect(404);
    assert_eq!(bed.root(Read, "kept/here/data/a", Value::Null).await.expect(200).text("/data/data/k"), "v");
    let token = bed.login("uid-1").await;
    bed.issue(&token).await;
    bed.root(Update, "sys/remount", json!({"from": "database", "to": "db"})).await.expect(200);
    assert!(bed.database.accounts().is_empty());
    for (from, to, words) in [
        ("nope", "y", "no matching mount at \"nope/\""),
        ("db", "kept", "path already in use at \"kept/here/\""),
        ("db", "kept/here/x", "path already in use at \"kept/here/\""),
        ("sys", "y", "cannot remount \"sys/\""),
        ("db", "sys/y", "cannot remount to destination sys/y/"),
        ("db", "auth/y", "cannot remount to destination auth/y/"),
        ("auth/token", "auth/y", "cannot remount \"auth/token/\""),
    ] {
        let answer = bed.root(Update, "sys/remount", json!({"from": from, "to": to})).await;
        assert_eq!((answer.status, error(&answer)), (400, words), "{from} {to}");
    }
    bed.root(Read, "sys/remount/status/nope", Value::Null).await.expect(404);
}

#[tokio::test]
async fn the_preflight_shows_a_mount_to_whoever_may_do_anything_there() {
    let bed = Bed::new().await;
    kv(&bed, "k").await;
    kv(&bed, "open").await;
    bed.root(Update, "sys/mounts/open/tune", json!({"listing_visibility": "unauth"})).await.expect(204);
    let policy = json!({"policy": "path \"secret/data/foo\" { capabilities = [\"read\"] }"});
    bed.root(Update, "sys/policies/acl/p1", policy).await.expect(204);
    let token =
        bed.root(Update, "auth/token/create", json!({"policies": ["p1"]})).await.text("/auth/client_token");
    let seen = bed.get("sys/internal/ui/mounts/secret/foo", &token).await.expect(200);
    assert_eq!((seen.text("/data/path"), seen.text("/data/options/version")), ("secret/".into(), "2".into()));
    for path in ["k/foo", "nope/foo"] {
        let answer = bed.get(&format!("sys/internal/ui/mounts/{path}"), &token).await;
        let words = format!(
            "preflight capability check returned 403, please ensure client's policies grant access to path \"{path}/\""
        );
        assert_eq!((answer.status, error(&answer)), (403, words.as_str()));
    }
    let all = bed.get("sys/internal/ui/mounts", &token).await.expect(200);
    let names: Vec<&String> = all.body["data"]["secret"].as_object().unwrap().keys().collect();
    assert!(
        names.contains(&&"open/".to_owned())
            && names.contains(&&"secret/".to_owned())
            && !names.contains(&&"k/".to_owned()),
        "{names:?}"
    );
    let everybody = bed.send(Read, "sys/internal/ui/mounts", None, Value::Null).await.expect(200);
    assert_eq!(
        everybody.body["data"],
        json!({"auth": {},
        "secret": {"open/": {"description": "", "options": {"version": "2"}, "type": "kv"}}})
    );
    bed.send(Read, "sys/internal/ui/mounts/secret", None, Value::Null).await.expect(403);
    let acl = bed.get("sys/internal/ui/resultant-acl", &token).await.expect(200);
    assert_eq!(acl.body["data"]["exact_paths"]["secret/data/foo"], json!({"capabilities": ["read"]}));
    assert_eq!(acl.body["data"]["root"], false);
    let root = bed.root(Read, "sys/internal/ui/resultant-acl", Value::Null).await.expect(200);
    assert_eq!(root.body["data"], json!({"root": true}));
}

#[tokio::test]
async fn a_move_whose_leases_cannot_be_revoked_leaves_the_mount_where_it_was() {
    let bed = Bed::with_pods().await;
    let token = bed.login("pod-1").await;
    bed.issue(&token).await;
    bed.database.refuse_revoke.store(true, SeqCst);
    bed.root(Update, "sys/remount", json!({"from": "database", "to": "db"})).await.expect(503);
    bed.root(Read, "sys/mounts/database", Value::Null).await.expect(200);
    bed.root(Read, "sys/mounts/db", Value::Null).await.expect(400);
    bed.issue(&token).await;
}

#[tokio::test]
async fn a_mount_whose_move_is_cut_off_answers_where_it_was_after_the_next_sweep() {
    let mut bed = Bed::with_pods().await;
    let token = bed.login("pod-1").await;
    bed.issue(&token).await;
    // The creation has told of its arrival, too: what is waited for below is the revocation's.
    bed.database.arrived.notified().await;
    bed.database.hold_revoke.store(true, SeqCst);
    {
        let mut moving = pin!(bed.root(Update, "sys/remount", json!({"from": "database", "to": "db"})));
        tokio::select! {
            _ = &mut moving => panic!("moved while a lease could not be revoked"),
            () = bed.database.arrived.notified() => {}
        }
    }
    bed.get("database/creds/orders", &token).await.expect(404);
    bed.database.hold_revoke.store(false, SeqCst);
    bed.restart().await;
    bed.sweep().await;
    bed.root(Read, "sys/mounts/database", Value::Null).await.expect(200);
    bed.root(Read, "sys/mounts/db", Value::Null).await.expect(400);
    bed.issue(&token).await;
}
