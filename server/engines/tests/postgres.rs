//! The database engine against a real PostgreSQL 15 over TLS, with an admin that is no superuser.

#![allow(clippy::unwrap_used, reason = "a test's helper fails the test")]

#[path = "support/servers/mod.rs"]
mod servers;
mod support;

use std::time::{Duration, Instant};

use coffer_barrier::{MountId, Read, RecordKind, RowKey};
use coffer_core::secret::SecretBytes;
use coffer_engines::{DatabaseEngine, EngineError, Issue};
use serde_json::{Value, json};
use servers::postgres::{ADMIN, ADMIN_PASSWORD, Postgres};
use support::{Bench, data};
use tokio_postgres::Client;

const CREATE: &str =
    "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}' IN ROLE app_rw";

fn config(pg: &Postgres) -> Value {
    let port = pg.port;
    json!({
        "plugin_name": "postgresql-database-plugin",
        "connection_url":
            format!("postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{port}/app?sslmode=verify-full"),
        "username": ADMIN, "password": ADMIN_PASSWORD, "root_ca": pg.ca, "allowed_roles": ["*"],
    })
}

/// An engine with the connection `db` and the role `app`.
async fn bench(pg: &Postgres) -> Bench<DatabaseEngine> {
    let mut db = Bench::new(DatabaseEngine::new("0123456789abcdef", 7)).await;
    db.now = coffer_core::time::Timestamp::from_secs(unix_now());
    db.post("config/db", config(pg)).await.unwrap();
    let role =
        json!({ "db_name": "db", "creation_statements": [CREATE], "default_ttl": "1h", "max_ttl": "24h" });
    db.post("roles/app", role).await.unwrap();
    db
}

fn unix_now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

fn login(issue: &Issue) -> (String, String) {
    let text = |name: &str| issue.data[name].as_str().unwrap().to_owned();
    (text("username"), text("password"))
}

async fn count(client: &Client, sql: &str, user: &str) -> i64 {
    client.query_one(sql, &[&user]).await.unwrap().get(0)
}

async fn roles(client: &Client, user: &str) -> i64 {
    count(client, "SELECT count(*) FROM pg_roles WHERE rolname = $1::text::name", user).await
}

async fn sessions(client: &Client, user: &str) -> i64 {
    count(client, "SELECT count(*) FROM pg_stat_activity WHERE usename = $1::text::name", user).await
}

/// Waits for what must come true; fails after a minute.
async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < Duration::from_secs(60), "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn revoked_means_out() {
    let pg = Postgres::start().await;
    let db = bench(&pg).await;
    let su = pg.superuser().await;
    let issue = db.issue("app").await;
    let (user, password) = login(&issue);
    assert_eq!(roles(&su, &user).await, 0, "an issue creates nothing");
    db.create(&issue.payload).await.unwrap();
    db.create(&issue.payload).await.unwrap();
    let session = pg.connect(&user, &password).await.unwrap();
    session.batch_execute("CREATE TABLE work.t (a int); INSERT INTO work.t VALUES (1)").await.unwrap();
    let until = "SELECT rolvaliduntil > now() + '23 hours' FROM pg_roles WHERE rolname::text = $1";
    assert!(su.query_one(until, &[&user]).await.unwrap().get::<_, bool>(0));
    db.renew(&issue.payload).await.unwrap();

    let named = su.query_one(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'coffer/0123456789ab/7/%'",
        &[],
    );
    assert!(named.await.unwrap().get::<_, i64>(0) >= 1, "sessions carry the epoch");

    db.revoke(&issue.payload).await.unwrap();
    assert!(session.query_one("SELECT 1", &[]).await.is_err(), "the open session is gone");
    assert!(pg.connect(&user, &password).await.is_err());
    assert_eq!((roles(&su, &user).await, sessions(&su, &user).await), (0, 0));
    let owner =
        su.query_one("SELECT tableowner::text FROM pg_tables WHERE tablename = 't'", &[]).await.unwrap();
    assert_eq!(owner.get::<_, String>(0), ADMIN, "what it owned is kept");
    db.revoke(&issue.payload).await.unwrap();

    let never = db.issue("app").await;
    db.revoke(&never.payload).await.unwrap();
    let log = pg.log();
    assert!(log.contains(&user), "the server logs statements");
    assert!(!log.contains(&password), "no statement ever had the password");
}

#[tokio::test]
async fn a_roles_settings_do_not_outlive_its_statements() {
    let pg = Postgres::start().await;
    let db = bench(&pg).await;
    let left_behind = "SET default_transaction_read_only = on";
    let role = json!({ "db_name": "db", "creation_statements": [CREATE, left_behind], "default_ttl": "1h" });
    db.post("roles/careless", role).await.unwrap();
    db.create(&db.issue("careless").await.payload).await.unwrap();
    // The same session serves the next role.
    db.create(&db.issue("app").await.payload).await.unwrap();
}

/// Who owns a database may set its search path: a view of his must not be taken for the catalogue's.
#[tokio::test]
async fn the_catalogue_is_not_shadowed() {
    let pg = Postgres::start().await;
    let db = bench(&pg).await;
    let su = pg.superuser().await;
    let shadow = "CREATE SCHEMA shadow; GRANT USAGE ON SCHEMA shadow TO PUBLIC; \
        CREATE VIEW shadow.pg_stat_activity AS SELECT 0 AS pid, 0::oid AS usesysid WHERE false; \
        GRANT SELECT ON shadow.pg_stat_activity TO PUBLIC; \
        ALTER DATABASE app SET search_path = shadow, public, pg_catalog";
    for statement in shadow.split("; ") {
        su.batch_execute(statement.trim()).await.unwrap();
    }
    let issue = db.issue("app").await;
    let (user, password) = login(&issue);
    // The sessions of the connection begin under the new path.
    db.post("config/db", config(&pg)).await.unwrap();
    db.create(&issue.payload).await.unwrap();
    let session = pg.connect(&user, &password).await.unwrap();
    db.revoke(&issue.payload).await.unwrap();
    assert!(session.query_one("SELECT 1", &[]).await.is_err(), "the open session is gone");
}

#[tokio::test]
async fn own_statements_come_after_the_lock() {
    let pg = Postgres::start().await;
    let db = bench(&pg).await;
    let su = pg.superuser().await;
    let role = json!({
        "revocation_statements": ["REVOKE app_rw FROM \"{{name}}\"; COMMENT ON ROLE \"{{name}}\" IS 'ended'"],
        "renew_statements": ["ALTER ROLE \"{{name}}\" VALID UNTIL '{{expiration}}'"],
        "max_ttl": 0,
    });
    db.post("roles/app", role).await.unwrap();
    let issue = db.issue("app").await;
    let (user, password) = login(&issue);
    db.create(&issue.payload).await.unwrap();
    db.renew(&issue.payload).await.unwrap();
    let session = pg.connect(&user, &password).await.unwrap();
    // The lease carries its statements, so the role may go first.
    db.delete("roles/app").await.unwrap();
    db.revoke(&issue.payload).await.unwrap();
    assert!(session.query_one("SELECT 1", &[]).await.is_err());
    assert!(pg.connect(&user, &password).await.is_err());
    let state = "SELECT rolcanlogin, rolvaliduntil = 'infinity', shobj_description(oid, 'pg_authid') \
                 FROM pg_roles WHERE rolname::text = $1";
    let row = su.query_one(state, &[&user]).await.unwrap();
    assert!(!row.get::<_, bool>(0) && row.get::<_, bool>(1));
    assert_eq!(row.get::<_, String>(2), "ended");
}

#[tokio::test]
async fn failed_creation_leaves_nothing() {
    let pg = Postgres::start().await;
    let db = bench(&pg).await;
    let su = pg.superuser().await;
    for (statement, hint) in
        [("SELECT no_such_function()", "42883"), ("GRANT postgres TO \"{{name}}\"", "42501")]
    {
        db.post("roles/app", json!({ "creation_statements": [CREATE, statement] })).await.unwrap();
        let issue = db.issue("app").await;
        let (user, password) = login(&issue);
        let error = db.create(&issue.payload).await.unwrap_err();
        let EngineError::Target { retriable: false, message, target } = &error else { panic!("{error:?}") };
        assert!(message.contains(hint) && !message.contains(&password), "{message}");
        assert_eq!(target, "config/db");
        assert_eq!(roles(&su, &user).await, 0, "all statements are one transaction");
    }
    let other = "CREATE ROLE \"x{{name}}\" PASSWORD '{{password}}'";
    db.post("roles/app", json!({ "creation_statements": [other] })).await.unwrap();
    let issue = db.issue("app").await;
    let error = db.create(&issue.payload).await.unwrap_err();
    assert!(error.to_string().contains("did not create the role"), "{error}");
    assert_eq!(roles(&su, &format!("x{}", login(&issue).0)).await, 0);
}

#[tokio::test]
async fn connections_are_proven_first() {
    let pg = Postgres::start().await;
    let db = bench(&pg).await;
    let mut wrong = config(&pg);
    wrong["password"] = json!("Wrong-password-1");
    let error = db.post("config/w", wrong.clone()).await.unwrap_err();
    assert!(matches!(error, EngineError::Target { retriable: false, .. }), "{error:?}");
    assert!(!format!("{error:?}").contains("Wrong-password"));
    wrong["verify_connection"] = json!(false);
    db.post("config/w", wrong).await.unwrap();

    let mut plain = config(&pg);
    (plain["username"], plain["password"]) = (json!("plain"), json!("Plain-1"));
    let error = db.post("config/p", plain).await.unwrap_err();
    assert!(error.to_string().contains("CREATEROLE"), "{error}");

    let mut other_ca = config(&pg);
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    other_ca["root_ca"] = json!(params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem());
    let error = db.post("config/ca", other_ca).await.unwrap_err();
    assert!(
        matches!(&error, EngineError::Target { retriable: false, message, .. } if message.contains("TLS")),
        "{error:?}"
    );

    // The certificate is for 127.0.0.1, so under another name only verify-ca accepts it.
    for (mode, accepted) in [("verify-full", false), ("verify-ca", true)] {
        let mut named = config(&pg);
        let port = pg.port;
        named["connection_url"] = json!(format!(
            "postgresql://{{{{username}}}}:{{{{password}}}}@localhost:{port}/app?sslmode={mode}"
        ));
        assert_eq!(db.post("config/n", named).await.is_ok(), accepted, "{mode}");
    }
    // The server speaks TLS only, and says so.
    let mut bare = config(&pg);
    let port = pg.port;
    bare["connection_url"] =
        json!(format!("postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{port}/app?sslmode=disable"));
    assert!(db.post("config/b", bare).await.is_err());
}

/// The stored connection, as the engine keeps it.
async fn stored(db: &Bench<DatabaseEngine>, mount: MountId) -> Value {
    let reader = db.barrier.reader().await.unwrap();
    let row = reader.get(&RowKey::path(mount, RecordKind::Entry, "config/db")).await.unwrap().unwrap();
    serde_json::from_slice(row.expose()).unwrap()
}

async fn store(db: &Bench<DatabaseEngine>, record: &Value) {
    let mut writer = db.barrier.begin().await.unwrap();
    let row = SecretBytes::new(serde_json::to_vec(record).unwrap());
    writer.put_secret(&RowKey::path(db.mount, RecordKind::Entry, "config/db"), &row).await.unwrap();
    writer.commit().await.unwrap();
}

#[tokio::test]
async fn the_root_password_is_never_lost() {
    let pg = Postgres::start().await;
    let db = bench(&pg).await;
    let su = pg.superuser().await;
    let rotate = || db.act("rotate-root/db", json!({}));
    rotate().await.unwrap();
    assert!(pg.connect(ADMIN, ADMIN_PASSWORD).await.is_err(), "the old password is gone");
    let record = stored(&db, db.mount).await;
    let second = record["password"].as_str().unwrap().to_owned();
    assert!(record["pending"].is_null() && pg.connect(ADMIN, &second).await.is_ok());
    let issue = db.issue("app").await;
    db.create(&issue.payload).await.unwrap();

    // Interrupted before the database heard of the next password: the old one still works, and again finishes.
    let mut early = record.clone();
    (early["pending"], early["generation"]) = (json!("Next-password-1"), json!(1));
    store(&db, &early).await;
    db.create(&db.issue("app").await.payload).await.unwrap();
    assert_eq!(data(db.read("config/db").await.unwrap())["rotation_pending"], true);
    rotate().await.unwrap();
    assert!(pg.connect(ADMIN, "Next-password-1").await.is_ok());

    // Interrupted after: the next one works already.
    let mut late = stored(&db, db.mount).await;
    (late["pending"], late["generation"]) = (json!("Next-password-2"), json!(2));
    store(&db, &late).await;
    su.batch_execute(&format!("ALTER ROLE {ADMIN} PASSWORD 'Next-password-2'")).await.unwrap();
    db.create(&db.issue("app").await.payload).await.unwrap();
    rotate().await.unwrap();
    let record = stored(&db, db.mount).await;
    assert!(record["pending"].is_null() && record["password"] == "Next-password-2");
    db.revoke(&issue.payload).await.unwrap();
    let missing = db.act("rotate-root/none", json!({})).await;
    assert!(matches!(missing, Err(EngineError::NotFound)));
}

#[tokio::test]
async fn many_at_once_use_few_sessions() {
    let pg = Postgres::start().await;
    let db = bench(&pg).await;
    let su = pg.superuser().await;
    let mut issues = Vec::new();
    for _ in 0..16 {
        issues.push(db.issue("app").await);
    }
    let creating = issues.iter().map(|issue| db.create(&issue.payload));
    for result in futures::future::join_all(creating).await {
        result.unwrap();
    }
    let open = sessions(&su, ADMIN).await;
    assert!((1..=4).contains(&open), "{open} sessions");
    let revoking = issues.iter().map(|issue| db.revoke(&issue.payload));
    for result in futures::future::join_all(revoking).await {
        result.unwrap();
    }
    let left = count(&su, "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'v-%' AND $1 <> ''", "x").await;
    assert_eq!(left, 0);
    db.delete("config/db").await.unwrap();
    // A new connection under the same name gets sessions of its own.
    db.post("config/db", config(&pg)).await.unwrap();
    let issue = db.issue("app").await;
    db.create(&issue.payload).await.unwrap();
    until("sessions of the old settings end", || async { sessions(&su, ADMIN).await == 1 }).await;
}
