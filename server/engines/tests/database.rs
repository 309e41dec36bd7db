//! The database engine where no database is needed: connections, roles, what is refused.

#![allow(clippy::unwrap_used, reason = "a test's helper fails the test")]

mod support;

use coffer_engines::{DatabaseEngine, Engine, EngineError, EngineReply, Op};
use serde_json::{Value, json};
use support::{Bench, data};

const CANARY: &str = "hunter2-canary";

async fn bench() -> Bench<DatabaseEngine> {
    Bench::new(DatabaseEngine::new("test", 1)).await
}

fn ca() -> String {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
}

fn config(host: &str, ca: &str) -> Value {
    json!({
        "plugin_name": "postgresql-database-plugin",
        "connection_url": format!("postgresql://{{{{username}}}}:{{{{password}}}}@{host}/app?sslmode=verify-full"),
        "username": "admin", "password": CANARY, "root_ca": ca, "allowed_roles": ["k8s.*"],
        "verify_connection": false, "custom_metadata": { "uid": "u1" },
    })
}

fn without(mut body: Value, field: &str) -> Value {
    body.as_object_mut().unwrap().remove(field);
    body
}

fn refusal<T>(result: Result<T, EngineError>) -> String {
    match result {
        Err(EngineError::BadRequest(message)) => message,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("not refused"),
    }
}

#[tokio::test]
async fn the_password_is_never_read_back() {
    let db = bench().await;
    let (reply, effects) = db.post("config/app", config("db:5432", &ca())).await.unwrap();
    assert!(matches!(reply, EngineReply::Empty));
    assert_eq!(effects[0].event_type, "database/config-write");
    let read = data(db.read("config/app").await.unwrap());
    assert!(!read.to_string().contains(CANARY));
    assert_eq!(read["custom_metadata"], json!({ "uid": "u1" }));
    assert_eq!(read["connection_details"]["username"], "admin");
    assert_eq!(read["allowed_roles"], json!(["k8s.*"]));
    assert_eq!(data(db.list("config/").await.unwrap()), json!(["app"]));
    assert!(db.exists("config/app").await);
    db.delete("config/app").await.unwrap();
    assert!(matches!(db.read("config/app").await.unwrap(), EngineReply::NotFound));
    assert!(matches!(db.list("config").await.unwrap(), EngineReply::NotFound));
}

#[tokio::test]
async fn a_stored_password_goes_nowhere_else() {
    let db = bench().await;
    let ca = ca();
    assert_eq!(
        refusal(db.post("config/app", without(config("db", &ca), "password")).await),
        "password is missing"
    );
    db.post("config/app", config("db", &ca)).await.unwrap();
    let again = without(config("db:5432", &ca), "password");
    db.post("config/app", again.clone()).await.unwrap();
    db.post("config/app", json!({ "allowed_roles": "*" })).await.unwrap();
    let other_ca = self::ca();
    for (field, value) in [
        ("connection_url", json!("postgresql://{{username}}:{{password}}@evil/app?sslmode=verify-full")),
        ("connection_url", json!("postgresql://{{username}}:{{password}}@db:1/app?sslmode=verify-full")),
        ("connection_url", json!("postgresql://{{username}}:{{password}}@db/app?sslmode=verify-ca")),
        ("root_ca", json!(other_ca)),
        ("username", json!("somebody")),
    ] {
        let mut body = again.clone();
        body[field] = value;
        let message = refusal(db.post("config/app", body.clone()).await);
        assert!(message.contains("give the password again"), "{message}");
        // Also before anything is dialled.
        body["verify_connection"] = json!(true);
        assert!(refusal(db.post("config/app", body.clone()).await).contains("give the password again"));
        body["verify_connection"] = json!(false);
        body["password"] = json!("new");
        db.post("config/app", body).await.unwrap();
        db.post("config/app", config("db", &ca)).await.unwrap();
    }
}

#[tokio::test]
async fn odd_connections_are_refused() {
    let db = bench().await;
    let ca = ca();
    for (field, value) in [
        ("plugin_name", json!("oracle-database-plugin")),
        ("plugin_name", json!("mysql-database-plugin")),
        ("plugin_name", Value::Null),
        ("connection_url", json!(format!("postgresql://admin:{CANARY}@db/app"))),
        ("connection_url", json!("postgresql://{{username}}:{{password}}@db/app?sslrootcert=/etc/passwd")),
        ("root_ca", Value::Null),
        ("root_ca", json!("not a certificate")),
        ("root_ca", json!(rcgen::KeyPair::generate().unwrap().serialize_pem())),
        ("username", json!("a\"b")),
        ("username", json!("a'b")),
        ("password", json!([CANARY])),
        ("custom_metadata", json!("x")),
    ] {
        let mut body = config("db", &ca);
        body[field] = value;
        let message = refusal(db.post("config/app", body).await);
        assert!(!message.contains(CANARY), "{message}");
    }
    refusal(db.post("config/a b", config("db", &ca)).await);
    assert!(matches!(db.post("config/a/b", config("db", &ca)).await, Err(EngineError::Unsupported)));
    let (reply, _) = db
        .post("config/app", {
            let mut body = config("db", &ca);
            body["max_idle_connections"] = json!(5);
            body
        })
        .await
        .unwrap();
    assert!(matches!(reply, EngineReply::Warn(_, warnings) if warnings[0].contains("max_idle_connections")));
}

#[tokio::test]
async fn roles_as_vault_has_them() {
    let db = bench().await;
    let role = json!({
        "db_name": "app", "creation_statements": ["CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}'"],
        "default_ttl": "1h", "max_ttl": 86400, "custom_metadata": { "uid": "u2" },
    });
    let (_, effects) = db.post("roles/r", role.clone()).await.unwrap();
    assert_eq!(effects[0].event_type, "database/role-create");
    let read = data(db.read("roles/r").await.unwrap());
    assert_eq!((&read["default_ttl"], &read["max_ttl"]), (&json!(3600), &json!(86400)));
    assert_eq!(read["creation_statements"], role["creation_statements"]);
    assert_eq!(read["revocation_statements"], json!([]));
    assert_eq!(read["custom_metadata"], json!({ "uid": "u2" }));
    let (_, effects) = db.post("roles/r", json!({ "default_ttl": "2h" })).await.unwrap();
    assert_eq!(effects[0].event_type, "database/role-update");
    assert_eq!(data(db.read("roles/r").await.unwrap())["default_ttl"], 7200);
    for (field, value) in [
        ("db_name", json!("")),
        ("creation_statements", json!([])),
        ("creation_statements", json!(["CREATE ROLE x"])),
        ("creation_statements", json!(["CREATE ROLE \"{{name}}\" PASSWORD '{{password}}' {{oops}}"])),
        ("revocation_statements", json!(["DROP ROLE {{name"])),
        ("default_ttl", json!("48h")),
        ("credential_type", json!("rsa_private_key")),
    ] {
        let mut body = role.clone();
        body[field] = value;
        refusal(db.post("roles/bad", body).await);
    }
    assert_eq!(data(db.list("roles").await.unwrap()), json!(["r"]));
    db.delete("roles/r").await.unwrap();
    assert!(matches!(db.list("roles").await.unwrap(), EngineReply::NotFound));
}

#[tokio::test]
async fn credentials_are_invented_without_a_database() {
    let db = bench().await;
    assert_eq!(refusal(db.read("creds/k8s.c.ns.orders").await), "unknown role: k8s.c.ns.orders");
    db.post(
        "roles/k8s.c.ns.orders",
        json!({
            "db_name": "app", "creation_statements": ["CREATE ROLE \"{{name}}\" PASSWORD '{{password}}'"],
            "default_ttl": "1h", "max_ttl": "24h",
        }),
    )
    .await
    .unwrap();
    refusal(db.read("creds/k8s.c.ns.orders").await);
    let mut other = config("db", &ca());
    other["allowed_roles"] = json!(["x"]);
    db.post("config/app", other).await.unwrap();
    assert!(refusal(db.read("creds/k8s.c.ns.orders").await).contains("not an allowed role"));
    db.post("config/app", config("db", &ca())).await.unwrap();
    let (one, two) = (db.issue("k8s.c.ns.orders").await, db.issue("k8s.c.ns.orders").await);
    assert_ne!(one.data["username"], two.data["username"]);
    assert!(one.data["username"].as_str().unwrap().starts_with("v-test-app-orders-"));
    assert_eq!((one.ttl.as_secs(), one.max_ttl.as_secs(), one.renewable), (3600, 86400, true));
    assert_eq!(one.target, "config/app");
    db.renew(&one.payload).await.unwrap();
    db.delete("config/app").await.unwrap();
    let error = db.revoke(&one.payload).await.unwrap_err();
    assert!(error.retriable(), "{error}");
}

#[tokio::test]
async fn an_unreachable_database_is_worth_another_try() {
    let db = bench().await;
    // A port that was free a moment ago; nobody listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut body = config(&format!("127.0.0.1:{port}"), &ca());
    body["verify_connection"] = json!(true);
    let error = db.post("config/app", body.clone()).await.unwrap_err();
    assert!(matches!(&error, EngineError::Target { retriable: true, .. }), "{error:?}");
    assert!(!format!("{error} {error:?}").contains(CANARY));
    assert!(matches!(db.read("config/app").await.unwrap(), EngineReply::NotFound));
    assert!(db.engine.acts(Op::Write, "rotate-root/app") && !db.engine.acts(Op::Write, "config/app"));
    assert!(db.engine.acts(Op::Write, "static-roles/x") && !db.engine.acts(Op::Delete, "static-roles/x"));
}
