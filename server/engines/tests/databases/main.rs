//! What the database engine promises of every database, against real servers over TLS: PostgreSQL 15 and MariaDB.
//! One suite: a promise that one of them cannot keep does not belong here.

#![allow(clippy::unwrap_used, reason = "a test's helper fails the test")]

#[path = "../support/servers/mod.rs"]
mod servers;
#[path = "../support/mod.rs"]
mod support;

mod beds;
mod fences;
mod schedules;
mod static_roles;
mod troubles;

use std::sync::Arc;

use beds::{Bed, Maria, Pg};
use coffer_barrier::store::Store;
use coffer_core::secret::SecretBytes;
use coffer_engines::{DatabaseEngine, EngineError, Issue};
use coffer_storage::memory::MemoryStore;
use fences::{
    an_earlier_server_acts_no_more, only_its_own_accounts_are_listed_and_removed,
    vaults_that_share_a_login_leave_each_other_alone,
};
use schedules::{
    a_static_role_rotates_by_its_schedule_and_never_outside_its_window, the_root_password_rotates_by_itself,
};
use serde_json::json;
use static_roles::{
    a_revoked_pod_is_not_waited_for, no_password_is_lost_wherever_a_rotation_stops,
    one_account_rotates_on_request_and_by_itself,
    readers_that_all_acknowledge_end_the_grace_and_others_do_not,
    two_accounts_take_turns_and_no_session_is_cut_before_its_time, what_cannot_work_is_refused,
};
use support::{Bench, data};
use troubles::a_changed_password_is_told_and_disturbs_no_other;

fn login(issue: &Issue) -> (String, String) {
    let text = |name: &str| issue.data[name].as_str().unwrap().to_owned();
    (text("username"), text("password"))
}

fn target_error(error: &EngineError) -> (bool, String) {
    match error {
        EngineError::Target { retriable, message, .. } => (*retriable, message.clone()),
        other => panic!("{other:?}"),
    }
}

/// An engine with the connection `db` and the role `app`.
async fn bench<B: Bed>(bed: &B) -> Bench<DatabaseEngine> {
    bench_over(bed, Arc::new(MemoryStore::new())).await
}

async fn bench_over<B: Bed>(bed: &B, store: Arc<dyn Store>) -> Bench<DatabaseEngine> {
    let mut db = Bench::over(store, DatabaseEngine::new("0123456789abcdef", 7)).await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    db.now = coffer_core::time::Timestamp::from_secs(now.as_secs());
    db.post("config/db", bed.config()).await.unwrap();
    let role = json!({
        "db_name": "db", "creation_statements": [B::CREATE], "default_ttl": "1h", "max_ttl": "24h",
    });
    db.post("roles/app", role).await.unwrap();
    db
}

async fn revoked_means_out<B: Bed>() {
    let bed = B::start().await;
    let db = bench(&bed).await;
    let issue = db.issue("app").await;
    let (user, password) = login(&issue);
    assert!(user.len() <= B::NAME_BYTES, "{user}");
    assert!(!bed.has(&user).await, "an issue creates nothing");
    db.create(&issue.payload).await.unwrap();
    db.create(&issue.payload).await.unwrap();
    let mut session = bed.connect(&user, &password).await.unwrap();
    bed.query(&mut session, B::USE).await.unwrap();
    db.renew(&issue.payload).await.unwrap();

    db.revoke(&issue.payload).await.unwrap();
    assert!(bed.query(&mut session, "SELECT 1").await.is_err(), "the open session is gone");
    assert!(bed.connect(&user, &password).await.is_err());
    assert!(!bed.has(&user).await);
    db.revoke(&issue.payload).await.unwrap();

    let never = db.issue("app").await;
    db.revoke(&never.payload).await.unwrap();
}

async fn own_statements_come_after_the_lock<B: Bed>() {
    let bed = B::start().await;
    let db = bench(&bed).await;
    // What the role's own statements leave undone is done all the same, but they decide what becomes of the account.
    db.post("roles/app", json!({ "revocation_statements": ["SELECT 1"] })).await.unwrap();
    let issue = db.issue("app").await;
    let (user, password) = login(&issue);
    db.create(&issue.payload).await.unwrap();
    let mut session = bed.connect(&user, &password).await.unwrap();
    // The lease carries its statements, so the role may go first.
    db.delete("roles/app").await.unwrap();
    db.revoke(&issue.payload).await.unwrap();
    assert!(bed.query(&mut session, "SELECT 1").await.is_err());
    assert!(bed.connect(&user, &password).await.is_err(), "locked");
    assert!(bed.has(&user).await, "and not dropped");
}

async fn failed_creation_leaves_nothing<B: Bed>() {
    let bed = B::start().await;
    let db = bench(&bed).await;
    for statement in ["SELECT no_such_function_here()", "{{password}} is no statement", B::FORBIDDEN] {
        db.post("roles/app", json!({ "creation_statements": [B::CREATE, statement] })).await.unwrap();
        let issue = db.issue("app").await;
        let (user, password) = login(&issue);
        let error = db.create(&issue.payload).await.unwrap_err();
        let (retriable, message) = target_error(&error);
        assert!(!retriable && !message.contains(&password), "{message}");
        assert!(!bed.has(&user).await, "{statement}");
    }
    let other = B::CREATE.replace("{{name}}", "x{{name}}");
    db.post("roles/app", json!({ "creation_statements": [other] })).await.unwrap();
    let issue = db.issue("app").await;
    let error = db.create(&issue.payload).await.unwrap_err();
    assert!(error.to_string().contains("did not create the"), "{error}");
    let payload = String::from_utf8(issue.payload.expose().to_vec()).unwrap();
    for bad in ["x\\\"; DROP ROLE plain; --", "x'y", "x y", "u\u{308}"] {
        let forged = SecretBytes::new(payload.replace(&login(&issue).0, bad).into_bytes());
        assert!(db.create(&forged).await.is_err() && db.revoke(&forged).await.is_err());
    }
    assert!(bed.connect("plain", "Plain-1").await.is_ok());
}

async fn connections_are_proven_first<B: Bed>() {
    let bed = B::start().await;
    let db = bench(&bed).await;
    let mut wrong = bed.config();
    wrong["password"] = json!("Wrong-password-1");
    let error = db.post("config/w", wrong.clone()).await.unwrap_err();
    let (retriable, message) = target_error(&error);
    assert!(!retriable && !message.contains("Wrong-password"), "{message}");
    wrong["verify_connection"] = json!(false);
    db.post("config/w", wrong).await.unwrap();

    let mut plain = bed.config();
    (plain["username"], plain["password"]) = (json!("plain"), json!("Plain-1"));
    let error = db.post("config/p", plain).await.unwrap_err();
    assert!(error.to_string().contains("it needs CREATE"), "{error}");

    let mut other_ca = bed.config();
    other_ca["root_ca"] = json!(servers::certificates().0);
    let (retriable, message) = target_error(&db.post("config/ca", other_ca).await.unwrap_err());
    assert!(!retriable && message.contains("TLS"), "{message}");

    // The certificate is for 127.0.0.1 only.
    let mut named = bed.config();
    let url = named["connection_url"].as_str().unwrap().replace("127.0.0.1", "localhost");
    named["connection_url"] = json!(url);
    let (retriable, message) = target_error(&db.post("config/n", named).await.unwrap_err());
    assert!(!retriable && message.contains("TLS"), "{message}");
    // The server speaks TLS only.
    let mut bare = bed.config();
    bare["connection_url"] = json!(bed.url_without_tls());
    assert!(db.post("config/b", bare).await.is_err());
}

async fn the_root_password_is_rotated<B: Bed>() {
    let mut bed = B::start().await;
    let db = bench(&bed).await;
    db.act("rotate-root/db", json!({})).await.unwrap();
    assert!(bed.connect(B::ADMIN, B::ADMIN_PASSWORD).await.is_err(), "the old password is gone");
    assert_eq!(data(db.read("config/db").await.unwrap())["rotation_pending"], false);
    let mut issues = Vec::new();
    for _ in 0..12 {
        issues.push(db.issue("app").await);
    }
    let creating = issues.iter().map(|issue| db.create(&issue.payload));
    for result in futures::future::join_all(creating).await {
        result.unwrap();
    }
    let revoking = issues.iter().take(11).map(|issue| db.revoke(&issue.payload));
    for result in futures::future::join_all(revoking).await {
        result.unwrap();
    }
    let left = issues.last().unwrap();
    assert!(bed.has(&login(left).0).await && !bed.has(&login(&issues[0]).0).await);
    bed.stop();
    for result in [db.revoke(&left.payload).await, db.create(&left.payload).await] {
        let (retriable, message) = target_error(&result.unwrap_err());
        assert!(retriable && !message.contains(&login(left).1), "{message}");
    }
}

async fn names_and_passwords_by_template_and_policy<B: Bed>() {
    let bed = B::start().await;
    let db = bench(&bed).await;
    db.password_policy(
        "odd",
        "length = 24\nrule \"charset\" { charset = \"!#$%&()*+,-./:;<=>?@[]^_{|}~ a1\" }",
    )
    .await;
    db.password_policy("quotes", "length = 24\nrule \"charset\" { charset = \"'\" }").await;
    let template = "{{ .RoleName | uppercase }}_{{ random 16 }}";
    db.post("config/db", json!({ "password_policy": "odd", "username_template": template })).await.unwrap();
    for form in ["scram-sha-256", "password"] {
        db.post("config/db", json!({ "password_authentication": form })).await.unwrap();
        let issue = db.issue("app").await;
        let (user, password) = login(&issue);
        assert!(user.starts_with("APP_") && user.len() == 20, "{user}");
        assert!(
            password.len() == 24 && password.chars().all(|c| !c.is_ascii_alphanumeric() || "a1".contains(c))
        );
        db.create(&issue.payload).await.unwrap();
        bed.connect(&user, &password).await.unwrap();
        db.revoke(&issue.payload).await.unwrap();
    }
    // What would end a literal is refused before anybody is asked.
    db.post("roles/app", json!({ "credential_config": { "password_policy": "quotes" } })).await.unwrap();
    let issue = db.issue("app").await;
    let error = db.create(&issue.payload).await.unwrap_err();
    assert!(error.to_string().contains("cannot stand in a statement"), "{error}");
    db.post("roles/app", json!({ "credential_config": { "password_policy": "gone" } })).await.unwrap();
    let error = db.read("creds/app").await.unwrap_err();
    assert!(error.to_string().contains("does not exist"), "{error}");
    let error = db.post("config/db", json!({ "username_template": "{{.RoleName}}" })).await.unwrap_err();
    assert!(error.to_string().contains("random"), "{error}");
    db.act("rotate-root/db", json!({})).await.unwrap();
    assert!(bed.connect(B::ADMIN, B::ADMIN_PASSWORD).await.is_err());
}

/// Every promise for every database.
macro_rules! suite {
    ($($promise:ident),* $(,)?) => {
        mod postgres {
            $(#[tokio::test] async fn $promise() { super::$promise::<super::Pg>().await; })*
        }
        mod mariadb {
            $(#[tokio::test] async fn $promise() { super::$promise::<super::Maria>().await; })*
        }
    };
}

suite!(
    revoked_means_out,
    own_statements_come_after_the_lock,
    failed_creation_leaves_nothing,
    connections_are_proven_first,
    the_root_password_is_rotated,
    names_and_passwords_by_template_and_policy,
    one_account_rotates_on_request_and_by_itself,
    what_cannot_work_is_refused,
    two_accounts_take_turns_and_no_session_is_cut_before_its_time,
    no_password_is_lost_wherever_a_rotation_stops,
    readers_that_all_acknowledge_end_the_grace_and_others_do_not,
    a_revoked_pod_is_not_waited_for,
    a_static_role_rotates_by_its_schedule_and_never_outside_its_window,
    the_root_password_rotates_by_itself,
    an_earlier_server_acts_no_more,
    only_its_own_accounts_are_listed_and_removed,
    vaults_that_share_a_login_leave_each_other_alone,
    a_changed_password_is_told_and_disturbs_no_other,
);
