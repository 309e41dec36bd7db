//! Ways to get more than one was given: each of them was open once.

use crate::bed;

use bed::Bed;
use coffer_vault::Operation::{Delete, Update};
use serde_json::{Value, json};

async fn policy(bed: &Bed, name: &str, text: &str) {
    bed.root(Update, &format!("sys/policies/acl/{name}"), json!({"policy": text})).await.expect(204);
}

async fn token(bed: &Bed, body: Value) -> String {
    bed.root(Update, "auth/token/create", body).await.expect(200).text("/auth/client_token")
}

#[tokio::test]
async fn a_maker_cannot_fill_in_the_templates_of_his_policies() {
    let bed = Bed::new().await;
    let text = r#"path "secret/data/{{auth.metadata.team}}/*" { capabilities = ["read"] }
        path "auth/token/create" { capabilities = ["update"] }"#;
    policy(&bed, "team", text).await;
    let data = json!({"data": {"a": "b"}});
    bed.root(Update, "secret/data/red/x", data).await.expect(200);
    let mine = token(&bed, json!({"policies": ["team"]})).await;
    bed.get("secret/data/red/x", &mine).await.expect(403);
    for kind in ["service", "batch"] {
        let body = json!({"meta": {"team": "red"}, "type": kind, "ttl": "1h"});
        let child = bed.post("auth/token/create", &mine, body).await.expect(200).text("/auth/client_token");
        let looked = bed.get("auth/token/lookup-self", &child).await.expect(200);
        assert_eq!(looked.text("/data/meta/team"), "red");
        bed.get("secret/data/red/x", &child).await.expect(403);
        if kind == "service" {
            let below = bed.post("auth/token/create", &child, json!({})).await.expect(200);
            bed.get("secret/data/red/x", &below.text("/auth/client_token")).await.expect(403);
        }
    }
    // What root says of a token holds, and for those below it too.
    let red = token(&bed, json!({"policies": ["team"], "meta": {"team": "red"}})).await;
    bed.get("secret/data/red/x", &red).await.expect(200);
    let body = json!({"meta": {"team": "blue"}});
    let below = bed.post("auth/token/create", &red, body).await.expect(200).text("/auth/client_token");
    bed.get("secret/data/red/x", &below).await.expect(200);
}

#[tokio::test]
async fn who_may_only_create_users_and_roles_cannot_change_them() {
    let bed = Bed::new().await;
    for kind in ["userpass", "approle"] {
        bed.root(Update, &format!("sys/auth/{kind}"), json!({"type": kind})).await.expect(204);
    }
    let hash = bcrypt::hash("pw", 5).unwrap();
    let user = json!({"password_hash": hash});
    bed.root(Update, "auth/userpass/users/anna", user.clone()).await.expect(204);
    bed.root(Update, "auth/approle/role/app", json!({"role_id": "app"})).await.expect(204);
    let text = r#"path "auth/userpass/users/*" { capabilities = ["create"] }
        path "auth/approle/role/*" { capabilities = ["create"] }"#;
    policy(&bed, "maker", text).await;
    let maker = token(&bed, json!({"policies": ["maker"]})).await;
    bed.post("auth/userpass/users/berta", &maker, user.clone()).await.expect(204);
    bed.post("auth/approle/role/other", &maker, json!({"role_id": "other"})).await.expect(204);
    for path in ["users/anna", "users/ANNA", "users/anna/password", "users/anna/policies"] {
        let body = json!({"password_hash": hash, "policies": "much"});
        bed.post(&format!("auth/userpass/{path}"), &maker, body).await.expect(403);
    }
    for path in ["app", "APP", "app/policies", "app/secret-id", "app/custom-secret-id", "app/role-id"] {
        let body = json!({"token_policies": "much", "secret_id": "chosen", "role_id": "chosen"});
        bed.post(&format!("auth/approle/role/{path}"), &maker, body).await.expect(403);
    }
}

#[tokio::test]
async fn a_role_cannot_become_the_entity_of_another_by_its_role_id() {
    let bed = Bed::new().await;
    bed.root(Update, "sys/auth/approle", json!({"type": "approle"})).await.expect(204);
    bed.root(Update, "auth/approle/role/app", json!({"role_id": "Admin"})).await.expect(204);
    for same in ["admin", "ADMIN", " Admin "] {
        bed.root(Update, "auth/approle/role/other", json!({"role_id": same})).await.expect(400);
    }
    bed.root(Update, "auth/approle/role/other/role-id", json!({"role_id": "admin"})).await.expect(404);
    let made = bed.root(Update, "auth/approle/role/app/secret-id", Value::Null).await.expect(200);
    let login = |id: &str| json!({"role_id": id, "secret_id": made.text("/data/secret_id")});
    bed.send(Update, "auth/approle/login", None, login("Admin")).await.expect(200);
    bed.send(Update, "auth/approle/login", None, login("admin")).await.expect(400);
    // It can change its own, and what it no longer has is free.
    bed.root(Update, "auth/approle/role/app", json!({"role_id": "admin"})).await.expect(204);
    bed.send(Update, "auth/approle/login", None, login("admin")).await.expect(200);
    bed.root(Update, "auth/approle/role/app", json!({"role_id": "new"})).await.expect(204);
    bed.root(Update, "auth/approle/role/other", json!({"role_id": "Admin"})).await.expect(204);
}

#[tokio::test]
async fn no_login_gives_a_token_that_passes_for_a_wrapping_token() {
    let bed = Bed::new().await;
    bed.root(Update, "sys/auth/approle", json!({"type": "approle"})).await.expect(204);
    let role = json!({"token_policies": "response-wrapping", "token_no_default_policy": true});
    bed.root(Update, "auth/approle/role/app", role).await.expect(400);
}

#[tokio::test]
async fn secret_ids_of_a_removed_mount_do_not_stop_the_sweep() {
    let bed = Bed::new().await;
    bed.root(Update, "sys/auth/approle", json!({"type": "approle"})).await.expect(204);
    bed.root(Update, "auth/approle/role/app", json!({"secret_id_ttl": "1h"})).await.expect(204);
    bed.root(Update, "auth/approle/role/app/secret-id", Value::Null).await.expect(200);
    bed.root(Delete, "sys/auth/approle", Value::Null).await.expect(204);
    bed.advance(bed::hours(2)).await;
    bed.sweep().await;
}
