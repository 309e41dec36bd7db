//! Entities and aliases: who stands behind a login, and what he may do.

use crate::bed;

use std::sync::Arc;

use bed::{Answer, Bed};
use coffer_vault::Operation::{Delete, List, Read, Update};
use serde_json::{Value, json};

async fn with_anna() -> Bed {
    let bed = Bed::new().await;
    bed.root(Update, "sys/auth/userpass", json!({"type": "userpass"})).await.expect(204);
    let anna = json!({"password_hash": bcrypt::hash("pw", 5).unwrap(), "token_policies": "p1"});
    bed.root(Update, "auth/userpass/users/anna", anna).await.expect(204);
    bed
}

async fn login(bed: &Bed, name: &str) -> Answer {
    bed.send(Update, &format!("auth/userpass/login/{name}"), None, json!({"password": "pw"})).await
}

async fn logged_in(bed: &Bed) -> (String, String) {
    let answer = login(bed, "anna").await.expect(200);
    (answer.text("/auth/client_token"), answer.text("/auth/entity_id"))
}

async fn policy(bed: &Bed, name: &str, text: &str) {
    bed.root(Update, &format!("sys/policies/acl/{name}"), json!({"policy": text})).await.expect(204);
}

async fn accessor(bed: &Bed) -> String {
    let mounts = bed.root(Read, "sys/auth", Value::Null).await.expect(200);
    mounts.body["data"]["userpass/"]["accessor"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_login_makes_an_entity_once() {
    let bed = with_anna().await;
    let (token, id) = logged_in(&bed).await;
    let again = login(&bed, "ANNA").await.expect(200);
    assert_eq!(again.text("/auth/entity_id"), id);
    let entity = bed.root(Read, &format!("identity/entity/id/{id}"), Value::Null).await.expect(200);
    let data = &entity.body["data"];
    assert_eq!(data["aliases"].as_array().unwrap().len(), 1);
    let alias = &data["aliases"][0];
    assert_eq!((&alias["name"], &alias["mount_type"]), (&json!("anna"), &json!("userpass")));
    assert_eq!((&alias["mount_path"], &alias["canonical_id"]), (&json!("auth/userpass/"), &json!(id)));
    assert_eq!(data["policies"], json!([]));
    let looked = bed.get("auth/token/lookup-self", &token).await.expect(200);
    assert_eq!(looked.text("/data/entity_id"), id);
    let alias_id = alias["id"].as_str().unwrap();
    let shown =
        bed.root(Read, &format!("identity/entity-alias/id/{alias_id}"), Value::Null).await.expect(200);
    assert_eq!(shown.body["data"]["name"], "anna");
    let listed = bed.root(List, "identity/entity/id", Value::Null).await.expect(200);
    assert_eq!(listed.body["data"]["keys"], json!([id]));
    assert_eq!(listed.body["data"]["key_info"][&id]["aliases"][0]["id"], alias_id);
    let names = bed.root(List, "identity/entity/name", Value::Null).await.expect(200);
    assert_eq!(names.body["data"]["keys"], json!([data["name"]]));
    let aliases = bed.root(List, "identity/entity-alias/id", Value::Null).await.expect(200);
    assert_eq!(aliases.body["data"]["keys"], json!([alias_id]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn logins_at_the_same_time_are_of_one_entity() {
    let bed = Arc::new(Bed::new().await);
    bed.root(Update, "sys/auth/approle", json!({"type": "approle"})).await.expect(204);
    bed.root(Update, "auth/approle/role/app", json!({"role_id": "app"})).await.expect(204);
    let made = bed.root(Update, "auth/approle/role/app/secret-id", json!({})).await.expect(200);
    let secret = made.text("/data/secret_id");
    let all: Vec<_> = (0..8)
        .map(|_| {
            let (bed, secret) = (Arc::clone(&bed), secret.clone());
            tokio::spawn(async move {
                let body = json!({"role_id": "app", "secret_id": secret});
                bed.send(Update, "auth/approle/login", None, body).await.expect(200).text("/auth/entity_id")
            })
        })
        .collect();
    let mut ids = std::collections::BTreeSet::new();
    for one in all {
        ids.insert(one.await.unwrap());
    }
    assert_eq!(ids.len(), 1);
    let listed = bed.root(List, "identity/entity/id", Value::Null).await.expect(200);
    assert_eq!(listed.body["data"]["keys"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn an_entitys_policies_count_from_the_moment_they_are_written() {
    let bed = with_anna().await;
    policy(&bed, "more", r#"path "secret/data/more" { capabilities = ["read", "create", "update"] }"#).await;
    let (token, id) = logged_in(&bed).await;
    bed.get("secret/data/more", &token).await.expect(403);
    let at = format!("identity/entity/id/{id}");
    bed.root(Update, &at, json!({"policies": ["more"]})).await.expect(204);
    bed.get("secret/data/more", &token).await.expect(404);
    let looked = bed.get("auth/token/lookup-self", &token).await.expect(200);
    assert_eq!(looked.body["data"]["policies"], json!(["default", "p1"]));
    assert_eq!(looked.body["data"]["identity_policies"], json!(["more"]));
    let again = login(&bed, "anna").await.expect(200);
    assert_eq!(again.body["auth"]["policies"], json!(["default", "more", "p1"]));
    assert_eq!(again.body["auth"]["token_policies"], json!(["default", "p1"]));
    assert_eq!(again.body["auth"]["identity_policies"], json!(["more"]));
    bed.root(Update, &at, json!({"policies": []})).await.expect(204);
    bed.get("secret/data/more", &token).await.expect(403);
}

#[tokio::test]
async fn nobody_becomes_root_through_his_entity() {
    let bed = with_anna().await;
    let (_, id) = logged_in(&bed).await;
    for name in ["root", "Root", "ROOT"] {
        for (path, body) in [
            (format!("identity/entity/id/{id}"), json!({"policies": [name]})),
            ("identity/entity".to_owned(), json!({"name": "eve", "policies": name})),
            ("auth/userpass/users/anna".to_owned(), json!({"token_policies": [name]})),
            ("auth/userpass/users/anna/policies".to_owned(), json!({"policies": name})),
        ] {
            let refused = bed.root(Update, &path, body).await.expect(400);
            assert!(refused.text("/errors/0").contains("root"), "{path}");
        }
    }
    bed.root(Update, &format!("identity/entity/id/{id}"), json!({"policies": [" root"]})).await.expect(400);
}

#[tokio::test]
async fn a_disabled_entity_is_out_at_once_and_its_children_too() {
    let bed = with_anna().await;
    policy(&bed, "p1", r#"path "auth/token/create" { capabilities = ["update"] }"#).await;
    let (token, id) = logged_in(&bed).await;
    let child = bed.post("auth/token/create", &token, json!({})).await.expect(200);
    assert_eq!(child.text("/auth/entity_id"), id);
    let child = child.text("/auth/client_token");
    for good in [&token, &child] {
        bed.get("auth/token/lookup-self", good).await.expect(200);
    }
    let at = format!("identity/entity/id/{id}");
    bed.root(Update, &at, json!({"disabled": true})).await.expect(204);
    for out in [&token, &child] {
        bed.get("auth/token/lookup-self", out).await.expect(403);
        bed.post("auth/token/create", out, json!({})).await.expect(403);
    }
    login(&bed, "anna").await.expect(403);
    bed.root(Update, &at, json!({"disabled": false})).await.expect(204);
    bed.get("auth/token/lookup-self", &child).await.expect(200);
    bed.root(Delete, &at, Value::Null).await.expect(204);
    bed.get("auth/token/lookup-self", &token).await.expect(403);
    // Whoever logs in afterwards is somebody new.
    assert_ne!(logged_in(&bed).await.1, id);
}

#[tokio::test]
async fn names_are_unique_in_any_spelling() {
    let bed = with_anna().await;
    let (_, id) = logged_in(&bed).await;
    let made =
        bed.root(Update, "identity/entity", json!({"name": "Zoe", "metadata": {"a": "b"}})).await.expect(200);
    let zoe = made.text("/data/id");
    bed.root(Update, "identity/entity", json!({"name": "ZOE", "metadata": "a=c,d=e"})).await.expect(204);
    let found = bed.root(Read, "identity/entity/name/zoe", Value::Null).await.expect(200);
    assert_eq!((found.text("/data/id"), found.text("/data/name")), (zoe.clone(), "Zoe".to_owned()));
    assert_eq!(found.body["data"]["metadata"], json!({"a": "c", "d": "e"}));
    let taken =
        bed.root(Update, &format!("identity/entity/id/{id}"), json!({"name": "zOE"})).await.expect(400);
    assert_eq!(taken.text("/errors/0"), "entity name is already in use");
    bed.root(Update, &format!("identity/entity/id/{zoe}"), json!({"name": "Zora"})).await.expect(204);
    bed.root(Read, "identity/entity/name/zoe", Value::Null).await.expect(404);
    bed.root(Update, &format!("identity/entity/id/{id}"), json!({"name": "Zoe"})).await.expect(204);
    for odd in ["a/b", " a", "a\n"] {
        bed.root(Update, "identity/entity", json!({"name": odd})).await.expect(400);
    }
    let accessor = accessor(&bed).await;
    let alias =
        |name: &str, entity: &str| json!({"name": name, "mount_accessor": accessor, "canonical_id": entity});
    // Anna by another spelling is Anna: the alias moves, and is not doubled.
    let moved = bed.root(Update, "identity/entity-alias", alias(" ANNA ", &zoe)).await.expect(200);
    assert_eq!(moved.text("/data/canonical_id"), zoe);
    assert_eq!(logged_in(&bed).await.1, zoe);
    let second = bed.root(Update, "identity/entity-alias", alias("other", &zoe)).await.expect(400);
    assert_eq!(second.text("/errors/0"), "Alias already exists for requested entity and mount accessor");
    bed.root(Update, "identity/entity-alias", alias("other", "none")).await.expect(400);
    let nowhere = json!({"name": "x", "mount_accessor": "auth_x"});
    bed.root(Update, "identity/entity-alias", nowhere).await.expect(400);
    let id = moved.text("/data/id");
    let named = json!({"custom_metadata": {"k": "v"}});
    bed.root(Update, &format!("identity/entity-alias/id/{id}"), named).await.expect(200);
    let shown = bed.root(Read, &format!("identity/entity-alias/id/{id}"), Value::Null).await.expect(200);
    assert_eq!(shown.body["data"]["custom_metadata"], json!({"k": "v"}));
    bed.root(Delete, &format!("identity/entity-alias/id/{id}"), Value::Null).await.expect(204);
    bed.root(Read, &format!("identity/entity-alias/id/{id}"), Value::Null).await.expect(404);
    assert_ne!(logged_in(&bed).await.1, zoe);
}

#[tokio::test]
async fn entities_are_looked_up_by_what_is_known() {
    let bed = with_anna().await;
    let (_, id) = logged_in(&bed).await;
    let entity = bed.root(Read, &format!("identity/entity/id/{id}"), Value::Null).await.expect(200);
    let data = entity.body["data"].clone();
    for body in [
        json!({"id": id}),
        json!({"name": data["name"]}),
        json!({"alias_id": data["aliases"][0]["id"]}),
        json!({"alias_name": "Anna", "alias_mount_accessor": data["aliases"][0]["mount_accessor"]}),
    ] {
        let found = bed.root(Update, "identity/lookup/entity", body).await.expect(200);
        assert_eq!(found.body["data"], data);
    }
    bed.root(Update, "identity/lookup/entity", json!({"name": "none"})).await.expect(204);
    bed.root(Update, "identity/lookup/entity", json!({})).await.expect(400);
    bed.root(Read, "identity/entity/id/none", Value::Null).await.expect(404);
    bed.root(Delete, "identity/entity/id/none", Value::Null).await.expect(204);
    bed.root(Update, "identity/entity/id/none", json!({})).await.expect(400);
    bed.root(Read, "identity/rubbish", Value::Null).await.expect(404);
}

#[tokio::test]
async fn policies_speak_of_the_entity() {
    let bed = with_anna().await;
    let accessor = accessor(&bed).await;
    let text = format!(
        r#"path "secret/data/id/{{{{identity.entity.id}}}}" {{ capabilities = ["read"] }}
           path "secret/data/team/{{{{identity.entity.metadata.team}}}}/*" {{ capabilities = ["read"] }}
           path "secret/data/user/{{{{identity.entity.aliases.{accessor}.name}}}}" {{ capabilities = ["read"] }}"#
    );
    policy(&bed, "p1", &text).await;
    let (token, id) = logged_in(&bed).await;
    bed.get(&format!("secret/data/id/{id}"), &token).await.expect(404);
    bed.get("secret/data/id/other", &token).await.expect(403);
    bed.get("secret/data/user/anna", &token).await.expect(404);
    bed.get("secret/data/team/red/x", &token).await.expect(403);
    let at = format!("identity/entity/id/{id}");
    bed.root(Update, &at, json!({"metadata": {"team": "red"}})).await.expect(204);
    bed.get("secret/data/team/red/x", &token).await.expect(404);
    bed.get("secret/data/team/blue/x", &token).await.expect(403);
    bed.root(Update, &at, json!({"metadata": {"team": "blue"}})).await.expect(204);
    bed.get("secret/data/team/red/x", &token).await.expect(403);
    // A value that would reach for other paths makes its rule void, and the audit log says so.
    for hostile in ["*", "+", "red/../blue", "a,b", "{{identity.entity.id}}", ".."] {
        bed.root(Update, &at, json!({"metadata": {"team": hostile}})).await.expect(204);
        bed.get("secret/data/team/blue/x", &token).await.expect(403);
        bed.get(&format!("secret/data/id/{id}"), &token).await.expect(404);
        let last = bed.audit_records().into_iter().next_back().unwrap();
        let note = &last.metadata["refused_policy_rules"];
        assert!(note.contains("p1 line 2") && note.contains("identity.entity.metadata.team"), "{note}");
        assert!(hostile.len() < 3 || !note.contains(hostile), "{note}");
    }
    // The own entity is one that the default policy lets its token read.
    bed.get(&at, &token).await.expect(200);
}

#[tokio::test]
async fn batch_tokens_end_with_their_entity_too() {
    let bed = with_anna().await;
    policy(&bed, "more", r#"path "secret/data/more" { capabilities = ["read"] }"#).await;
    bed.root(Update, "auth/userpass/users/anna", json!({"token_type": "batch", "token_ttl": "1h"}))
        .await
        .expect(204);
    let answer = login(&bed, "anna").await.expect(200);
    assert_eq!(answer.body["auth"]["token_type"], "batch");
    let (token, id) = (answer.text("/auth/client_token"), answer.text("/auth/entity_id"));
    bed.get("secret/data/more", &token).await.expect(403);
    let at = format!("identity/entity/id/{id}");
    bed.root(Update, &at, json!({"policies": ["more"]})).await.expect(204);
    bed.get("secret/data/more", &token).await.expect(404);
    bed.root(Update, &at, json!({"disabled": true})).await.expect(204);
    bed.get("auth/token/lookup-self", &token).await.expect(403);
}
